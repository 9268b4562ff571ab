"""Requantization on cores that multiply 32 by 32 bits to 32, proved equal to TFLM's by thresholds.

The idea is that of :mod:`tinygen.ops.rescale`: both functions never decrease, so that they are
equal when they agree at every threshold from both sides.  The multiplier is cut into two or three
parts, such that no product with an accumulator has more than 32 bits::

    product = acc * high + ((acc * low) >> 12)                                11 + 12 bits
    product = acc * high + ((acc * middle + ((acc * low) >> 9)) >> 9)   10 (or 9) + 9 + 9 bits
    product += (product >> 31) << bits(high)        (where outputs have both signs)
    output = clamp8((product + constant) >> (right + bits(high)))

The product is the accumulator times the multiplier, rounded down.  Where outputs have both signs,
TFLM's rounding of halves away from zero puts negative outputs one unit of its 31-bit product lower:
that is the third line.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinygen.graph import Array
from tinygen.numerics import Int64Array
from tinygen.ops.common import Requant
from tinygen.ops.rescale import thresholds

PARTS = ((11, 12), (10, 9, 9), (9, 9, 9))
"""Bits of a multiplier's parts, the highest first."""

_FINE = 8
"""Step of the constant that a word of two parts holds in 5 bits; one of three parts has no room."""

_TRIES = 65
"""Multipliers tried for a channel, from the nearest on."""

_NEVER = 1 << 62


@dataclass(frozen=True, eq=False)
class Split:
    """One uint32 word a channel: two parts of a multiplier (11 and 12 bits) and 5 bits of the
    constant, or three parts (10, 9 and 9 bits); then the shift to the right (4 bits)."""

    words: Array
    parts: tuple[int, ...]
    both_signs: bool
    zero_point: int

    def apply(self, acc: Int64Array) -> Int64Array:
        """Outputs for accumulators whose last axis is the channel, as the C code computes them."""
        words = self.words.astype(np.int64)
        bits, right = self.parts[0], words & 15
        fine = _FINE * ((words >> 4) & 31) - 16 * _FINE if len(self.parts) == 2 else 0
        multiplier = words >> (9 if len(self.parts) == 2 else 4)
        product = _product(acc, multiplier, self.parts, self.both_signs)
        constant = ((2 * self.zero_point + 1) << (right + bits - 1)) + (1 << (bits - 1)) + fine
        output: Int64Array = np.clip((product + constant) >> (right + bits), -128, 127)
        return output


def _product(
    acc: Array, multiplier: Int64Array, parts: tuple[int, ...], both_signs: bool
) -> Int64Array:
    value: Int64Array = (acc * multiplier) >> sum(parts[1:])
    return value + ((value >> 63) << parts[0]) if both_signs else value


def solve_split(scaling: Requant, least: Int64Array, greatest: Int64Array) -> Split | None:
    """The form that equals ``scaling`` on accumulators from ``least`` to ``greatest`` (int64, one
    of each a channel), or None when there is none."""
    right = np.broadcast_to([-m.shift for m in scaling.multipliers], least.shape)
    if not scaling.fast or (scaling.low, scaling.high) != (-128, 127) or right.max() > 15:
        return None
    steps = thresholds(scaling, least, greatest)
    both_signs = scaling.zero_point > -128
    for parts in PARTS:
        words = _search(scaling, steps, least, greatest, parts, both_signs)
        if words is not None:
            return Split(words, parts, both_signs, scaling.zero_point)
    return None


def _search(
    scaling: Requant,
    steps: Array,
    least: Int64Array,
    greatest: Int64Array,
    parts: tuple[int, ...],
    both_signs: bool,
) -> Array | None:
    """Words of all channels for one cut of the multipliers, or None."""
    mantissa = np.broadcast_to([m.mantissa for m in scaling.multipliers], least.shape)
    right = np.broadcast_to([-m.shift for m in scaling.multipliers], least.shape).astype(np.int64)
    magnitude = np.maximum(np.abs(least), np.abs(greatest))
    if int(magnitude.max()) << max(parts) >= 1 << 31:
        return None
    bits, width, shift = parts[0], sum(parts), right + parts[0]
    nearest = (mantissa.astype(np.int64) + (1 << (30 - width))) >> (31 - width)
    base = ((2 * scaling.zero_point + 1) << (shift - 1)) + (1 << (bits - 1))
    if int((magnitude << bits).max() + np.abs(base).max()) + (4 << bits) >= 1 << 31:
        return None
    needed = np.arange(-127, 128, dtype=np.int64) << shift[:, None]
    words = np.full(least.shape, -1, dtype=np.int64)
    for distance in sorted(range(-(_TRIES // 2), _TRIES // 2 + 1), key=abs):
        trial = np.clip(nearest + distance, 1, (1 << width) - 1)
        at, below = (_product(a, trial[:, None], parts, both_signs) for a in (steps, steps - 1))
        low = np.where(steps <= greatest[:, None], needed - at, -_NEVER).max(axis=1) - base
        high = np.where(steps > least[:, None], needed - below, _NEVER).min(axis=1) - base
        word = trial << (9 if len(parts) == 2 else 4) | right
        if len(parts) == 2:
            fine = np.clip(-(-low // _FINE), -16, 15)
            good = (low <= _FINE * fine) & (_FINE * fine < high)
            word |= (fine + 16) << 4
        else:
            good = (low <= 0) & (high > 0)
        words = np.where(good & (words < 0), word, words)
    return words.astype(np.uint32) if (words >= 0).all() else None
