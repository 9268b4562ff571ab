"""AVERAGE_POOL_2D, int8 or int16: what is averaged are the pixels inside the image.

Arithmetic: TFLM ``kernels/internal/reference/integer_ops/pooling.h`` and
``micro/kernels/pooling_common.cc``.
"""

from __future__ import annotations

import numpy as np

from tinygen.graph import Array, Graph, Node
from tinygen.numerics import clamp
from tinygen.ops import int16, pooling
from tinygen.ops.base import Kernel, Op, Variant
from tinygen.ops.common import activation_limits, image_input, version_by_type


def reference(graph: Graph, node: Node, inputs: tuple[Array | None, ...]) -> tuple[Array, ...]:
    (image,) = inputs
    assert image is not None
    rows, columns = pooling.spans(graph, node)
    sums = pooling.reduce_windows(image.astype(np.int64), rows, columns, np.sum)
    heights, widths = (np.array([b - a for a, b in spans]) for spans in (rows, columns))
    taps = (heights[:, None] * widths)[None, :, :, None]
    # To the nearest integer, halves away from zero.
    averages = np.sign(sums) * ((np.abs(sums) + taps // 2) // taps)
    limits = activation_limits(graph, node, node.attrs.activation)
    return (clamp(averages, *limits).astype(image.dtype),)


def lower(graph: Graph, node: Node) -> Kernel:
    template = "average_pool/portable.c.j2"
    return pooling.kernel(graph, node, "average_pool", template, ("clamp", "divide_rounded"))


OP = Op(
    name="AVERAGE_POOL_2D",
    options="Pool2DOptions",
    read=pooling.read,
    write=pooling.write,
    version=version_by_type,
    restrictions=(int16.int8_or_int16, image_input, pooling.same_quantization, pooling.geometry),
    shapes=pooling.shapes,
    reference=reference,
    rows=pooling.unpadded,
    variants=(Variant("portable", lower),),
)
