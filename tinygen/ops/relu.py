"""RELU, int8, as an operator of its own.

Arithmetic: TFLM ``micro/kernels/activations_common.cc``.  Old releases of TFLM divide the scales in
single precision, which can move an output by one.
"""

from __future__ import annotations

from tinygen.graph import Graph, Node
from tinygen.numerics import Int64Array, clamp, quantize_multiplier, requantize, wrap32
from tinygen.ops import lookup


def real_multiplier(graph: Graph, node: Node) -> float:
    """Input scale over output scale."""
    return graph.required(node, 0).scale / graph.output(node).scale


def function(graph: Graph, node: Node, values: Int64Array) -> Int64Array:
    source, target = graph.required(node, 0), graph.output(node)
    multiplier = quantize_multiplier(real_multiplier(graph, node))
    scaled = requantize(values - source.zero_point, multiplier.mantissa, multiplier.shift)
    return clamp(wrap32(scaled + target.zero_point), target.zero_point, 127)


def comparable_scales(graph: Graph, node: Node) -> bool:
    """input scale {inputs[0].scale} is too large for output scale {outputs[0].scale}"""
    return lookup.fits_32_bits(real_multiplier(graph, node))


OP = lookup.unary("RELU", function, (comparable_scales,))
