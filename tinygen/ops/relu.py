"""RELU, int8 or int16, as an operator of its own.

Arithmetic: TFLM ``micro/kernels/activations_common.cc``.  Old releases of TFLM divide the scales in
single precision, which can move an output by one.
"""

from __future__ import annotations

from dataclasses import replace

from tinygen.graph import Graph, Node
from tinygen.numerics import (
    LIMITS,
    Int64Array,
    clamp,
    quantize_multiplier,
    requantize,
    wrap32,
)
from tinygen.ops import int16, lookup
from tinygen.ops.base import Kernel
from tinygen.ops.common import requant


def real_multiplier(graph: Graph, node: Node) -> float:
    """Input scale over output scale."""
    return graph.required(node, 0).scale / graph.output(node).scale


def function(graph: Graph, node: Node, values: Int64Array) -> Int64Array:
    source, target = graph.required(node, 0), graph.output(node)
    multiplier = quantize_multiplier(real_multiplier(graph, node))
    scaled = requantize(values - source.zero_point, multiplier.mantissa, multiplier.shift)
    return clamp(wrap32(scaled + target.zero_point), target.zero_point, LIMITS[target.dtype][1])


def int16_kernel(graph: Graph, node: Node) -> Kernel:
    """Portable kernel for int16: between equal scales nothing but the limit."""
    high = LIMITS["int16"][1]
    if real_multiplier(graph, node) == 1:
        return int16.limits_kernel(graph, node, 0, high)
    scaling = requant(graph, node, (real_multiplier(graph, node),), "NONE", -LIMITS["int16"][0])
    return int16.requantize_kernel(graph, node, replace(scaling, low=0))


def comparable_scales(graph: Graph, node: Node) -> bool:
    """input scale {inputs[0].scale} is too large for output scale {outputs[0].scale}"""
    return lookup.fits_32_bits(real_multiplier(graph, node))


OP = lookup.unary("RELU", function, (comparable_scales,), int16_kernel=int16_kernel)
