"""What the example networks share: where files are, training with a seed, int8, accuracy."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tinygen import boards, datasets, evaluate, importers
from tinygen.compile import plan_for
from tinygen.datasets import Data
from tinygen.errors import InputError
from tinygen.graph import Array
from tinygen.plan import Goal

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent / "build" / "examples"
NAMES = ("lenet", "resnet", "motion", "keywords")

Augment = Callable[[Array, np.random.Generator], Array]
"""Draws a batch of inputs anew: shifted, turned, louder, ..."""


def train_file(name: str) -> Path:
    """What the network trains on; ``data.py`` of the example writes it."""
    return BUILD / name / "train.npz"


def test_file(name: str) -> Path:
    """What it is judged by: the whole test set."""
    return BUILD / name / "test.npz"


def sample_file(name: str) -> Path:
    """The part of the test set that is committed, so that tests can hold figures."""
    return HERE / name / "test.npz"


def keras_file(name: str) -> Path:
    """The trained float network."""
    return HERE / name / f"{name}.keras"


def int8_file(name: str) -> Path:
    """The same in int8, by TensorFlow's converter: what compressed ones are compared with."""
    return HERE / name / f"{name}_int8.tflite"


def load(path: Path) -> Data:
    """The examples in ``path``; says which script makes the file when it is not there."""
    if not path.is_file():
        raise InputError(
            f"{path}: not there", f"make it with: python -m examples.{path.parent.name}.data"
        )
    return datasets.load(path)


def write(name: str, train: Data, test: Data, sample: int) -> None:
    """Write both sets, float32 and int64, and the first ``sample`` of the test set as float16."""
    for path, data in ((train_file(name), train), (test_file(name), test)):
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, inputs=data.inputs, labels=data.labels)
        print(f"{path.name:10} {len(data)} examples of shape {data.inputs.shape[1:]}")
    part = test.first(sample)
    np.savez_compressed(
        sample_file(name), inputs=part.inputs.astype(np.float16), labels=part.labels
    )
    print(f"committed  {len(part)} of them, {sample_file(name).stat().st_size} bytes")


def seed(value: int) -> None:
    """Make every random choice of a run the same as in the last: set before the first layer.

    Sums of several threads have another order on machines with other numbers of cores: one does.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(value)
    tf.config.experimental.enable_op_determinism()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def batches(data: Data, size: int, epochs: int, augment: Augment | None, seed: int) -> Any:
    """Endless shuffled batches for Keras: (inputs, labels), the same for the same seed."""
    draw = np.random.default_rng(seed)
    assert data.labels is not None
    for _ in range(epochs):
        order = draw.permutation(len(data))
        for start in range(0, len(order) - size + 1, size):
            rows = order[start : start + size]
            inputs = data.inputs[rows]
            yield (inputs if augment is None else augment(inputs, draw)), data.labels[rows]


def fit(
    network: Any,
    data: Data,
    *,
    epochs: int,
    rate: float,
    batch: int = 64,
    augment: Augment | None = None,
    seed: int = 0,
) -> None:
    """Train ``network`` in place, the learning rate falling from ``rate`` along a cosine."""
    import keras

    steps = len(data) // batch
    network.compile(
        optimizer=keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(rate, epochs * steps)
        ),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    network.fit(
        batches(data, batch, epochs, augment, seed),
        steps_per_epoch=steps,
        epochs=epochs,
        verbose=2,
    )


def float_accuracy(network: Any, data: Data) -> float:
    """Share of ``data`` that the Keras model classifies right."""
    scores = network.predict(data.inputs, batch_size=256, verbose=0)
    return float((scores.argmax(axis=1) == data.labels).mean())


def quantize(network: Any, inputs: Array) -> bytes:
    """The int8 .tflite of ``network`` for one input; ``inputs`` show its activations' ranges."""
    import keras
    import tensorflow as tf

    one = keras.Input(batch_shape=(1, *network.input_shape[1:]))
    converter = tf.lite.TFLiteConverter.from_keras_model(keras.Model(one, network(one)))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([one[np.newaxis]] for one in inputs)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    return bytes(converter.convert())


def accuracy_of(path: Path, data: Data) -> float:
    """Share of ``data`` that the generated C of an int8 .tflite classifies right, run here."""
    plan = plan_for(importers.load(path), boards.load("host"), Goal())
    accuracy = evaluate.assess(evaluate.run(plan, data), data, "classification").accuracy
    assert accuracy is not None
    return accuracy


def finish(name: str, network: Any, train: Data, test: Data) -> None:
    """Write the float network and its int8 form beside the script; print what they are."""
    bare = type(network).from_config(network.get_config())  # without the optimizer's state
    bare.set_weights(network.get_weights())
    bare.save(keras_file(name))
    model = quantize(network, train.first(500).inputs)
    int8_file(name).write_bytes(model)
    print(f"parameters           {network.count_params()}")
    print(f"files                {keras_file(name).stat().st_size} and {len(model)} bytes")
    print(f"accuracy in float    {float_accuracy(network, test):.2%} of {len(test)}")
    print(f"accuracy in int8     {accuracy_of(int8_file(name), test):.2%}")
