"""CONV_2D, int8, per-tensor or per-channel filters, groups.

Arithmetic: TFLM ``kernels/internal/reference/integer_ops/conv.h`` and
``micro/kernels/conv_common.cc``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygen.graph import Array, Graph, Node
from tinygen.numerics import Int64Array, exact_matmul, wrap32
from tinygen.ops.base import Const, Input, Kernel, Op, Output, Scratch, Shape, Variant
from tinygen.ops.common import (
    ACTIVATIONS,
    DSP,
    NO_PADS,
    PADDINGS,
    PAIRED_LIMIT,
    Pads,
    Requant,
    Window,
    accumulator_bound,
    bias_of,
    constant_bias,
    constant_filter,
    dense_dsp_kernel,
    dense_kernel,
    filter_scales,
    image_input,
    int8_in_and_out,
    interleave,
    lookup,
    pad_image,
    paired_start,
    paired_weights,
    requant,
    windows,
)

MAX_EXTENT = 1 << 15
"""Largest stride and dilation taken: more than any image has rows."""

MAX_PADDED = 1 << 24
"""Most values of an image with its padding, which the reference holds in memory."""


@dataclass(frozen=True)
class Attrs:
    """``pads`` counts when ``padding`` is "EXPLICIT", which a fused PAD makes it."""

    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: str = "SAME"
    activation: str = "NONE"
    pads: Pads = NO_PADS


def read(options: Any) -> Attrs:
    """Attributes from ``tflite.Conv2DOptions``."""
    return Attrs(
        stride=(options.StrideH(), options.StrideW()),
        dilation=(options.DilationHFactor(), options.DilationWFactor()),
        padding=lookup(PADDINGS, options.Padding(), "padding"),
        activation=lookup(ACTIVATIONS, options.FusedActivationFunction(), "activation"),
    )


def window_of(graph: Graph, node: Node) -> Window:
    """The window that the filter (out, rows, columns, in) slides."""
    _, rows, columns, _ = graph.required(node, 1).shape
    attrs: Attrs = node.attrs
    return Window((rows, columns), attrs.stride, attrs.dilation, attrs.padding, attrs.pads)


def shapes(graph: Graph, node: Node) -> tuple[Shape, ...]:
    batch, height, width, _ = graph.required(node, 0).shape
    rows, columns = window_of(graph, node).output(height, width)
    return ((batch, rows, columns, graph.required(node, 1).shape[0]),)


def groups_of(graph: Graph, node: Node) -> int:
    return graph.required(node, 0).shape[3] // graph.required(node, 1).shape[3]


def reference(graph: Graph, node: Node, inputs: tuple[Array | None, ...]) -> tuple[Array, ...]:
    image, filters = inputs[0], inputs[1]
    assert image is not None and filters is not None
    window, zero_point = window_of(graph, node), graph.required(node, 0).zero_point
    pads = window.resolve(*image.shape[1:3])
    shifted = pad_image(image.astype(np.int64) - zero_point, pads, 0)
    # One output row at a time, so that patches take little memory.
    rows = [_row(patches, filters, groups_of(graph, node)) for patches in _rows(shifted, window)]
    acc = np.stack(rows, axis=1) + bias_of(graph, node, filters.shape[0])
    return (requant_of(graph, node).apply(wrap32(acc)),)


def _rows(image: Array, window: Window) -> Iterator[Array]:
    """Patches (n, columns, kernel rows, kernel columns, c) under each row of window positions."""
    patches = windows(image, window)
    return (patches[:, row] for row in range(patches.shape[1]))


def _row(patches: Array, filters: Array, groups: int) -> Int64Array:
    """Products (n, columns, channels) of patches and filters, group by group."""
    channels, depth = filters.shape[0] // groups, filters.shape[3]
    parts = []
    for group in range(groups):
        taps = patches[..., group * depth : (group + 1) * depth].reshape(*patches.shape[:2], -1)
        chosen = filters[group * channels : (group + 1) * channels].reshape(channels, -1)
        parts.append(exact_matmul(taps, chosen.T))
    return np.concatenate(parts, axis=-1)


def requant_of(graph: Graph, node: Node) -> Requant:
    filters = graph.required(node, 1).data
    assert filters is not None
    channels = filters.shape[0]
    bound = accumulator_bound(
        filters.reshape(channels, -1),
        graph.required(node, 0).zero_point,
        bias_of(graph, node, channels),
    )
    scales = filter_scales(graph, node, channels)
    return requant(graph, node, scales, node.attrs.activation, bound)


def macs(graph: Graph, node: Node) -> int:
    filters = graph.required(node, 1)
    return graph.output(node).elements * (filters.elements // filters.shape[0])


def lower(graph: Graph, node: Node) -> Kernel:
    """Portable kernel: four output channels at a time over the window's rows; a matrix product
    when the window is one pixel."""
    source, filters = graph.required(node, 0), graph.required(node, 1)
    assert filters.data is not None
    window = window_of(graph, node)
    batch, height, width, depth = source.shape
    rows, columns = window.output(height, width)
    channels, groups = filters.shape[0], groups_of(graph, node)
    pads = window.resolve(height, width)
    taps = filters.data.reshape(groups, channels // groups, -1)
    bias = bias_of(graph, node, channels)
    if not pads.any:  # every tap sees the image, so its zero point can go into the bias
        bias = bias - source.zero_point * taps.reshape(channels, -1).astype(np.int64).sum(axis=1)
    scaling = requant_of(graph, node)
    if window.kernel == window.stride == (1, 1) and groups == 1 and not pads.any:
        flat = taps.reshape(channels, depth)
        return dense_kernel(flat, wrap32(bias).astype(np.int32), scaling, batch * height * width)
    params = {
        "batch": batch, "height": height, "width": width, "depth": depth,
        "rows": rows, "columns": columns, "channels": channels, "groups": groups,
        "kernel": window.kernel, "stride": window.stride, "dilation": window.dilation,
        "top": pads.top, "left": pads.left, "padded": pads.any,
        **scaling.params,
    }  # fmt: skip
    shape = f"{window.kernel[0]}x{window.kernel[1]}"
    return Kernel(
        name=f"conv2d_{shape}_{height}x{width}x{depth}_to_{rows}x{columns}x{channels}",
        template="conv2d/portable.c.j2",
        params=params,
        args=(
            Input(0),
            Output(0),
            Const("weights", np.concatenate([interleave(g) for g in taps])),
            Const("bias", wrap32(bias).astype(np.int32)),
            *((source.zero_point,) if pads.any else ()),
            *scaling.args,
        ),
        helpers=(scaling.helper, "activate"),
    )


def lower_dsp(graph: Graph, node: Node) -> Kernel | None:
    """With the DSP extension: a matrix product of pixels when the window is one pixel, else of
    patches gathered four at a time."""
    source, filters = graph.required(node, 0), graph.required(node, 1)
    assert filters.data is not None
    if groups_of(graph, node) > 1:
        return None
    window = window_of(graph, node)
    batch, height, width, depth = source.shape
    pads = window.resolve(height, width)
    channels = filters.shape[0]
    weights = filters.data.reshape(channels, -1)
    bias = bias_of(graph, node, channels)
    bound = accumulator_bound(weights, source.zero_point, bias)
    bias = bias - source.zero_point * weights.astype(np.int64).sum(axis=1)
    scaling = requant_of(graph, node)
    if window.kernel == window.stride == (1, 1) and not pads.any:
        return dense_dsp_kernel(weights, bias, scaling, batch * height * width, bound)
    words = paired_weights(np.pad(weights, ((0, 0), (0, -weights.shape[1] % 4))))
    if words is None or not scaling.fast or bound >= PAIRED_LIMIT or channels % 2:
        return None
    rows, columns = window.output(height, width)
    quads = words.shape[1]
    params = {
        "batch": batch, "height": height, "width": width, "depth": depth,
        "rows": rows, "columns": columns, "channels": channels, "quads": quads,
        "kernel": window.kernel, "stride": window.stride, "dilation": window.dilation,
        "top": pads.top, "left": pads.left, "padded": pads.any,
        **scaling.params,
    }  # fmt: skip
    shape = f"{window.kernel[0]}x{window.kernel[1]}"
    return Kernel(
        name=f"conv2d_{shape}_{height}x{width}x{depth}_to_{rows}x{columns}x{channels}_dsp",
        template="conv2d/dsp.c.j2",
        params=params,
        args=(
            Input(0),
            Output(0),
            Scratch((4 * 8 + 4) * quads),
            Const("weights", interleave(words, 2)),
            Const("start", paired_start(weights, bias)),
            source.zero_point,
            *scaling.args,
        ),
        helpers=("activate", "dsp", "multiply_4x2", "prepare_quad", "requantize_scaled"),
    )


def geometry(graph: Graph, node: Node) -> bool:
    """filter {inputs[1].shape} does not fit input {inputs[0].shape} with stride {attrs.stride}
    and dilation {attrs.dilation}"""
    filters, depth = graph.required(node, 1), graph.required(node, 0).shape[3]
    if len(filters.shape) != 4 or not all(filters.shape) or depth % filters.shape[3]:
        return False
    if filters.shape[0] % (depth // filters.shape[3]):
        return False
    attrs: Attrs = node.attrs
    if not all(1 <= extent <= MAX_EXTENT for extent in (*attrs.stride, *attrs.dilation)):
        return False
    bias = graph.input(node, 2)
    return (bias is None or bias.elements == filters.shape[0]) and min(
        window_of(graph, node).output(*graph.required(node, 0).shape[1:3])
    ) > 0


def moderate_padding(graph: Graph, node: Node) -> bool:
    """filter {inputs[1].shape} with dilation {attrs.dilation} reaches too far beyond input
    {inputs[0].shape}"""
    batch, height, width, depth = graph.required(node, 0).shape
    pads = window_of(graph, node).resolve(height, width)
    rows, columns = pads.top + height + pads.bottom, pads.left + width + pads.right
    return batch * rows * columns * depth <= MAX_PADDED


OP = Op(
    name="CONV_2D",
    options="Conv2DOptions",
    read=read,
    inputs=(2, 3),
    restrictions=(
        int8_in_and_out,
        image_input,
        constant_filter,
        constant_bias,
        geometry,
        moderate_padding,
    ),
    shapes=shapes,
    reference=reference,
    macs=macs,
    variants=(Variant("dsp", lower_dsp, DSP), Variant("portable", lower)),
)
