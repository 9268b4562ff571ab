"""CONV_2D, int8 or int16, per-tensor or per-channel filters, groups.

Arithmetic: TFLM ``kernels/internal/reference/integer_ops/conv.h`` and
``micro/kernels/conv_common.cc``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygen.graph import Array, Graph, Node
from tinygen.numerics import Int64Array, exact_matmul
from tinygen.ops import (
    dsp,
    dsp_depthwise,
    dsp_int4,
    dsp_int16,
    dsp_lines,
    int4,
    int16,
    mve,
    portable,
    scalar,
    sparse,
    sparse_dsp,
)
from tinygen.ops.base import Op, Shape
from tinygen.ops.common import (
    ACTIVATIONS,
    NO_PADS,
    PADDINGS,
    Pads,
    Requant,
    Window,
    accumulator_bound,
    bias_of,
    code_of,
    constant_bias,
    constant_filter,
    filter_scales,
    image_input,
    lookup,
    pad_image,
    requant,
    windows,
)
from tinygen.ops.convolution import Convolution, variants

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
    bias_type: str = ""
    """"int32" has sums of int16 inputs without a bias wrap at 32 bits."""


def read(options: Any) -> Attrs:
    """Attributes from ``tflite.Conv2DOptions``."""
    return Attrs(
        stride=(options.StrideH(), options.StrideW()),
        dilation=(options.DilationHFactor(), options.DilationWFactor()),
        padding=lookup(PADDINGS, options.Padding(), "padding"),
        activation=lookup(ACTIVATIONS, options.FusedActivationFunction(), "activation"),
        bias_type=int16.bias_type(options),
    )


def write(graph: Graph, node: Node) -> dict[str, Any]:
    """Fields of ``tflite.Conv2DOptions``; raises :class:`InputError` for explicit padding."""
    attrs: Attrs = node.attrs
    return {
        "StrideH": attrs.stride[0],
        "StrideW": attrs.stride[1],
        "DilationHFactor": attrs.dilation[0],
        "DilationWFactor": attrs.dilation[1],
        "Padding": code_of(PADDINGS, attrs.padding, "padding"),
        "FusedActivationFunction": code_of(ACTIVATIONS, attrs.activation, "activation"),
        **int16.bias_type_option(attrs.bias_type),
    }


def version(graph: Graph, node: Node) -> int:
    """Version 3 takes int8, version 4 int16, version 6 groups, version 8 sums in 32 bits."""
    if node.attrs.bias_type:
        return 8
    if groups_of(graph, node) > 1:
        return 6
    return 4 if int16.reads_int16(graph, node) else 3


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
    return (int16.outputs(graph, node, requant_of(graph, node), acc),)


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
        graph.required(node, 0).dtype,
    )
    scales = filter_scales(graph, node, channels)
    return requant(graph, node, scales, node.attrs.activation, bound)


def macs(graph: Graph, node: Node) -> int:
    filters = graph.required(node, 1)
    return graph.output(node).elements * (filters.elements // filters.shape[0])


def convolution(graph: Graph, node: Node) -> Convolution:
    """The node as kernels see it."""
    source, filters = graph.required(node, 0), graph.required(node, 1)
    assert filters.data is not None
    window = window_of(graph, node)
    return Convolution(
        image=source.shape,
        output=graph.output(node).shape,
        filters=filters.data,
        bias=bias_of(graph, node, filters.shape[0]),
        zero_point=source.zero_point,
        scaling=requant_of(graph, node),
        groups=groups_of(graph, node),
        window=window,
        pads=window.resolve(*source.shape[1:3]),
        dtype=source.dtype,
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
    write=write,
    version=version,
    inputs=(2, 3),
    restrictions=(
        int16.int8_or_int16,
        image_input,
        constant_filter,
        int16.unless_int16(constant_bias),
        int16.when_int16(int16.constant_bias),
        geometry,
        int16.moderate_scale(0),
        moderate_padding,
    ),
    shapes=shapes,
    reference=reference,
    macs=macs,
    rows=window_of,
    variants=int16.variants(
        convolution,
        ("dsp", dsp_int16.dense, dsp_int16.FEATURES),
        ("dsp", dsp_int16.conv2d, dsp_int16.FEATURES),
        ("dsp", dsp_int16.conv2d_rows, dsp_int16.FEATURES),
        ("portable", int16.dense, int16.PORTABLE),
        ("portable", int16.conv2d, int16.PORTABLE),
    )
    + variants(
        convolution,
        (
            ("mve", mve.dense, mve.FEATURES),
            ("mve", mve.conv2d, mve.FEATURES),
            ("dsp", dsp.dense, dsp.FEATURES),
            ("dsp", dsp.dense_row, dsp.FEATURES),
            ("dsp", dsp.conv2d, dsp.FEATURES),
            ("dsp", dsp_lines.conv2d, dsp_lines.FEATURES),
            ("dsp", dsp_depthwise.planes, dsp.FEATURES),
            ("dsp", dsp_int4.dense, dsp_int4.FEATURES),
            *sparse_dsp.DENSE,
            *sparse_dsp.CONV2D,
            *scalar.DENSE,
            *scalar.CONV2D,
            *sparse.DENSE,
            ("portable", int4.dense, int4.FEATURES),
            *sparse.CONV2D,
            ("portable", portable.dense, portable.FEATURES),
            ("portable", portable.conv2d, portable.FEATURES),
        ),
    ),
)
