"""What a weight is made of while it is trained: a masked kernel, or values that weights share.

A form's ``variables`` are trained; its ``value``, a differentiable function of them, is what the
model computes with, and what it is left with.  :func:`held` finds the structure that kernels have
already, so that one method does not undo another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tinygen.compress import rewire
from tinygen.graph import Array

MOST_FOUND = 32
"""Most values that :func:`found` takes for shared."""


class Form(Protocol):
    """What a weight is made of: ``variables`` are trained, ``value`` is a function of them."""

    @property
    def variables(self) -> Sequence[Any]: ...

    def value(self) -> Any: ...


@dataclass(frozen=True, eq=False)
class Masked:
    """A kernel times a mask of the same shape, both Keras variables."""

    kernel: Any
    mask: Any

    @property
    def variables(self) -> Sequence[Any]:
        return (self.kernel,)

    def value(self) -> Any:
        return self.kernel.value * self.mask.value


@dataclass(frozen=True, eq=False)
class Codebook:
    """Rows (channels, weights) as ``scales[:, None] * entries[index]``.

    ``entries`` are float64 (k,), rising, or (channels, k); ``index`` int32 of the rows' shape;
    ``scales`` float64 (channels,).
    """

    entries: Array
    index: Array
    scales: Array

    @property
    def rows(self) -> Array:
        return self.scales[:, np.newaxis] * _look_up(self.entries, self.index)


def _look_up(entries: Array, index: Array) -> Array:
    whole = np.broadcast_to(entries, (len(index), entries.shape[-1]))
    return np.take_along_axis(whole, index, axis=1)


class Shared:
    """The kernel of ``layer`` made of a codebook, whose entries and scales are trained.

    -1, 0 and 1 stay as they are; the others stay between -1 and 1.  ``grid`` is the largest
    integer that entries are rounded to in passing, as :mod:`tinygen.compress.qat` does; None: not.
    """

    def __init__(self, layer: Any, book: Codebook, grid: int | None = None) -> None:
        import keras

        held = np.isin(book.entries, (-1.0, 0.0, 1.0))
        self.grid = grid
        self.depthwise = rewire.kind(layer) in rewire.DEPTHWISE
        self.shape = tuple(rewire.kernel(layer).shape)
        self.held = np.where(held, book.entries, 0.0).astype(np.float32)
        self.free = (~held).astype(np.float32)
        self.index = book.index.astype(np.int32)
        self.entries = keras.Variable(book.entries.astype(np.float32))
        self.scales = keras.Variable(book.scales.astype(np.float32))

    @property
    def variables(self) -> Sequence[Any]:
        return (self.entries, self.scales)

    def value(self) -> Any:
        import tensorflow as tf

        entries = self.held + self.free * tf.clip_by_value(self.entries.value, -1.0, 1.0)
        if self.grid is not None:
            entries = rounded(entries * self.grid) / self.grid
        several = len(self.held.shape) - 1
        rows = tf.gather(entries, self.index, batch_dims=several)
        rows = rows * tf.abs(self.scales.value)[:, tf.newaxis]
        return rewire.tensor_from_rows(rows, self.shape, self.depthwise)


def found(rows: Array) -> Codebook | None:
    """The codebook that the rows (channels, weights) have, if their weights share few values."""
    tops = np.abs(rows).max(axis=1)
    over = over_scales(rows.astype(np.float64), tops)
    entries, index = np.unique(np.round(over, 4), return_inverse=True)
    if not 2 <= len(entries) <= min(MOST_FOUND, int(np.count_nonzero(rows)) // 2):
        return None
    index = index.reshape(rows.shape)
    sums = np.bincount(index.reshape(-1), over.reshape(-1), len(entries))
    means = sums / np.bincount(index.reshape(-1), minlength=len(entries))
    exact = np.where(np.isin(entries, (-1.0, 0.0, 1.0)), entries, means)
    return Codebook(exact, index.astype(np.int32), tops)


def over_scales(rows: Array, scales: Array) -> Array:
    """Weights over their channel's scale, in -1..1."""
    safe = np.where(scales > 0, scales, 1.0)
    return np.clip(rows / safe[:, np.newaxis], -1, 1)


def held(model: Any, given: Mapping[str, Form]) -> dict[str, Form]:
    """Forms of kernels that keep shared values shared and zeros zero, but for those ``given``."""
    found_forms: dict[str, Form] = {}
    for layer in rewire.weighed(model):
        kernel = rewire.kernel(layer)
        if kernel.path not in given:
            form = form_of(layer)
            if form is not None:
                found_forms[kernel.path] = form
    return found_forms


def form_of(layer: Any) -> Form | None:
    """The form that holds the structure of the layer's kernel; None where it has none."""
    import keras

    kernel = rewire.kernel(layer)
    values = np.asarray(kernel)
    book = found(rewire.rows(layer, values))
    if book is not None:
        return Shared(layer, book)
    there = values != 0
    if there.all() or not there.any():
        return None
    return Masked(kernel, keras.Variable(there.astype(np.float32), trainable=False))


def settle(model: Any, forms: Mapping[str, Form]) -> None:
    """Leave the forms' values in the model."""
    for variable in model.variables:
        if variable.path in forms:
            variable.assign(forms[variable.path].value())


def rounded(values: Any) -> Any:
    """Rounded to integers in passing: gradients go through as if they were not."""
    import tensorflow as tf

    return values + tf.stop_gradient(tf.round(values) - values)
