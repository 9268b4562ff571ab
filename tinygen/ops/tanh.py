"""TANH, int8; int16 as ``squash_int16.py`` says.

Arithmetic: TFLM ``kernels/internal/reference/integer_ops/tanh.h`` and ``micro/kernels/tanh.cc``,
which take the output's scale to be 1/128 and its zero point 0 whatever the model says.
"""

from __future__ import annotations

from tinygen.fixed_point import tanh
from tinygen.graph import Graph, Node
from tinygen.numerics import Int64Array, rounding_divide_by_pot
from tinygen.ops import int16, lookup, squash, squash_int16


def function(graph: Graph, node: Node, values: Int64Array) -> Int64Array:
    if int16.reads_int16(graph, node):
        return squash_int16.tanh(graph, node, values)
    scaled = squash.scaling(graph, node)
    x = values - graph.required(node, 0).zero_point
    inside = tanh(scaled.apply(x), squash.INTEGER_BITS)
    outputs = lookup.limited(rounding_divide_by_pot(inside, 31 - 7), "int8")
    return squash.saturate(x, scaled.radius, outputs)


OP = lookup.unary(
    "TANH",
    function,
    (
        int16.unless_int16(squash.usual_scale),
        int16.when_int16(squash_int16.usual_scale),
        int16.when_int16(squash_int16.unit_output),
    ),
    int16_kernel=squash_int16.kernel,
)
