"""Weights out of a restricted set that give a layer's outputs again: error correction.

The squared error of a layer's outputs is quadratic in its weights, its matrix the second moments of
the inputs.  :func:`round_in_turn` fixes one weight of each channel after the other while the rest
absorb the error (Frantar and Alistarh, "Optimal Brain Compression", 2022; Frantar et al., "GPTQ",
2022).  :func:`descend` then improves one weight at a time, all others given.  Both take any rule
that says which values a weight may have.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tinygen.compress.layers import Floats, Layer, Moments
from tinygen.graph import Array

Snap = Callable[[Floats], Floats]
"""The nearest allowed values to weights (groups, channels of a group) of one tap."""

DAMPING = 0.01
"""What is added to the diagonal of the moments, in parts of its mean."""

MAX_SWEEPS = 8


def damped(gram: Floats) -> Floats:
    """``gram`` (groups, taps, taps), safe to invert."""
    taps = gram.shape[-1]
    diagonal = np.einsum("gii->gi", gram)
    mean = diagonal.mean(axis=1)
    scale = np.where(mean > 0, mean, 1.0)
    return gram + DAMPING * scale[:, None, None] * np.eye(taps)


def target_of(layer: Layer, moments: Moments) -> Floats:
    """The weights, not restricted at all, that come nearest to the original outputs.

    (groups, channels of a group, taps), in units of the layer's scales.  Where the inputs are
    still the original ones, these are its weights; else they make up for what inputs have lost.
    """
    weights = layer.grouped
    if moments.cross is moments.gram or np.array_equal(moments.cross, moments.gram):
        return weights
    change = weights @ (moments.cross - moments.gram)
    more = np.linalg.solve(damped(moments.gram), change.transpose(0, 2, 1))
    return weights + more.transpose(0, 2, 1)


def round_in_turn(target: Floats, gram: Floats, snap: Snap, mask: Array | None = None) -> Floats:
    """Allowed values for ``target`` (groups, channels, taps), later taps making up for earlier.

    Taps are fixed in the order of their second moments, the largest first.  Where ``mask`` is
    False a weight is 0.
    """
    order = np.argsort(-np.einsum("gii->gi", gram), axis=1, kind="stable")
    ordered = np.take_along_axis(damped(gram), order[:, :, None], axis=1)
    ordered = np.take_along_axis(ordered, order[:, None, :], axis=2)
    left = np.take_along_axis(target, order[:, None, :], axis=2)
    allowed = None if mask is None else np.take_along_axis(mask, order[:, None, :], axis=2)
    factor = np.linalg.cholesky(np.linalg.inv(ordered)).transpose(0, 2, 1)  # upper
    fixed = np.empty_like(left)
    for tap in range(left.shape[2]):
        values = snap(left[:, :, tap])
        if allowed is not None:
            values = np.where(allowed[:, :, tap], values, 0)
        fixed[:, :, tap] = values
        error = (left[:, :, tap] - values) / factor[:, None, tap, tap]
        left[:, :, tap:] -= error[:, :, None] * factor[:, None, tap, tap:]
    back = np.argsort(order, axis=1, kind="stable")
    result: Floats = np.take_along_axis(fixed, back[:, None, :], axis=2)
    return result


def descend(
    weights: Floats,
    target: Floats,
    gram: Floats,
    snap: Snap,
    mask: Array | None = None,
    sweeps: int = MAX_SWEEPS,
) -> Floats:
    """``weights`` after moving one tap at a time to its best allowed value, until none moves.

    The error never grows.  Where ``mask`` is False a weight stays as it is.
    """
    found = weights.copy()
    curvature = damped(gram)
    slope = (found - target) @ curvature
    for _ in range(sweeps):
        moved = False
        for tap in range(found.shape[2]):
            step = curvature[:, None, tap, tap]
            values = snap(found[:, :, tap] - slope[:, :, tap] / step)
            change = values - found[:, :, tap]
            # A rule may be no exact nearest value: take what lowers the error, and no other.
            gain = change * (2 * slope[:, :, tap] + step * change)
            better = gain < -1e-9 * step
            if mask is not None:
                better &= mask[:, :, tap]
            if better.any():
                change = np.where(better, change, 0)
                found[:, :, tap] += change
                slope += change[:, :, None] * curvature[:, None, tap]
                moved = True
        if not moved:
            break
    return found


def squared_errors(layer: Layer, moments: Moments, weights: Floats) -> Floats:
    """Mean squared error of each channel's outputs, (groups, channels of a group).

    ``weights`` (groups, channels, taps) are in units of the layer's own scales; so is the error.
    """
    first = layer.grouped
    total = (first @ moments.original * first).sum(axis=2)
    total -= 2 * (first @ moments.cross * weights).sum(axis=2)
    total += (weights @ moments.gram * weights).sum(axis=2)
    errors: Floats = np.maximum(total, 0)
    return errors


def relative_error(layer: Layer, moments: Moments, weights: Floats) -> float:
    """Error of the layer's outputs over their own size, both squared means over all channels."""
    importance = layer.importance[:, :, 0]
    first = layer.grouped
    size = ((first @ moments.original * first).sum(axis=2) * importance).sum()
    error = (squared_errors(layer, moments, weights) * importance).sum()
    return float(error / size) if size > 0 else 0.0


def best_ratio(target: Floats, weights: Floats, gram: Floats, old: Floats) -> Floats:
    """The factor for each channel's ``weights`` that brings them nearest to ``target``.

    (groups, channels, 1); ``old`` where there is none above 0.
    """
    spread = weights @ gram
    size = (spread * weights).sum(axis=2, keepdims=True)
    common = (spread * target).sum(axis=2, keepdims=True)
    fine = (size > 0) & (common > 0)
    ratio: Floats = np.where(fine, common / np.where(size > 0, size, 1), old)
    return ratio


def quadratic(errors: Floats, gram: Floats) -> Floats:
    """``e' gram e`` of each channel of ``errors``, (groups, channels, 1)."""
    sums: Floats = ((errors @ gram) * errors).sum(axis=2, keepdims=True)
    return sums


def nearest_integers(limit: int) -> Snap:
    """The rule for whole numbers up to ``limit`` either way."""
    return lambda values: np.clip(np.rint(values), -limit, limit)
