"""Kernels for cores without SIMD: their C on the host, exact on any shape, and their proofs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import emulated_c
import host_c
import numpy as np
import pytest
from graphs import activation, constant, convolution

from tinygen import boards, plan
from tinygen.graph import Graph, Node
from tinygen.ops import BY_NAME, conv2d, depthwise_conv2d, scalar
from tinygen.ops.base import Kernel, Variant
from tinygen.ops.common import Pads, Window
from tinygen.ops.rescale import accumulator_range
from tinygen.ops.rescale_split import solve_split

CLOSE = ("armv7m", "rv32m")
"""Cores whose C on the host differs little from the others'."""

EXPLICIT = Pads(5, 5, 5, 5)
WINDOWS = (
    ((5, 6, 3), (4, 3, 3), conv2d.Attrs()),
    ((5, 6, 1), (3, 3, 3), conv2d.Attrs(stride=(2, 2))),
    ((9, 8, 4), (6, 3, 2), conv2d.Attrs(padding="VALID", stride=(2, 1))),
    ((9, 11, 2), (5, 3, 2), conv2d.Attrs(dilation=(2, 3))),
    ((4, 3, 5), (2, 7, 5), conv2d.Attrs()),
    ((6, 6, 3), (2, 1, 1), conv2d.Attrs(padding="VALID", stride=(2, 2))),
    ((2, 2, 3), (2, 3, 3), conv2d.Attrs(padding="EXPLICIT", pads=EXPLICIT)),
)
"""Windows that pad, stride, dilate, and lie outside the image as a whole."""

DEPTHWISE = (
    ((1, 5, 6, 3), (3, 3), 1, depthwise_conv2d.Attrs()),
    ((2, 7, 9, 4), (3, 3), 1, depthwise_conv2d.Attrs(stride=(2, 2))),
    ((1, 8, 6, 2), (3, 3), 3, depthwise_conv2d.Attrs(stride=(2, 2))),
    ((3, 9, 7, 2), (2, 4), 1, depthwise_conv2d.Attrs(padding="VALID", stride=(1, 2))),
    ((1, 3, 2, 5), (7, 3), 1, depthwise_conv2d.Attrs()),
    ((2, 11, 5, 2), (2, 3), 1, depthwise_conv2d.Attrs(padding="VALID", stride=(4, 3))),
    ((1, 2, 2, 3), (3, 3), 1, depthwise_conv2d.Attrs(padding="EXPLICIT", pads=EXPLICIT)),
    ((2, 9, 4, 3), (5, 3), 1, depthwise_conv2d.Attrs(padding="EXPLICIT", pads=Pads(4, 0, 1, 1))),
    ((2, 1, 30, 3), (1, 5), 1, depthwise_conv2d.Attrs(padding="EXPLICIT", pads=Pads(0, 0, 4, 0))),
)
"""Image, kernel rows and columns, depth multiplier, attributes."""


def relu(graph: Graph, zero_point: int = -128) -> Graph:
    """``graph`` with outputs on one side of the zero point, if that is -128."""
    out = graph.at(graph.outputs[0])
    assert out.quant is not None
    return graph.with_tensor(graph.outputs[0], quant=replace(out.quant, zero_point=(zero_point,)))


def depthwise(
    image: tuple[int, int, int, int],
    kernel: tuple[int, int],
    multiplier: int,
    attrs: depthwise_conv2d.Attrs,
    seed: int = 0,
) -> Graph:
    random = np.random.default_rng(seed)
    channels = image[3] * multiplier
    weights = random.integers(-127, 128, (1, *kernel, channels)).astype(np.int8)
    window = Window(kernel, attrs.stride, attrs.dilation, attrs.padding, attrs.pads)
    out = window.output(*image[1:3])
    tensors = (
        activation("in", *image, scale=0.05, zero_point=7),
        constant("w", weights, *(0.01 + 0.001 * i for i in range(channels)), axis=3),
        constant("b", random.integers(-999, 999, channels).astype(np.int32)),
        activation("out", image[0], *out, channels, scale=0.1, zero_point=-128),
    )
    nodes = (Node("DEPTHWISE_CONV_2D", (0, 1, 2), (3,), attrs, 0),)
    return Graph("depthwise", tensors, nodes, (0,), (3,), "c.tflite", "0" * 64)


def networks() -> dict[str, Graph]:
    """All remainders of pixels and channels, odd and even numbers of taps, all windows."""
    made = {}
    for channels in range(1, 7):
        for width in (4, 5, 7):
            depth = 7 + (channels + width) % 3
            graph = convolution(
                (1, width, depth),
                (channels, 1, 1),
                conv2d.Attrs(padding="VALID"),
                seed=10 * channels + width,
            )
            made[f"pixels{width}x{channels}"] = relu(graph, -128 if width % 2 else -9)
    for i, (image, filters, attrs) in enumerate(WINDOWS):
        graph = convolution(image, filters, attrs, seed=i)
        made[f"window{i}"] = relu(graph)
        made[f"window{i}_both"] = graph
    for i, given in enumerate(DEPTHWISE):
        graph = depthwise(*given, seed=i)
        made[f"depthwise{i}"] = graph
        made[f"depthwise{i}_both"] = relu(graph, 3)
    return made


def variants(graph: Graph, isa: scalar.Isa) -> list[str]:
    return [step.variant for step in plan.make(graph, isa.features).steps]


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels for a core are taken wherever they apply, however small the layer."""

    def preferred(variant: Variant) -> Variant:
        def lower(graph: Graph, node: Node) -> Kernel | None:
            kernel = variant.lower(graph, node)
            return kernel and replace(kernel, cycles=0)

        return replace(variant, lower=lower) if variant.features else variant

    for name in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        op = BY_NAME[name]
        chosen = tuple(preferred(variant) for variant in op.variants)
        monkeypatch.setitem(BY_NAME, name, replace(op, variants=chosen))


@pytest.mark.usefixtures("forced")
@pytest.mark.parametrize(
    "isa",
    [
        pytest.param(isa, id=isa.name, marks=pytest.mark.wide if isa.name in CLOSE else ())
        for isa in scalar.ISAS
    ],
)
def test_all_remainders(isa: scalar.Isa, tmp_path: Path) -> None:
    graphs = networks()
    used = [variant for graph in graphs.values() for variant in variants(graph, isa)]
    assert used == [isa.name] * len(graphs)
    host_c.check(graphs, tmp_path, isa.features)


@pytest.mark.usefixtures("forced")
@pytest.mark.parametrize("board", ["qemu_rv32", "qemu_m3", "qemu_m0", "qemu_xtensa"])
def test_assembly_equals_its_twin(board: str, tmp_path: Path) -> None:
    graphs = [graph for i, graph in enumerate(networks().values()) if i % 3 == 0]
    emulated_c.check(boards.load(board), graphs, tmp_path)


@pytest.mark.parametrize("zero_point", [-128, -9])
def test_a_split_equals_tflm_on_every_accumulator(zero_point: int) -> None:
    graph = relu(convolution((1, 8, 24), (6, 1, 1), conv2d.Attrs(padding="VALID")), zero_point)
    conv = conv2d.convolution(graph, graph.nodes[0])
    least, greatest = accumulator_range(conv.taps, conv.zero_point, conv.bias)
    split = solve_split(conv.scaling, least, greatest)
    assert split is not None and split.both_signs == (zero_point > -128)
    span = np.arange(int((greatest - least).max()) + 1)
    acc = np.minimum(least + span[:, None], greatest)
    assert np.array_equal(split.apply(acc), conv.scaling.apply(acc))
    spoilt = replace(split, words=split.words + np.uint32(1 << 18))
    assert not np.array_equal(spoilt.apply(acc), conv.scaling.apply(acc))


def test_accumulators_that_do_not_fit_have_no_split() -> None:
    graph = relu(convolution((1, 8, 24), (6, 1, 1), conv2d.Attrs(padding="VALID")))
    conv = conv2d.convolution(graph, graph.nodes[0])
    wide = np.full(6, 1 << 23, dtype=np.int64)
    assert solve_split(conv.scaling, -wide, wide) is None


def test_a_depthwise_convolution_is_computed_where_its_input_lies() -> None:
    image = (1, 12, 12, 8)
    for attrs in (depthwise_conv2d.Attrs(), depthwise_conv2d.Attrs(stride=(2, 2))):
        made = plan.make(depthwise(image, (3, 3), 1, attrs), scalar.RV32M.features)
        assert made.steps[0].kernel.in_place == (0,)
        assert made.offsets[0] == made.offsets[3]


def test_rows_written_before_they_are_read_stay_apart() -> None:
    attrs = depthwise_conv2d.Attrs(padding="EXPLICIT", pads=Pads(0, 9, 1, 1))
    made = plan.make(depthwise((1, 4, 4, 2), (3, 3), 1, attrs), scalar.RV32M.features)
    assert made.steps[0].variant == "rv32m"
    assert made.steps[0].kernel.in_place == ()
