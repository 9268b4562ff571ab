"""The cycle model, rule by rule, against the numbers that Arm publishes.

Tables: Cortex-M4 TRM (DDI 0439, later 100166) 3.3.1 and 3.3.2 for instructions, 3.3.3 for loads and
stores; Cortex-M3 TRM (DDI 0337) 3.3.1 and 3.3.2; Cortex-M0 TRM (DDI 0432) 3.3; Cortex-M0+ TRM
(DDI 0484) 3.3.  ``docs/cycles.md`` explains them.
"""

from __future__ import annotations

import pytest

from tinygen.cycles import TIMINGS, Block, Instruction, disassembly, estimate, straight_cycles

Range = tuple[int, int]


def instruction(line: str, size: int = 2) -> Instruction:
    mnemonic, _, operands = line.partition(" ")
    return Instruction(mnemonic, operands, size)


def cycles(core: str, *lines: str) -> int:
    return straight_cycles(TIMINGS[core], map(instruction, lines))


def taken(core: str, line: str) -> int:
    """Cycles of an instruction that goes on elsewhere."""
    found = estimate(core, {0: instruction(line)}, [Block(0, 1, 1, 1)])
    assert found is not None
    return found


def not_taken(core: str, line: str) -> int:
    found = estimate(core, {0: instruction(line)}, [Block(0, 1, 1, 0)])
    assert found is not None
    return found


M4_ONE_CYCLE = """
mov r0, r1|movw r0, #4660|movt r0, #4660|mvn r0, r1
add r0, r1, r2|add r0, r1, r2, lsl #4|adds r0, #1|adc r0, r1, r2|adr r0, label
sub r0, r1, r2|subs r0, r0, #1|sbc r0, r1, r2|rsb r0, r1, #0
mul r0, r1, r2|mla r0, r1, r2, r3|mls r0, r1, r2, r3
smull r0, r1, r2, r3|umull r0, r1, r2, r3|smlal r0, r1, r2, r3|umlal r0, r1, r2, r3
ssat r0, #8, r1|usat r0, #8, r1|ssat r0, #8, r1, asr #4
cmp r0, r1|cmn r0, r1|tst r0, r1|teq r0, r1
and r0, r1, r2|eor r0, r1, r2|orr r0, r1, r2|orn r0, r1, r2|bic r0, r1, r2
lsl r0, r1, #3|lsr r0, r1, r2|asr r0, r1, #31|ror r0, r1, #8|rrx r0, r1
sxtb r0, r1|sxth r0, r1|uxtb r0, r1|uxth r0, r1
ubfx r0, r1, #3, #5|sbfx r0, r1, #3, #5|bfc r0, #3, #5|bfi r0, r1, #3, #5
rev r0, r1|rev16 r0, r1|revsh r0, r1|rbit r0, r1|clz r0, r1|nop|it eq|ite ne
smlabb r0, r1, r2, r3|smlabt r0, r1, r2, r3|smlatb r0, r1, r2, r3|smlatt r0, r1, r2, r3
smulbb r0, r1, r2|smulwb r0, r1, r2|smlawt r0, r1, r2, r3|smlalbb r0, r1, r2, r3
smlad r0, r1, r2, r0|smladx r0, r1, r2, r0|smlsd r0, r1, r2, r0|smuad r0, r1, r2
smlald r0, r1, r2, r3|umaal r0, r1, r2, r3
smmul r0, r1, r2|smmulr r0, r1, r2|smmla r0, r1, r2, r3|smmlar r0, r1, r2, r3|smmls r0, r1, r2, r3
pkhbt r0, r1, r2|pkhtb r0, r1, r2, asr #16|ssat16 r0, #8, r1|usat16 r0, #8, r1
sxtb16 r0, r1|sxtb16 r0, r1, ror #8|uxtb16 r0, r1|sxtab16 r0, r1, r2|sxtab r0, r1, r2
sadd16 r0, r1, r2|sadd8 r0, r1, r2|ssub16 r0, r1, r2|qadd r0, r1, r2|qadd16 r0, r1, r2
sasx r0, r1, r2|sel r0, r1, r2|usad8 r0, r1, r2|usada8 r0, r1, r2, r3
"""


@pytest.mark.parametrize(
    "line", [x for row in M4_ONE_CYCLE.split("\n") for x in row.split("|") if x]
)
def test_m4_takes_one_cycle(line: str) -> None:
    """DDI 0439 tables 3-1 and 3-2: data processing, multiplications and the DSP extension."""
    assert cycles("cortex-m4", line) == 1
    assert cycles("cortex-m4", line, line, "eor r4, r5, r6") == 3  # nor does order matter


@pytest.mark.parametrize(
    ("core", "line", "published"),
    [
        ("cortex-m4", "sdiv r0, r1, r2", (2, 12)),
        ("cortex-m4", "udiv r0, r1, r2", (2, 12)),
        ("cortex-m4", "ldr r0, [r1, #4]", (2, 2)),
        ("cortex-m4", "ldrsb r0, [r1, r2]", (2, 2)),
        ("cortex-m4", "ldrh r0, [r1], #2", (2, 2)),
        ("cortex-m4", "ldrd r0, r1, [r2, #8]", (3, 3)),  # 1 + N
        ("cortex-m4", "ldmia r0!, {r1, r2, r3}", (4, 4)),
        ("cortex-m4", "ldmia r0, {r1-r8}", (9, 9)),
        ("cortex-m4", "pop {r4-r7}", (5, 5)),
        ("cortex-m4", "str r0, [r1, #4]", (1, 2)),  # 2 in table 3-1, of which 3.3.3 says 1 is seen
        ("cortex-m4", "str r0, [r1, r2]", (2, 2)),
        ("cortex-m4", "strb r0, [r1, r2]", (2, 2)),
        ("cortex-m4", "strd r0, r1, [r2]", (3, 3)),
        ("cortex-m4", "stmia r0!, {r1, r2, r3}", (4, 4)),
        ("cortex-m4", "push {r4-r7, lr}", (6, 6)),
        ("cortex-m4", "vmul.f32 s0, s1, s2", (1, 1)),
        ("cortex-m4", "vadd.f32 s0, s1, s2", (1, 1)),
        ("cortex-m4", "vmla.f32 s0, s1, s2", (3, 3)),
        ("cortex-m4", "vfma.f32 s0, s1, s2", (3, 3)),
        ("cortex-m4", "vdiv.f32 s0, s1, s2", (14, 14)),
        ("cortex-m4", "vsqrt.f32 s0, s1", (14, 14)),
        ("cortex-m4", "vldmia r0!, {s0-s3}", (5, 5)),
        ("cortex-m3", "mul r0, r1, r2", (1, 1)),
        ("cortex-m3", "mla r0, r1, r2, r3", (2, 2)),
        ("cortex-m3", "mls r0, r1, r2, r3", (2, 2)),
        ("cortex-m3", "smull r0, r1, r2, r3", (3, 5)),
        ("cortex-m3", "umull r0, r1, r2, r3", (3, 5)),
        ("cortex-m3", "smlal r0, r1, r2, r3", (4, 7)),
        ("cortex-m3", "umlal r0, r1, r2, r3", (4, 7)),
        ("cortex-m3", "udiv r0, r1, r2", (2, 12)),
        ("cortex-m3", "ssat r0, #8, r1", (1, 1)),
        ("cortex-m3", "ldmia r0!, {r1, r2, r3}", (4, 4)),
        ("cortex-m0", "muls r0, r1, r0", (1, 32)),  # the fast multiplier
        ("cortex-m0", "ldr r0, [r1, #4]", (2, 2)),
        ("cortex-m0", "str r0, [r1, #4]", (2, 2)),
        ("cortex-m0", "ldmia r0!, {r1, r2, r3}", (4, 4)),
        ("cortex-m0", "push {r4, lr}", (3, 3)),
        ("cortex-m0plus", "ldrb r0, [r1, r2]", (2, 2)),
        ("cortex-m0plus", "str r0, [r1, r2]", (2, 2)),
        ("cortex-m0plus", "stmia r0!, {r1, r2, r3}", (4, 4)),
        ("cortex-m0plus", "pop {r4, r5}", (3, 3)),
    ],
)
def test_published_cycles(core: str, line: str, published: Range) -> None:
    assert published[0] <= cycles(core, line) <= published[1]


@pytest.mark.parametrize(
    ("core", "line", "published"),
    [
        *(
            (core, line, (1 + 1, 1 + 3))  # 1 + P, with P of 1 to 3
            for core in ("cortex-m3", "cortex-m4")
            for line in (
                "b 100",
                "bl 100",
                "bx lr",
                "blx r3",
                "cbz r0, 100",
                "bne 100",
                "mov pc, r0",
            )
        ),
        ("cortex-m4", "tbb [pc, r0]", (2 + 1, 2 + 3)),
        ("cortex-m4", "tbh [pc, r0, lsl #1]", (2 + 1, 2 + 3)),
        ("cortex-m4", "ldr pc, [r0, #4]", (2 + 1, 2 + 3)),
        ("cortex-m4", "pop {r4-r7, pc}", (1 + 5 + 1, 1 + 5 + 3)),
        ("cortex-m4", "ldmia.w sp!, {r4, pc}", (1 + 2 + 1, 1 + 2 + 3)),
        ("cortex-m0", "b 100", (3, 3)),
        ("cortex-m0", "beq 100", (3, 3)),
        ("cortex-m0", "bl 100", (4, 4)),
        ("cortex-m0", "bx lr", (3, 3)),
        ("cortex-m0", "blx r3", (3, 3)),
        ("cortex-m0", "mov pc, r0", (3, 3)),
        ("cortex-m0", "pop {r4, r5, pc}", (4 + 3, 4 + 3)),
        ("cortex-m0plus", "b 100", (2, 2)),
        ("cortex-m0plus", "bl 100", (3, 3)),
        ("cortex-m0plus", "bx lr", (2, 2)),
        ("cortex-m0plus", "mov pc, r0", (2, 2)),
        ("cortex-m0plus", "pop {r4, r5, pc}", (3 + 3, 3 + 3)),
    ],
)
def test_published_cycles_of_jumps(core: str, line: str, published: Range) -> None:
    assert published[0] <= taken(core, line) <= published[1]


@pytest.mark.parametrize("core", TIMINGS)
@pytest.mark.parametrize("line", ["beq 100", "blt 100"])
def test_a_branch_not_taken_costs_one(core: str, line: str) -> None:
    assert not_taken(core, line) == 1


@pytest.mark.parametrize("core", ["cortex-m3", "cortex-m4"])
@pytest.mark.parametrize(
    ("lines", "published"),
    [
        # The examples of 3.3.3.
        (["ldr r0, [r1]", "ldr r1, [r2]"], 3),
        (["ldr r0, [r1, r2]", "str r0, [r3, #20]"], 3),
        (["ldr r0, [r1, r2]", "str r1, [r3, r2]"], 3),
        (["ldr r0, [r1, r5]", "ldr r1, [r2]", "ldr r2, [r3, #4]"], 4),
        # N loads one behind another: N + 1.
        ([f"ldr r{i}, [sp, #{4 * i}]" for i in range(8)], 9),
        # The load before gives the address: not pipelined.
        (["ldr r0, [r1]", "ldr r2, [r0]"], 4),
        (["ldr r0, [r1]", "str r2, [r3, r0]"], 4),
        # A store behind a load hides; nothing is pipelined behind a store.
        (["str r0, [r1, #4]"], 1),
        (["str r0, [r1, r2]"], 2),
        (["str r0, [r1]", "ldr r2, [r3]"], 3),
        (["str r0, [r1, r4]", "ldr r2, [r3]", "ldr r4, [r3, #4]"], 5),
        # Pairs and multiples pipeline their own words only.
        (["ldrd r0, r1, [r2]"], 3),
        (["ldr r4, [r5]", "ldrd r0, r1, [r2]", "ldr r6, [r7]"], 7),
        (["ldmia r0, {r1, r2, r3}", "ldr r4, [r5]"], 6),
        # Data processing gives the address: one cycle more.
        (["add r1, r2, r3", "ldr r0, [r1]"], 4),
        (["add r1, r2, r3", "eor r4, r5, r6", "ldr r0, [r1]"], 4),
        (["add r1, r2, r3", "str r0, [r1, #4]"], 3),
        (["lsls r1, r2, #2", "ldr r0, [r4, r1]"], 4),
        (["smull r0, r1, r2, r3", "ldrb r4, [r5, r1]"], 4),
        (["add r1, r2, r3", "ldmia r1!, {r4, r5}"], 5),
        (["add r1, r2, r3", "ldrd r4, r5, [r1]"], 5),
        # What the data processing computes is stored, not an address; or flags alone.
        (["add r1, r2, r3", "str r1, [r4]"], 2),
        (["cmp r1, r2", "ldr r0, [r1]"], 3),
    ],
)
def test_published_timings_of_loads_and_stores(core: str, lines: list[str], published: int) -> None:
    slow = 3 if core == "cortex-m3" and "smull" in lines[0] else 0
    assert cycles(core, *lines) == published + slow


def test_nothing_is_pipelined_on_the_smallest_cores() -> None:
    for core in ("cortex-m0", "cortex-m0plus"):
        assert cycles(core, "ldr r0, [r1]", "ldr r2, [r3]", "str r0, [r4]") == 6
        assert cycles(core, "adds r1, r2, r3", "ldr r0, [r1]") == 3


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


def test_reading_pc_is_no_jump() -> None:
    assert taken("cortex-m4", "add r3, pc, #16") == 1
    assert taken("cortex-m4", "ldr r3, [pc, #16]") == 2


def test_no_model_no_number() -> None:
    assert estimate("cortex-m7", {}, []) is None


def test_unknown_code_is_an_error() -> None:
    with pytest.raises(KeyError):
        estimate("cortex-m4", {}, [Block(0, 1, 1, 0)])
