"""Let weights share few values: a codebook of 2 to 32 whole numbers a tensor, or a channel.

The codebook lies in the int8 domain, after division by each channel's scale.  k-means, each weight
as important as its input is, gives the first codebook; weights are assigned one after
the other, the rest making up for each one's error; then scales, codebook and assignment are
improved in turn, each with the others given.  Without data this is k-means alone.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from tinygen.compress import correction, layers
from tinygen.compress.base import Context, Method
from tinygen.compress.correction import Snap
from tinygen.compress.layers import LIMIT, Floats, Granularity, Layer, Moments, Solution
from tinygen.graph import Array, Graph

Start = Literal["kmeans++", "density", "linear"]

ITERATIONS = 40
RESTARTS = 4
"""Random starts of k-means, of which the best counts."""

BINS_PER_UNIT = 8
"""Weights are counted in so many bins between two whole numbers, which bounds k-means' time."""

ROUNDS = 3


class ClusterSettings(layers.LayerSettings):
    entries: int = Field(default=16, ge=2, le=32)
    granularity: Granularity = "tensor"
    """What has a codebook of its own."""
    start: Start = "kmeans++"
    rescale: bool = True
    """Whether channels that have scales of their own may get others."""


def apply(graph: Graph, settings: ClusterSettings, context: Context) -> Graph:
    """``graph`` with at most ``settings.entries`` different weights a codebook."""

    def solve(layer: Layer, moments: Moments) -> Solution | None:
        if settings.granularity == "tensor" and _few(layer, settings.entries):
            return None
        weights, ratio = clustered(layer, moments, settings, context.seed)
        return layers.solution_of(layer, moments, weights, ratio)

    return layers.rewrite(
        graph, layers.chosen(graph, settings), solve, context, settings, "clustering weights"
    )


def _few(layer: Layer, entries: int) -> bool:
    """Whether the layer has a codebook already, as training with one leaves it."""
    return len(np.unique(layer.weights)) <= entries


def clustered(
    layer: Layer, moments: Moments, settings: ClusterSettings, seed: int
) -> tuple[Floats, Floats]:
    """Weights out of a codebook (groups, channels, taps) and the factor on the scales."""
    target = correction.target_of(layer, moments) if settings.correct else layer.grouped
    target, gram = np.clip(target, -LIMIT, LIMIT), moments.gram
    mask = layers.zeros_kept(layer)
    ratio = np.ones((*target.shape[:2], 1))
    diagonal = np.einsum("gii->gi", correction.damped(gram))[:, None]
    books = _first_books(target, diagonal, mask, settings, seed)
    snap = nearest(books, target.shape)
    if not settings.correct:
        each = [snap(target[:, :, tap]) for tap in range(target.shape[2])]
        return _masked(np.stack(each, axis=2), mask), ratio
    weights = correction.round_in_turn(target, gram, snap, mask)
    weights = correction.descend(weights, target, gram, snap, mask)
    best = weights, ratio, _error(weights * ratio - target, gram)
    for _ in range(ROUNDS):
        if settings.rescale and layer.per_channel:
            ratio = correction.best_ratio(target, weights, gram, ratio)
        books, weights = refitted(books, weights, target, gram, ratio)
        snap = nearest(books, target.shape)
        weights = correction.descend(weights, target / ratio, gram, snap, mask)
        error = _error(weights * ratio - target, gram)
        if error < best[2]:
            best = weights, ratio, error
    return best[:2]


def _error(errors: Floats, gram: Floats) -> float:
    """The sum over channels, each on its own scale: what follows may depend on the faint ones."""
    return float(correction.quadratic(errors, gram).sum())


def _masked(weights: Floats, mask: Array | None) -> Floats:
    return weights if mask is None else np.where(mask, weights, 0)


def _first_books(
    target: Floats, importance: Floats, mask: Array | None, settings: ClusterSettings, seed: int
) -> Floats:
    """Sorted codebooks (books, entries): one, or one a channel."""
    count = 1 if settings.granularity == "tensor" else target.shape[0] * target.shape[1]
    kept = np.ones(target.shape, dtype=bool) if mask is None else mask
    parts = (
        array.reshape(count, -1)
        for array in (target, np.broadcast_to(importance, target.shape), kept)
    )
    random = np.random.default_rng(seed)
    found = []
    for values, amounts, used in zip(*parts, strict=True):
        free = settings.entries - (mask is not None)
        book = codebook(values[used], amounts[used], free, settings.start, random)
        if mask is not None:
            book = np.union1d(book, [0.0])
        found.append(np.pad(book, (0, settings.entries - len(book)), mode="edge"))
    return np.stack(found)


def codebook(
    values: Floats, amounts: Floats, entries: int, start: Start, random: np.random.Generator
) -> Floats:
    """At most ``entries`` whole numbers, sorted, near ``values`` of importance ``amounts``.

    One-dimensional k-means (Lloyd, 1982) from random starts (Arthur and Vassilvitskii,
    "k-means++", 2007), from equal parts of the values, or from equal distances.
    """
    bins = np.rint(values * BINS_PER_UNIT).astype(np.int64)
    points, place = np.unique(bins, return_inverse=True)
    sums: Floats = np.bincount(place, amounts, len(points)).astype(np.float64)
    if not len(points) or not sums.any():
        return np.zeros(1)
    centres = points / BINS_PER_UNIT
    books = [_lloyd(centres, sums, f) for f in _starts(centres, sums, entries, start, random)]
    errors = [(sums * np.square(centres - b[_assigned(b, centres)])).sum() for b in books]
    return np.unique(np.clip(np.rint(books[int(np.argmin(errors))]), -LIMIT, LIMIT))


def _starts(
    centres: Floats, sums: Floats, entries: int, start: Start, random: np.random.Generator
) -> list[Floats]:
    if start == "density":
        return [_quantiles(centres, sums, entries)]
    if start == "linear":
        return [np.linspace(centres[0], centres[-1], entries)]
    return [_spread(centres, sums, entries, random) for _ in range(RESTARTS)]


def _spread(centres: Floats, sums: Floats, entries: int, random: np.random.Generator) -> Floats:
    """Starts drawn far from those drawn before."""
    chosen = [centres[random.choice(len(centres), p=sums / sums.sum())]]
    distance = np.square(centres - chosen[0])
    while len(chosen) < min(entries, len(centres)):
        chance = sums * distance
        if not chance.any():
            break
        chosen.append(centres[random.choice(len(centres), p=chance / chance.sum())])
        distance = np.minimum(distance, np.square(centres - chosen[-1]))
    return np.sort(chosen)


def _quantiles(centres: Floats, sums: Floats, entries: int) -> Floats:
    middle = (np.cumsum(sums) - sums / 2) / sums.sum()
    found: Floats = np.interp((np.arange(entries) + 0.5) / entries, middle, centres)
    return found


def _assigned(book: Floats, values: Floats) -> Array:
    return np.searchsorted((book[1:] + book[:-1]) / 2, values)


def _lloyd(centres: Floats, sums: Floats, book: Floats) -> Floats:
    for _ in range(ITERATIONS):
        place = _assigned(book, centres)
        total = np.bincount(place, sums, len(book))
        mean = np.bincount(place, sums * centres, len(book)) / np.where(total > 0, total, 1)
        after = np.sort(np.where(total > 0, mean, book))
        if np.array_equal(after, book):
            break
        book = after
    return book


def nearest(books: Floats, shape: tuple[int, ...]) -> Snap:
    """The rule for weights (groups, channels) out of ``books``: one, or one a channel."""
    if len(books) == 1:
        book = np.unique(books[0])
        return lambda values: book[_assigned(book, values)]
    each = books.reshape(*shape[:2], -1)

    def snap(values: Floats) -> Floats:
        place = np.abs(each - values[:, :, None]).argmin(axis=2)
        found: Floats = np.take_along_axis(each, place[:, :, None], axis=2)[:, :, 0]
        return found

    return snap


def refitted(
    books: Floats,
    weights: Floats,
    target: Floats,
    gram: Floats,
    ratio: Floats,
) -> tuple[Floats, Floats]:
    """Codebooks whose entries err least with the assignment as it is, and the weights with them.

    Least squares over the entries: the weights are sums of entries times indicators.  Entries are
    whole numbers, and those of 0 stay.
    """
    factor, count = ratio * ratio, len(books)
    members = [_indicator(weights, books, entry) for entry in range(books.shape[1])]
    spread = [((m @ gram) * factor).reshape(count, -1) for m in members]
    wanted = ((target / ratio) @ gram * factor).reshape(count, -1)
    flat = np.stack([m.reshape(count, -1) for m in members], axis=2)
    matrix = np.stack(spread, axis=1) @ flat
    right = (wanted[:, None] @ flat)[:, 0]
    values = books.copy()
    for book in range(count):
        free = (np.diag(matrix[book]) > 0) & (books[book] != 0)
        if free.any():
            part = matrix[book][np.ix_(free, free)]
            ridge = 1e-6 * np.trace(part) / len(part) * np.eye(len(part))
            values[book, free] = np.linalg.solve(part + ridge, right[book, free])
    values = np.clip(np.rint(values), -LIMIT, LIMIT)
    moved = (flat @ values[:, :, None])[:, :, 0].reshape(weights.shape)
    return np.sort(values, axis=1), moved


def _indicator(weights: Floats, books: Floats, entry: int) -> Floats:
    """1 where a weight is the book's entry, the first of those that are equal."""
    value = books[:, entry]
    first = np.ones(len(books), bool) if entry == 0 else books[:, entry - 1] != value
    shape = (*weights.shape[:2], 1) if len(books) > 1 else (1, 1, 1)
    found: Floats = ((weights == value.reshape(shape)) & first.reshape(shape)).astype(np.float64)
    return found


METHOD = Method(
    name="cluster_weights",
    stage="int8",
    summary="weights out of a codebook, errors made up for; plain k-means without data",
    source="Han, Mao and Dally, Deep Compression, 2016; Frantar and Alistarh, OBC, 2022",
    settings=ClusterSettings,
    apply=apply,
    needs="nothing",
)
