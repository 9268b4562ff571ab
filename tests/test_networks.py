"""Random networks of several operators: numpy, the exact passes and compiled C against TFLM."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import oracle
import pytest
from host_c import HostModels
from hypothesis import Phase, given, settings
from networks import networks
from strategies import Case
from test_operators import REPEATABLE, SANITIZED, assert_equal

from tinygen import passes, plan, reference
from tinygen.graph import Graph
from tinygen.importers import tflite

QUICK, WIDE = 40, 1000
QUICK_IN_C, WIDE_IN_C, PARTS = 25, 60, 4


def check_reference(case: Case) -> None:
    """Every tensor equals TFLM's, and the passes change no output."""
    graph = tflite.load(case.model.bytes)
    computed = [i for node in graph.nodes for i in node.outputs]
    wanted = oracle.shared().tensors(case.model.bytes, case.inputs, computed)
    values = reference.run_all(graph, case.inputs)
    for index in computed:
        np.testing.assert_array_equal(values[index], wanted[index], strict=True)
    rewritten = passes.run(graph)
    outputs = [wanted[i] for i in graph.outputs]
    assert_equal(reference.run(rewritten, case.inputs), outputs)
    plan.check(plan.make(rewritten))


def draw(count: int) -> list[Case]:
    """The first ``count`` networks, the same ones every time."""
    cases: list[Case] = []

    @settings(REPEATABLE, max_examples=count, phases=[Phase.generate])
    @given(networks())
    def collect(case: Case) -> None:
        cases.append(case)

    collect()
    return cases


def check_compiled(cases: Sequence[Case], folder: Path) -> None:
    """Compiled C gives TFLM's outputs, and the reference's layers, three times in a row."""
    graphs = [passes.run(tflite.load(case.model.bytes)) for case in cases]
    with HostModels(graphs, folder, flags=SANITIZED) as models:
        for i, (case, graph) in enumerate(zip(cases, graphs, strict=True)):
            wanted = oracle.shared().run(case.model.bytes, case.inputs)
            values = reference.run_all(graph, case.inputs)
            layers = [values[step.node.outputs[0]] for step in plan.make(graph).steps]
            for _ in range(3):
                outputs, crcs = models.run(f"m{i}", case.inputs)
                assert_equal(outputs, wanted)
                assert crcs == [zlib.crc32(layer.tobytes()) for layer in layers]


def test_reference_and_passes_equal_tflm() -> None:
    settings(REPEATABLE, max_examples=QUICK)(given(networks())(check_reference))()


@pytest.mark.wide
def test_reference_and_passes_equal_tflm_widely() -> None:
    settings(REPEATABLE, max_examples=WIDE)(given(networks())(check_reference))()


def test_every_pass_has_something_to_do() -> None:
    rewrote = dict.fromkeys(passes.PASSES, 0)
    for case in draw(100):
        graph = tflite.load(case.model.bytes)
        for rewrite in passes.PASSES:
            after = rewrite(graph)
            rewrote[rewrite] += (graph.nodes, graph.tensors) != (after.nodes, after.tensors)
            graph = after
    assert all(rewrote.values())


def test_compiled_c_equals_tflm(tmp_path: Path) -> None:
    check_compiled(draw(QUICK_IN_C), tmp_path)


@pytest.mark.wide
@pytest.mark.parametrize("part", range(PARTS))
def test_compiled_c_equals_tflm_widely(part: int, tmp_path: Path) -> None:
    check_compiled(draw(WIDE_IN_C * PARTS)[part::PARTS], tmp_path)


def test_an_inexact_pass_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def forget_the_activation(graph: Graph) -> Graph:
        nodes = tuple(
            replace(node, attrs=replace(node.attrs, activation="NONE"))
            if hasattr(node.attrs, "activation")
            else node
            for node in graph.nodes
        )
        return replace(graph, nodes=nodes)

    monkeypatch.setattr(passes, "PASSES", (*passes.PASSES, forget_the_activation))
    with pytest.raises(AssertionError):
        for case in draw(QUICK):
            check_reference(case)
