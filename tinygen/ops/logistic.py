"""LOGISTIC, int8; int16 as ``squash_int16.py`` says.

Arithmetic: TFLM ``kernels/internal/reference/integer_ops/logistic.h`` and
``micro/kernels/logistic_common.cc``.
"""

from __future__ import annotations

from tinygen.fixed_point import logistic
from tinygen.graph import Graph, Node
from tinygen.numerics import Int64Array, rounding_divide_by_pot
from tinygen.ops import int16, lookup, squash, squash_int16


def function(graph: Graph, node: Node, values: Int64Array) -> Int64Array:
    if int16.reads_int16(graph, node):
        return squash_int16.logistic(graph, node, values)
    scaled = squash.scaling(graph, node)
    x = values - graph.required(node, 0).zero_point
    inside = logistic(scaled.apply(x), squash.INTEGER_BITS)
    outputs = lookup.limited(rounding_divide_by_pot(inside, 31 - 8) - 128, "int8")
    return squash.saturate(x, scaled.radius, outputs)


def full_range(graph: Graph, node: Node) -> bool:
    """needs an output zero point of -128, has {outputs[0].zero_point}"""
    return graph.output(node).zero_point == -128


OP = lookup.unary(
    "LOGISTIC",
    function,
    (
        int16.unless_int16(full_range),
        int16.unless_int16(squash.usual_scale),
        int16.when_int16(squash_int16.usual_scale),
        int16.when_int16(squash_int16.unit_output),
    ),
    int16_kernel=squash_int16.kernel,
)
