"""Requantization on cores that multiply 32 by 32 bits to 32, proved equal to TFLM's by thresholds.

The idea is that of :mod:`tinygen.ops.rescale`: both functions never decrease, so that they are
equal when they agree at every threshold from both sides.  The multiplier is cut into three parts of
10 or 9 bits, such that no product with an accumulator has more than 32 bits::

    product = acc * high + ((acc * middle + ((acc * low) >> 10)) >> 10)
    product += (product >> 31) * 2 * nudge          (where outputs have both signs)
    output = clamp8((product + (2 * zero_point + 1) * 2**(right - 1) + nudge) >> right)

The product is the accumulator times the multiplier, rounded down.  Where outputs have both signs,
TFLM's rounding of halves away from zero puts negative outputs one unit of its 31-bit product lower:
that is the line before the last.  ``nudge`` is half of a unit, or a little less.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinygen.graph import Array
from tinygen.numerics import Int64Array
from tinygen.ops.common import Requant
from tinygen.ops.rescale import thresholds

WIDTHS = (10, 9)
"""Bits of each of a multiplier's three parts."""

_TRIES = 65
"""Multipliers tried for a channel, from the nearest on."""

_LESS = (0, 1, 2, 4)
"""How much less than half of a unit a nudge may be, in the order of trial."""


@dataclass(frozen=True, eq=False)
class Split:
    """One uint32 word a channel: the parts of the multiplier, ``width`` bits each, from the top on,
    and in the bits left over how much further than ``shift`` to shift."""

    words: Array
    width: int
    both_signs: bool
    zero_point: int
    shift: int
    nudge: int

    @property
    def kind(self) -> str:
        """What the C code is called."""
        return f"split{self.width}" + ("_signed" if self.both_signs else "")

    def apply(self, acc: Int64Array) -> Int64Array:
        """Outputs for accumulators whose last axis is the channel, as the C code computes them."""
        words, spare = self.words.astype(np.int64), 32 - 3 * self.width
        right = self.shift + (words & ((1 << spare) - 1))
        sign = self.nudge if self.both_signs else 0
        product = _product(acc, words >> spare, self.width, sign)
        constant = ((2 * self.zero_point + 1) << (right - 1)) + self.nudge
        output: Int64Array = np.clip((product + constant) >> right, -128, 127)
        return output


def _product(acc: Array, multiplier: Int64Array, width: int, nudge: int) -> Int64Array:
    value: Int64Array = (acc * multiplier) >> (2 * width)
    return value + (value >> 63) * 2 * nudge


def solve_split(scaling: Requant, least: Int64Array, greatest: Int64Array) -> Split | None:
    """The form that equals ``scaling`` on accumulators from ``least`` to ``greatest`` (int64, one
    of each a channel), or None when there is none."""
    if not scaling.fast or (scaling.low, scaling.high) != (-128, 127):
        return None
    steps = thresholds(scaling, least, greatest)
    for width in WIDTHS:
        for less in _LESS:
            nudge = (1 << (width - 1)) - less
            split = _search(scaling, steps, least, greatest, width, nudge)
            if split is not None:
                return split
    return None


def _search(
    scaling: Requant,
    steps: Array,
    least: Int64Array,
    greatest: Int64Array,
    width: int,
    nudge: int,
) -> Split | None:
    """The form with parts of ``width`` bits and one ``nudge``, or None."""
    mantissa = np.broadcast_to([m.mantissa for m in scaling.multipliers], least.shape)
    right = np.broadcast_to([-m.shift for m in scaling.multipliers], least.shape).astype(np.int64)
    magnitude = np.maximum(np.abs(least), np.abs(greatest))
    further, spare = right - right.min(), 32 - 3 * width
    if int(magnitude.max()) << width >= 1 << 31 or int(further.max()) >> spare:
        return None
    shift, sign = right + width, nudge if scaling.zero_point > -128 else 0
    nearest = (mantissa.astype(np.int64) + (1 << (30 - 3 * width))) >> (31 - 3 * width)
    constant = ((2 * scaling.zero_point + 1) << (shift - 1)) + nudge
    room = (1 << 31) - np.abs(constant) - (4 << width)
    needed = (np.arange(-127, 128, dtype=np.int64) << shift[:, None]) - constant[:, None]
    words = np.full(least.shape, -1, dtype=np.int64)
    for distance in sorted(range(-(_TRIES // 2), _TRIES // 2 + 1), key=abs):
        trial = np.clip(nearest + distance, 1, (1 << 3 * width) - 1)
        at, below = (_product(a, trial[:, None], width, sign) for a in (steps, steps - 1))
        good = ((at >= needed) | (steps > greatest[:, None])).all(axis=1)
        good &= ((below < needed) | (steps <= least[:, None])).all(axis=1)
        good &= (magnitude * trial >> (2 * width)) < room
        words = np.where(good & (words < 0), trial << spare | further, words)
    if (words < 0).any():
        return None
    first = int(right.min()) + width
    return Split(words.astype(np.uint32), width, sign > 0, scaling.zero_point, first, nudge)
