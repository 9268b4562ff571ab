"""Examples to train, calibrate and evaluate on, as ``.npz`` files hold them."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tinygen.errors import InputError
from tinygen.graph import Array

INPUTS, LABELS = ("inputs", "x"), ("labels", "y")
"""Names of the arrays in a file, the first that is there being taken."""


@dataclass(frozen=True, eq=False)
class Data:
    """Examples for a network with one input.

    ``inputs`` are real values, float32 (n, *shape of one input without the batch).  ``labels`` are
    classes, int64 (n,), or targets, float32 (n, ...), or None where there are none.  ``stored`` is
    the element type that the inputs' file has.
    """

    inputs: Array
    labels: Array | None = None
    stored: str = "float32"

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def classes(self) -> int | None:
        """Number of classes, None when labels are targets or missing."""
        if self.labels is None or self.labels.dtype.kind != "i":
            return None
        return int(self.labels.max(initial=-1)) + 1

    def take(self, rows: Array) -> Data:
        """The examples at ``rows`` (indices)."""
        labels = None if self.labels is None else self.labels[rows]
        return replace(self, inputs=self.inputs[rows], labels=labels)

    def first(self, count: int) -> Data:
        return self.take(np.arange(min(count, len(self))))

    def split(self, part: float, seed: int = 0) -> tuple[Data, Data]:
        """Two parts drawn at random: the examples but ``part`` of them, and these."""
        order = np.random.default_rng(seed).permutation(len(self))
        held = max(1, round(part * len(self)))
        return self.take(np.sort(order[held:])), self.take(np.sort(order[:held]))


def load(path: Path) -> Data:
    """Read ``path``: an array ``inputs`` (or ``x``) and, if there are any, ``labels`` (or ``y``).

    Integer inputs are taken as real values.  Integer labels are classes, of shape (n,) or (n, 1).
    Raises :class:`InputError` for a file that is none, or whose arrays do not fit each other.
    """
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise ValueError("one array, without a name")
        with file:
            arrays = {name: file[name] for name in (*INPUTS, *LABELS) if name in file.files}
            names = ", ".join(file.files)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}", "give an .npz file") from error
    except (ValueError, EOFError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not an .npz file of numbers: {error}") from error
    inputs = next((arrays[name] for name in INPUTS if name in arrays), None)
    labels = next((arrays[name] for name in LABELS if name in arrays), None)
    if inputs is None:
        raise InputError(
            f"{path.name}: has {names or 'no arrays'}, and none named inputs",
            "name the arrays inputs and labels",
        )
    if inputs.dtype.kind not in "fiu" or inputs.ndim < 2 or not len(inputs):
        raise InputError(f"{path.name}: inputs are {inputs.dtype} {inputs.shape}, not examples")
    if not np.isfinite(inputs).all():
        raise InputError(f"{path.name}: inputs have values that are no numbers")
    stored = inputs.dtype.name
    return Data(inputs.astype(np.float32), _labels(path.name, labels, len(inputs)), stored)


def _labels(name: str, labels: Array | None, count: int) -> Array | None:
    if labels is None:
        return None
    if len(labels) != count:
        raise InputError(f"{name}: {count} inputs and {len(labels)} labels")
    if labels.dtype.kind in "iu" and labels.size == count:
        classes = labels.reshape(-1).astype(np.int64)
        if classes.min() < 0:
            raise InputError(f"{name}: a label is negative")
        return classes
    if labels.dtype.kind not in "fiu" or not np.isfinite(labels).all():
        raise InputError(f"{name}: labels are {labels.dtype} {labels.shape}, not numbers")
    return labels.astype(np.float32)
