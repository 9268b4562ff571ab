"""Sparse recovery: the sparsest weights that give a layer's outputs again on examples, no labels.

Layer by layer, each given the inputs that it has in the network as compressed so far, a solver
chooses which weights stay; these are then fitted to the original outputs by least squares and
rounded.  Solvers: ``elimination`` takes away, a few at a time, what the others make up for best
(Hassibi and Stork, "Optimal Brain Surgeon", 1993; Frantar and Alistarh, "Optimal Brain
Compression", 2022); ``omp`` adds what explains most of the rest (orthogonal matching pursuit, Pati
et al., 1993); ``lasso`` follows the path of a penalty on magnitudes by coordinate descent (Friedman
et al., 2010); ``magnitude`` keeps the largest weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from tinygen.compress import correction, layers
from tinygen.compress.base import Context, Method
from tinygen.compress.layers import LIMIT, Floats, Layer, Moments, Solution
from tinygen.datasets import Data
from tinygen.graph import Array, Graph
from tinygen.ops import depthwise_conv2d

Solver = Literal["elimination", "omp", "lasso", "magnitude"]

PART = 0.12
"""Largest part of what is left that elimination takes away before it looks again."""

ADDITIONS = 16
"""In how many steps matching pursuit chooses a channel's weights."""

PENALTY_FACTOR, PENALTIES, PENALTY_SWEEPS = 0.7, 40, 4
"""Each penalty of the path over the one before, most of them, and sweeps at each."""

HALVINGS = 4
"""Steps of the search for the sparsity that an error limit allows."""


class RecoverSettings(layers.LayerSettings):
    sparsity: float = Field(default=0.5, ge=0, le=0.98)
    """Part of each layer's weights that become zero."""
    error_limit: float | None = Field(default=None, gt=0)
    """Largest error of a layer's outputs, squared and relative: sparsity then is what is tried at
    most."""
    solver: Solver = "elimination"
    pattern: str = Field(default="any", pattern=r"^(any|1x[1-9]\d?|[1-9]\d?:[1-9]\d?)$")
    """any; 1x4: blocks of 4 neighbouring inputs of an output; 2:4: 2 of 4 stay."""
    depthwise: bool = False
    """Whether depthwise filters, which have few taps, become sparse too."""


@dataclass(frozen=True)
class Pattern:
    """Which weights go together (``block`` neighbours) or stay (``keep`` of each ``of``)."""

    block: int = 1
    keep: int = 0
    of: int = 0

    @staticmethod
    def parse(text: str) -> Pattern:
        if "x" in text:
            return Pattern(block=int(text.split("x")[1]))
        if ":" in text:
            keep, of = map(int, text.split(":"))
            return Pattern(keep=min(keep, of), of=of)
        return Pattern()

    @property
    def unit(self) -> int:
        """Taps come in multiples of this."""
        return self.of or self.block


def apply(graph: Graph, settings: RecoverSettings, context: Context) -> Graph:
    """``graph`` with sparse weights in the chosen layers.

    Raises :class:`InputError` when there are no examples, unless the solver needs none.
    """
    if settings.solver != "magnitude":
        context.data("recover")
    chosen = [
        layer
        for layer in layers.chosen(graph, settings)
        if settings.depthwise or layer.op != depthwise_conv2d.OP.name
    ]

    def solve(layer: Layer, moments: Moments) -> Solution | None:
        return sparse(layer, moments, settings)

    return layers.rewrite(graph, chosen, solve, context, settings, "recovering sparse weights")


def sparse(layer: Layer, moments: Moments, settings: RecoverSettings) -> Solution | None:
    """The layer at the sparsity asked for, or at the largest that the error limit allows."""
    pattern = Pattern.parse(settings.pattern)
    target = correction.target_of(layer, moments) if settings.correct else layer.grouped

    def at(sparsity: float) -> tuple[Floats, Floats]:
        mask = choose(target, moments.gram, layer.importance, sparsity, settings.solver, pattern)
        if not settings.correct:
            return np.where(mask, target, 0), np.ones((*target.shape[:2], 1))
        return fitted(layer, target, moments.gram, mask)

    weights, ratio = at(settings.sparsity)
    limit = settings.error_limit
    if limit is None or correction.relative_error(layer, moments, weights * ratio) <= limit:
        return layers.solution_of(layer, moments, weights, ratio)
    if pattern.of:
        return None
    best, low, high = None, 0.0, settings.sparsity
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        weights, ratio = at(middle)
        if correction.relative_error(layer, moments, weights * ratio) <= limit:
            best, low = (weights, ratio), middle
        else:
            high = middle
    return None if best is None else layers.solution_of(layer, moments, *best)


def fitted(layer: Layer, target: Floats, gram: Floats, mask: Array) -> tuple[Floats, Floats]:
    """Whole numbers where ``mask`` is True, nearest to ``target``, and the factor on the scales."""
    return settled(layer, least_squares(target, gram, mask), target, gram, mask)


def settled(
    layer: Layer, free: Floats, target: Floats, gram: Floats, mask: Array
) -> tuple[Floats, Floats]:
    """Whole numbers near ``free``, the rounding made up for, and the factor on the scales."""
    largest = np.abs(free).max(axis=2, keepdims=True)
    if not layer.per_channel:
        largest = np.full_like(largest, largest.max())
    ratio = np.maximum(largest / LIMIT, 1.0)
    snap = correction.nearest_integers(LIMIT)
    return correction.descend(snap(free / ratio), target / ratio, gram, snap, mask), ratio


def least_squares(target: Floats, gram: Floats, mask: Array) -> Floats:
    """The weights, zero where ``mask`` is not True, whose outputs are nearest to the target's."""
    found = np.zeros_like(target)
    safe = correction.damped(gram)
    wanted = target @ safe
    for group, row in np.ndindex(target.shape[:2]):
        (kept,) = np.nonzero(mask[group, row])
        if kept.size:
            part = safe[group][np.ix_(kept, kept)]
            found[group, row, kept] = np.linalg.solve(part, wanted[group, row, kept])
    return found


def choose(
    target: Floats,
    gram: Floats,
    importance: Floats,
    sparsity: float,
    solver: Solver,
    pattern: Pattern,
) -> Array:
    """Which of the weights ``target`` (groups, channels, taps) stay."""
    taps = target.shape[2]
    more = -taps % pattern.unit
    padded = np.pad(target, ((0, 0), (0, 0), (0, more)))
    safe = np.zeros((len(gram), taps + more, taps + more))
    safe[:, :taps, :taps] = correction.damped(gram)
    safe[:, range(taps, taps + more), range(taps, taps + more)] = 1.0
    if solver == "magnitude":
        scores = np.square(padded) * importance
        return _best(scores, sparsity, pattern, taps)
    if solver == "lasso":
        count = round((1 - sparsity) * target.size)
        return _best(_path(padded, safe, importance, count), sparsity, pattern, taps)
    inverse = np.linalg.inv(safe)
    first = _best(
        _saliency(padded, inverse, pattern) * importance, sparsity, pattern, taps, per_block=True
    )
    counts = first.sum(axis=2)  # how many blocks each channel keeps
    mask = np.zeros(padded.shape, dtype=bool)
    for group, row in np.ndindex(target.shape[:2]):
        kept = int(counts[group, row])
        if solver == "omp":
            mask[group, row] = _pursued(padded[group, row], safe[group], kept, pattern)
        else:
            mask[group, row] = _eliminated(padded[group, row], inverse[group], kept, pattern)
    return mask[:, :, :taps]


def _best(
    scores: Floats, sparsity: float, pattern: Pattern, taps: int, per_block: bool = False
) -> Array:
    """The weights, or blocks, of the highest scores, as many as ``sparsity`` leaves.

    ``scores`` are of weights (groups, channels, taps), or of blocks when ``per_block``.
    """
    groups, rows = scores.shape[:2]
    if pattern.of:
        each = scores.reshape(groups, rows, -1, pattern.of)
        rank = np.argsort(np.argsort(-each, axis=3, kind="stable"), axis=3, kind="stable")
        mask = (rank < pattern.keep).reshape(scores.shape)
        return mask if per_block else mask[:, :, :taps]
    blocks = scores if per_block else scores.reshape(groups, rows, -1, pattern.block).sum(axis=3)
    count = round((1 - sparsity) * groups * rows * taps / pattern.block)
    flat = np.zeros(blocks.size, dtype=bool)
    flat[np.argsort(-blocks.reshape(-1), kind="stable")[:count]] = True
    mask = flat.reshape(blocks.shape)
    return mask if per_block else np.repeat(mask, pattern.block, axis=2)[:, :, :taps]


def _saliency(weights: Floats, inverse: Floats, pattern: Pattern) -> Floats:
    """Error of each block's removal when all others make up for it: (groups, channels, blocks)."""
    groups, rows, taps = weights.shape
    size = pattern.block
    count = taps // size
    at = np.arange(count)
    corners = inverse.reshape(groups, count, size, count, size)[:, at, :, at]  # blocks, groups
    curvature = np.linalg.inv(np.moveaxis(corners, 0, 1))[:, None]
    each = weights.reshape(groups, rows, count, size, 1)
    errors: Floats = (each.swapaxes(3, 4) @ curvature @ each)[..., 0, 0]
    return errors


def _eliminated(weights: Floats, inverse: Floats, kept: int, pattern: Pattern) -> Array:
    """Which ``kept`` blocks of a channel stay when the least needed go, a few at a time."""
    size = pattern.block
    left = np.arange(len(weights) // size)
    values, inverse = weights.copy(), inverse.copy()
    while len(left) > kept:
        scores = _saliency(values[None, None], inverse[None], pattern)[0, 0]
        order = np.argsort(scores, kind="stable")
        if pattern.of:
            order = _removable(order, left, pattern)
        count = min(len(left) - kept, max(1, int(PART * len(left))), len(order))
        if not count:
            break
        gone = np.zeros(len(left), dtype=bool)
        gone[order[:count]] = True
        out = np.repeat(gone, size)
        corner = np.linalg.inv(inverse[np.ix_(out, out)])
        bridge = inverse[np.ix_(~out, out)] @ corner
        values = values[~out] - bridge @ values[out]
        inverse = inverse[np.ix_(~out, ~out)] - bridge @ inverse[np.ix_(out, ~out)]
        left = left[~gone]
    mask = np.zeros(len(weights) // size, dtype=bool)
    mask[left] = True
    return np.repeat(mask, size)


def _removable(order: Array, left: Array, pattern: Pattern) -> Array:
    """Of weights in the order of their removal those whose group keeps enough without them."""
    room = np.bincount(left // pattern.of) - pattern.keep
    allowed = []
    for index in order:
        group = left[index] // pattern.of
        if room[group] > 0:
            room[group] -= 1
            allowed.append(index)
    return np.array(allowed, dtype=np.int64)


def _pursued(weights: Floats, gram: Floats, kept: int, pattern: Pattern) -> Array:
    """Which ``kept`` blocks of a channel matching pursuit takes, a few at a time."""
    size = pattern.block
    count = len(weights) // size
    at = np.arange(count)
    curvature = np.linalg.inv(gram.reshape(count, size, count, size)[at, :, at])
    chosen = np.zeros(count, dtype=bool)
    found = np.zeros_like(weights)
    wanted = gram @ weights
    step = max(1, kept // ADDITIONS)
    while chosen.sum() < kept:
        rest = (wanted - gram @ found).reshape(count, size, 1)
        scores = (rest.swapaxes(1, 2) @ curvature @ rest)[:, 0, 0]
        scores[chosen] = -1
        if pattern.of:
            full = chosen.reshape(-1, pattern.of).sum(axis=1) >= pattern.keep
            scores[np.repeat(full, pattern.of)] = -1
        amount = 1 if pattern.of else min(step, kept - int(chosen.sum()))
        chosen[np.argsort(-scores, kind="stable")[:amount]] = True
        (taps,) = np.nonzero(np.repeat(chosen, size))
        found[taps] = np.linalg.solve(gram[np.ix_(taps, taps)], wanted[taps])
    return np.repeat(chosen, size)


def _path(target: Floats, gram: Floats, importance: Floats, count: int) -> Floats:
    """How much weights (groups, channels, taps) count where ``count`` of them first are not zero.

    Coordinate descent over a falling penalty on each weight times the size of its input.
    """
    scale = np.sqrt(importance)
    wanted = target * scale
    norms = np.sqrt(np.einsum("gii->gi", gram))[:, None, :]
    found = np.zeros_like(wanted)
    slope = -wanted @ gram
    penalty = np.abs(slope / norms).max()
    for _ in range(PENALTIES):
        penalty *= PENALTY_FACTOR
        for _ in range(PENALTY_SWEEPS):
            for tap in range(wanted.shape[2]):
                step = gram[:, None, tap, tap]
                free = found[:, :, tap] - slope[:, :, tap] / step
                least = penalty * norms[:, :, tap] / step
                values = np.sign(free) * np.maximum(np.abs(free) - least, 0)
                change = values - found[:, :, tap]
                if change.any():
                    found[:, :, tap] = values
                    slope += change[:, :, None] * gram[:, None, tap]
        if np.count_nonzero(found) >= count:
            break
    scores: Floats = np.square(found * norms)
    return scores


@dataclass(frozen=True)
class Point:
    """A network at a sparsity: the squared error of its outputs, and its accuracy."""

    solver: Solver
    sparsity: float
    error: float
    accuracy: float


def curve(
    graph: Graph,
    sparsities: Sequence[float],
    context: Context,
    test: Data,
    solvers: Sequence[Solver] = ("magnitude", "elimination"),
    settings: RecoverSettings | None = None,
) -> tuple[Point, ...]:
    """Each solver at each sparsity, judged by examples ``test`` with labels.

    Magnitude pruning is as it is known: the smallest weights become zero, and nothing else changes.
    """
    wanted = layers.outputs(graph, test)
    points = []
    for solver in solvers:
        plain = {"correct": False, "correct_bias": False} if solver == "magnitude" else {}
        for sparsity in sparsities:
            fields = {"solver": solver, "sparsity": sparsity, **plain}
            chosen = (settings or RecoverSettings()).model_copy(update=fields)
            found = apply(graph, chosen, context)
            error = float(np.square(layers.outputs(found, test) - wanted).mean())
            points.append(Point(solver, sparsity, error, layers.accuracy(found, test)))
    return tuple(points)


METHOD = Method(
    name="recover",
    stage="int8",
    summary="sparse weights that give each layer's outputs again, without training or labels",
    source="Frantar and Alistarh, Optimal Brain Compression, 2022",
    settings=RecoverSettings,
    apply=apply,
)
