"""Train LeNet-5 on MNIST digits, and write it in float and in int8.

    pip install "tinygen[train]"
    python -m examples.lenet.data
    python -m examples.lenet.train

The network is LeCun's LeNet-5 ("Gradient-based learning applied to document recognition", 1998)
with ReLU and max pooling.  Writes beside itself ``lenet.keras`` and ``lenet_int8.tflite``.
"""

from __future__ import annotations

from typing import Any

from examples import common, mnist

SEED = 7
EPOCHS = 25
AUGMENT = mnist.shifted


def build_network() -> Any:
    """Two convolutions with pooling, three dense layers: 61,706 parameters."""
    import keras
    from keras import layers

    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(6, 5, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(16, 5, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(120, activation="relu"),
            layers.Dense(84, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ],
        name="lenet",
    )


def main() -> None:
    train, test = (common.load(file("lenet")) for file in (common.train_file, common.test_file))
    common.seed(SEED)
    network = build_network()
    common.fit(network, train, epochs=EPOCHS, rate=2e-3, augment=AUGMENT, seed=SEED)
    common.finish("lenet", network, train, test)


if __name__ == "__main__":
    main()
