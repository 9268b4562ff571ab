"""The arena planner: nothing overlaps, and easy cases are packed as tightly as can be."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygen import importers, passes, placement, plan, resources
from tinygen.placement import Buffer

BUFFERS = st.lists(
    st.tuples(st.integers(1, 1000), st.integers(0, 12), st.integers(0, 4)), min_size=1, max_size=14
).map(
    lambda rows: [
        Buffer((i,), -(-size // 4) * 4, first, first + length)
        for i, (size, first, length) in enumerate(rows)
    ]
)


def overlapping(placed: tuple[Buffer, ...]) -> bool:
    return any(
        a.meets(b) and a.offset < b.end and b.offset < a.end
        for i, a in enumerate(placed)
        for b in placed[i + 1 :]
    )


@settings(max_examples=60, deadline=None)
@given(BUFFERS)
def test_placement_is_sound(buffers: list[Buffer]) -> None:
    placed = placement.place(buffers, rounds=200)
    assert sorted(b.tensors for b in placed) == sorted(b.tensors for b in buffers)
    assert not overlapping(placed)
    assert all(b.offset % placement.ALIGNMENT == 0 for b in placed)
    assert max(b.end for b in placed) >= placement.lower_bound(buffers)


def test_overlap_check_can_fail() -> None:
    assert overlapping((Buffer((0,), 8, 0, 2, 0), Buffer((1,), 8, 2, 3, 4)))


def test_chain_reaches_the_bound() -> None:
    sizes = [64, 640, 128, 512, 256, 64, 640]
    chain = [Buffer((i,), size, i, i + 1) for i, size in enumerate(sizes)]
    placed = placement.place(chain)
    assert max(b.end for b in placed) == placement.lower_bound(chain)


def test_residual_reaches_the_bound() -> None:
    buffers = [
        Buffer((0,), 100, 0, 1),
        Buffer((1,), 400, 1, 4),
        Buffer((2,), 300, 2, 3),
        Buffer((3,), 400, 3, 4),
        Buffer((4,), 200, 4, 5),
    ]
    placed = placement.place(buffers)
    assert max(b.end for b in placed) == placement.lower_bound(buffers)


@pytest.mark.parametrize("count", [0, 1])
def test_few_buffers(count: int) -> None:
    assert len(placement.place([Buffer((0,), 4, 0, 0)] * count)) == count


def test_least_flash_does_without_functions() -> None:
    """Of two layers that need a function each, one takes the other's when its constants allow."""
    graph = passes.run(importers.load(resources.folder("examples") / "digits/digits_int8.tflite"))
    dsp = frozenset({"dsp"})
    usual, small = (plan.make(graph, dsp, plan.Goal(goal)) for goal in ("speed", "size"))

    def bodies(made: plan.Plan) -> int:
        return len({(s.kernel.template, repr(s.kernel.params)) for s in made.steps})

    assert small.small and not usual.small
    assert bodies(small) <= bodies(usual)
    assert small.cycles >= usual.cycles


def test_a_limit_on_a_small_plan_falls_back_to_saving_memory() -> None:
    graph = passes.run(importers.load(resources.folder("examples") / "digits/digits_int8.tflite"))
    least = plan.make(graph, goal=plan.Goal("ram")).arena_bytes
    assert plan.make(graph, goal=plan.Goal("size")).arena_bytes > least
    assert plan.make(graph, goal=plan.Goal("size", least)).arena_bytes == least


def test_many_buffers_are_placed_in_little_time() -> None:
    """Thousands of layers, as a hostile file may have: time goes with their number."""
    chain = [Buffer((i,), 4 * (i % 7 + 1), i, i + 1) for i in range(5000)]
    begun = time.process_time()
    placed = placement.place(chain)
    assert time.process_time() - begun < 20
    assert max(b.end for b in placed) < 2 * placement.lower_bound(chain)
