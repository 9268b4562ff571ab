"""Exact passes: what they rewrite, what they must leave alone, and that no byte changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from graphs import activation, constant, convolution, random_inputs
from host_c import HostModels

from tinygen import passes, plan, reference
from tinygen.graph import Graph, Node
from tinygen.ops import conv2d, elementwise
from tinygen.ops.common import bias_of
from tinygen.ops.dsp import FEATURES as DSP
from tinygen.passes.drop_dead import drop_dead
from tinygen.passes.fold_constants import fold_constants
from tinygen.passes.fuse_activation import fuse_activation
from tinygen.passes.fuse_pad import fuse_pad
from tinygen.passes.settle_constant_channels import settle_constant_channels


def same_results(before: Graph, after: Graph, folder: Path | None = None) -> None:
    """Outputs of both graphs agree, and with ``folder`` those of the compiled C."""
    after.check()
    for seed in range(3):
        inputs = random_inputs(before, seed)
        want = reference.run(before, inputs)
        assert all(
            np.array_equal(a, b) for a, b in zip(want, reference.run(after, inputs), strict=True)
        )
        if folder is not None:
            with HostModels({"m": after}, folder) as host:
                assert np.array_equal(host.run("m", inputs)[0][0], want[0])


def padded_convolution(fill: int | None = None, zero_point: int = 7) -> Graph:
    """PAD of 1, 2 rows and 0, 1 columns before a VALID convolution."""
    graph = convolution((8, 8, 2), (3, 3, 3), conv2d.Attrs(padding="VALID"))
    image = replace(activation("image", 1, 5, 7, 2, scale=0.05), quant=graph.at(0).quant)
    amounts = np.array([[0, 0], [1, 2], [0, 1], [0, 0]], dtype=np.int32)
    graph, at = graph.add_tensor(image)
    graph, pads = graph.add_tensor(constant("pads", amounts))
    given = (at, pads)
    if fill is not None:
        value = constant("value", np.array([fill], dtype=np.int8), 0.05)
        value = replace(value, quant=graph.at(0).quant)
        graph, index = graph.add_tensor(value)
        given = (*given, index)
    pad = Node("PAD" if fill is None else "PADV2", given, (0,), None, 0)
    return replace(graph, nodes=(pad, *graph.nodes), inputs=(at,))


def test_padding_moves_into_the_convolution(tmp_path: Path) -> None:
    graph = padded_convolution()
    fused = fuse_pad(graph)
    assert [node.op for node in fused.nodes] == ["CONV_2D"]
    same_results(graph, fused, tmp_path)


def test_other_padding_values_stay() -> None:
    graph = padded_convolution(fill=-100)
    assert len(fuse_pad(graph).nodes) == 2
    same_results(graph, fuse_pad(graph))


def test_padding_that_is_an_output_stays() -> None:
    graph = padded_convolution()
    graph = replace(graph, outputs=(0, *graph.outputs))
    assert len(fuse_pad(graph).nodes) == 2


def test_padding_before_a_padding_convolution_stays() -> None:
    graph = padded_convolution()
    conv = graph.nodes[1]
    same = replace(conv, attrs=replace(conv.attrs, padding="SAME"))
    graph = replace(graph, nodes=(graph.nodes[0], same)).with_tensor(3, shape=(1, 8, 8, 3))
    assert len(fuse_pad(graph).nodes) == 2


def convolution_then(op: str, **quant: float) -> Graph:
    graph = convolution()
    last = graph.outputs[0]
    out = replace(graph.at(last), name="activated")
    if quant:
        out = replace(activation("activated", *out.shape, scale=0.2, zero_point=3))
    graph, index = graph.add_tensor(out)
    node = Node(op, (last,), (index,), None, 1)
    return replace(graph, nodes=(*graph.nodes, node), outputs=(index,))


@pytest.mark.parametrize("op", ["RELU", "RELU6"])
def test_activation_moves_into_the_convolution(op: str, tmp_path: Path) -> None:
    graph = convolution_then(op)
    fused = fuse_activation(graph)
    assert [node.op for node in fused.nodes] == ["CONV_2D"]
    assert fused.nodes[0].attrs.activation == op
    same_results(graph, fused, tmp_path)


def test_activation_that_rescales_stays() -> None:
    graph = convolution_then("RELU", scale=0.2)
    assert len(fuse_activation(graph).nodes) == 2
    same_results(graph, fuse_activation(graph))


def test_constants_are_folded() -> None:
    graph = convolution()
    data = random_inputs(graph)[0]
    graph, index = graph.add_tensor(activation("given", *graph.at(3).shape, scale=0.1))
    total, final = graph.add_tensor(replace(graph.at(3), name="sum"))
    frozen = total.with_tensor(0, data=data)
    add = Node("ADD", (3, index), (final,), elementwise.Attrs(), 1)
    frozen = replace(frozen, nodes=(*frozen.nodes, add), inputs=(index,), outputs=(final,))
    folded = fold_constants(frozen)
    assert [node.op for node in folded.nodes] == ["ADD"]
    same_results(frozen, folded)


def test_dead_nodes_go() -> None:
    graph = convolution()
    graph, index = graph.add_tensor(replace(graph.at(3), name="unused"))
    graph = replace(graph, nodes=(*graph.nodes, replace(graph.nodes[0], outputs=(index,))))
    assert len(drop_dead(graph).nodes) == 1
    assert len(passes.run(graph).nodes) == 1


@pytest.mark.parametrize("bias", [1 << 30, -(1 << 30), 12345, 0, (1 << 31) - 1])
def test_dead_channels_get_plain_numbers(bias: int, tmp_path: Path) -> None:
    graph = convolution()
    weights, biases, quant = graph.at(1).data, graph.at(2).data, graph.at(1).quant
    assert weights is not None
    assert biases is not None
    assert quant is not None
    weights, biases = weights.copy(), biases.copy()
    weights[1], biases[1] = 0, bias
    scales = (quant.scale[0], 1e-9, *quant.scale[2:])
    graph = graph.with_tensor(1, data=weights, quant=replace(quant, scale=scales))
    graph = graph.with_tensor(2, data=biases)
    settled = settle_constant_channels(graph)
    assert abs(int(bias_of(settled, settled.nodes[0], 4)[1])) <= 2048
    same_results(graph, settled, tmp_path)
    assert plan.make(settled, DSP).steps[0].variant == "dsp"


def test_live_channels_stay() -> None:
    graph = convolution()
    assert settle_constant_channels(graph) is graph
