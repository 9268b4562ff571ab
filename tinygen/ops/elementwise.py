"""What ADD, SUB and MUL share: int8 operands that broadcast, the loops that takes, and sums.

Arithmetic: TFLM ``kernels/internal/reference/broadcast_loop.h`` and ``integer_ops/add.h``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygen.graph import Array, Graph, Node
from tinygen.numerics import Int64Array, Multiplier, quantize_multiplier, requantize
from tinygen.ops.base import Arg, Input, Kernel, Output, Shape
from tinygen.ops.common import ACTIVATIONS, Requant, is_int8, lookup, requant

HEADROOM = 20
"""Bits by which ADD and SUB shift their int8 operands left before they rescale them."""

HALF = Multiplier(1 << 30, 0)
"""What the operand with the larger scale is multiplied by: one half, exactly."""


@dataclass(frozen=True)
class Attrs:
    activation: str = "NONE"


def read(options: Any) -> Attrs:
    """Attributes from ``tflite.AddOptions``, ``SubOptions`` or ``MulOptions``."""
    if options is None:
        return Attrs()
    return Attrs(lookup(ACTIVATIONS, options.FusedActivationFunction(), "activation"))


def shapes(graph: Graph, node: Node) -> tuple[Shape, ...]:
    return (np.broadcast_shapes(*(graph.required(node, i).shape for i in (0, 1))),)


def int8_operands(graph: Graph, node: Node) -> bool:
    """needs int8 operands and output with one scale each, has {inputs[0].dtype},
    {inputs[1].dtype} and {outputs[0].dtype}"""
    return all(map(is_int8, (graph.input(node, 0), graph.input(node, 1), graph.output(node))))


def broadcastable(graph: Graph, node: Node) -> bool:
    """operands of shapes {inputs[0].shape} and {inputs[1].shape} do not go together"""
    first, second = (graph.required(node, i).shape for i in (0, 1))
    pairs = zip(reversed(first), reversed(second), strict=False)
    return all((*first, *second)) and all(a == b or 1 in (a, b) for a, b in pairs)


@dataclass(frozen=True)
class Loop:
    """``count`` rounds; each moves the operands on by ``first`` and ``second`` elements."""

    count: int
    first: int
    second: int


def loops(first: Shape, second: Shape) -> tuple[Loop, ...]:
    """The fewest nested loops, outermost first, that walk two broadcast operands in output order.

    The innermost loop's steps are 0 or 1.
    """
    rank = max(len(first), len(second))
    shape = np.broadcast_shapes(first, second)
    wide = [(1,) * (rank - len(s)) + tuple(s) for s in (first, second)]
    found: list[Loop] = []
    strides = [1, 1]
    for count, *extents in reversed(list(zip(shape, *wide, strict=True))):
        steps = [stride * (extent > 1) for stride, extent in zip(strides, extents, strict=True)]
        strides = [stride * extent for stride, extent in zip(strides, extents, strict=True)]
        inner = found[-1] if found else None
        if count == 1:
            continue
        if inner and steps == [inner.first * inner.count, inner.second * inner.count]:
            found[-1] = Loop(count * inner.count, inner.first, inner.second)
        else:
            found.append(Loop(count, *steps))
    return tuple(reversed(found)) or (Loop(1, 1, 1),)


def walk(graph: Graph, node: Node, order: Sequence[int]) -> tuple[dict[str, Any], tuple[Arg, ...]]:
    """Template parameters and leading call arguments for operands taken in ``order``."""
    nest = loops(*(graph.required(node, i).shape for i in order))
    inner = nest[-1]
    params = {"outer": nest[:-1], "first_step": inner.first, "second_step": inner.second}
    return params, (*(Input(i) for i in order), Output(0), inner.count)


def overlap(graph: Graph, node: Node) -> dict[int, int]:
    """Operands whose memory may take the output: those that are not broadcast."""
    elements = graph.output(node).elements
    return {i: 0 for i in (0, 1) if graph.required(node, i).elements == elements}


@dataclass(frozen=True)
class Sum:
    """``first + sign * second``: both brought to twice the larger scale, added, requantized."""

    multipliers: tuple[Multiplier, Multiplier]
    zero_points: tuple[int, int]
    sign: int
    output: Requant

    def apply(self, first: Array, second: Array) -> Array:
        """The int8 output for two int8 operands."""
        a, b = (
            self._term(*given)
            for given in zip((first, second), self.zero_points, self.multipliers, strict=True)
        )
        return self.output.apply(a + self.sign * b)

    @staticmethod
    def _term(values: Array, zero_point: int, multiplier: Multiplier) -> Int64Array:
        shifted = (values.astype(np.int64) - zero_point) << HEADROOM
        return requantize(shifted, multiplier.mantissa, multiplier.shift)


def sum_scales(graph: Graph, node: Node) -> tuple[float, float, float]:
    """Real multipliers of both operands and of the output."""
    first, second = (graph.required(node, i).scale for i in (0, 1))
    twice = 2 * max(first, second)
    return first / twice, second / twice, twice / ((1 << HEADROOM) * graph.output(node).scale)


def comparable_scales(graph: Graph, node: Node) -> bool:
    """output scale {outputs[0].scale} is too small for operands of scales {inputs[0].scale} and
    {inputs[1].scale}"""
    # What TFLM's ``QuantizeMultiplierSmallerThanOneExp`` asks for.
    return all(0 < s < 1 and quantize_multiplier(s).shift <= 0 for s in sum_scales(graph, node))


SUM_RESTRICTIONS = (int8_operands, broadcastable, comparable_scales)


def weighted_sum(graph: Graph, node: Node, sign: int) -> Sum:
    """The sum (``sign`` 1) or difference (-1) that ``node`` computes."""
    first, second = (graph.required(node, i) for i in (0, 1))
    scales = sum_scales(graph, node)
    bound = 2 * (255 << (HEADROOM - 1))  # neither operand's multiplier is above one half
    return Sum(
        (quantize_multiplier(scales[0]), quantize_multiplier(scales[1])),
        (first.zero_point, second.zero_point),
        sign,
        requant(graph, node, scales[2:], node.attrs.activation, bound),
    )


def sum_kernel(graph: Graph, node: Node, scaling: Sum) -> Kernel:
    """Portable kernel of a sum.

    The operand with the larger scale is halved exactly, a plain shift.  The other's product of 9
    by 31 bits is made of two that fit 32 bits, its multiplier cut into ``coarse`` and ``fine``.
    """
    large = scaling.multipliers.index(HALF)
    small = 1 - large
    multiplier = scaling.multipliers[small]
    params, args = walk(graph, node, (large, small))
    params["shifted"] = multiplier.shift < 0
    differences = ("large - small", "small - large")
    params["sum"] = "large + small" if scaling.sign > 0 else differences[large]
    name = "add" if scaling.sign > 0 else "sub"
    return Kernel(
        name=f"{name}_broadcast" if params["outer"] else name,
        template="elementwise/sum.c.j2",
        params=params | scaling.output.params,
        args=(
            *args,
            scaling.zero_points[large],
            scaling.zero_points[small],
            (multiplier.mantissa >> 16) << 5,
            multiplier.mantissa & 0xFFFF,
            *((-multiplier.shift,) if multiplier.shift < 0 else ()),
            *scaling.output.args,
        ),
        helpers=(
            scaling.output.helper,
            "activate",
            *(("round_right",) if multiplier.shift else ()),
        ),
        overlap=overlap(graph, node),
    )
