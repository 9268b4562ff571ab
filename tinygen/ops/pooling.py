"""What AVERAGE_POOL_2D and MAX_POOL_2D share: the window, and the loops that slide it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygen.graph import Array, Graph, Node
from tinygen.ops.base import Input, Kernel, Output, Shape
from tinygen.ops.common import (
    ACTIVATIONS,
    PADDINGS,
    Window,
    activation_limits,
    code_of,
    lookup,
    overlap,
)

MAX_EXTENT = 1 << 15
"""Largest window extent and stride taken: more than any image has."""

MAX_TAPS = {"int8": 1 << 23, "int16": (1 << 16) - 1}
"""Most values under one window: their sum and its rounding fit 32 bits."""

UNROLLED = 9
"""Pixels under a window up to which kernels read them without a loop."""

Span = tuple[int, int]
"""First row (or column) under a window, and the one after the last."""


@dataclass(frozen=True)
class Attrs:
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: str
    activation: str = "NONE"


def read(options: Any) -> Attrs:
    """Attributes from ``tflite.Pool2DOptions``."""
    return Attrs(
        kernel=(options.FilterHeight(), options.FilterWidth()),
        stride=(options.StrideH(), options.StrideW()),
        padding=lookup(PADDINGS, options.Padding(), "padding"),
        activation=lookup(ACTIVATIONS, options.FusedActivationFunction(), "activation"),
    )


def write(graph: Graph, node: Node) -> dict[str, Any]:
    """Fields of ``tflite.Pool2DOptions``; raises :class:`InputError` for explicit padding."""
    attrs: Attrs = node.attrs
    return {
        "FilterHeight": attrs.kernel[0],
        "FilterWidth": attrs.kernel[1],
        "StrideH": attrs.stride[0],
        "StrideW": attrs.stride[1],
        "Padding": code_of(PADDINGS, attrs.padding, "padding"),
        "FusedActivationFunction": code_of(ACTIVATIONS, attrs.activation, "activation"),
    }


def window_of(node: Node) -> Window:
    attrs: Attrs = node.attrs
    return Window(attrs.kernel, attrs.stride, padding=attrs.padding)


def unpadded(graph: Graph, node: Node) -> Window | None:
    """The window, if it never leaves the image."""
    window = window_of(node)
    return None if window.resolve(*graph.required(node, 0).shape[1:3]).any else window


def shapes(graph: Graph, node: Node) -> tuple[Shape, ...]:
    batch, height, width, depth = graph.required(node, 0).shape
    return ((batch, *window_of(node).output(height, width), depth),)


def spans(graph: Graph, node: Node) -> tuple[list[Span], list[Span]]:
    """Rows of the image under the window for each output row, and columns for each column."""
    height, width = graph.required(node, 0).shape[1:3]
    window = window_of(node)
    rows, columns = window.output(height, width)
    pads = window.resolve(height, width)

    def along(count: int, stride: int, pad: int, kernel: int, extent: int) -> list[Span]:
        starts = [i * stride - pad for i in range(count)]
        return [(max(start, 0), min(start + kernel, extent)) for start in starts]

    return (
        along(rows, window.stride[0], pads.top, window.kernel[0], height),
        along(columns, window.stride[1], pads.left, window.kernel[1], width),
    )


def reduce_windows(
    image: Array, rows: list[Span], columns: list[Span], reduce: Callable[..., Array]
) -> Array:
    """``reduce`` (such as ``np.max``) over each window of an NHWC ``image``."""
    tall = np.stack([reduce(image[:, a:b], axis=1) for a, b in rows], axis=1)
    return np.stack([reduce(tall[:, :, a:b], axis=2) for a, b in columns], axis=2)


def kernel(graph: Graph, node: Node, name: str, template: str, helpers: tuple[str, ...]) -> Kernel:
    """Portable kernel: of windows of a few pixels channel by channel, else four channels at a time
    over the window's rows.

    The cycles are those of a Cortex-M4.
    """
    source, output = graph.required(node, 0), graph.output(node)
    batch, height, width, depth = source.shape
    window = window_of(node)
    rows, columns = window.output(height, width)
    pads = window.resolve(height, width)
    size, stride = window.kernel, window.stride
    if not pads.any and size[1] == width:  # the rows under a window follow each other in memory
        size, stride, width = (size[0] * width, 1), (stride[0] * width, 1), 1
        height *= source.shape[2]
    taps = size[0] * size[1]
    unrolled = not pads.any and taps <= UNROLLED
    params = {
        "batch": batch, "height": height, "width": width, "depth": depth,
        "rows": rows, "columns": columns, "kernel": size, "stride": stride,
        "top": pads.top, "left": pads.left, "padded": pads.any, "taps": taps,
        "element": f"{source.dtype}_t",
        "unrolled": unrolled,
    }  # fmt: skip
    shape = "x".join(map(str, (*source.shape[1:], "to", rows, columns)))
    name += "16" if source.dtype == "int16" else ""
    return Kernel(
        name=f"{name}_{window.kernel[0]}x{window.kernel[1]}_{shape.replace('xtox', '_to_')}",
        template=template,
        params=params,
        args=(Input(0), Output(0), *activation_limits(graph, node, node.attrs.activation)),
        helpers=helpers,
        overlap={0: overlap(source.shape, output.shape, window)} if source.dtype == "int8" else {},
        cycles=output.elements * (9 + 3 * taps if unrolled else 16 + 7 * taps),
    )


def same_quantization(graph: Graph, node: Node) -> bool:
    """input scale {inputs[0].scale} and zero point {inputs[0].zero_point} are not the output's,
    {outputs[0].scale} and {outputs[0].zero_point}"""
    source, target = graph.required(node, 0), graph.output(node)
    return abs(source.scale - target.scale) <= 1e-6 and source.zero_point == target.zero_point


def geometry(graph: Graph, node: Node) -> bool:
    """window {attrs.kernel} with stride {attrs.stride} does not fit input {inputs[0].shape}"""
    attrs: Attrs = node.attrs
    if not all(1 <= extent <= MAX_EXTENT for extent in (*attrs.kernel, *attrs.stride)):
        return False
    height, width = graph.required(node, 0).shape[1:3]
    taps = min(attrs.kernel[0], height) * min(attrs.kernel[1], width)
    return (
        taps <= MAX_TAPS[graph.required(node, 0).dtype]
        and min(window_of(node).output(height, width)) > 0
    )
