"""The bundled digits network and scikit-learn's digits, split as its training split them."""

from __future__ import annotations

import functools

import numpy as np

from tinygen import importers, resources
from tinygen.datasets import Data
from tinygen.graph import Graph

TEST_IMAGES, SEED = 400, 7


def graph() -> Graph:
    return importers.load(resources.folder("examples") / "digits" / "digits_int8.tflite")


@functools.cache
def data() -> tuple[Data, Data]:
    """Images the network was trained on, and images it never saw: float32 (n, 8, 8, 1)."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)[..., np.newaxis]
    train, test, train_labels, test_labels = train_test_split(
        images,
        digits.target.astype(np.int64),
        test_size=TEST_IMAGES,
        stratify=digits.target,
        random_state=SEED,
    )
    return Data(train, train_labels), Data(test, test_labels)
