"""The cycle model against the examples in Arm's Cortex-M4 manual (DDI 0439, 3.3.3)."""

from __future__ import annotations

import pytest

from tinygen.cycles import TIMINGS, Block, Instruction, disassembly, estimate, straight_cycles

M4 = TIMINGS["cortex-m4"]


def cycles(*lines: str) -> int:
    body = [Instruction(*line.split(" ", 1)) for line in lines]
    return straight_cycles(M4, body)


@pytest.mark.parametrize(
    "lines, expected",
    [
        (["ldr r0, [r1]", "ldr r1, [r2]"], 3),
        (["ldr r0, [r1, r2]", "str r0, [r3, #20]"], 3),
        (["ldr r0, [r1, r2]", "str r1, [r3, r2]"], 3),
        (["ldr r0, [r1, r5]", "ldr r1, [r2]", "ldr r2, [r3, #4]"], 4),
        (["ldr r0, [r1]", "ldr r2, [r0]"], 4),  # the address comes from the load before
        (["ldrd r0, r1, [r2]"], 3),
        (["ldmia r0, {r1, r2, r3}"], 4),
        (["push {r4-r7, lr}"], 6),
        (["str r0, [r1, #4]"], 1),
        (["str r0, [r1, r2]"], 2),
        (["str r0, [r1]", "ldr r2, [r3]"], 3),
        (["smlad r0, r1, r2, r0", "sxtb16 r1, r1", "smull r0, r1, r2, r3"], 3),
        (["mla r0, r1, r2, r3", "add r0, r1"], 2),
    ],
)
def test_published_timings(lines: list[str], expected: int) -> None:
    assert cycles(*lines) == expected


OBJDUMP = """
00000000 <loop>:
   0:\tf851 9b08 \tldr.w\tr9, [r1], #8
   4:\tfb28 2209 \tsmlad\tr2, r8, r9, r2
   8:\t3c04      \tsubs\tr4, #4
   a:\td1f9      \tbne.n\t0 <loop>
   c:\te8bd 8010 \tldmia.w\tsp!, {r4, pc}
"""


def test_a_loop() -> None:
    code = disassembly(OBJDUMP)
    assert code[0] == Instruction("ldr", "r9, [r1], #8", 4)
    assert code[10].mnemonic == "bne"
    # Ten rounds, nine of them jump back: 2 + 1 + 1 + 1 each, and two for a refill.
    assert estimate("cortex-m4", code, [Block(0, 4, 10, 9)]) == 10 * 5 + 9 * 2
    # A return through pc always refills: 1 + 2 words + 2.
    assert estimate("cortex-m4", code, [Block(12, 1, 1, 1)]) == 5


def test_no_model_no_number() -> None:
    assert estimate("cortex-m7", {}, []) is None


def test_unknown_code_is_an_error() -> None:
    with pytest.raises(KeyError):
        estimate("cortex-m4", {}, [Block(0, 1, 1, 0)])
