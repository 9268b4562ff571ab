"""Requantization in two instructions, proved equal to TFLM's for each channel.

TFLM's requantization (``MultiplyByQuantizedMultiplier``, zero point, clamp) maps accumulators to
int8 and never decreases, so at most 255 thresholds say all there is to know of it.  Kernels whose
accumulators carry a factor such as 256 have room for a finer offset than one accumulator unit; that
room, and the freedom in a 31-bit multiplier, let one multiplication without any rounding of its
own hit the same thresholds::

    clamp8((high(acc * multiplier) + rounding) >> shift)

where ``high`` is the upper word of a 64-bit product (``SMMUL``, ``SMMLA`` with the rounding added
at no cost, ``MULH``, ``VMULH``).  :func:`solve` searches multiplier and offset of each channel and
checks every threshold from both sides; since both functions never decrease, they are then equal
for every accumulator that the weights allow.

Outputs on both sides of the zero point mostly have no such form: TFLM rounds halves away from it,
so that negative outputs lie on another line than positive ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tinygen.graph import Array
from tinygen.numerics import INT32_MAX, Int64Array
from tinygen.ops.common import Requant

_TRIES, _BATCH = 1 << 10, 1 << 6
"""Multipliers tried for a channel, from the nearest on, and how many at a time."""

_NEVER = 1 << 62


@dataclass(frozen=True, eq=False)
class Rescale:
    """What a kernel needs: see the module's formula.

    ``multiplier`` (int32, 1 to 2**31 - 1) and ``offset`` (int32) have one entry a channel; the
    offset is to be added to the scaled accumulator's start.  ``rounding`` holds the zero point.
    """

    multiplier: Array
    offset: Array
    shift: int
    rounding: int

    def apply(self, acc: Int64Array) -> Int64Array:
        """Outputs for scaled accumulators, offset included, whose last axis is the channel."""
        high = (acc * self.multiplier.astype(np.int64)) >> 32
        output: Int64Array = np.clip((high + self.rounding) >> self.shift, -128, 127)
        return output


def accumulator_range(
    filters: Array, zero_point: int, bias: Int64Array
) -> tuple[Int64Array, Int64Array]:
    """Least and greatest ``bias + sum(w * (x - zero_point))`` of each channel over int8 inputs.

    ``filters`` has one output channel a row; taps outside an image count as ``x = zero_point``.
    """
    wide = filters.astype(np.int64)
    ends = np.stack([wide * (-128 - zero_point), wide * (127 - zero_point)])
    return bias + ends.min(axis=0).sum(axis=1), bias + ends.max(axis=0).sum(axis=1)


def thresholds(scaling: Requant, least: Int64Array, greatest: Int64Array) -> Array:
    """For each channel and each output from -127 to 127, the least accumulator that reaches it.

    (channels, 255), int64; ``greatest + 1`` where none within ``least..greatest`` does.  Requires
    ``scaling.fast``, with which the function never decreases.
    """
    channels = len(least)
    mantissa, right = _fixed_point(scaling, channels)
    outputs = np.arange(-127, 128, dtype=np.int64)[None, :]
    real = np.maximum(mantissa, 1) * np.exp2(-31.0 - right)
    guess = np.ceil((outputs - scaling.zero_point - 0.5) / real[:, None])
    guess = np.clip(guess, least[:, None] - 8, greatest[:, None] + 8).astype(np.int64)
    # Two roundings of half a unit move a threshold by less than two accumulators each way.
    found = greatest[:, None] + 1
    for distance in range(4, -5, -1):
        candidate = guess + distance
        high = (candidate * mantissa[:, None] + (1 << 30)) >> 31
        half = np.int64(1) << (right - 1)
        value = ((high + (high >> 63) + half[:, None]) >> right[:, None]) + scaling.zero_point
        value = np.clip(value, scaling.low, scaling.high)
        found = np.where((value >= outputs) & (candidate <= greatest[:, None]), candidate, found)
    return np.maximum(found, least[:, None])


def solve(
    scaling: Requant,
    least: Int64Array,
    greatest: Int64Array,
    scale: int = 256,
    shifts: Iterable[int] | None = None,
) -> Rescale | None:
    """The form that equals ``scaling`` on accumulators from ``least`` to ``greatest`` (int64, one
    of each a channel).

    ``scale`` is the factor that the kernel's accumulators carry.  ``shifts`` are tried in order,
    by default from the largest possible on down.  None when there is no such form: ``scaling`` is
    not ``fast``, clamps within int8, accumulators are too large, or no multiplier hits all
    thresholds.
    """
    if not scaling.fast or (scaling.low, scaling.high) != (-128, 127):
        return None
    room = INT32_MAX - scale * int(max(np.abs(least).max(), np.abs(greatest).max()))
    mantissa, right = _fixed_point(scaling, len(least))
    real = mantissa * np.exp2(-31.0 - right)
    moving = least < greatest
    if room < scale or not real[moving].all():
        return None
    # A channel that is constant takes any scale.
    real = np.where(moving, real, real[moving].max(initial=2.0**-8))
    steps = thresholds(scaling, least, greatest)
    largest = min(int(np.floor(np.log2(scale) - 1 - np.log2(real.max()))), 20)
    for shift in range(largest, max(largest - 6, 0), -1) if shifts is None else shifts:
        if 1 <= shift <= largest:
            found = _search(steps, least, greatest, real, scaling.zero_point, scale, shift)
            if found is not None and int(np.abs(found.offset).max()) <= room:
                return found
    return None


def _search(
    steps: Array,
    least: Int64Array,
    greatest: Int64Array,
    real: Array,
    zero_point: int,
    scale: int,
    shift: int,
) -> Rescale | None:
    """Multipliers and offsets for all channels with one ``shift``, or None."""
    rounding = (zero_point << shift) + (1 << (shift - 1))
    outputs = np.arange(-127, 128, dtype=np.int64)
    needed = ((outputs << shift) - rounding) << 32
    nearest = np.rint(real * 2.0 ** (32 + shift) / scale).astype(np.int64)
    multiplier, offset = np.zeros_like(nearest), np.zeros_like(nearest)
    distances = np.arange(_TRIES)
    distances = (distances + 1) // 2 * np.where(distances % 2, 1, -1)
    rows = np.arange(len(nearest))
    first = 0
    while rows.size and first < _TRIES:
        count = 1 if first < 8 else _BATCH
        trial = nearest[rows, None] + distances[None, first : first + count]
        first += count
        good, chosen = _offsets(trial, steps[rows], least[rows], greatest[rows], needed, scale)
        hit, which = good.any(axis=1), good.argmax(axis=1)
        at = np.arange(rows.size)
        multiplier[rows[hit]] = trial[at, which][hit]
        offset[rows[hit]] = chosen[at, which][hit]
        rows = rows[~hit]
        if first == 8 and rows.size > max(len(nearest) // 2, 4):
            return None  # the form does not suit this layer
    if rows.size:
        return None
    return Rescale(multiplier.astype(np.int32), offset.astype(np.int32), shift, rounding)


def _offsets(
    trial: Int64Array,
    steps: Array,
    least: Int64Array,
    greatest: Int64Array,
    needed: Int64Array,
    scale: int,
) -> tuple[Array, Int64Array]:
    """For each row (a channel) and trial multiplier whether an offset hits all ``steps``, and it.

    With offset e, ``(scale * step + e) * multiplier`` must reach what is ``needed``, and one
    accumulator less must not: two bounds on ``e * multiplier``.
    """
    missing = needed - scale * steps[:, None, :] * trial[:, :, None]
    reached = (steps <= greatest[:, None])[:, None, :]
    missed = (steps > least[:, None])[:, None, :]
    low = np.where(reached, missing, -_NEVER).max(axis=2)
    high = np.where(missed, missing, _NEVER).min(axis=2) + scale * trial
    divisor = np.maximum(trial, 1)
    chosen = np.where(low > -_NEVER, -(-low // divisor), (high - 1) // divisor)
    return (chosen * divisor < high) & (trial > 0) & (trial <= INT32_MAX), chosen


def _fixed_point(scaling: Requant, channels: int) -> tuple[Int64Array, Int64Array]:
    """Mantissa and shift to the right of each channel."""
    mantissa = np.array([m.mantissa for m in scaling.multipliers], dtype=np.int64)
    right = np.array([-m.shift for m in scaling.multipliers], dtype=np.int64)
    return np.broadcast_to(mantissa, channels), np.broadcast_to(right, channels)
