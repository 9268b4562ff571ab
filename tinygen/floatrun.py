"""Float models: Keras files, and .tflite files through TensorFlow's own interpreter."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from tinygen import importers
from tinygen.compress.base import Progress, silent
from tinygen.errors import InputError, TinyGenError
from tinygen.graph import Array

SUFFIXES = (".keras", ".h5")
_MAGIC = (b"PK\x03\x04", b"\x89HDF")  # of zip archives, and of HDF5
BATCH = 256
HINT = 'pip install "tinygen[train]"'


def is_keras(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def load_keras(path: Path) -> Any:
    """The Keras model in the file at ``path``, not compiled; code in the file is not run.

    Raises :class:`InputError` when it cannot be read, :class:`TinyGenError` without Keras.
    """
    if not importers.read(path).startswith(_MAGIC):
        raise InputError(
            f"{path.name}: not a Keras model", "save one with model.save('name.keras')"
        )
    keras = import_keras()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever its file's parts raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"{path.name}: not a Keras model that can be read: {lines[0][:200]}",
            "save it with model.save('name.keras'), without layers of your own",
        ) from error


def import_keras() -> Any:
    """Keras, with TensorFlow's start-up messages held back; :class:`TinyGenError` without it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    try:
        import keras
    except ImportError as error:
        raise TinyGenError(f"Keras models: {error}", HINT) from error
    return keras


def predict(model: Any, inputs: Array, progress: Progress = silent) -> Array:
    """Outputs (n, ...) float32 of a Keras model with one input and one output.

    Raises :class:`InputError` for another model, or inputs of another shape.
    """
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise InputError(
            f"{model.name}: {len(model.inputs)} inputs and {len(model.outputs)} outputs, "
            "not one of each"
        )
    shaped = _shaped(model.name, inputs, tuple(model.inputs[0].shape[1:]))
    try:
        return _in_batches(model, shaped, BATCH, progress)
    except (ValueError, RuntimeError, TypeError):  # of layers that count on the batch
        if not model.inputs[0].shape[0]:
            raise
        return _in_batches(model, shaped, int(model.inputs[0].shape[0]), progress)


def _in_batches(model: Any, inputs: Array, batch: int, progress: Progress) -> Array:
    """Outputs for ``inputs``, so many at a time; the last run takes some again, if need be."""
    count = len(inputs)
    batch = min(batch, count)
    results = []
    with progress("running the float model", count) as step:
        for start in range(0, count, batch):
            first = min(start, count - batch)
            found = np.asarray(model(inputs[first : first + batch], training=False), np.float32)
            results.append(found[start - first :])
            for _ in results[-1]:
                step()
    return np.concatenate(results)


def interpret(path: Path, inputs: Array, progress: Progress = silent) -> Array:
    """Outputs (n, ...) float32 of a float .tflite file with one input and one output."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    data = importers.read(path)
    try:
        import tensorflow as tf
    except ImportError as error:
        raise TinyGenError(f"float .tflite models: {error}", HINT) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            interpreter = tf.lite.Interpreter(model_content=data)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise InputError(f"{path.name}: TensorFlow does not read it: {error}") from error
    ins, outs = interpreter.get_input_details(), interpreter.get_output_details()
    if len(ins) != 1 or len(outs) != 1 or ins[0]["dtype"] != np.float32:
        raise InputError(f"{path.name}: not a model with one float input and one output")
    shape = tuple(int(extent) for extent in ins[0]["shape"])
    one = shape[1:] if shape[:1] == (1,) else shape
    shaped = _shaped(path.name, inputs, one)
    results = []
    with progress("running the float model", len(shaped)) as step:
        for example in shaped:
            interpreter.set_tensor(ins[0]["index"], example.reshape(shape))
            interpreter.invoke()
            results.append(np.array(interpreter.get_tensor(outs[0]["index"]), np.float32))
            step()
    found = np.stack(results)
    return found[:, 0] if found.shape[1:2] == (1,) and found.ndim > 2 else found


def _shaped(name: str, inputs: Array, wanted: tuple[int | None, ...]) -> Array:
    """``inputs`` (n, ...) in the shape that the model wants, extents of 1 being no difference."""
    found = tuple(e for e in inputs.shape[1:] if e != 1)
    if None in wanted or found != tuple(e for e in wanted if e != 1):
        raise InputError(
            f"{name}: takes inputs of shape {wanted}, the data are {inputs.shape[1:]} each",
            "give examples (n, *shape) of the model's shape",
        )
    return inputs.reshape(len(inputs), *(int(e) for e in wanted if e is not None))
