"""MAX_POOL_2D, int8 or int16: the largest of the pixels inside the image.

Arithmetic: TFLM ``kernels/internal/reference/integer_ops/pooling.h`` and
``micro/kernels/pooling_common.cc``.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tinygen.graph import Array, Graph, Node
from tinygen.numerics import clamp
from tinygen.ops import int16, pooling
from tinygen.ops.base import Input, Kernel, Op, Output, Variant
from tinygen.ops.common import activation_limits, image_input, version_by_type
from tinygen.ops.dsp import FEATURES


def reference(graph: Graph, node: Node, inputs: tuple[Array | None, ...]) -> tuple[Array, ...]:
    (image,) = inputs
    assert image is not None
    largest = pooling.reduce_windows(image, *pooling.spans(graph, node), np.max)
    limits = activation_limits(graph, node, node.attrs.activation)
    return (clamp(largest, *limits).astype(image.dtype),)


def lower(graph: Graph, node: Node) -> Kernel:
    return pooling.kernel(graph, node, "max_pool", "max_pool/portable.c.j2", ())


def lower_dsp(graph: Graph, node: Node) -> Kernel | None:
    """Four channels at a time with Arm's DSP extension."""
    source, limits = graph.required(node, 0), activation_limits(graph, node, node.attrs.activation)
    if source.dtype != "int8" or source.shape[3] < 4:
        return None
    portable = lower(graph, node)
    limited = limits != (-128, 127)
    pixels, taps = graph.output(node).elements // source.shape[3], portable.params["taps"]
    words = -(-source.shape[3] // 4)
    return replace(
        portable,
        name=f"{portable.name}_dsp",
        template="max_pool/dsp.c.j2",
        params={**portable.params, "limited": limited},
        args=(Input(0), Output(0), *(limits if limited else ())),
        helpers=("dsp", "dsp_larger"),
        cycles=pixels * (words * (3 if portable.params["unrolled"] else 9) * taps + 8),
        bound=pixels * words * (3 * taps - 1),
    )


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
    variants=(Variant("dsp", lower_dsp, FEATURES), Variant("portable", lower)),
)
