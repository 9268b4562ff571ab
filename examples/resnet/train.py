"""Train a small residual network on MNIST digits, and write it in float and in int8.

    pip install "tinygen[train]"
    python -m examples.resnet.data
    python -m examples.resnet.train

The blocks are those of He et al., "Deep residual learning for image recognition" (2015).  Writes
beside itself ``resnet.keras`` and ``resnet_int8.tflite``.
"""

from __future__ import annotations

from typing import Any

from examples import common, mnist

SEED = 7
EPOCHS = 24
AUGMENT = mnist.shifted


def build_network() -> Any:
    """A convolution, three blocks of two convolutions around an add, a classifier."""
    import keras
    from keras import layers

    def normal(x: Any, filters: int, kernel: int, stride: int) -> Any:
        x = layers.Conv2D(filters, kernel, stride, padding="same", use_bias=False)(x)
        return layers.BatchNormalization()(x)

    def block(x: Any, filters: int, stride: int) -> Any:
        """Two convolutions; where the shape changes, a 1x1 convolution on the way past them."""
        past = x if stride == 1 else normal(x, filters, 1, stride)
        x = layers.ReLU()(normal(x, filters, 3, stride))
        x = layers.Add()([normal(x, filters, 3, 1), past])
        return layers.ReLU()(x)

    inputs = keras.Input((28, 28, 1))
    x = layers.ReLU()(normal(inputs, 16, 3, 2))
    x = block(x, 16, 1)
    x = block(x, 32, 2)
    x = block(x, 48, 2)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(x), name="resnet")


def main() -> None:
    train, test = (common.load(file("resnet")) for file in (common.train_file, common.test_file))
    common.seed(SEED)
    network = build_network()
    common.fit(network, train, epochs=EPOCHS, rate=5e-3, augment=AUGMENT, seed=SEED)
    common.finish("resnet", network, train, test)


if __name__ == "__main__":
    main()
