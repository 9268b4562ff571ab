"""Train a network of 1-D convolutions to tell seven activities by an accelerometer.

    pip install "tinygen[train]"
    python -m examples.motion.data
    python -m examples.motion.train

Writes beside itself ``motion.keras`` and ``motion_int8.tflite``.
"""

from __future__ import annotations

from typing import Any

from examples import common
from examples.motion.data import ACTIVITIES, SAMPLES, turned_anew

SEED = 7
EPOCHS = 40
AUGMENT = turned_anew


def build_network() -> Any:
    """Three convolutions along time, two dense layers."""
    import keras
    from keras import layers

    return keras.Sequential(
        [
            keras.Input((SAMPLES, 3)),
            layers.Conv1D(16, 7, strides=2, padding="same", activation="relu"),
            layers.Conv1D(32, 5, strides=2, padding="same", activation="relu"),
            layers.Conv1D(48, 5, strides=2, padding="same", activation="relu"),
            layers.AveragePooling1D(2),
            layers.Flatten(),
            layers.Dense(48, activation="relu"),
            layers.Dense(len(ACTIVITIES), activation="softmax"),
        ],
        name="motion",
    )


def main() -> None:
    train, test = (common.load(file("motion")) for file in (common.train_file, common.test_file))
    common.seed(SEED)
    network = build_network()
    common.fit(network, train, epochs=EPOCHS, rate=3e-3, augment=AUGMENT, seed=SEED)
    common.finish("motion", network, train, test)


if __name__ == "__main__":
    main()
