"""Train a depthwise-separable network to spot ten words, and write it in float and in int8.

    pip install "tinygen[train]"
    python -m examples.keywords.data
    python -m examples.keywords.train

The network is a DS-CNN as in Zhang et al., "Hello Edge: keyword spotting on microcontrollers"
(2017), with fewer positions and more filters towards the end.  Writes beside itself
``keywords.keras`` and ``keywords_int8.tflite``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from examples import common
from examples.keywords.data import BANDS, CLASSES, FRAMES
from tinygen.graph import Array

SEED = 7
EPOCHS = 22
FILTERS = (64, 96, 96, 96)
"""Of the pointwise convolution of each block."""


def build_network() -> Any:
    """A convolution, four depthwise-separable blocks, the mean of all places, a classifier."""
    import keras
    from keras import layers

    def normal(x: Any, convolution: Any) -> Any:
        return layers.ReLU()(layers.BatchNormalization()(convolution(x)))

    inputs = keras.Input((FRAMES, BANDS, 1))
    x = normal(inputs, layers.Conv2D(64, (8, 4), 2, padding="same", use_bias=False))
    for number, filters in enumerate(FILTERS):
        stride = 2 if number == 0 else 1
        x = normal(x, layers.DepthwiseConv2D(3, stride, padding="same", use_bias=False))
        x = normal(x, layers.Conv2D(filters, 1, use_bias=False))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(len(CLASSES), activation="softmax")(x), name="keywords")


def varied(inputs: Array, draw: np.random.Generator) -> Array:
    """Each example up to three frames earlier or later, louder or softer, with a few bands lost."""
    shifts = draw.integers(-3, 4, (len(inputs), 1))
    frames = np.clip(np.arange(FRAMES) + shifts, 0, FRAMES - 1)
    moved = inputs[np.arange(len(inputs))[:, np.newaxis], frames]
    moved = moved + draw.normal(0, 0.05, (len(inputs), 1, 1, 1))
    first = draw.integers(0, BANDS, (len(inputs), 1))
    lost = (np.arange(BANDS) >= first) & (
        np.arange(BANDS) < first + draw.integers(0, 3, first.shape)
    )
    moved = np.where(lost[:, np.newaxis, :, np.newaxis], inputs.mean(), moved)
    return np.clip(moved, -1, 1).astype(np.float32)


AUGMENT = varied


def main() -> None:
    files = (common.train_file, common.test_file)
    train, test = (common.load(file("keywords")) for file in files)
    common.seed(SEED)
    network = build_network()
    common.fit(network, train, epochs=EPOCHS, rate=4e-3, augment=AUGMENT, seed=SEED)
    common.finish("keywords", network, train, test)


if __name__ == "__main__":
    main()
