"""Train the digits network, quantize it to int8 and write what the demo needs.

Needs TensorFlow and scikit-learn: ``pip install "tinygen[train]"``.  Takes half a minute:

    python examples/digits/train.py

The data are scikit-learn's digits: 1,797 grey images of 8x8 pixels, 0..16, scanned from
hand-written forms.  Every random choice is seeded, so a run repeats on the same machine and
versions; the committed files came from TensorFlow 2.21, Keras 3.15, scikit-learn 1.9.

Writes beside itself ``digits_int8.tflite`` (int8 in and out, weights per channel) and
``digits_test.npz``: ``inputs``, 100 images the training never saw, int8 of shape
(100, 8, 8, 1), and ``labels``, int64 of shape (100,).
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from tinygen import reference
from tinygen.graph import Array, Graph
from tinygen.importers import tflite

HERE = Path(__file__).resolve().parent
SEED = 7
EPOCHS = 60
TEST_IMAGES = 400
SAMPLES = 100


def load_data() -> tuple[Array, Array, Array, Array]:
    """Train and test images, float32 of shape (n, 8, 8, 1) in 0..1, each with its labels."""
    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)[..., np.newaxis]
    train, test, train_labels, test_labels = train_test_split(
        images, digits.target, test_size=TEST_IMAGES, stratify=digits.target, random_state=SEED
    )
    return train, train_labels, test, test_labels


def build_network() -> keras.Model:
    """Convolution, a depthwise-separable block, pooling and a classifier: 2,474 parameters."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 1), batch_size=1),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.DepthwiseConv2D(3, padding="same", activation="relu"),
            layers.Conv2D(32, 1, activation="relu"),
            layers.AveragePooling2D(2),
            layers.DepthwiseConv2D(3, activation="relu"),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ],
        name="digits",
    )


def train(network: keras.Model, images: Array, labels: Array) -> None:
    """Fit ``network`` in place, the learning rate falling to nothing along a cosine."""
    steps = EPOCHS * -(-len(images) // 32)
    network.compile(
        optimizer=keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(5e-3, steps)),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    network.fit(images, labels, batch_size=32, epochs=EPOCHS, verbose=0)


def quantize(network: keras.Model, images: Array) -> bytes:
    """The int8 .tflite of ``network``; ``images`` show the ranges of its activations."""
    converter = tf.lite.TFLiteConverter.from_keras_model(network)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[np.newaxis]] for image in images[:500])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    return bytes(converter.convert())


def quantize_images(graph: Graph, images: Array) -> Array:
    """``images`` as the network's int8 input, with the scale and zero point that it states."""
    source = graph.at(graph.inputs[0])
    return np.clip(np.round(images / source.scale) + source.zero_point, -128, 127).astype(np.int8)


def classify(graph: Graph, inputs: Array) -> Array:
    """The class of each int8 image, in exactly the arithmetic that the firmware has."""
    return np.array([reference.run(graph, [image[np.newaxis]])[0].argmax() for image in inputs])


def main() -> None:
    keras.utils.set_random_seed(SEED)
    tf.config.experimental.enable_op_determinism()
    images, labels, test_images, test_labels = load_data()
    network = build_network()
    train(network, images, labels)
    model = quantize(network, images)
    graph = tflite.load(model, "digits_int8.tflite")
    test_inputs = quantize_images(graph, test_images)

    (HERE / "digits_int8.tflite").write_bytes(model)
    np.savez_compressed(
        HERE / "digits_test.npz", inputs=test_inputs[:SAMPLES], labels=test_labels[:SAMPLES]
    )

    in_float = network.predict(test_images, batch_size=1, verbose=0).argmax(axis=1) == test_labels
    in_int8 = classify(graph, test_inputs) == test_labels
    print(f"parameters           {network.count_params()}")
    print(f"model file           {len(model)} bytes")
    print(f"accuracy in float    {in_float.mean():.2%} of {len(test_labels)} test images")
    print(f"accuracy in int8     {in_int8.mean():.2%}")
    print(f"committed samples    {in_int8[:SAMPLES].sum()} of {SAMPLES} right in int8")


if __name__ == "__main__":
    main()
