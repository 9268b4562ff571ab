"""Clustering: the weights of a layer share few values, which are then trained.

Han et al., "Deep Compression" (2016): one-dimensional k-means, then training of the centroids by
the sum of their weights' gradients.  Weights become integers channel by channel, so the values are
shared after division by a scale for each channel: a weight is scale * entry, with entries in -1..1.
The lowest entry is -1 and the highest 1, and every channel has a weight at one of them: its largest
is then the channel's scale, and int8 weights quantized by the largest have as many values as there
are entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from tinygen.compress import forms, rewire, train
from tinygen.compress.base import Context, Method
from tinygen.compress.forms import Codebook, Shared
from tinygen.errors import InputError
from tinygen.graph import Array

WHAT = "cluster"

SWEEPS = 30
"""Most rounds of k-means."""

SHRINKS = np.linspace(1.0, 0.1, 37)
"""Scales tried for a channel, over its largest weight."""

Start = Literal["linear", "density", "kmeans++"]


class ClusterSettings(train.Training):
    """How many values, and where they start."""

    entries: int = Field(
        default=16, ge=2, le=256, description="values that a layer's weights share"
    )
    scope: Literal["tensor", "channel"] = Field(
        default="tensor", description="values for a whole layer, or for each of its outputs"
    )
    start: Start = Field(
        default="kmeans++",
        description="evenly spaced, evenly many weights for each, or drawn far from each other",
    )
    depthwise: bool = Field(default=False, description="cluster depthwise filters too")
    layers: dict[str, Annotated[int, Field(ge=2, le=256)]] = Field(
        default={}, description="entries of single layers, by name"
    )
    skip: tuple[str, ...] = Field(default=(), description="names of layers to leave alone")
    epochs: int = Field(
        default=5, ge=0, le=100_000, description="passes over the data; 0: no training"
    )
    learning_rate: float = Field(
        default=5e-4, gt=0, le=10, description="at the start, falling along a cosine to nothing"
    )


def apply(model: Any, settings: ClusterSettings, context: Context) -> Any:
    """A copy of ``model`` whose layers' weights share values; zeros stay zeros if there are any.

    Biases stay as they are.
    """
    model = rewire.plain(model, WHAT)
    rng = np.random.default_rng(context.seed)
    made: dict[str, forms.Form] = {}
    for layer in _chosen(model, settings):
        k = settings.layers.get(layer.name, settings.entries)
        rows = rewire.rows(layer, np.asarray(rewire.kernel(layer), dtype=np.float64))
        if settings.scope == "tensor":
            books = [cluster(rows, k, settings.start, rng, layer.name)]
        else:
            books = [cluster(row[None], k, settings.start, rng, layer.name) for row in rows]
        made[rewire.kernel(layer).path] = Shared(layer, _stacked(books))
    hooks = train.Hooks(made)
    if settings.epochs:
        task = train.task(model, context.data(WHAT), WHAT)
        train.fit(model, task, settings, context, WHAT, hooks)
    else:
        forms.settle(model, made)
    return model


def _chosen(model: Any, settings: ClusterSettings) -> list[Any]:
    layers = rewire.weighed(model)
    rewire.known(layers, (*settings.skip, *settings.layers), WHAT)
    return [
        layer
        for layer in layers
        if layer.name in settings.layers
        or (
            layer.name not in settings.skip
            and (settings.depthwise or rewire.kind(layer) not in rewire.DEPTHWISE)
        )
    ]


def _stacked(books: Sequence[Codebook]) -> Codebook:
    """Codebooks of single channels as one; shorter ones repeat their last entry."""
    if len(books) == 1:
        return books[0]
    longest = max(len(book.entries) for book in books)
    entries = [np.pad(b.entries, (0, longest - len(b.entries)), mode="edge") for b in books]
    return Codebook(
        np.stack(entries),
        np.concatenate([b.index for b in books]),
        np.concatenate([b.scales for b in books]),
    )


def cluster(rows: Array, k: int, start: Start, rng: np.random.Generator, name: str) -> Codebook:
    """At most ``k`` values for ``rows`` (channels, weights) over the channels' scales.

    Scales and entries are bettered in turn, by the squared error of the weights.
    Raises :class:`InputError` when zeros are to be kept and leave no entries of both signs.
    """
    tops = np.abs(rows).max(axis=1)
    live = tops > 0
    zeros = bool((rows[live] == 0).any())
    if zeros and k < 3:
        raise InputError(
            f"{WHAT}: layer '{name}' has zeros to keep, which {k} entries cannot", "use 3 or more"
        )
    if not live.any():
        return Codebook(np.zeros(1), np.zeros(rows.shape, np.int32), tops)
    scales = tops
    entries = _held(_start(forms.over_scales(rows[live], scales[live]), k, start, rng), zeros)
    for _ in range(3):
        scales = _scales(rows, tops, entries, zeros)
        entries = _k_means(rows[live], scales[live], entries, zeros)
    scales = _scales(rows, tops, entries, zeros)
    return Codebook(entries, _nearest(rows, scales, entries, zeros), scales)


def _start(values: Array, k: int, start: Start, rng: np.random.Generator) -> Array:
    """``k`` first entries for ``values`` in -1..1, rising."""
    flat = np.sort(values[values != 0])
    if start == "linear":
        return np.linspace(-1, 1, k)
    if start == "density":
        quantiles: Array = np.quantile(flat, np.linspace(0, 1, k))
        return quantiles
    drawn = [float(rng.choice(flat))]
    near = np.full(len(flat), np.inf)
    for _ in range(k - 1):  # Arthur & Vassilvitskii 2007
        near = np.minimum(near, (flat - drawn[-1]) ** 2)
        total = near.sum()
        drawn.append(float(rng.choice(flat, p=near / total) if total > 0 else rng.choice(flat)))
    return np.sort(drawn)


def _held(entries: Array, zeros: bool) -> Array:
    """With -1, 1 and, if wanted, 0 in the places of the entries nearest to them; rising."""
    entries = np.sort(np.clip(entries, -1, 1))
    entries[0], entries[-1] = -1.0, 1.0
    if zeros:
        entries[1 + int(np.abs(entries[1:-1]).argmin())] = 0.0
    return np.sort(entries)


def _nearest(rows: Array, scales: Array, entries: Array, zeros: bool) -> Array:
    """Index of the entry nearest to each weight, int32; of a zero that of entry 0, if there is."""
    middle = (entries[1:] + entries[:-1]) / 2
    index = np.searchsorted(middle, forms.over_scales(rows, scales)).astype(np.int32)
    if zeros:
        index[rows == 0] = int(np.abs(entries).argmin())
    return index


def _scales(rows: Array, tops: Array, entries: Array, zeros: bool) -> Array:
    """For each channel the scale of the smallest squared error; none beyond its largest weight."""
    best, least = tops.copy(), np.full(len(rows), np.inf)
    for shrink in SHRINKS:
        scales = tops * shrink
        made = scales[:, np.newaxis] * entries[_nearest(rows, scales, entries, zeros)]
        error = ((rows - made) ** 2).sum(axis=1)
        best = np.where(error < least, scales, best)
        least = np.minimum(least, error)
    return best


def _k_means(rows: Array, scales: Array, entries: Array, zeros: bool) -> Array:
    """Lloyd's iteration, each channel counting by the square of its scale; -1, 0, 1 stay."""
    values = forms.over_scales(rows, scales)
    weights = np.broadcast_to(scales[:, np.newaxis] ** 2, rows.shape).reshape(-1)
    for _ in range(SWEEPS):
        index = _nearest(rows, scales, entries, zeros).reshape(-1)
        mass = np.bincount(index, weights, len(entries))
        sums = np.bincount(index, weights * values.reshape(-1), len(entries))
        moved = np.where(mass > 0, sums / np.where(mass > 0, mass, 1), entries)
        moved[np.isin(entries, (-1.0, 1.0) if not zeros else (-1.0, 0.0, 1.0))] = 0
        moved += np.where(np.isin(entries, (-1.0, 1.0)), entries, 0)
        moved = np.sort(moved)
        if np.abs(moved - entries).max() < 1e-7:
            break
        entries = moved
    return entries


METHOD = Method(
    name="cluster",
    stage="float",
    summary="let the weights of a layer share few values, and train these",
    source="Han, Mao & Dally, Deep Compression, 2016",
    settings=ClusterSettings,
    apply=apply,
)
