"""Depthwise convolutions for Arm's DSP extension: the C twin of their assembly on the host."""

from __future__ import annotations

import itertools
from pathlib import Path

import emulated_c
import host_c
import numpy as np
import pytest
from graphs import HASH, activation, constant

from tinygen import boards, plan
from tinygen.graph import Graph, Node
from tinygen.ops import conv2d, depthwise_conv2d, dsp_depthwise
from tinygen.ops.common import Pads
from tinygen.ops.dsp import FEATURES as DSP
from tinygen.ops.rescale import accumulator_range

PADDED = Pads(5, 4, 6, 7)


def depthwise(
    image: tuple[int, int, int],
    kernel: tuple[int, int] = (3, 3),
    stride: tuple[int, int] = (1, 1),
    multiplier: int = 1,
    padding: str = "SAME",
    pads: Pads | None = None,
    dilation: tuple[int, int] = (1, 1),
    batch: int = 1,
    zero_points: tuple[int, int] = (-128, -128),
    seed: int = 0,
) -> Graph:
    """One depthwise convolution of an image (height, width, depth)."""
    random = np.random.default_rng(seed)
    channels = image[2] * multiplier
    attrs = depthwise_conv2d.Attrs(
        stride=stride,
        dilation=dilation,
        padding=padding if pads is None else "EXPLICIT",
        pads=pads or Pads(),
    )
    weights = random.integers(-127, 128, (1, *kernel, channels)).astype(np.int8)
    window = conv2d.Window(kernel, stride, dilation, attrs.padding, attrs.pads)
    spread = 74 * 74 * float(np.sqrt(kernel[0] * kernel[1]))
    scales = tuple(0.07 * 60 / spread / 0.05 * (1 + 0.1 * (i % 7)) for i in range(channels))
    tensors = (
        activation("in", batch, *image, scale=0.05, zero_point=zero_points[0]),
        constant("w", weights, *scales, axis=3),
        constant("b", random.integers(-3000, 9000, channels).astype(np.int32)),
        activation(
            "out", batch, *window.output(*image[:2]), channels, scale=0.07,
            zero_point=zero_points[1],
        ),
    )  # fmt: skip
    nodes = (Node("DEPTHWISE_CONV_2D", (0, 1, 2), (3,), attrs, 0),)
    return Graph("depthwise", tensors, nodes, (0,), (3,), "d.tflite", HASH)


def networks() -> dict[str, Graph]:
    """Shapes that reach every edge: windows that pad, stride, dilate, lie outside the image."""
    made: dict[str, Graph] = {}

    def add(*args: object, **more: object) -> None:
        made[f"d{len(made)}"] = depthwise(*args, seed=len(made), **more)  # type: ignore[arg-type]

    for depth, stride in itertools.product(range(1, 10), (1, 2)):
        add((6 + depth % 3, 5 + depth % 4, depth), stride=(stride, stride))
    for depth, multiplier, stride in itertools.product((1, 2, 3, 4), (2, 3), (1, 2)):
        add((7, 9, depth), stride=(stride, stride), multiplier=multiplier)
    for height, width in itertools.product((1, 2, 3, 4), repeat=2):
        add((height, width, 4))
        add((height, width, 5), stride=(2, 2))
    for stride in ((1, 2), (2, 1), (3, 3), (3, 1)):
        add((10, 11, 4), stride=stride)
        add((10, 11, 4), stride=stride, padding="VALID")
    for dilation in ((1, 2), (2, 1), (2, 3)):
        add((9, 11, 5), dilation=dilation)
        add((9, 11, 4), dilation=dilation, padding="VALID")
    for pads in (PADDED, Pads(1, 0, 0, 1), Pads(0, 3, 2, 0)):
        add((4, 5, 4), pads=pads)
        add((5, 4, 2), pads=pads, stride=(2, 2))
    for length in (3, 5, 10, 15):
        add((16, 1, 8), (length, 1), padding="VALID")
        add((1, 17, 9), (1, length))
        add((16, 1, 4), (length, 1), stride=(2, 1))
        add((1, 14, 3), (1, length), stride=(1, 3), zero_points=(5, 3))
    add((11, 1, 3), (4, 1), batch=2, zero_points=(-128, 20))
    add((9, 1, 2), (2, 1), pads=Pads(3, 2, 0, 0), stride=(2, 1), zero_points=(7, 20))
    add((13, 10, 1), (10, 8), stride=(2, 2), multiplier=8)
    add((13, 10, 3), (5, 5))
    add((6, 7, 6), (2, 4))
    add((6, 7, 6), batch=2)
    add((7, 6, 5), batch=2, stride=(2, 2))
    add((25, 5, 6))
    add((40, 50, 2))
    add((39, 48, 3), stride=(2, 2))
    add((3, 130, 2))
    add((12, 131, 3), stride=(2, 2))
    add((96, 96, 1), stride=(2, 2), multiplier=2)
    add((8, 8, 4), zero_points=(-128, 3))
    add((8, 8, 7), zero_points=(11, -20))
    add((8, 8, 4), zero_points=(-1, -128))
    return made


@pytest.mark.parametrize("half", [0, pytest.param(1, marks=pytest.mark.wide)])
def test_all_shapes(half: int, tmp_path: Path) -> None:
    graphs = dict(list(networks().items())[half::2])
    used = [step.variant for g in graphs.values() for step in plan.make(g, DSP).steps]
    assert used.count("dsp") > 30
    host_c.check(graphs, tmp_path, DSP)


@pytest.mark.parametrize("limits", ["RELU6", "RELU_N1_TO_1"])
def test_limits_within_int8(limits: str, tmp_path: Path) -> None:
    graph = depthwise((6, 6, 5), zero_points=(-128, -100))
    node = graph.nodes[0]
    attrs = depthwise_conv2d.Attrs(activation=limits)
    limited = Graph(
        "limited", graph.tensors, (Node(node.op, node.inputs, node.outputs, attrs, 0),), (0,), (3,),
        "l.tflite", HASH,
    )  # fmt: skip
    host_c.check({"limited": limited}, tmp_path, DSP)


@pytest.mark.parametrize("optimize", [("-O2",), ("-Os", "-fno-omit-frame-pointer")], ids="".join)
def test_assembly_on_an_emulated_core(optimize: tuple[str, ...], tmp_path: Path) -> None:
    """Every second shape, and the large ones: the twin above is not what runs."""
    planned = ("3x3", "line")
    graphs = [g for g in networks().values() if any(word in chosen(g) for word in planned)]
    large = [g for g in graphs if g.at(0).elements > 3000]
    graphs = [g for g in graphs if g.at(0).elements <= 3000][::2] + large
    assert len(large) >= 4 and len(graphs) > 30
    emulated_c.check(boards.load("qemu_m4"), graphs, tmp_path, optimize)


def chosen(graph: Graph) -> str:
    return plan.make(graph, DSP).steps[0].kernel.name


def test_planes_are_what_common_layers_get() -> None:
    for stride in ((1, 1), (2, 2), (2, 1)):
        graph = depthwise((12, 12, 8), stride=stride)
        assert chosen(graph) == f"depthwise_3x3_step{stride[1]}_dsp"
    assert "3x3" not in chosen(depthwise((12, 12, 8), (4, 4)))
    assert "3x3" not in chosen(depthwise((12, 12, 8), stride=(3, 3)))


def test_lines_are_what_images_of_one_row_or_column_get() -> None:
    for image, kernel in (((24, 1, 8), (10, 1)), ((1, 24, 8), (1, 10))):
        graph = depthwise(image, kernel, padding="VALID", zero_points=(-128, 3))
        assert chosen(graph) == "depthwise_line_dsp"


def test_rows_run_along_the_longer_side() -> None:
    steps = [plan.make(depthwise(size), DSP).steps[0] for size in ((25, 5, 4), (5, 25, 4))]
    assert steps[0].kernel.cycles == steps[1].kernel.cycles


@pytest.mark.parametrize("stride", [(1, 1), (2, 2)])
def test_outputs_take_their_inputs_memory(stride: tuple[int, int], tmp_path: Path) -> None:
    """Banded layers too, and turned ones: the plan lays one over the other."""
    graphs = {
        "banded": depthwise((48, 48, 4), stride=stride),
        "turned": depthwise((60, 31, 4), stride=stride),
        "small": depthwise((6, 7, 5), stride=stride),
    }
    for graph in graphs.values():
        made = plan.make(graph, DSP)
        step = made.steps[0]
        assert step.kernel.in_place == (0,)
        assert made.offsets[graph.inputs[0]] == made.offsets[graph.outputs[0]]
        assert made.arena_bytes < graph.at(graph.inputs[0]).bytes + step.kernel.scratch + 16
    host_c.check(graphs, tmp_path, DSP)


def test_larger_outputs_do_not_take_their_inputs_memory() -> None:
    conv = depthwise_conv2d.convolution
    padded = depthwise((20, 20, 4), pads=PADDED)
    kernel = dsp_depthwise.planes(conv(padded, padded.nodes[0]))
    assert kernel is not None and kernel.in_place == ()
    several = depthwise((6, 6, 4), batch=2, stride=(2, 2))
    kernel = dsp_depthwise.planes(conv(several, several.nodes[0]))
    assert kernel is not None and kernel.in_place == ()


def test_starts_hold_the_rounding_for_every_accumulator() -> None:
    graph = depthwise((6, 6, 8))
    conv = depthwise_conv2d.convolution(graph, graph.nodes[0])
    kernel = dsp_depthwise.planes(conv)
    assert kernel is not None
    starts, multipliers = kernel.constants[1].data.reshape(-1, 2).T.astype(np.int64)
    least, greatest = accumulator_range(conv.taps, conv.zero_point, conv.bias)
    for channel in range(conv.channels):
        acc = np.arange(least[channel], greatest[channel] + 1)
        want = conv.scaling.apply(np.stack([acc] * conv.channels, axis=-1))[..., channel]
        scaled = 256 * (acc - conv.folded_bias[channel]) + starts[channel]
        assert np.abs(scaled).max() < 1 << 31
        made = ((scaled * multipliers[channel]) >> 32) >> int(kernel.params["shift"])
        assert np.array_equal(np.clip(made, -128, 127), want)
