"""Keras models taken apart and put together again, layer by layer.

:func:`rebuild` copies a functional model while single layers are replaced by chains of others;
:func:`plain` brings what people build (sequential models, models inside models, separable
convolutions) to the form that the methods work on.  Layers keep their names.  Keras kernels lie as
HWIO (convolution), IO (dense) and HWCM (depthwise); :func:`rows` gives them as int8 kernels read
them, one row an output channel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygen.errors import InputError
from tinygen.graph import Array

DEPTHWISE = ("DepthwiseConv1D", "DepthwiseConv2D")
CONVOLUTIONS = ("Conv1D", "Conv2D")
DENSE = ("Dense",)
WEIGHED = (*CONVOLUTIONS, *DEPTHWISE, *DENSE)
"""Layers whose kernels the methods compress, by the names of their classes."""

SEPARABLE = ("SeparableConv1D", "SeparableConv2D")


@dataclass(frozen=True, eq=False)
class Part:
    """A layer to put into a model, and its weights (None: as its initializers draw them)."""

    layer: Any
    weights: Sequence[Array] | None = None


Make = Callable[[Any], Sequence[Part] | None]
"""What stands for a layer: a chain, an empty one where the layer goes, or None for a copy."""


def kind(layer: Any) -> str:
    """The name of the layer's class."""
    return type(layer).__name__


def nodes(model: Any) -> list[Any]:
    """The calls of the model's layers, each after those it reads from."""
    by_depth = getattr(model, "_functional", model)._nodes_by_depth
    ordered = (node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth])
    return [node for node in ordered if not node.is_input]


def readers(model: Any) -> dict[int, list[Any]]:
    """For the id of each tensor the calls that read it; outputs of the model have a None more."""
    found: dict[int, list[Any]] = {}
    for node in nodes(model):
        for tensor in node.input_tensors:
            found.setdefault(id(tensor), []).append(node)
    for tensor in model.outputs:
        found.setdefault(id(tensor), []).append(None)
    return found


def calls(model: Any) -> dict[int, int]:
    """How often the model calls a layer, by the layer's id."""
    found: dict[int, int] = {}
    for node in nodes(model):
        found[id(node.operation)] = found.get(id(node.operation), 0) + 1
    return found


def weighed(model: Any) -> list[Any]:
    """Layers with kernels to compress, in the order in which the model calls them."""
    layers = {id(n.operation): n.operation for n in nodes(model)}
    return [layer for layer in layers.values() if kind(layer) in WEIGHED]


def kernel(layer: Any) -> Any:
    """The variable that holds the kernel of a layer of :data:`WEIGHED`."""
    return layer.depthwise_kernel if hasattr(layer, "depthwise_kernel") else layer.kernel


def rows(layer: Any, values: Any) -> Any:
    """A kernel of ``layer`` as (output channels, weights each), inputs running fastest.

    That is the order OHWI of int8 kernels; a depthwise filter has one row of its window.
    """
    if kind(layer) in DEPTHWISE:
        return np.moveaxis(values, (-2, -1), (0, 1)).reshape(
            values.shape[-2] * values.shape[-1], -1
        )
    return np.moveaxis(values, -1, 0).reshape(values.shape[-1], -1)


def from_rows(layer: Any, values: Array) -> Array:
    """The inverse of :func:`rows`: an array of the shape of the layer's kernel."""
    shape = tuple(kernel(layer).shape)
    if kind(layer) in DEPTHWISE:
        return np.moveaxis(values.reshape(*shape[-2:], *shape[:-2]), (0, 1), (-2, -1))
    return np.moveaxis(values.reshape(shape[-1], *shape[:-1]), 0, -1)


def tensor_from_rows(values: Any, shape: tuple[int, ...], depthwise: bool) -> Any:
    """:func:`from_rows` of a tensor, for a kernel of ``shape``."""
    import tensorflow as tf

    last = len(shape) - 1
    if depthwise:
        order = (*range(2, last + 1), 0, 1)
        return tf.transpose(tf.reshape(values, (*shape[-2:], *shape[:-2])), order)
    return tf.transpose(tf.reshape(values, (shape[-1], *shape[:-1])), (*range(1, last + 1), 0))


def known(layers: Iterable[Any], names: Iterable[str], what: str) -> None:
    """Raises :class:`InputError` for a name that none of the layers has."""
    there = sorted(layer.name for layer in layers)
    for name in names:
        if name not in there:
            raise InputError(
                f"{what}: no layer with weights is called '{name}'",
                f"there are {', '.join(there)}",
            )


def like(layer: Any, **changes: Any) -> Any:
    """A new layer of the same class and settings but for ``changes``."""
    return type(layer).from_config({**layer.get_config(), **changes})


def copy(layer: Any) -> Part:
    return Part(like(layer), layer.get_weights())


def rebuild(
    model: Any,
    make: Make = lambda layer: None,
    bypass: Mapping[int, Any] | None = None,
) -> Any:
    """A functional copy of ``model`` (one input, one output), each layer replaced by ``make``.

    ``bypass`` gives, for ids of tensors, other tensors of ``model`` that are read instead: calls
    that nothing reads then are left out.
    """
    import keras

    start, end = model.inputs[0], model.outputs[0]
    given = _input(model)
    tensors = {id(start): given}
    chains: dict[int, Sequence[Part]] = {}
    wanted = _wanted(model, bypass or {})
    for node in nodes(model):
        if id(node) not in wanted:
            continue
        read = {id(t): tensors[id(_instead(t, bypass or {}))] for t in node.input_tensors}
        args, kwargs = node.arguments.fill_in(read)
        layer = node.operation
        if not isinstance(layer, keras.Layer):
            out = layer(*args, **kwargs)
        else:
            if id(layer) not in chains:
                made = make(layer)
                chains[id(layer)] = (copy(layer),) if made is None else made
            out = _through(chains[id(layer)], args, kwargs)
        for old, new in zip(node.outputs, keras.tree.flatten(out), strict=True):
            tensors[id(old)] = new
    result = keras.Model(given, tensors[id(_instead(end, bypass or {}))], name=model.name)
    for part in (part for chain in chains.values() for part in chain):
        if part.weights is not None:
            part.layer.set_weights(part.weights)
    return result


def _input(model: Any) -> Any:
    """A new tensor like the model's input."""
    import keras

    start = model.inputs[0]
    name = start._keras_history.operation.name
    return keras.Input(batch_shape=start.shape, dtype=start.dtype, name=name)


def _through(chain: Sequence[Part], args: Any, kwargs: Any) -> Any:
    if not chain:
        return args[0]
    out = chain[0].layer(*args, **kwargs)
    for part in chain[1:]:
        out = part.layer(out)
    return out


def _instead(tensor: Any, bypass: Mapping[int, Any]) -> Any:
    while id(tensor) in bypass:
        tensor = bypass[id(tensor)]
    return tensor


def _wanted(model: Any, bypass: Mapping[int, Any]) -> set[int]:
    """Ids of the calls that the outputs need."""
    needed = {id(_instead(t, bypass)) for t in model.outputs}
    wanted: set[int] = set()
    for node in reversed(nodes(model)):
        if any(id(t) in needed for t in node.outputs):
            wanted.add(id(node))
            needed |= {id(_instead(t, bypass)) for t in node.input_tensors}
    return wanted


def plain(model: Any, what: str) -> Any:
    """A functional copy of ``model``, models inside it and separable convolutions taken apart.

    A separable convolution ``name`` becomes ``name_depthwise`` and ``name``.  Raises
    :class:`InputError`, beginning with ``what``, for a model of no fixed structure or of more
    than one input or output.
    """
    import keras

    if not isinstance(model, keras.Model):
        raise InputError(f"{what}: {type(model).__name__} is no Keras model")
    _check_structure(model, what)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise InputError(
            f"{what}: the model '{model.name}' has {len(model.inputs)} inputs and "
            f"{len(model.outputs)} outputs",
            "give a model of one input and one output",
        )
    taken: set[str] = set()
    flat = _inline(model, {}, taken)
    return rebuild(flat, lambda layer: _split(layer) if kind(layer) in SEPARABLE else None)


def _check_structure(model: Any, what: str) -> None:
    """Raises :class:`InputError` unless all layers' calls are known, of models inside too."""
    import keras

    if not hasattr(getattr(model, "_functional", model), "_nodes_by_depth"):
        raise InputError(
            f"{what}: the layers of the model '{model.name}' cannot be told",
            "build it with the functional interface, or as keras.Sequential with a keras.Input",
        )
    for node in nodes(model):
        if isinstance(node.operation, keras.Model):
            _check_structure(node.operation, what)
        if getattr(node.operation, "data_format", None) == "channels_first":
            raise InputError(
                f"{what}: layer '{node.operation.name}' has its channels first",
                "build the model with data_format='channels_last'",
            )


def _inline(model: Any, made: dict[int, Any], taken: set[str]) -> Any:
    """``model`` without models inside it, every layer a copy of a name of its own."""
    import keras

    given = _input(model)
    taken.add(model.inputs[0]._keras_history.operation.name)
    out = _play(model, [given], made, taken)
    result = keras.Model(given, out[0], name=model.name)
    for old, new in made.values():
        new.set_weights(old.get_weights())
    return result


def _play(model: Any, given: Sequence[Any], made: dict[int, Any], taken: set[str]) -> list[Any]:
    """Tensors of the model's outputs when its layers' copies are called on ``given``."""
    import keras

    tensors = {id(old): new for old, new in zip(model.inputs, given, strict=True)}
    for node in nodes(model):
        args, kwargs = node.arguments.fill_in(tensors)
        layer = node.operation
        if isinstance(layer, keras.Model):
            out: Any = _play(layer, keras.tree.flatten(args[0]), made, taken)
        elif not isinstance(layer, keras.Layer):
            out = layer(*args, **kwargs)
        else:
            if id(layer) not in made:
                name = _unused(f"{layer.name}", f"{model.name}_{layer.name}", taken)
                made[id(layer)] = (layer, like(layer, name=name))
            out = made[id(layer)][1](*args, **kwargs)
        for old, new in zip(node.outputs, keras.tree.flatten(out), strict=True):
            tensors[id(old)] = new
    return [tensors[id(t)] for t in model.outputs]


def _unused(first: str, second: str, taken: set[str]) -> str:
    name, number = first, 1
    while name in taken:
        name = second if number == 1 else f"{second}_{number}"
        number += 1
    taken.add(name)
    return name


def _split(layer: Any) -> Sequence[Part]:
    """A separable convolution as the depthwise and the 1x1 convolution that it is."""
    import keras

    given = layer.get_config()
    flat = kind(layer) == "SeparableConv1D"
    depthwise, pointwise, *bias = layer.get_weights()
    shared = {key: given[key] for key in ("padding", "data_format", "dilation_rate", "strides")}
    first = (keras.layers.DepthwiseConv1D if flat else keras.layers.DepthwiseConv2D)(
        given["kernel_size"],
        depth_multiplier=given["depth_multiplier"],
        use_bias=False,
        trainable=given["trainable"],
        name=f"{layer.name}_depthwise",
        **shared,
    )
    second = (keras.layers.Conv1D if flat else keras.layers.Conv2D)(
        given["filters"],
        1,
        activation=given["activation"],
        use_bias=given["use_bias"],
        data_format=given["data_format"],
        trainable=given["trainable"],
        name=layer.name,
    )
    return Part(first, [depthwise]), Part(second, [pointwise, *bias])


def fold_batch_norms(model: Any) -> Any:
    """A copy of a :func:`plain` model with batch norms folded into the layers before them.

    A norm goes where it alone reads a convolution or dense layer that has no activation and is
    called once; the output is the same up to rounding.  Others stay.
    """
    read, called = readers(model), calls(model)
    norms: dict[int, Any] = {}
    for node in nodes(model):
        after = read.get(id(node.outputs[0]), [])
        if (
            kind(node.operation) in WEIGHED
            and called[id(node.operation)] == 1
            and linear(node.operation)
            and len(after) == 1
            and after[0] is not None
            and kind(after[0].operation) == "BatchNormalization"
            and called[id(after[0].operation)] == 1
            and after[0].operation.axis in (-1, len(node.outputs[0].shape) - 1)
        ):
            norms[id(node.operation)] = after[0].operation
    gone = {id(norm) for norm in norms.values()}

    def make(layer: Any) -> Sequence[Part] | None:
        if id(layer) in gone:
            return ()
        return _folded(layer, norms[id(layer)]) if id(layer) in norms else None

    return rebuild(model, make)


def linear(layer: Any) -> bool:
    """Whether the layer has no activation of its own."""
    return getattr(getattr(layer, "activation", None), "__name__", "linear") == "linear"


def _folded(layer: Any, norm: Any) -> Sequence[Part]:
    """Ioffe & Szegedy 2015, section 3.1, applied to the layer before the norm."""
    values = [np.asarray(v, dtype=np.float64) for v in layer.get_weights()]
    mean = np.asarray(norm.moving_mean, dtype=np.float64)
    factor = 1 / np.sqrt(np.asarray(norm.moving_variance, dtype=np.float64) + norm.epsilon)
    if norm.scale:
        factor = factor * np.asarray(norm.gamma)
    shift = np.asarray(norm.beta, dtype=np.float64) if norm.center else np.zeros_like(mean)
    bias = shift + ((values[1] if len(values) > 1 else 0) - mean) * factor
    scaled = from_rows(layer, rows(layer, values[0]) * factor[:, np.newaxis])
    return (Part(like(layer, use_bias=True), [scaled.astype(np.float32), bias.astype(np.float32)]),)


def macs(model: Any) -> int:
    """Multiply-accumulates of one inference in the kernels of a :func:`plain` model."""
    return sum(layer_macs(node) for node in nodes(model))


def layer_macs(node: Any) -> int:
    """Multiply-accumulates of one call of a layer; 0 for layers without a kernel."""
    if kind(node.operation) not in WEIGHED:
        return 0
    shape = tuple(kernel(node.operation).shape)
    places = _places(node.outputs[0].shape[1:-1])
    return places * int(np.prod(shape))


def _places(shape: Iterable[int | None]) -> int:
    return int(np.prod([extent or 1 for extent in shape], dtype=np.int64))
