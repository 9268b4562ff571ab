"""Networks between methods: the forms they have, on disk and off, and what they compute."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tinygen import evaluate, floatrun, importers
from tinygen.compress.base import Method, Progress, Recipe, RecipeStep, silent
from tinygen.compress.recipe import words
from tinygen.datasets import Data
from tinygen.errors import InputError
from tinygen.exporters import tflite as exporter
from tinygen.graph import Array, Graph

Kind = Literal["keras", "float", "int8"]
"""A Keras model, a graph of float32, or a quantized graph."""

_WORDS = {"keras": "a Keras model", "float": "a float .tflite", "int8": "a quantized .tflite"}
RANGES = "tinygen_ranges"
"""Attribute of a Keras model with ranges that training learnt; Keras's files do not have it."""


@dataclass(frozen=True, eq=False)
class Network:
    """``value`` is a Keras model or a :class:`Graph`."""

    kind: Kind
    value: Any


def load(path: Path) -> Network:
    """The network in a .keras or .tflite file; raises :class:`InputError`."""
    if floatrun.is_keras(path):
        model = floatrun.load_keras(path)
        beside = _ranges_file(path)
        if beside.is_file():
            setattr(model, RANGES, json.loads(beside.read_text(encoding="utf-8")))
        return Network("keras", model)
    if _is_float(path):
        from tinygen.compress import float_graph

        return Network("float", float_graph.load(importers.read(path), path.name))
    return Network("int8", importers.load(path))


def _is_float(path: Path) -> bool:
    """The .tflite file holds a network that is not quantized; False for what cannot be read."""
    from tinygen.importers import tflite

    try:
        return not evaluate.is_quantized(tflite.load_float(importers.read(path), path.name))
    except InputError:
        return False


def save(network: Network, path: Path) -> Path:
    """Write ``network`` to ``path``, in one step, with the suffix of its form; gives the file."""
    suffix = ".keras" if network.kind == "keras" else ".tflite"
    target = path.with_name(path.name + suffix)
    draft = path.with_name(f".{path.name}.{os.getpid()}{suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        if network.kind == "keras":
            ranges = getattr(network.value, RANGES, None)
            if ranges:
                text = json.dumps({k: [float(v) for v in pair] for k, pair in ranges.items()})
                _ranges_file(target).write_text(text, encoding="utf-8")
            network.value.save(draft)
        else:
            draft.write_bytes(exporter.dump(network.value))
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    return target


def _ranges_file(path: Path) -> Path:
    return path.with_suffix(".ranges.json")


def example_shapes(network: Network) -> tuple[tuple[int | None, ...], tuple[int | None, ...]]:
    """Shapes of one input and one output.

    Raises :class:`InputError` for networks of several inputs or outputs.
    """
    if network.kind == "keras":
        inputs = [tuple(tensor.shape[1:]) for tensor in network.value.inputs]
        outputs = [tuple(tensor.shape[1:]) for tensor in network.value.outputs]
    else:
        graph: Graph = network.value
        inputs = [evaluate.example_shape(graph.at(i)) for i in graph.inputs]
        outputs = [evaluate.example_shape(graph.at(i)) for i in graph.outputs]
    if len(inputs) != 1 or len(outputs) != 1:
        raise InputError(
            f"the model has {len(inputs)} inputs and {len(outputs)} outputs, not one of each"
        )
    return inputs[0], outputs[0]


def fitting(network: Network, data: Data, where: str) -> Data:
    """``data`` in real values and in the shape that the network takes, extents of 1 being no
    difference; raises :class:`InputError` when it does not fit."""
    wanted, _ = example_shapes(network)
    given = data.inputs.shape[1:]
    if None in wanted or [e for e in wanted if e != 1] != [e for e in given if e != 1]:
        raise InputError(
            f"{where}: examples of shape {given}, the model takes {wanted}",
            "give examples (n, *shape) of the model's shape",
        )
    extents = tuple(e for e in wanted if e is not None)
    shaped = Data(data.inputs.reshape(len(data), *extents), data.labels, data.stored)
    return evaluate.in_real(network.value, shaped) if network.kind == "int8" else shaped


def float_outputs(network: Network, data: Data, progress: Progress = silent) -> Array:
    """Outputs (n, ...) float32 of a float network."""
    if network.kind == "keras":
        return floatrun.predict(network.value, data.inputs, progress)
    from tinygen.compress import float_graph

    return float_graph.run(network.value, data.inputs)[0]


def after(step: RecipeStep, kind: Kind) -> Kind:
    """The form of a network of form ``kind`` behind ``step``; :class:`InputError` when the step
    takes no such network."""
    takes: dict[str, tuple[Kind, ...]] = {
        "float": ("keras",),
        "quantize": ("keras", "float"),
        "int8": ("int8",),
    }
    allowed = takes[step.method.stage]
    if kind not in allowed:
        raise InputError(
            f"{step.method.name}: takes {' or '.join(_WORDS[k] for k in allowed)}, "
            f"and is given {_WORDS[kind]}",
            "methods on Keras models come first, then quantize, then those on int8 networks",
        )
    return "keras" if step.method.stage == "float" else "int8"


def complete(recipe: Recipe, kind: Kind, methods: tuple[Method, ...]) -> Recipe:
    """``recipe`` for a network of form ``kind``, plain quantization added where it is missing.

    Raises :class:`InputError` when the steps do not follow from each other.
    """
    if kind != "int8" and all(step.method.stage != "quantize" for step in recipe):
        floats = sum(step.method.stage == "float" for step in recipe)
        recipe = (*recipe[:floats], plain(methods), *recipe[floats:])
    form = kind
    for step in recipe:
        form = after(step, form)
    return recipe


def plain(methods: tuple[Method, ...]) -> RecipeStep:
    """Quantization with its defaults."""
    found = next((m for m in methods if m.stage == "quantize"), None)
    if found is None:
        raise InputError("no method makes an int8 network of a float one")
    return RecipeStep(found, found.settings())


def say(recipe: Recipe) -> str:
    return words(recipe) or "as it is"
