"""Small Keras networks and data for the methods that work on them."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from tinygen.datasets import Data

Array = np.ndarray[Any, Any]


@functools.cache
def digits() -> tuple[Data, Data]:
    """Training and test images, (n, 8, 8, 1) in 0..1."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = (found.images / 16.0).astype(np.float32)[..., np.newaxis]
    data = Data(images, found.target.astype(np.int64))
    return data.split(0.25, seed=7)


def noise(shape: tuple[int, ...], seed: int = 0, classes: int = 4, count: int = 64) -> Data:
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(count, *shape)).astype(np.float32)
    return Data(inputs, rng.integers(0, classes, count))


def stir(model: Any, seed: int = 0) -> Any:
    """``model`` with weights that are all random, norms' and biases' too."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        if "seed" in variable.path:
            continue
        value = rng.normal(0, 0.3, tuple(variable.shape))
        positive = any(word in variable.path for word in ("variance", "gamma"))
        variable.assign(np.abs(value) + 0.3 if positive else value)
    return model


def residual(channels: int = 8) -> Any:
    """Norms, a depthwise block, a residual sum, a concatenation, flatten into dense."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(1)
    start = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(channels, 3, padding="same", use_bias=False, name="stem")(start)
    x = layers.BatchNormalization(name="stem_norm")(x)
    x = trunk = layers.ReLU(6.0, name="stem_relu")(x)
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="deep")(x)
    x = layers.BatchNormalization(name="deep_norm")(x)
    x = layers.Activation("relu", name="deep_relu")(x)
    x = layers.Conv2D(channels, 1, name="point")(x)
    x = layers.BatchNormalization(name="point_norm")(x)
    x = layers.Add(name="sum")([trunk, x])
    x = layers.ReLU(name="sum_relu")(x)
    left = layers.Conv2D(2 * channels, 3, strides=2, padding="same", name="left")(x)
    left = layers.ReLU(name="left_relu")(left)
    right = layers.MaxPooling2D(2, name="right")(x)
    x = layers.Concatenate(name="both")([left, right])
    x = layers.Conv2D(2 * channels, 1, activation="relu", name="mix")(x)
    x = layers.AveragePooling2D(2, name="pool")(x)
    x = layers.Flatten(name="flat")(x)
    x = layers.Dropout(0.1, name="drop")(x)
    x = layers.Dense(16, activation="relu", name="hidden")(x)
    x = layers.Dense(4, name="answer")(x)
    return stir(keras.Model(start, layers.Softmax(name="softmax")(x), name="residual"))


def small(classes: int = 10) -> Any:
    """A sequential network for the digits, of 8x8 pixels."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(8, 3, activation="relu", name="one"),
            layers.Conv2D(16, 3, strides=2, activation="relu", name="two"),
            layers.Flatten(name="flat"),
            layers.Dense(32, activation="relu", name="three"),
            layers.Dense(classes, activation="softmax", name="four"),
        ],
        name="small",
    )


@functools.cache
def trained() -> Any:
    """:func:`small`, trained on the digits; not to be changed."""
    from tinygen.compress import train
    from tinygen.compress.base import Context

    model, (data, _) = small(), digits()
    task = train.task(model, data, "test")
    train.fit(
        model, task, train.Training(epochs=15, learning_rate=5e-3), Context(train=data), "test"
    )
    return model


def equal(one: Any, two: Any) -> bool:
    """Whether the models' weights are the same bit by bit."""
    pairs = zip(one.get_weights(), two.get_weights(), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)
