"""TANH, int8.

Arithmetic: TFLM ``kernels/internal/reference/integer_ops/tanh.h`` and ``micro/kernels/tanh.cc``,
which take the output's scale to be 1/128 and its zero point 0 whatever the model says.
"""

from __future__ import annotations

from tinygen.fixed_point import tanh
from tinygen.graph import Graph, Node
from tinygen.numerics import Int64Array, rounding_divide_by_pot
from tinygen.ops import lookup, squash


def function(graph: Graph, node: Node, values: Int64Array) -> Int64Array:
    scaled = squash.scaling(graph, node)
    x = values - graph.required(node, 0).zero_point
    inside = tanh(scaled.apply(x), squash.INTEGER_BITS)
    outputs = lookup.limited(rounding_divide_by_pot(inside, 31 - 7), "int8")
    return squash.saturate(x, scaled.radius, outputs)


OP = lookup.unary("TANH", function, (squash.usual_scale,))
