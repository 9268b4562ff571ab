"""Cycle estimates for Cortex-M cores from executed basic blocks.

An estimate, not a measurement: each executed instruction is charged what Arm publishes for it, with
instruction fetch and data in zero-wait memory.

Sources: Cortex-M4 Technical Reference Manual (DDI 0439) 3.3.1 "Cortex-M4 instructions" and 3.3.3
"Load/store timings"; Cortex-M3 TRM (DDI 0337) 3.3.1; Cortex-M0 TRM (DDI 0432) and Cortex-M0+ TRM
(DDI 0484) 3.3.  Where those give a range, the value taken is in :class:`Timing`:

- a taken branch costs one cycle and the refill of the pipeline, 1 to 3 on the M3 and M4: 2;
- a division costs 2 to 12: 6, as quotients here are small;
- ``IT`` is charged one cycle although it is sometimes folded away.

Loads on the M3 and M4: two cycles; one when the instruction before is a load too and does not give
the address.  A store with an immediate offset takes one, with a register offset two, one less
behind a load; nothing is pipelined behind a store.  Pairs and multiples take one cycle and one a
word, and are never pipelined with their neighbours.
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
_LONG_MULTIPLY = re.compile(r"^[su]m(ull|lal)")
_MULTIPLY_ADD = re.compile(rf"^ml[as]{_CONDITION}$")
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
    refill: int = 2
    divide: int = 6
    long_multiply: int = 1
    multiply_add: int = 1
    multiple_base: int = 1


TIMINGS: Mapping[str, Timing] = {
    "cortex-m4": Timing(),
    "cortex-m3": Timing(long_multiply=4, multiply_add=2),
    "cortex-m0": Timing(store=2, pipelined=False, refill=2),
    "cortex-m0plus": Timing(store=2, pipelined=False, refill=1),
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
    leaves = _BRANCH.match(last.mnemonic) or re.search(r"\bpc\b", last.operands.split("[")[0])
    return block.executions if leaves else 0


def straight_cycles(timing: Timing, body: Iterable[Instruction]) -> int:
    """Cycles of instructions one after another, refills of the pipeline not counted."""
    total, loaded = 0, ""
    for instruction in body:
        total += _cycles(timing, instruction, loaded)
        loaded = _loaded(instruction) if timing.pipelined else ""
    return total


def _loaded(instruction: Instruction) -> str:
    """The register that a single load fills, or nothing."""
    name = instruction.mnemonic
    if _LOAD.match(name) and not _PAIR.match(name):
        return instruction.operands.split(",")[0].strip()
    return ""


def _cycles(timing: Timing, instruction: Instruction, loaded: str) -> int:
    """Cycles of one instruction behind one that loaded register ``loaded``, if it did."""
    name, operands = instruction.mnemonic, instruction.operands
    address = operands.partition("[")[2]
    behind_load = bool(loaded) and not re.search(rf"\b{loaded}\b", address)
    if _MULTIPLE.match(name):
        return timing.multiple_base + _registers(operands)
    if _PAIR.match(name):
        return timing.multiple_base + 2
    if _LOAD.match(name):
        return timing.load - behind_load
    if _STORE.match(name):
        by_register = re.search(r",\s*r\d|,\s*(ip|lr|sl|fp)", address) is not None
        return timing.store_register - behind_load if by_register else timing.store
    if _DIVIDE.match(name):
        return timing.divide
    if _LONG_MULTIPLY.match(name):
        return timing.long_multiply
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
