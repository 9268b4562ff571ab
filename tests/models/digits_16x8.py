"""Train a small network and convert it with int16 activations and int8 weights: the test network
``digits_16x8.tflite`` beside this file.

Needs TensorFlow and scikit-learn; takes half a minute:

    python tests/models/digits_16x8.py
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from sklearn.datasets import load_digits

SEED = 3
EPOCHS = 12
SAMPLES = 200
OUTPUT = Path(__file__).with_suffix(".tflite")


def network() -> keras.Model:
    """Operators of many kinds, so that the converter's way with each is seen."""
    image = keras.Input((8, 8, 1), batch_size=1)
    x = layers.ZeroPadding2D(1)(image)
    x = layers.Conv2D(8, 3, activation="relu")(x)
    y = layers.DepthwiseConv2D(3, padding="same", activation="relu6")(x)
    y = layers.Conv2D(8, 1)(y)
    x = layers.Add()([x, y])
    x = layers.Concatenate()([layers.MaxPooling2D(2)(x), layers.AveragePooling2D(2)(x)])
    x = layers.LeakyReLU(negative_slope=0.1)(layers.Conv2D(12, 3, padding="same", strides=2)(x))
    gate = layers.Dense(12, activation="sigmoid")(layers.GlobalAveragePooling2D()(x))
    x = layers.Multiply()([x, layers.Reshape((1, 1, 12))(gate)])
    x = layers.Dense(16, activation="tanh")(layers.Flatten()(x))
    return keras.Model(image, layers.Dense(10, activation="softmax")(x))


def main() -> None:
    """Train, convert and write."""
    keras.utils.set_random_seed(SEED)
    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)[..., np.newaxis]
    model = network()
    trained = keras.Model(model.inputs, model.outputs)
    dataset = tf.data.Dataset.from_tensor_slices((images, digits.target))
    dataset = dataset.shuffle(len(images), seed=SEED).batch(1, drop_remainder=True)
    trained.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    trained.fit(dataset, epochs=EPOCHS, verbose=2)
    converter = tf.lite.TFLiteConverter.from_keras_model(trained)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in images[:SAMPLES])
    converter.target_spec.supported_ops = [
        tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
    ]
    converter.inference_input_type = converter.inference_output_type = tf.int16
    OUTPUT.write_bytes(converter.convert())


if __name__ == "__main__":
    main()
