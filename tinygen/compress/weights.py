"""Weights as integers: symmetric, by scales for each channel or one for the tensor.

The rules are those of TensorFlow Lite's 8-bit quantization specification: zero points of 0, and
values in -127..127, or -7..7 for four bits.  Zero stays zero, and weights that lie on a grid of few
steps up to their channel's largest, as training with quantization leaves them, come out as exactly
that grid's integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from tinygen.graph import Array
from tinygen.numerics import float32

Grouping = Literal["per_channel", "per_tensor"]
WeightRange = Literal["max", "mse"]
Step = float | Literal["power_of_two"] | None

SHRINKS = np.linspace(1, 0.3, 71)
"""Parts of the largest weight that the search for the smallest error takes as the range."""

GRIDS = (1, 3, 7, 15, 31, 63)
"""Steps up to the largest weight of 2 to 7 bits."""

CODEBOOK = 32
"""Most values that a codebook in flash has."""

ON_GRID = 1e-4
"""How far from an integer a weight over its step may be, from rounding alone."""

DEAD_BIAS = 1 << 15
"""Part of the largest bias that a layer without weights counts biases in, over ``BIAS_LIMIT``."""

BIAS_LIMIT = 1 << 30
"""Largest quantized bias: it leaves half of an accumulator's range to the products."""


@dataclass(frozen=True, eq=False)
class Quantized:
    """Integers ``values`` (int8) that stand for ``values * scale`` along ``axis``.

    ``scale`` is float64 holding float32 values: one, or one for each index of ``axis``.
    """

    values: Array
    scale: Array
    axis: int

    @property
    def real(self) -> Array:
        """The weights that the integers stand for, float32."""
        shape = [1] * self.values.ndim
        shape[self.axis] = -1
        return (self.values * self.scale.reshape(shape)).astype(np.float32)


def quantize(
    weights: Array,
    axis: int,
    bits: int = 8,
    grouping: Grouping = "per_channel",
    weight_range: WeightRange = "max",
    step: Step = None,
    least: Array | float = 0.0,
) -> Quantized:
    """``weights`` (float32) with output channels along ``axis`` as integers of ``bits`` bits.

    ``weight_range`` ``max`` lets the largest weight be the largest integer, ``mse`` tries smaller
    ranges too and takes that of the smallest squared error, unless weights are clustered: channels
    of different ranges would no longer share their few values.  ``step`` is a scale for the whole
    tensor: weights beyond its range saturate; ``power_of_two`` is the finest that saturates none.
    No scale is below ``least`` (one value or one a channel).
    """
    largest = (1 << (bits - 1)) - 1
    rows = np.moveaxis(weights, axis, 0).reshape(weights.shape[axis], -1).astype(np.float64)
    groups = rows if grouping == "per_channel" and step is None else rows.reshape(1, -1)
    tops = np.abs(groups).max(axis=1)
    if step is None:
        steps = grid_of(groups, tops, largest)
        scale = tops / steps
        if weight_range == "mse" and steps == largest and not is_clustered(groups, tops):
            scale = scale * best_shrink(groups, scale, largest)
        scale = _without_zeros(scale, np.max(least) * DEAD_BIAS)
    elif step == "power_of_two":
        scale = np.exp2(np.ceil(np.log2(tops / largest))) if tops[0] > 0 else np.ones(1)
    else:
        scale = np.array([step], dtype=np.float64)
    least = np.asarray(least, dtype=np.float64).reshape(-1)
    scale = np.maximum(scale, least.max() if len(scale) == 1 else least)
    scale = np.array([float32(s) for s in np.maximum(scale, np.finfo(np.float32).tiny)])
    # Equal parts of different scales differ in their last bits, which must not decide a half.
    parts = np.round(rows / scale[:, None], 4)
    integers = np.clip(np.rint(parts), -largest, largest).astype(np.int8)
    shape = np.moveaxis(weights, axis, 0).shape
    values = np.ascontiguousarray(np.moveaxis(integers.reshape(shape), 0, axis))
    return Quantized(values, scale, axis)


def grid_of(groups: Array, tops: Array, largest: int) -> int:
    """The fewest steps from 0 to each row's largest (``tops``) that give all weights of ``groups``.

    Steps are those of widths from 2 bits up; ``largest`` when no coarser grid has all weights.
    """
    parts = groups / np.where(tops > 0, tops, 1)[:, None]
    for steps in GRIDS:
        if steps < largest and np.abs(parts * steps - np.rint(parts * steps)).max() < ON_GRID:
            return steps
    return largest


def is_clustered(groups: Array, tops: Array) -> bool:
    """Whether weights over their row's largest (``tops``) are at most ``CODEBOOK`` values.

    One value may fall, with its rounding, on two neighbouring steps of ``ON_GRID``.
    """
    parts = groups / np.where(tops > 0, tops, 1)[:, None]
    return len(np.unique(np.rint(parts / ON_GRID))) <= 2 * CODEBOOK


def _without_zeros(scale: Array, otherwise: float) -> Array:
    """Scales for channels without weights, which count their bias: the largest of the others'."""
    return np.where(scale > 0, scale, scale.max() or otherwise or 1.0)


def best_shrink(groups: Array, scale: Array, largest: int) -> Array:
    """For each row of ``groups`` the factor of its ``scale`` with the smallest squared error."""
    best, least = np.ones(len(groups)), np.full(len(groups), np.inf)
    safe = np.where(scale > 0, scale, 1.0)
    for shrink in SHRINKS:  # from 1 down: of equals the widest range is taken
        steps = (safe * shrink)[:, None]
        error = np.square(np.clip(np.rint(groups / steps), -largest, largest) * steps - groups)
        total = error.sum(axis=1)
        better = total < least * (1 - 1e-9)
        best, least = np.where(better, shrink, best), np.where(better, total, least)
    return best
