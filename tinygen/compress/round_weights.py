"""Round weights to few bits: int4 by default, each channel on a scale of its own.

The result are int8 tensors whose values are small: -7..7 for four bits.  Scales are searched for
the least output error; then each weight's rounding error is made up for by those that are still to
be rounded, and scales and weights are improved in turn.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from tinygen.compress import correction, layers
from tinygen.compress.base import Context, Method
from tinygen.compress.correction import Snap
from tinygen.compress.layers import Floats, Granularity, Layer, Moments, Solution
from tinygen.graph import Array, Graph

SHRINK = np.linspace(0.3, 1.0, 36)
"""Scales tried, in parts of the one that just holds the largest weight."""

ROUNDS = 3


class RoundSettings(layers.LayerSettings):
    bits: int = Field(default=4, ge=2, le=7)
    """Values are at most ``2**(bits - 1) - 1`` either way."""
    granularity: Granularity = "channel"
    """Whether each channel gets a scale, or all are rescaled alike."""
    error_limit: float | None = Field(default=None, gt=0)
    """Layers whose outputs would be off by more, squared and relative, stay int8."""


def apply(graph: Graph, settings: RoundSettings, context: Context) -> Graph:
    """``graph`` with weights of few bits in the chosen layers."""

    def solve(layer: Layer, moments: Moments) -> Solution | None:
        limit = (1 << (settings.bits - 1)) - 1
        if np.abs(layer.weights).max() <= limit:  # as training for few bits leaves it
            return None
        weights, ratio = rounded(layer, moments, limit, settings)
        if settings.error_limit is not None:
            error = correction.relative_error(layer, moments, weights * ratio)
            if error > settings.error_limit:
                return None
        return layers.solution_of(layer, moments, weights, ratio)

    return layers.rewrite(
        graph, layers.chosen(graph, settings), solve, context, settings, "rounding weights"
    )


def rounded(
    layer: Layer, moments: Moments, limit: int, settings: RoundSettings
) -> tuple[Floats, Floats]:
    """Whole numbers up to ``limit`` (groups, channels, taps) and the factor on the scales."""
    target = correction.target_of(layer, moments) if settings.correct else layer.grouped
    gram = moments.gram
    mask, snap = layers.zeros_kept(layer), correction.nearest_integers(limit)
    shared = settings.granularity == "tensor"
    ratio = searched_ratio(target, gram, limit, layer.importance if shared else None)
    weights = _once(target / ratio, gram, snap, mask, settings.correct)
    for _ in range(ROUNDS if settings.correct else 0):
        if not shared:
            ratio = correction.best_ratio(target, weights, gram, ratio)
        weights = correction.descend(weights, target / ratio, gram, snap, mask)
    return weights, ratio


def _once(target: Floats, gram: Floats, snap: Snap, mask: Array | None, correct: bool) -> Floats:
    if correct:
        return correction.round_in_turn(target, gram, snap, mask)
    return snap(target) if mask is None else np.where(mask, snap(target), 0)


def searched_ratio(
    target: Floats, gram: Floats, limit: int, importance: Floats | None = None
) -> Floats:
    """The factor on each channel's scale with which plain rounding errs least.

    (groups, channels, 1).  With ``importance`` of the channels' errors, one factor for all.
    """
    largest = np.abs(target).max(axis=2, keepdims=True)
    if importance is not None:
        largest = np.full_like(largest, largest.max())
    full = np.where(largest > 0, largest / limit, 1.0)
    errors = []
    for part in SHRINK:
        weights = np.clip(np.rint(target / (part * full)), -limit, limit)
        error = correction.quadratic(weights * part * full - target, gram)
        errors.append(
            error if importance is None else np.full_like(error, (error * importance).sum())
        )
    best: Floats = SHRINK[np.argmin(errors, axis=0)] * full
    return best


METHOD = Method(
    name="round_weights",
    stage="int8",
    summary="few-bit weights, rounding errors made up for; plain rounding without data",
    source="Frantar and others, GPTQ, 2022",
    settings=RoundSettings,
    apply=apply,
    needs="nothing",
)
