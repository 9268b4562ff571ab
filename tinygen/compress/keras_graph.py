"""Keras models as float graphs, by TensorFlow's own converter.

The converter folds batch normalizations into convolutions and fuses activations.  TensorFlow is
imported by the functions that use it, and not before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from tinygen.compress import float_graph
from tinygen.compress.calibration import Range
from tinygen.errors import InputError
from tinygen.graph import ABSENT, Array, Graph

TOLERANCE = 1e-4
"""How far the converted network's values may lie from Keras's, over the largest: both round."""


def to_tflite(model: Any) -> bytes:
    """``model`` as a float32 .tflite for one example at a time.

    Raises :class:`InputError` when it has several inputs, an input of unknown extent, or what the
    converter cannot convert.
    """
    import tensorflow as tf

    name = getattr(model, "name", "model")
    inputs = getattr(model, "inputs", None) or []
    if len(inputs) != 1:
        raise InputError(
            f"{name}: has {len(inputs)} inputs; only networks of one are quantized",
            "" if inputs else "build the model, or call it once",
        )
    shape = tuple(inputs[0].shape[1:])
    if None in shape:
        raise InputError(f"{name}: input shape {shape} has an unknown extent")

    # The model's call, and not the model: its name need not be one that TensorFlow allows.
    def call(x: Any) -> Any:
        return model.call(x, training=False)

    try:
        function = tf.function(call, autograph=False).get_concrete_function(
            tf.TensorSpec((1, *shape), tf.float32, name="input")
        )
        # Given the model, the converter would save it, and leave variables of some that were read
        # from files as variables; given another object it freezes what the function reads.
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function], tf.Module())
        return bytes(converter.convert())
    except Exception as error:  # the converter raises whatever its parts do
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{name}: TensorFlow cannot convert it: {first[:200]}") from error


def convert(model: Any) -> Graph:
    """``model`` as a float graph, its weights named after Keras's layers: ``conv/weights``."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", getattr(model, "name", "model")) or "model"
    return _renamed(float_graph.load(to_tflite(model), f"{name}.keras"), model)


def _renamed(graph: Graph, model: Any) -> Graph:
    """``graph`` with names of Keras's layers.

    TensorFlow names tensors after all operations that were merged into what computes them, each
    with the name of its layer and the number of its call.
    """
    every = tuple(_all_layers(model))
    names = {layer.name for layer in every}
    kernels = {layer.name for layer in every if any(len(w.shape) > 1 for w in layer.weights)}
    parts = [_layers_in(tensor.name, names) for tensor in graph.tensors]
    found = {i: parts[i][0] for node in graph.nodes for i in node.outputs if parts[i]}
    for node in graph.nodes:
        if node.op in float_graph.LAYERS:
            known = (*parts[node.inputs[1]], *parts[node.outputs[0]])
            layer = next((part for part in known if part in kernels), None)
            if layer is not None:
                roles = zip(node.inputs[1:], ("weights", "bias"), strict=False)
                found |= {i: f"{layer}/{role}" for i, role in roles if i != ABSENT}
    tensors = (
        replace(tensor, name=found.get(index, tensor.name))
        for index, tensor in enumerate(graph.tensors)
    )
    return replace(graph, tensors=tuple(tensors))


def _all_layers(model: Any) -> Iterator[Any]:
    """Layers without layers of their own."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _all_layers(layer)
        else:
            yield layer


def _layers_in(name: str, layers: set[str]) -> tuple[str, ...]:
    """The layers that a tensor's name mentions: ``conv`` in ``conv_1/convolution``."""
    words = ((re.sub(r"_\d+$", "", part), part) for part in re.split("[/;]", name))
    found = (next((word for word in pair if word in layers), None) for pair in words)
    return tuple(part for part in found if part is not None)


def learned_ranges(model: Any, graph: Graph, inputs: Array) -> dict[int, Range]:
    """The ranges that ``model`` carries for its layers' outputs, by tensor of ``graph``.

    A tensor is a layer's output when it has the same values for ``inputs`` (a few examples).  What
    the converter merged into the layer after it has no such tensor; then the outputs of the layers
    that follow are looked for, as long as there is one of them.
    """
    carried: dict[str, Range] = getattr(model, "tinygen_ranges", None) or {}
    if not carried:
        return {}
    import keras

    known = {layer.name: layer for layer in model.layers}
    for name, (low, high) in carried.items():
        if name not in known:
            raise InputError(f"{model.name}: has a range for {name!r}, which is none of its layers")
        if not (np.isfinite((low, high)).all() and low <= high):
            raise InputError(f"{model.name}: the range {low}..{high} of {name!r} is none")
    chains = {name: tuple(_chain(known[name])) for name in carried}
    outputs = {layer.name: layer.output for chain in chains.values() for layer in chain}
    computed = keras.Model(model.inputs[0], outputs)(inputs, training=False)
    values = float_graph.run_all(graph, inputs)
    found: dict[int, Range] = {}
    for name, chain in chains.items():
        for layer in chain:
            same = _tensors_of(graph, values, np.asarray(computed[layer.name]))
            for index in same:
                found.setdefault(index, _with_zero(carried[name]))
            if same:
                break
    return found


def _chain(layer: Any) -> Iterator[Any]:
    """``layer`` and those that follow, up to one whose output is not read by exactly one."""
    while True:
        if not isinstance(getattr(layer, "output", None), list | tuple | dict):
            yield layer
        readers = [node.operation for node in layer._outbound_nodes]
        if len(readers) != 1:
            return
        (layer,) = readers


def _tensors_of(graph: Graph, values: float_graph.Values, wanted: Array) -> list[int]:
    computed = (*graph.inputs, *(i for node in graph.nodes for i in node.outputs))
    close = TOLERANCE * float(np.abs(wanted).max(initial=1e-6))
    return [
        i
        for i in computed
        if values[i].size == wanted.size
        and np.abs(values[i].reshape(-1) - wanted.reshape(-1)).max(initial=0) <= close
    ]


def _with_zero(given: Range) -> Range:
    return min(float(given[0]), 0.0), max(float(given[1]), 0.0)
