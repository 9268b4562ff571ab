"""Sums and differences of two int8 operands with Armv8.1-M vectors (MVE)."""

from __future__ import annotations

from tinygen.graph import Graph, Node
from tinygen.ops.base import Kernel
from tinygen.ops.elementwise import HALF, Sum, overlap, walk

FEATURES = frozenset({"mve"})

LANES = 4
"""Values of a vector of words."""


def sum_kernel(graph: Graph, node: Node, scaling: Sum) -> Kernel | None:
    """int8 operands of one shape, four values at a time; None when they broadcast."""
    if scaling.dtype != "int8":
        return None
    large = scaling.multipliers.index(HALF)
    small = 1 - large
    walked, args = walk(graph, node, (large, small))
    if walked["outer"] or not (walked["first_step"] and walked["second_step"]):
        return None
    if not scaling.output.fast:
        return None
    factor, output = scaling.multipliers[small], scaling.output
    params = {
        "shifted": factor.shift < 0,
        "away": output.low < output.zero_point,
        # first - second, and second - first
        "negate": scaling.sign < 0 and large == 0,
        "swapped": scaling.sign < 0 and large == 1,
    }
    elements = graph.output(node).elements
    bound = -(-elements // LANES) * (13 + 3 * params["shifted"] + 2 * params["away"])
    return Kernel(
        name="add_mve" if scaling.sign > 0 else "sub_mve",
        template="elementwise/mve_sum.c.j2",
        params=params,
        args=(
            *args,
            scaling.zero_points[large],
            scaling.zero_points[small],
            factor.mantissa,
            *((factor.shift,) if factor.shift < 0 else ()),
            output.multipliers[0].mantissa,
            output.multipliers[0].shift,
            output.zero_point,
            output.low,
            output.high,
        ),
        helpers=(
            "activate",
            "mve",
            "requantize_right",
            *(("round_right",) if factor.shift else ()),
        ),
        overlap=overlap(graph, node),
        cycles=2 * bound,
        bound=bound,
    )
