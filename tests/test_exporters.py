"""Files that TinyGen writes: they load as the graph they were written of, and TFLM runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import graphs
import numpy as np
import oracle
import pytest
import shared_models
import strategies_int16
import tflite
from hypothesis import Phase, given, settings
from networks import networks
from strategies import CASES, Case
from test_operators import REPEATABLE, assert_equal, draw

from tinygen import importers
from tinygen.errors import InputError
from tinygen.exporters import tflite as exporter
from tinygen.graph import Graph, Node, Tensor
from tinygen.importers import tflite as importer
from tinygen.ops import BY_NAME, OPS

QUICK, WIDE = 8, 300
QUICKLY = settings(REPEATABLE, phases=[Phase.generate])


def same_tensor(one: Tensor, other: Tensor) -> bool:
    described = replace(one, data=None), replace(other, data=None)
    if vars(described[0]) != vars(described[1]) or one.constant != other.constant:
        return False
    return one.data is None or np.array_equal(one.data, other.data)  # type: ignore[arg-type]


def assert_same(one: Graph, other: Graph) -> None:
    """All but the name of the file is equal."""
    assert len(one.tensors) == len(other.tensors)
    for pair in zip(one.tensors, other.tensors, strict=True):
        assert same_tensor(*pair), pair
    assert (one.nodes, one.inputs, one.outputs) == (other.nodes, other.inputs, other.outputs)


def check_written(case: Case) -> None:
    """A file written loads as its graph, and TFLM computes what it does with the first file."""
    graph = importer.load(case.model.bytes)
    data = exporter.dump(graph)
    assert_same(importer.load(data), graph)
    assert exporter.dump(importer.load(data)) == data
    wanted = oracle.shared().run(case.model.bytes, case.inputs)
    assert_equal(oracle.shared().run(data, case.inputs), wanted)


@pytest.mark.parametrize("name", CASES)
def test_operators_are_written_as_read(name: str) -> None:
    settings(QUICKLY, max_examples=QUICK)(given(CASES[name])(check_written))()


@pytest.mark.parametrize("name", strategies_int16.CASES)
def test_int16_operators_are_written_as_read(name: str) -> None:
    cases = strategies_int16.CASES[name]
    settings(QUICKLY, max_examples=2 * QUICK)(given(cases)(check_written))()


def test_networks_are_written_as_read() -> None:
    settings(QUICKLY, max_examples=4 * QUICK)(given(networks())(check_written))()


@pytest.mark.wide
@pytest.mark.parametrize("name", CASES)
def test_operators_are_written_as_read_widely(name: str) -> None:
    settings(QUICKLY, max_examples=WIDE)(given(CASES[name])(check_written))()


@pytest.mark.wide
def test_networks_are_written_as_read_widely() -> None:
    settings(QUICKLY, max_examples=WIDE)(given(networks())(check_written))()


def _versions(data: bytes) -> dict[int, int]:
    """Largest version of each operator in a file."""
    model = tflite.Model.GetRootAsModel(data, 0)
    found: dict[int, int] = {}
    for code in map(model.OperatorCodes, range(model.OperatorCodesLength())):
        number = max(code.DeprecatedBuiltinCode(), code.BuiltinCode())
        found[number] = max(found.get(number, 0), code.Version())
    return found


@shared_models.needed
@pytest.mark.parametrize("model", shared_models.SUPPORTED)
def test_models_are_written_as_read_and_give_the_goldens(model: str) -> None:
    path = shared_models.path(model)
    graph = importers.load(path)
    data = exporter.dump(graph)
    assert_same(importer.load(data), graph)
    for golden in shared_models.goldens(model)[:2]:
        (output,) = oracle.shared().run(data, [golden.input])
        np.testing.assert_array_equal(output, golden.output, strict=True)
    first = _versions(path.read_bytes())
    if model == "person_detect":  # of a time before int8 convolutions had a version of their own
        first[tflite.BuiltinOperator.CONV_2D] = 3
    assert _versions(data).items() <= first.items()


NOTHING_TO_READ = {"RESHAPE", "EXPAND_DIMS", "HARD_SWISH", "QUANTIZE", "DEQUANTIZE"}
WITH_OPTIONS = [op.name for op in OPS if op.options and op.name not in NOTHING_TO_READ]


@pytest.mark.parametrize("name", WITH_OPTIONS)
def test_options_left_out_would_be_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = draw(name, 60)
    monkeypatch.setitem(BY_NAME, name, replace(BY_NAME[name], write=lambda graph, node: {}))
    with pytest.raises((AssertionError, InputError)):
        for case in cases:
            check_written(case)


def test_bytes_do_not_depend_on_the_process() -> None:
    code = (
        "import graphs, hashlib;"
        "from tinygen.exporters import tflite;"
        "from test_exporters import as_stored;"
        "print(hashlib.sha256(tflite.dump(as_stored(graphs.convolution()))).hexdigest())"
    )
    tests = Path(__file__).parent
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": f"{tests}:{tests.parent}"},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


def as_stored(graph: Graph) -> Graph:
    """``graph`` with scales as a file holds them, in single precision."""

    def rounded(tensor: Tensor) -> Tensor:
        if tensor.quant is None:
            return tensor
        scale = tuple(map(float, np.float32(tensor.quant.scale)))
        return replace(tensor, quant=replace(tensor.quant, scale=scale))

    return replace(graph, tensors=tuple(map(rounded, graph.tensors)))


def test_constants_with_equal_bytes_share_a_buffer() -> None:
    graph = as_stored(graphs.dense_chain(16, 16, 16))
    first = graph.at(1).data
    other = graph.at(3).data
    assert first is not None and other is not None
    shared = graph.with_tensor(3, data=first)
    assert len(exporter.dump(graph)) - len(exporter.dump(shared)) >= other.nbytes


def _unknown_operator(graph: Graph) -> Graph:
    return replace(graph, nodes=(replace(graph.nodes[0], op="CUSTOM:x"),))


def _double_scale(graph: Graph) -> Graph:
    quant = graph.at(0).quant
    assert quant is not None
    return graph.with_tensor(0, quant=replace(quant, scale=(0.1,)))


def _unsound(graph: Graph) -> Graph:
    return graph.with_tensor(3, shape=(1, 2, 3, 4))


@pytest.mark.parametrize("spoil", [_unknown_operator, _double_scale, _unsound])
def test_what_no_file_can_say_is_refused(spoil: Callable[[Graph], Graph]) -> None:
    with pytest.raises(InputError):
        exporter.dump(spoil(as_stored(graphs.convolution())))


def test_padding_in_pixels_is_refused() -> None:
    graph = as_stored(graphs.convolution())
    node = graph.nodes[0]
    attrs: Any = replace(node.attrs, padding="EXPLICIT")
    explicit = replace(graph, nodes=(Node(node.op, node.inputs, node.outputs, attrs, 0),))
    window = BY_NAME[node.op].shapes(explicit, explicit.nodes[0])[0]
    with pytest.raises(InputError, match="node 0 CONV_2D 'out': padding EXPLICIT cannot"):
        exporter.dump(explicit.with_tensor(3, shape=window))
