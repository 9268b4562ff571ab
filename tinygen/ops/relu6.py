"""RELU6, int8 or int16, as an operator of its own.

Meaning: TFLM ``micro/kernels/activations_common.cc``.  Both limits are on the input's scale, and
values pass as they are whatever the output's quantization says.
"""

from __future__ import annotations

from tinygen.graph import Graph, Node
from tinygen.numerics import Int64Array, activation_range, clamp
from tinygen.ops import int16, lookup
from tinygen.ops.base import Kernel


def function(graph: Graph, node: Node, values: Int64Array) -> Int64Array:
    return clamp(values, *limits(graph, node))


def limits(graph: Graph, node: Node) -> tuple[int, int]:
    """Zero and six on the input's scale, or the ends of its type."""
    source = graph.required(node, 0)
    return activation_range("RELU6", source.scale, source.zero_point, source.dtype)


def int16_kernel(graph: Graph, node: Node) -> Kernel:
    return int16.limits_kernel(graph, node, *limits(graph, node))


def usual_scale(graph: Graph, node: Node) -> bool:
    """input scale {inputs[0].scale} is too small"""
    return 6 / graph.required(node, 0).scale < 1 << 30


OP = lookup.unary("RELU6", function, (usual_scale,), int16_kernel=int16_kernel)
