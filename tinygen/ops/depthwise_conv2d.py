"""DEPTHWISE_CONV_2D, int8 or int16, per-tensor or per-channel filters, any depth multiplier.

Arithmetic: TFLM ``kernels/internal/reference/integer_ops/depthwise_conv.h`` and
``micro/kernels/depthwise_conv_common.cc``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygen.graph import Array, Graph, Node
from tinygen.ops import conv2d, dsp_depthwise, dsp_int16, int16, mve, portable, scalar
from tinygen.ops.base import Kernel, Op, Shape, Variant
from tinygen.ops.common import (
    ACTIVATIONS,
    PADDINGS,
    Requant,
    Window,
    accumulator_bound,
    bias_of,
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


@dataclass(frozen=True)
class Attrs(conv2d.Attrs):
    """As a convolution's.  ``depth_multiplier`` None follows from the shapes."""

    depth_multiplier: int | None = None


def read(options: Any) -> Attrs:
    """Attributes from ``tflite.DepthwiseConv2DOptions``."""
    return Attrs(
        stride=(options.StrideH(), options.StrideW()),
        dilation=(options.DilationHFactor(), options.DilationWFactor()),
        padding=lookup(PADDINGS, options.Padding(), "padding"),
        activation=lookup(ACTIVATIONS, options.FusedActivationFunction(), "activation"),
        depth_multiplier=options.DepthMultiplier(),
    )


def write(graph: Graph, node: Node) -> dict[str, Any]:
    """Fields of ``tflite.DepthwiseConv2DOptions``; raises as :func:`conv2d.write`."""
    depth, channels = (graph.required(node, i).shape[3] for i in (0, 1))
    return conv2d.write(graph, node) | {"DepthMultiplier": channels // depth}


def window_of(graph: Graph, node: Node) -> Window:
    """The window that the filter (1, rows, columns, channels) slides."""
    return conv2d.window_of(graph, node)


def shapes(graph: Graph, node: Node) -> tuple[Shape, ...]:
    batch, height, width, _ = graph.required(node, 0).shape
    rows, columns = window_of(graph, node).output(height, width)
    return ((batch, rows, columns, graph.required(node, 1).shape[3]),)


def reference(graph: Graph, node: Node, inputs: tuple[Array | None, ...]) -> tuple[Array, ...]:
    image, filters = inputs[0], inputs[1]
    assert image is not None and filters is not None
    window, zero_point = window_of(graph, node), graph.required(node, 0).zero_point
    pads = window.resolve(*image.shape[1:3])
    shifted = pad_image(image.astype(np.int64) - zero_point, pads, 0)
    patches = windows(shifted, window)
    channels = filters.shape[3]
    multiplier = channels // image.shape[3]
    acc = np.zeros((*patches.shape[:3], channels), dtype=np.int64)
    for row in range(window.kernel[0]):
        for column in range(window.kernel[1]):
            taps = filters[0, row, column].astype(np.int64)
            acc += np.repeat(patches[:, :, :, row, column], multiplier, axis=-1) * taps
    acc += bias_of(graph, node, channels)
    return (int16.outputs(graph, node, requant_of(graph, node), acc),)


def requant_of(graph: Graph, node: Node) -> Requant:
    filters = graph.required(node, 1).data
    assert filters is not None
    channels = filters.shape[3]
    bound = accumulator_bound(
        filters.reshape(-1, channels).T,
        graph.required(node, 0).zero_point,
        bias_of(graph, node, channels),
        graph.required(node, 0).dtype,
    )
    scales = filter_scales(graph, node, channels)
    return requant(graph, node, scales, node.attrs.activation, bound)


def macs(graph: Graph, node: Node) -> int:
    _, rows, columns, _ = graph.required(node, 1).shape
    return graph.output(node).elements * rows * columns


def convolution(graph: Graph, node: Node) -> Convolution:
    """The node as kernels see it."""
    source, filters = graph.required(node, 0), graph.required(node, 1)
    assert filters.data is not None
    window = window_of(graph, node)
    return Convolution(
        image=source.shape,
        output=graph.output(node).shape,
        filters=filters.data.transpose(3, 1, 2, 0),
        bias=bias_of(graph, node, filters.shape[3]),
        zero_point=source.zero_point,
        scaling=requant_of(graph, node),
        groups=source.shape[3],
        window=window,
        pads=window.resolve(*source.shape[1:3]),
        dtype=source.dtype,
    )


def planes(graph: Graph, node: Node) -> Kernel | None:
    """The kernel over planes; all layers of a graph with one distance between their rows."""
    if int16.reads_int16(graph, node):
        return None
    layers = [n for n in graph.nodes if n.op == node.op]
    pitch = max(
        (dsp_depthwise.pitch(graph.output(n).shape[2], n.attrs.stride[1]) for n in layers),
        default=0,
    )
    largest = max(graph.at(n.outputs[0]).bytes for n in graph.nodes)
    spare = largest - graph.required(node, 0).bytes - graph.output(node).bytes
    return dsp_depthwise.planes(convolution(graph, node), pitch, spare)


def geometry(graph: Graph, node: Node) -> bool:
    """filter {inputs[1].shape} does not fit input {inputs[0].shape} with stride {attrs.stride}
    and dilation {attrs.dilation}"""
    filters, depth = graph.required(node, 1), graph.required(node, 0).shape[3]
    if len(filters.shape) != 4 or filters.shape[0] != 1 or filters.shape[3] % depth:
        return False
    attrs: Attrs = node.attrs
    if not all(1 <= extent <= conv2d.MAX_EXTENT for extent in (*attrs.stride, *attrs.dilation)):
        return False
    bias = graph.input(node, 2)
    return (bias is None or bias.elements == filters.shape[3]) and min(
        window_of(graph, node).output(*graph.required(node, 0).shape[1:3])
    ) > 0


def multiplied(graph: Graph, node: Node) -> bool:
    """depth multiplier {attrs.depth_multiplier} does not make filter {inputs[1].shape} of input
    {inputs[0].shape}"""
    filters, depth = graph.required(node, 1), graph.required(node, 0).shape[3]
    return node.attrs.depth_multiplier in (None, filters.shape[3] // depth)


OP = Op(
    name="DEPTHWISE_CONV_2D",
    options="DepthwiseConv2DOptions",
    read=read,
    write=write,
    version=lambda graph, node: 5 if int16.reads_int16(graph, node) else 3,
    inputs=(2, 3),
    restrictions=(
        int16.int8_or_int16,
        image_input,
        constant_filter,
        int16.unless_int16(constant_bias),
        int16.when_int16(int16.constant_int64_bias),
        geometry,
        int16.moderate_scale(3),
        conv2d.moderate_padding,
        multiplied,
    ),
    shapes=shapes,
    reference=reference,
    macs=macs,
    rows=window_of,
    variants=(
        *int16.variants(
            convolution,
            ("dsp", dsp_int16.depthwise, dsp_int16.FEATURES),
            ("portable", int16.depthwise, int16.PORTABLE),
        ),
        Variant("dsp", planes, dsp_depthwise.FEATURES),
        *variants(
            convolution,
            (
                ("mve", mve.depthwise, mve.FEATURES),
                ("mve", mve.conv2d, mve.FEATURES),
                ("dsp", dsp_depthwise.line, dsp_depthwise.FEATURES),
                ("dsp", dsp_depthwise.quads, dsp_depthwise.FEATURES),
                *scalar.DEPTHWISE,
                ("portable", portable.depthwise, portable.FEATURES),
            ),
        ),
    ),
)
