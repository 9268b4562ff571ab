"""MAX_POOL_2D, int8 or int16: the largest of the pixels inside the image.

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
    largest = pooling.reduce_windows(image, *pooling.spans(graph, node), np.max)
    limits = activation_limits(graph, node, node.attrs.activation)
    return (clamp(largest, *limits).astype(image.dtype),)


def lower(graph: Graph, node: Node) -> Kernel:
    return pooling.kernel(graph, node, "max_pool", "max_pool/portable.c.j2", ())


OP = Op(
    name="MAX_POOL_2D",
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
