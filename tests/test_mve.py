"""Kernels for vectors (MVE): their C twins on the host, the real thing in an emulator."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import emulated_c
import numpy as np
import pytest
import test_dsp
import test_dsp_depthwise
from graphs import HASH, activation, convolution, dense_chain, random_inputs
from host_c import HostModels
from test_dsp_depthwise import depthwise

from tinygen import boards, plan, reference
from tinygen.graph import Array, Graph, Node, Quant
from tinygen.ops import conv2d, elementwise
from tinygen.ops.base import Input, Scratch
from tinygen.ops.mve import blocked
from tinygen.plan import Plan

BOARD = boards.load("qemu_m55")
PIXEL = conv2d.Attrs(padding="VALID")


def variants(graph: Graph) -> list[str]:
    return [step.variant for step in plan.make(graph, BOARD.features).steps]


def with_one_scale(graph: Graph) -> Graph:
    """``graph`` with its filter quantized as a whole."""
    quant = graph.at(1).quant
    assert quant is not None
    return graph.with_tensor(1, quant=Quant(quant.scale[:1], (0,)))


def products() -> dict[str, Graph]:
    """Dense layers and 1x1 convolutions over all remainders of inputs, pixels and channels."""
    made = {}
    for depth, channels in itertools.product((1, 8, 15, 16, 17, 32, 50), (1, 3, 4, 6, 11)):
        seed = depth + channels
        width = (2, 3, 5, 8, 33, 70)[seed % 6]
        image, filters = (1, width, depth), (channels, 1, 1)
        made[f"p{width}x{depth}x{channels}"] = convolution(image, filters, PIXEL, seed=seed)
    for depth, channels in ((1, 5), (15, 4), (16, 3), (40, 8), (64, 6)):
        made[f"dense{depth}x{channels}"] = dense_chain(depth, channels, seed=depth)
    limited = conv2d.Attrs(padding="VALID", activation="RELU_N1_TO_1")
    for depth in (7, 33):
        made[f"limited{depth}"] = convolution((1, 9, depth), (8, 1, 1), limited, seed=depth)
        made[f"one{depth}"] = with_one_scale(made[f"limited{depth}"])
        plain = convolution((1, 9, depth), (10, 1, 1), PIXEL, seed=depth)
        made[f"plain{depth}"] = with_one_scale(plain)
    return made


def windows() -> dict[str, Graph]:
    """Convolutions that pad, stride, dilate, and lie outside the image."""
    made = {}
    for i, (image, filters, attrs) in enumerate(test_dsp.WINDOWS):
        made[f"window{i}"] = convolution(image, filters, attrs, seed=i)
    for depth, stride in itertools.product((1, 3, 16, 17, 40), (1, 2)):
        attrs = conv2d.Attrs(stride=(stride, stride))
        made[f"deep{depth}s{stride}"] = convolution((7, 6, depth), (6, 3, 3), attrs, seed=depth)
    attrs = conv2d.Attrs(padding="VALID", stride=(2, 2))
    for depth, width in ((5, 1), (16, 1), (20, 1), (3, 3)):
        made[f"direct{depth}"] = convolution((5, 9, depth), (9, 1, width), attrs, seed=depth)
    made["column"] = convolution((9, 1, 20), (5, 3, 1), seed=1)
    made["limited"] = convolution((6, 5, 9), (5, 3, 3), conv2d.Attrs(activation="RELU6"))
    return made


def depthwise_windows() -> dict[str, Graph]:
    """Also images that are high, odd, or have more channels than strips take at a time."""
    made = test_dsp_depthwise.networks()
    for height, width in ((25, 5), (2, 2), (2, 7), (9, 3), (3, 9), (70, 5), (40, 5)):
        for depth, stride in ((8, 1), (37, 1), (9, 2)):
            strides = (stride, stride)
            made[f"d{height}x{width}x{depth}"] = depthwise((height, width, depth), stride=strides)
    for stride in (1, 2):
        plain = depthwise((9, 10, 5), stride=(stride, stride))
        made[f"plain{stride}"] = with_one_scale(plain)
    made["squares"] = depthwise((7, 7, 9), (2, 2), batch=2)
    made["limits"] = depthwise((9, 30, 5), zero_points=(3, 4))
    return made


def columns() -> dict[str, Graph]:
    """Images of one column, which kernels take as rows."""
    made = {}
    for length, stride in itertools.product((1, 3, 10, 15), (1, 2)):
        for multiplier in (1, 2):
            name = f"column{length}s{stride}m{multiplier}"
            made[name] = depthwise(
                (19, 1, 7), (length, 1), stride=(stride, 1), multiplier=multiplier, seed=length
            )
        attrs = conv2d.Attrs(stride=(stride, 1), padding=("SAME", "VALID")[length % 2])
        made[f"conv{length}s{stride}"] = convolution((19, 1, 5), (6, length, 1), attrs, seed=length)
    return made


def sums() -> dict[str, Graph]:
    """Sums and differences: either operand's scale the larger, halves rounded either way."""
    made = {}
    scales = ((0.05, 0.03, 0.04), (0.01, 0.09, 0.07), (0.02, 0.02, 0.02), (0.5, 0.002, 0.9))
    for i, (first, second, output) in enumerate(scales):
        for name, limits in itertools.product(("ADD", "SUB"), ("NONE", "RELU")):
            for zero_point in (-128, 4):
                tensors = (
                    activation("a", 1, 3 + i, 7, scale=first, zero_point=-7),
                    activation("b", 1, 3 + i, 7, scale=second, zero_point=100),
                    activation("c", 1, 3 + i, 7, scale=output, zero_point=zero_point),
                )
                nodes = (Node(name, (0, 1), (2,), elementwise.Attrs(limits), 0),)
                made[f"{name}{i}{limits}{zero_point}".replace("-", "m").lower()] = Graph(
                    "sum", tensors, nodes, (0, 1), (2,), "s.tflite", HASH
                )
    return made


def check_on_host(graphs: dict[str, Graph], folder: Path) -> None:
    with HostModels(graphs, folder, features=BOARD.features) as host:
        for name, graph in graphs.items():
            shapes = [graph.at(index).shape for index in graph.inputs]
            ends = [[np.full(s, value, dtype=np.int8) for s in shapes] for value in (-128, 127)]
            for inputs in (random_inputs(graph, 0), *ends):
                want = reference.run(graph, inputs)[0]
                assert np.array_equal(host.run(name, inputs)[0][0], want), name


def emulated(graphs: dict[str, Graph], folder: Path) -> dict[str, bool]:
    """Whether the emulated core computes what the reference does, by graph."""
    inputs = [random_inputs(graph, 1) for graph in graphs.values()]
    found: list[list[Array]] = emulated_c.run(BOARD, list(graphs.values()), inputs, folder)
    return {
        name: np.array_equal(outputs[0], reference.run(graph, values)[0])
        for (name, graph), values, outputs in zip(graphs.items(), inputs, found, strict=True)
    }


@pytest.mark.parametrize(
    "made",
    [products, windows, pytest.param(depthwise_windows, marks=pytest.mark.wide), columns, sums],
    ids=lambda f: f.__name__,
)
def test_all_shapes(made: object, tmp_path: Path) -> None:
    assert callable(made)
    graphs = {name: graph for name, graph in made().items() if variants(graph) == ["mve"]}
    assert len(graphs) >= 16
    check_on_host(graphs, tmp_path)
    assert all(emulated(graphs, tmp_path).values())


def overlapping(graph: Graph, less: int = 0) -> Plan:
    """The plan with the output's memory as far up into the input's as the kernel allows.

    ``less`` bytes further would be too far.
    """
    made = plan.make(graph, BOARD.features)
    (step,) = made.steps
    assert step.variant == "mve"
    scratch = sum(arg.bytes for arg in step.kernel.args if isinstance(arg, Scratch))
    apart = graph.at(graph.outputs[0]).bytes  # what a kernel that claims nothing needs
    distance = 0 if 0 in step.kernel.in_place else step.kernel.overlap.get(0, apart) - less
    bottom = -(-scratch // 8) * 8
    sizes = {node: made.graph.at(node).bytes for node in (graph.inputs[0], graph.outputs[0])}
    offsets = {graph.outputs[0]: bottom, graph.inputs[0]: bottom + distance}
    assert any(isinstance(arg, Input) for arg in step.kernel.args)
    return replace(
        made,
        steps=(replace(step, scratch=0),),
        buffers=(),
        offsets=offsets,
        arena_bytes=-(-max(offsets[t] + sizes[t] for t in sizes) // 8) * 8,
    )


def overlaps() -> dict[str, Graph]:
    made = {
        f"w{i}": graph
        for i, graph in enumerate((*products().values(), *windows().values()))
        if i % 3 == 0 and set(variants(graph)) == {"mve"} and graph.at(graph.inputs[0]).shape[1:3]
    }
    made["growing_small"] = convolution((1, 90, 8), (12, 1, 1), PIXEL)
    made["growing_large"] = convolution((1, 90, 20), (32, 1, 1), PIXEL)
    made["growing_window"] = convolution((8, 8, 2), (16, 3, 3))
    for stride in (1, 2):
        for batch in (1, 2):
            strides = (stride, stride)
            made[f"d{stride}{batch}"] = depthwise((9, 8, 5), stride=strides, batch=batch)
    made["wide"] = depthwise((5, 70, 19))
    made["high"] = depthwise((70, 5, 19))
    made["high_strided"] = depthwise((71, 5, 4), stride=(2, 2))
    made["padded"] = depthwise((4, 4, 8), (2, 2), pads=test_dsp_depthwise.PADDED)
    return made


@pytest.mark.wide
def test_outputs_may_overlap_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = overlaps()
    plans = {id(graph): overlapping(graph) for graph in graphs.values()}
    monkeypatch.setattr(plan, "make", lambda graph, features: plans[id(graph)])
    check_on_host(graphs, tmp_path)
    assert all(emulated(graphs, tmp_path).values())


def test_overlap_further_up_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = {name: graph for name, graph in overlaps().items() if name.startswith("growing")}
    plans = {id(graph): overlapping(graph, less=160) for graph in graphs.values()}
    monkeypatch.setattr(plan, "make", lambda graph, features: plans[id(graph)])
    assert not any(emulated(graphs, tmp_path).values())


@pytest.mark.parametrize("depth", [1, 15, 16, 17, 40])
@pytest.mark.parametrize("channels", [1, 4, 7])
def test_blocked_weights_are_all_there(depth: int, channels: int) -> None:
    taps = np.arange(channels * depth).reshape(channels, depth).astype(np.int8)
    assert sorted(blocked(taps)) == sorted(taps.reshape(-1))
