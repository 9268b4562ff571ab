"""What ADD, SUB and MUL share: int8 operands that broadcast, the loops that takes, and sums.

Arithmetic: TFLM ``kernels/internal/reference/broadcast_loop.h`` and ``integer_ops/add.h``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygen.graph import Array, Graph, Node
from tinygen.numerics import INT32_MAX, Int64Array, Multiplier, quantize_multiplier, requantize
from tinygen.ops import int16
from tinygen.ops.base import Arg, Input, Kernel, Output, Shape
from tinygen.ops.common import ACTIVATIONS, Requant, code_of, lookup, requant

HEADROOM = {"int8": 20, "int16": 15}
"""Bits by which ADD and SUB shift their operands left before they rescale them."""

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


def write(graph: Graph, node: Node) -> dict[str, Any]:
    """Fields of the same tables."""
    attrs: Attrs = node.attrs
    return {"FusedActivationFunction": code_of(ACTIVATIONS, attrs.activation, "activation")}


def shapes(graph: Graph, node: Node) -> tuple[Shape, ...]:
    return (np.broadcast_shapes(*(graph.required(node, i).shape for i in (0, 1))),)


def one_type(graph: Graph, node: Node) -> bool:
    """needs operands and output all int8, or all int16 with zero points of 0, with one scale each,
    has {inputs[0].dtype}, {inputs[1].dtype} and {outputs[0].dtype}"""
    return int16.alike(graph.input(node, 0), graph.input(node, 1), graph.output(node))


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
    dtype: str = "int8"

    def apply(self, first: Array, second: Array) -> Array:
        """The output for two operands, all of ``dtype``."""
        a, b = (
            self._term(*given)
            for given in zip((first, second), self.zero_points, self.multipliers, strict=True)
        )
        return self.output.apply(a + self.sign * b, self.dtype)

    def _term(self, values: Array, zero_point: int, multiplier: Multiplier) -> Int64Array:
        shifted = (values.astype(np.int64) - zero_point) << HEADROOM[self.dtype]
        return requantize(shifted, multiplier.mantissa, multiplier.shift)


def sum_scales(graph: Graph, node: Node) -> tuple[float, float, float]:
    """Real multipliers of both operands and of the output."""
    first, second = (graph.required(node, i).scale for i in (0, 1))
    twice = 2 * max(first, second)
    units = 1 << HEADROOM[graph.output(node).dtype]
    return first / twice, second / twice, twice / (units * graph.output(node).scale)


def comparable_scales(graph: Graph, node: Node) -> bool:
    """output scale {outputs[0].scale} is too small for operands of scales {inputs[0].scale} and
    {inputs[1].scale}"""
    # What TFLM's ``QuantizeMultiplierSmallerThanOneExp`` asks for.
    return all(0 < s < 1 and quantize_multiplier(s).shift <= 0 for s in sum_scales(graph, node))


SUM_RESTRICTIONS = (one_type, broadcastable, comparable_scales)


def weighted_sum(graph: Graph, node: Node, sign: int) -> Sum:
    """The sum (``sign`` 1) or difference (-1) that ``node`` computes."""
    first, second = (graph.required(node, i) for i in (0, 1))
    scales = sum_scales(graph, node)
    dtype = graph.output(node).dtype
    farthest = {"int8": 255, "int16": 32768}[dtype]
    bound = 2 * (farthest << (HEADROOM[dtype] - 1))  # neither multiplier is above one half
    return Sum(
        (quantize_multiplier(scales[0]), quantize_multiplier(scales[1])),
        (first.zero_point, second.zero_point),
        sign,
        requant(graph, node, scales[2:], node.attrs.activation, bound),
        dtype,
    )


@dataclass(frozen=True)
class Line:
    """``(first * x + second * y + offset) >> shift``, a sum of int8 operands x and y in the end.

    ``nudged``: less one before the shift when negative, and ``rounding`` added then.
    """

    first: int
    second: int
    offset: int
    shift: int
    rounding: int = 0
    nudged: bool = False


LINE_SHIFTS = (21, 22, 20, 23, 19, 18)
"""Shifts tried for a line, in this order: with equal ones layers share a function."""

NEIGHBOURS = sorted(
    ((a, b) for a in range(-3, 4) for b in range(-3, 4)), key=lambda n: (abs(n[0]) + abs(n[1]), n)
)
"""How far factors tried lie from the nearest, the closest ones first."""


def line(scaling: Sum) -> Line | None:
    """A line that equals ``scaling`` for all pairs of operands, if one is found."""
    values = np.arange(-128, 128, dtype=np.int64)
    wanted = scaling.apply(*np.meshgrid(values, values, indexing="ij")).astype(np.int64)
    out = scaling.output
    last = out.multipliers[0]
    real = [
        m.mantissa * last.mantissa * 2.0 ** (m.shift + last.shift + HEADROOM["int8"] - 62)
        for m in scaling.multipliers
    ]
    for shift in LINE_SHIFTS:
        nearest = [round(r * (1 << shift)) for r in (real[0], scaling.sign * real[1])]
        for beside in NEIGHBOURS:
            first, second = (n + b for n, b in zip(nearest, beside, strict=True))
            sums = first * values[:, None] + second * values[None, :]
            found = _straight(sums, wanted, out, shift) or _nudged(sums, wanted, scaling, shift)
            if found is not None:
                offset, rounding, nudged = found
                return Line(first, second, offset, shift, rounding, nudged)
    return None


def _straight(
    sums: Int64Array, wanted: Int64Array, out: Requant, shift: int
) -> tuple[int, int, bool] | None:
    """The offset with which shifted ``sums`` are what is ``wanted``."""
    low = ((wanted << shift) - sums)[wanted > out.low].max(initial=-(1 << 40))
    high = (((wanted + 1) << shift) - 1 - sums)[wanted < out.high].min(initial=1 << 40)
    if low > high:
        return None
    offset = int(low + high) // 2
    return (offset, 0, False) if _fits(sums, offset) else None


def _nudged(
    sums: Int64Array, wanted: Int64Array, scaling: Sum, shift: int
) -> tuple[int, int, bool] | None:
    """Offset and rounding with which ``sums`` rounded away from zero are what is ``wanted``."""
    out = scaling.output
    offset = -int(sums[scaling.zero_points[0] + 128, scaling.zero_points[1] + 128])
    rounding = (out.zero_point << shift) + (1 << (shift - 1))
    moved = sums + offset
    made = np.clip((moved + (moved >> 63) + rounding) >> shift, out.low, out.high)
    if not np.array_equal(made, wanted):
        return None
    return (offset, rounding, True) if _fits(sums, offset, rounding) else None


def _fits(sums: Int64Array, *added: int) -> bool:
    """Whether nothing overflows 32 bits, in whatever order products and offset are summed."""
    parts = [int(sums.max() - sums.min()), *map(abs, added), int(np.abs(sums).max())]
    return sum(parts[1:]) <= INT32_MAX and parts[0] <= INT32_MAX


def line_kernel(graph: Graph, node: Node, scaling: Sum) -> Kernel | None:
    """Portable kernel of an int8 sum that is a line: two multiplications an element."""
    found = line(scaling) if scaling.dtype == "int8" else None
    if found is None:
        return None
    factors, out = (found.first, found.second), scaling.output
    params, args = walk(graph, node, (0, 1))
    limited = (out.low, out.high) != (-128, 127)
    params |= {"shift": found.shift, "nudged": found.nudged, "limited": limited}
    elements = graph.output(node).elements
    name = "sum_broadcast" if params["outer"] else "sum"
    return Kernel(
        name=f"{name}_away_from_zero" if found.nudged else name,
        template="elementwise/line.c.j2",
        params=params,
        args=(
            *args,
            *factors,
            found.offset,
            *((found.rounding,) if found.nudged else ()),
            *((out.low, out.high) if limited else ()),
        ),
        helpers=("clamp", *(("away_from_zero",) if found.nudged else ())),
        overlap=overlap(graph, node),
        cycles=(11 if found.nudged else 9) * elements,
        bound=(8 if found.nudged else 6) * elements,
    )


def sum_kernel(graph: Graph, node: Node, scaling: Sum) -> Kernel:
    """Portable kernel of a sum.

    The operand with the larger scale is halved exactly, a plain shift.  The other's product of 9
    (int16: 16) by 31 bits is made of two that fit 32 bits, its multiplier cut into ``coarse`` and
    ``fine``.
    """
    dropped = 31 - HEADROOM[scaling.dtype]  # bits of the product that TFLM rounds away
    large = scaling.multipliers.index(HALF)
    small = 1 - large
    multiplier = scaling.multipliers[small]
    params, args = walk(graph, node, (large, small))
    params["shifted"] = multiplier.shift < 0
    differences = ("large - small", "small - large")
    params["sum"] = "large + small" if scaling.sign > 0 else differences[large]
    params |= {
        "element": f"{scaling.dtype}_t",
        "activate": int16.activate(scaling.dtype),
        "half": HEADROOM[scaling.dtype] - 1,
        "dropped": dropped,
        "nudge": 1 << (dropped - 1),
    }
    name = "add" if scaling.sign > 0 else "sub"
    name += "16" if scaling.dtype == "int16" else ""
    return Kernel(
        name=f"{name}_broadcast" if params["outer"] else name,
        template="elementwise/sum.c.j2",
        params=params | scaling.output.params,
        args=(
            *args,
            scaling.zero_points[large],
            scaling.zero_points[small],
            (multiplier.mantissa >> 16) << (16 - dropped),
            multiplier.mantissa & 0xFFFF,
            *((-multiplier.shift,) if multiplier.shift < 0 else ()),
            *scaling.output.args,
        ),
        helpers=(
            scaling.output.helper,
            int16.activate(scaling.dtype),
            *(("round_right",) if multiplier.shift else ()),
        ),
        overlap=overlap(graph, node),
        cycles=35 * graph.output(node).elements,
    )
