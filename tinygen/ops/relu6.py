"""RELU6, int8, as an operator of its own.

Meaning: TFLM ``micro/kernels/activations_common.cc``.  Both limits are on the input's scale, and
values pass as they are whatever the output's quantization says.
"""

from __future__ import annotations

from tinygen.graph import Graph, Node
from tinygen.numerics import Int64Array, activation_range, clamp
from tinygen.ops import lookup


def function(graph: Graph, node: Node, values: Int64Array) -> Int64Array:
    source = graph.required(node, 0)
    return clamp(values, *activation_range("RELU6", source.scale, source.zero_point, "int8"))


def usual_scale(graph: Graph, node: Node) -> bool:
    """input scale {inputs[0].scale} is too small"""
    return 6 / graph.required(node, 0).scale < 1 << 30


OP = lookup.unary("RELU6", function, (usual_scale,))
