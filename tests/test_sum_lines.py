"""Sums as lines: proved for all pairs of operands, and so they are run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from graphs import HASH, activation
from host_c import HostModels

from tinygen import plan, reference
from tinygen.graph import Array, Graph, Node
from tinygen.ops import add, elementwise
from tinygen.ops.base import Shape

PAIRS = (1, 256, 256, 1)


def sum_of(
    scales: tuple[float, float, float],
    zero_points: tuple[int, int, int],
    op: str = "ADD",
    activation_name: str = "NONE",
    shapes: tuple[Shape, Shape] = (PAIRS, PAIRS),
) -> Graph:
    given = (*shapes, np.broadcast_shapes(*shapes))
    tensors = tuple(
        activation(name, *shape, scale=scale, zero_point=zero)
        for name, shape, scale, zero in zip("abc", given, scales, zero_points, strict=True)
    )
    attrs = elementwise.Attrs(activation_name)
    return Graph("sum", tensors, (Node(op, (0, 1), (2,), attrs, 0),), (0, 1), (2,), "s", HASH)


SUMS = {
    "straight": sum_of((0.03131, 0.04717, 0.06173), (-128, 3, -128)),
    "middle": sum_of((0.03131, 0.04717, 0.06173), (-128, 3, 17)),
    "difference": sum_of((0.03131, 0.04717, 0.06173), (1, 2, 3), "SUB"),
    "ties": sum_of((0.05, 0.05, 0.1), (3, -5, -7)),
    "limited": sum_of((0.03131, 0.04717, 0.06173), (-128, 3, 17), activation_name="RELU6"),
    "limited_ties": sum_of((0.05, 0.1, 0.1), (0, 0, 0), activation_name="RELU_N1_TO_1"),
    "apart": sum_of((0.1, 0.001, 0.1), (0, 0, 0)),
}
SPREAD = {
    "first": sum_of((0.03131, 0.04717, 0.06173), (1, 2, 3), "SUB", shapes=((1, 1), (7, 9))),
    "second": sum_of((0.05, 0.05, 0.1), (1, 2, 3), shapes=((3, 5, 7), (7,))),
    "middle": sum_of((0.03131, 0.04717, 0.06173), (1, 2, 3), shapes=((3, 5, 7), (3, 1, 7))),
}


def pairs() -> list[Array]:
    values = np.arange(-128, 128).astype(np.int8)
    both = np.meshgrid(values, values, indexing="ij")
    return [one.reshape(PAIRS) for one in both]


def test_lines_are_found_where_they_exist() -> None:
    def found(name: str) -> elementwise.Line | None:
        graph = SUMS[name]
        return elementwise.line(add.scaling(graph, graph.nodes[0]))

    straight, ties = found("straight"), found("ties")
    assert straight is not None and not straight.nudged
    assert ties is not None and ties.nudged
    assert found("apart") is None


@pytest.mark.parametrize("off", [{"first": 40}, {"offset": 1 << 14}, {"nudged": False}])
def test_a_wrong_line_would_be_noticed(
    off: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = elementwise.line

    def wrong(scaling: elementwise.Sum) -> elementwise.Line | None:
        found = right(scaling)
        assert found is not None
        return replace(found, **{k: v if k == "nudged" else getattr(found, k) + v
                                 for k, v in off.items()})  # fmt: skip

    monkeypatch.setattr(elementwise, "line", wrong)
    with HostModels({"ties": SUMS["ties"]}, tmp_path) as host:
        want = reference.run(SUMS["ties"], pairs())[0]
        assert not np.array_equal(host.run("ties", pairs())[0][0], want)


def test_all_pairs(tmp_path: Path) -> None:
    with HostModels(SUMS, tmp_path) as host:
        for name, graph in SUMS.items():
            want = reference.run(graph, pairs())[0]
            assert np.array_equal(host.run(name, pairs())[0][0], want), name


def test_operands_that_broadcast(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    with HostModels(SPREAD, tmp_path) as host:
        for name, graph in SPREAD.items():
            assert "sum" in plan.make(graph).steps[0].kernel.name
            for _ in range(3):
                shapes = [graph.at(i).shape for i in graph.inputs]
                given = [random.integers(-128, 128, shape).astype(np.int8) for shape in shapes]
                want = reference.run(graph, given)[0]
                assert np.array_equal(host.run(name, given)[0][0], want), name
