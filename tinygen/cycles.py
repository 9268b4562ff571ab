"""Cycle estimates for Cortex-M cores from executed basic blocks.

An estimate, not a measurement: each executed instruction is charged what Arm publishes for it, with
instruction fetch and data in memory without wait states.  ``docs/cycles.md`` has the rules one by
one, where each comes from, and what they leave out; ``tests/test_cycles.py`` holds them against the
published numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_CONDITION = "(?:eq|ne|cs|cc|hs|lo|mi|pl|vs|vc|hi|ls|ge|lt|gt|le|al)?"
_BRANCH = re.compile(rf"^(b{_CONDITION}|bl|bx{_CONDITION}|blx|cbz|cbnz|tbb|tbh)$")
_CONDITIONAL = re.compile(r"^(b(?:eq|ne|cs|cc|hs|lo|mi|pl|vs|vc|hi|ls|ge|lt|gt|le)|cbz|cbnz)$")
_MULTIPLE = re.compile(r"^(ldm|stm|push|pop|vldm|vstm|vpush|vpop)")
_PAIR = re.compile(rf"^(ldrd|strd){_CONDITION}$")
_LOAD = re.compile(r"^v?ldr")
_STORE = re.compile(r"^v?str")
_DIVIDE = re.compile(rf"^[su]div{_CONDITION}$")
_LONG_MULTIPLY = re.compile(r"^[su]mull")
_LONG_MULTIPLY_ADD = re.compile(r"^([su]mlal|smlsl|umaal)")
_MULTIPLY_ADD = re.compile(rf"^ml[as]{_CONDITION}$")
_TABLE_BRANCH = re.compile(r"^tb[bh]$")
_NO_RESULT = re.compile(r"^(cmp|cmn|tst|teq|it[te]*$|nop|v?str|stm|push|b)")
_FLOAT_DIVIDE = re.compile(r"^v(div|sqrt)")
_FLOAT_MULTIPLY_ADD = re.compile(r"^v(n?ml[as]|fn?m[as])")


@dataclass(frozen=True)
class Instruction:
    """One line of a disassembly; ``operands`` as objdump prints them, comments cut."""

    mnemonic: str
    operands: str = ""
    size: int = 2


@dataclass(frozen=True)
class Block:
    """``count`` instructions from ``address`` on that ran ``executions`` times, and of these
    ``jumps`` times went on elsewhere than behind the last instruction."""

    address: int
    count: int
    executions: int
    jumps: int


@dataclass(frozen=True)
class Timing:
    """What a core charges, in cycles."""

    load: int = 2
    store: int = 1
    store_register: int = 2
    pipelined: bool = True
    address_stall: int = 1
    refill: int = 2
    divide: int = 6
    long_multiply: int = 1
    long_multiply_add: int = 1
    long_jump: int = 0  # more than P for BL and for a POP of pc
    multiply_add: int = 1
    multiple_base: int = 1


TIMINGS: Mapping[str, Timing] = {
    "cortex-m4": Timing(),
    "cortex-m3": Timing(long_multiply=4, long_multiply_add=5, multiply_add=2),
    "cortex-m0": Timing(store=2, pipelined=False, address_stall=0, refill=2, long_jump=1),
    "cortex-m0plus": Timing(store=2, pipelined=False, address_stall=0, refill=1, long_jump=1),
}
"""Cores with a timing model.  Cores that issue two instructions at once have none here."""


def disassembly(text: str) -> dict[int, Instruction]:
    """Instructions by address from the output of ``objdump -d``."""
    found = {}
    for line in text.splitlines():
        address, *fields = line.split("\t")
        if len(fields) < 2 or not address.endswith(":"):
            continue
        code, mnemonic, *operands = fields
        plain = mnemonic.strip().removesuffix(".n").removesuffix(".w")
        words = re.split("[@;]", operands[0])[0].strip() if operands else ""
        size = len(code.replace(" ", "")) // 2
        found[int(address.removesuffix(":"), 16)] = Instruction(plain, words, size)
    return found


def estimate(core: str, code: Mapping[int, Instruction], blocks: Iterable[Block]) -> int | None:
    """Cycles of all ``blocks``, or None for a core without a timing model.

    Raises KeyError when a block runs code that ``code`` does not hold.
    """
    timing = TIMINGS.get(core)
    if timing is None:
        return None
    return sum(_block(timing, code, block) for block in blocks if block.executions)


def _block(timing: Timing, code: Mapping[int, Instruction], block: Block) -> int:
    body, address = [], block.address
    for _ in range(block.count):
        body.append(code[address])
        address += body[-1].size
    straight = straight_cycles(timing, body)
    return straight * block.executions + timing.refill * _refills(body[-1], block)


def _refills(last: Instruction, block: Block) -> int:
    """How often the pipeline was refilled behind the block."""
    if _CONDITIONAL.match(last.mnemonic):
        return block.jumps
    to_pc = last.operands.startswith("pc,") or re.search(r"\{[^}]*\bpc\}", last.operands)
    return block.executions if _BRANCH.match(last.mnemonic) or to_pc else 0


def straight_cycles(timing: Timing, body: Iterable[Instruction]) -> int:
    """Cycles of instructions one after another, refills of the pipeline not counted."""
    total, before = 0, Instruction("nop")
    for instruction in body:
        total += _cycles(timing, instruction, before)
        before = instruction
    return total


def _loaded(instruction: Instruction) -> str:
    """The register that a single load fills, or nothing."""
    name = instruction.mnemonic
    if _LOAD.match(name) and not _PAIR.match(name):
        return instruction.operands.split(",")[0].strip()
    return ""


def _computed(instruction: Instruction) -> list[str]:
    """The registers that a data processing instruction fills."""
    name = instruction.mnemonic
    if _LOAD.match(name) or _MULTIPLE.match(name) or _NO_RESULT.match(name):
        return []
    count = 2 if _LONG_MULTIPLY.match(name) or _LONG_MULTIPLY_ADD.match(name) else 1
    return [operand.strip() for operand in instruction.operands.split(",")[:count]]


def _address(instruction: Instruction) -> str:
    """What an access computes its address from, as it is written; nothing for all else."""
    name, operands = instruction.mnemonic, instruction.operands
    if name.startswith(("ldm", "stm", "vldm", "vstm")):
        return operands.split(",")[0].rstrip("!")
    return operands.partition("[")[2] if _LOAD.match(name) or _STORE.match(name) else ""


def _reads(address: str, registers: Iterable[str]) -> bool:
    return any(re.search(rf"\b{register}\b", address) for register in registers if register)


def _cycles(timing: Timing, instruction: Instruction, before: Instruction) -> int:
    """Cycles of one instruction behind ``before``."""
    own = _own_cycles(timing, instruction, before)
    stalled = _reads(_address(instruction), _computed(before))
    return own + (timing.address_stall if stalled else 0)


def _own_cycles(timing: Timing, instruction: Instruction, before: Instruction) -> int:
    name, operands = instruction.mnemonic, instruction.operands
    address, loaded = _address(instruction), _loaded(before) if timing.pipelined else ""
    behind_load = bool(loaded) and not _reads(address, (loaded,))
    if _MULTIPLE.match(name):
        jump = timing.long_jump if re.search(r"\bpc\}", operands) else 0
        return timing.multiple_base + _registers(operands) + jump
    if _PAIR.match(name):
        return timing.multiple_base + 2
    if _LOAD.match(name):
        return timing.load - behind_load
    if _STORE.match(name):
        by_register = re.search(r",\s*r\d|,\s*(ip|lr|sl|fp)", address) is not None
        return timing.store_register - behind_load if by_register else timing.store
    if _TABLE_BRANCH.match(name):
        return timing.load
    if _DIVIDE.match(name):
        return timing.divide
    if _LONG_MULTIPLY.match(name):
        return timing.long_multiply
    if _LONG_MULTIPLY_ADD.match(name):
        return timing.long_multiply_add
    if name == "bl":
        return 1 + timing.long_jump
    if _MULTIPLY_ADD.match(name):
        return timing.multiply_add
    if _FLOAT_DIVIDE.match(name):
        return 14
    if _FLOAT_MULTIPLY_ADD.match(name):
        return 3
    return 1


def _registers(operands: str) -> int:
    """How many registers a list such as ``{r4, r5, lr}`` or ``{d8-d10}`` moves, in words."""
    inside = operands.partition("{")[2].partition("}")[0]
    total = 0
    for part in inside.split(","):
        ends = [int(n) for n in re.findall(r"[rsd](\d+)", part)]
        words = 2 if part.strip().startswith("d") else 1
        total += words * (ends[1] - ends[0] + 1 if len(ends) == 2 else 1)
    return total
