"""Ranges of activations, from what a float network computes for examples.

Two walks over the data at most: the first finds each tensor's smallest and largest value, the
second fills histograms between them, so that memory does not grow with the number of examples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from tinygen.compress import float_graph
from tinygen.errors import InputError
from tinygen.graph import Array, Graph, printable

Calibration = Literal["minmax", "percentile", "mse"]

Range = tuple[float, float]
"""Smallest and largest real value that a tensor is to hold; 0 lies between them."""

BINS = 2048
CANDIDATES = 256
"""Ends tried on each side of zero by the search for the smallest squared error."""


@dataclass(frozen=True, eq=False)
class Histogram:
    """How often values fell into ``BINS`` equal parts of ``low..high``, zeros apart."""

    low: float
    high: float
    counts: Array
    zeros: int = 0

    @property
    def centres(self) -> Array:
        width = (self.high - self.low) / len(self.counts)
        return self.low + width * (np.arange(len(self.counts)) + 0.5)


def ranges(
    graph: Graph,
    inputs: Array,
    calibration: Calibration = "minmax",
    percentile: float = 99.99,
    steps: int = 255,
    step: Callable[[], None] = lambda: None,
) -> dict[int, Range]:
    """The range of every tensor that ``graph`` (float32) computes or is given.

    ``inputs`` are examples, float32 (n, *shape of an input).  ``steps`` is the number of steps
    between the smallest and the largest quantized value, which the search for the smallest error
    (``mse``) needs.  ``step`` is called after every batch.  Raises :class:`InputError` when the
    network computes values that are no numbers.
    """
    extremes = _extremes(graph, inputs, step)
    if calibration == "minmax":
        return extremes
    narrow: Callable[[Histogram], Range] = (
        partial(percentile_range, percentile=percentile)
        if calibration == "percentile"
        else partial(mse_range, steps=steps)
    )
    found = _histograms(graph, inputs, extremes, step)
    return {index: narrow(histogram) for index, histogram in found.items()}


def batches_of(graph: Graph, inputs: Array, calibration: Calibration) -> int:
    """How many times :func:`ranges` calls ``step``."""
    return sum(1 for _ in float_graph.batches(graph, inputs)) * (1 + (calibration != "minmax"))


def _extremes(graph: Graph, inputs: Array, step: Callable[[], None]) -> dict[int, Range]:
    found: dict[int, Range] = {}
    for batch in float_graph.batches(graph, inputs):
        values = float_graph.run_all(graph, batch)
        for index in _activations(graph):
            low, high = float(values[index].min(initial=0)), float(values[index].max(initial=0))
            if not np.isfinite((low, high)).all():
                name = printable(graph.at(index).name)
                raise InputError(
                    f"{graph.source}: tensor {name!r} has values that are no numbers",
                    "look at the network and at the examples: something overflows",
                )
            before = found.get(index, (0.0, 0.0))
            found[index] = (min(low, before[0]), max(high, before[1]))
        step()
    return found


def _histograms(
    graph: Graph, inputs: Array, extremes: dict[int, Range], step: Callable[[], None]
) -> dict[int, Histogram]:
    counts = {i: np.zeros(BINS, dtype=np.int64) for i in extremes}
    zeros = dict.fromkeys(extremes, 0)
    for batch in float_graph.batches(graph, inputs):
        values = float_graph.run_all(graph, batch)
        for index, (low, high) in extremes.items():
            if low == high:
                continue
            some = values[index].reshape(-1)
            nonzero = some[some != 0]
            zeros[index] += some.size - nonzero.size
            counts[index] += np.histogram(nonzero, BINS, (low, high))[0]
        step()
    return {i: Histogram(*extremes[i], counts[i], zeros[i]) for i in extremes}


def _activations(graph: Graph) -> tuple[int, ...]:
    return (*graph.inputs, *(i for node in graph.nodes for i in node.outputs))


def percentile_range(histogram: Histogram, percentile: float) -> Range:
    """The range that leaves out ``100 - percentile`` percent of all values on each side."""
    counts, width = histogram.counts, (histogram.high - histogram.low) / len(histogram.counts)
    total = int(counts.sum()) + histogram.zeros
    if not total:
        return histogram.low, histogram.high
    left_out = total * (1 - percentile / 100)
    # A bin is left out when it lies wholly among the values that are.
    below = int(np.searchsorted(np.cumsum(counts), left_out, side="right"))
    above = int(np.searchsorted(np.cumsum(counts[::-1]), left_out, side="right"))
    low = min(histogram.low + width * below, 0.0)
    return low, max(histogram.high - width * above, 0.0)


def mse_range(histogram: Histogram, steps: int) -> Range:
    """The range of the smallest mean squared error at ``steps`` quantization steps.

    Values outside are moved to its nearer end; those inside by step**2 / 12 on average, but for
    zeros, which every range holds exactly.  All pairs of ends on a grid are tried.
    """
    if histogram.low == histogram.high:
        return histogram.low, histogram.high
    centres, counts = histogram.centres, histogram.counts.astype(np.float64)
    lows = np.linspace(0, histogram.low, CANDIDATES) if histogram.low < 0 else np.zeros(1)
    highs = np.linspace(0, histogram.high, CANDIDATES) if histogram.high > 0 else np.zeros(1)
    low_error, low_count = _outside(-centres[::-1], counts[::-1], -lows)
    high_error, high_count = _outside(centres, counts, highs)
    inside = counts.sum() - low_count[:, None] - high_count
    size = (highs[None, :] - lows[:, None]) / steps
    errors = low_error[:, None] + high_error + inside * size**2 / 12
    at = np.unravel_index(np.argmin(errors[::-1, ::-1]), errors.shape)  # of equals the widest
    return float(lows[::-1][at[0]]), float(highs[::-1][at[1]])


def _outside(centres: Array, counts: Array, ends: Array) -> tuple[Array, Array]:
    """Squared error and number of values above each of ``ends``, which are not negative.

    ``centres`` are in rising order.
    """
    powers = np.stack([counts, counts * centres, counts * centres**2])
    sums = np.concatenate([np.cumsum(powers[:, ::-1], axis=1)[:, ::-1], np.zeros((3, 1))], axis=1)
    count, first, second = sums[:, np.searchsorted(centres, ends, side="right")]
    return np.maximum(second - 2 * ends * first + ends**2 * count, 0), count
