"""Networks of float32: what they may hold, and a numpy forward pass over batches of examples.

The graph is that of a float .tflite, its batch being 1; operators are those of the int8 engine.
Values carry one axis more than their tensor, the examples: an activation of shape (1, 8, 8, 16) is
an array (n, 1, 8, 8, 16), a constant one of n = 1.  So no operator has to know which of its axes
is the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from tinygen.errors import InputError
from tinygen.graph import ABSENT, Array, Graph, Node, printable
from tinygen.importers import tflite
from tinygen.ops import (
    BY_NAME,
    concatenation,
    conv2d,
    depthwise_conv2d,
    elementwise,
    fully_connected,
    mean,
    pad,
    pooling,
    softmax,
)
from tinygen.ops.base import Restriction
from tinygen.ops.base import check as check_operator
from tinygen.ops.common import Window, image_input, pad_image, windows

Values = dict[int, Array]
"""Arrays (examples, *shape of the tensor) by tensor index; constants have one example."""

BATCH_BYTES = 1 << 26
"""Memory that the values of one batch may take."""

LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
"""Operators with weights, which are their second input, and a bias, the third."""

INTEGERS = ("MEAN", "PAD", "PADV2", "RESHAPE", "EXPAND_DIMS")
"""Operators whose second input are axes, amounts or a shape."""

MOST_EXAMPLES = 256
"""Largest batch: larger ones are no faster."""


def load(data: bytes, filename: str = "model.tflite") -> Graph:
    """The float network in the .tflite ``data``; raises :class:`InputError` as :func:`check`."""
    return tflite.load_float(data, filename, check)


def is_float(graph: Graph) -> bool:
    """Whether everything that ``graph`` computes is float32."""
    return all(graph.at(i).dtype == "float32" for node in graph.nodes for i in node.outputs)


def check(graph: Graph) -> None:
    """Raise :class:`InputError` unless ``graph`` is a float network that can be quantized.

    It has one input, computes nothing but float32, and its operators have the shapes and constants
    that they need; no constant is infinite or NaN.
    """
    if len(graph.inputs) != 1:
        raise InputError(
            f"{graph.source}: has {len(graph.inputs)} inputs; only networks of one are quantized"
        )
    computed = {i for node in graph.nodes for i in node.outputs}
    for index in (*graph.inputs, *sorted(computed)):
        tensor = graph.at(index)
        if tensor.dtype != "float32":
            raise InputError(
                f"{graph.source}: tensor {printable(tensor.name)!r} is {tensor.dtype}, not "
                "float32: the network is quantized already, in part or as a whole",
                "convert the network without optimizations",
            )
    for tensor in graph.tensors:
        if tensor.data is not None and not np.isfinite(tensor.data).all():
            raise InputError(
                f"{graph.source}: tensor {printable(tensor.name)!r} holds values that are no "
                "numbers",
                "train it again: it diverged",
            )
    future = _as_int8(graph)
    for node in graph.nodes:
        _check_node(graph, future, node)
    macs = sum(BY_NAME[node.op].macs(graph, node) for node in graph.nodes)
    if macs > tflite.MAX_MACS:
        raise InputError(f"{graph.source}: more than {tflite.MAX_MACS:,} multiply-accumulates")


def _as_int8(graph: Graph) -> Graph:
    """``graph`` with int8 in the place of float32, for what operators ask of shapes."""
    tensors = (replace(t, dtype="int8") if t.dtype == "float32" else t for t in graph.tensors)
    return replace(graph, tensors=tuple(tensors))


def _check_node(graph: Graph, future: Graph, node: Node) -> None:
    op = FLOAT_OPS.get(node.op)
    if op is None:
        raise InputError(f"{graph.where(node)}: cannot be quantized")
    for place, index in enumerate(node.inputs):
        integers = node.op in INTEGERS and place == 1
        if index != ABSENT and not integers and graph.at(index).dtype != "float32":
            raise InputError(
                f"{graph.where(node)}: reads {graph.at(index).dtype}, where float32 is expected",
                "convert the network without optimizations",
            )
    if node.op in LAYERS and any(i != ABSENT and not graph.at(i).constant for i in node.inputs[1:]):
        raise InputError(f"{graph.where(node)}: its weights are not constant")
    check_operator(replace(BY_NAME[node.op], restrictions=op.shapes), future, node)


def filters(graph: Graph, node: Node) -> bool:
    """needs weights"""
    weights = graph.input(node, 1)
    return weights is not None and weights.elements > 0


Inputs = tuple[Array | None, ...]


def _activate(values: Array, activation: str) -> Array:
    limits = {"RELU": (0, None), "RELU6": (0, 6), "RELU_N1_TO_1": (-1, 1)}.get(activation)
    return values if limits is None else np.clip(values, *limits)


def activate(values: Array, node: Node) -> Array:
    """``values`` after the activation that is fused into ``node``."""
    return _activate(values, node.attrs.activation)


def _images(values: Array) -> Array:
    """(examples, n, h, w, c) as (examples * n, h, w, c)."""
    return values.reshape(-1, *values.shape[2:])


def _given(value: Array | None) -> Array:
    assert value is not None
    return value


def _biased(graph: Graph, node: Node, products: Array, inputs: Inputs) -> Array:
    """``products`` (rows, channels) with bias and activation, shaped as the node's output."""
    bias = inputs[2] if len(inputs) > 2 else None
    if bias is not None:
        products = products + bias.reshape(-1)
    shape = graph.output(node).shape
    return _activate(products, node.attrs.activation).reshape(-1, *shape)


def _patches(graph: Graph, node: Node, values: Array, window: Window) -> Array:
    image = _images(values)
    return windows(pad_image(image, window.resolve(*image.shape[1:3]), 0), window)


def _conv2d(graph: Graph, node: Node, inputs: Inputs) -> Array:
    filters = _given(inputs[1])[0]
    patches = _patches(graph, node, _given(inputs[0]), conv2d.window_of(graph, node))
    groups = conv2d.groups_of(graph, node)
    rows, depth = int(np.prod(patches.shape[:3])), filters.shape[3]
    parts = [
        patches[..., i * depth : (i + 1) * depth].reshape(rows, -1) @ some.reshape(len(some), -1).T
        for i, some in enumerate(np.split(filters, groups))
    ]
    return _biased(graph, node, np.concatenate(parts, axis=1), inputs)


def _depthwise_conv2d(graph: Graph, node: Node, inputs: Inputs) -> Array:
    filters = _given(inputs[1])[0, 0]
    patches = _patches(graph, node, _given(inputs[0]), depthwise_conv2d.window_of(graph, node))
    *outer, rows, columns, depth = patches.shape
    taps = filters.reshape(rows, columns, depth, -1)
    sums = np.zeros((*outer, depth, taps.shape[3]), dtype=patches.dtype)
    for row in range(rows):
        for column in range(columns):
            sums += patches[:, :, :, row, column, :, None] * taps[row, column]
    return _biased(graph, node, sums.reshape(-1, filters.shape[2]), inputs)


def _fully_connected(graph: Graph, node: Node, inputs: Inputs) -> Array:
    weights = _given(inputs[1])[0]
    return _biased(graph, node, _given(inputs[0]).reshape(-1, weights.shape[1]) @ weights.T, inputs)


def _binary(function: Callable[[Array, Array], Array]) -> Callable[[Graph, Node, Inputs], Array]:
    def forward(graph: Graph, node: Node, inputs: Inputs) -> Array:
        first, second = (_given(i) for i in inputs)
        rank = max(first.ndim, second.ndim)
        a, b = (v.reshape(len(v), *(1,) * (rank - v.ndim), *v.shape[1:]) for v in (first, second))
        return _activate(function(a, b), node.attrs.activation)

    return forward


def _pool(reduce: Callable[..., Array]) -> Callable[[Graph, Node, Inputs], Array]:
    def forward(graph: Graph, node: Node, inputs: Inputs) -> Array:
        spans = pooling.spans(graph, node)
        sums = pooling.reduce_windows(_images(_given(inputs[0])), *spans, reduce)
        if reduce is np.sum:
            heights, widths = (np.array([b - a for a, b in along]) for along in spans)
            sums = sums / (heights[:, None] * widths)[:, :, None].astype(sums.dtype)
        return _activate(sums, node.attrs.activation).reshape(-1, *graph.output(node).shape)

    return forward


def _mean(graph: Graph, node: Node, inputs: Inputs) -> Array:
    axes = tuple(axis + 1 for axis in mean.axes_of(graph, node))
    return np.asarray(_given(inputs[0]).mean(axis=axes, keepdims=node.attrs.keep_dims))


def _concatenation(graph: Graph, node: Node, inputs: Inputs) -> Array:
    given = [_given(i) for i in inputs]
    examples = max(map(len, given))
    wide = [np.broadcast_to(g, (examples, *g.shape[1:])) for g in given]
    return np.concatenate(wide, axis=concatenation.axis_of(graph, node) + 1)


def _pad(graph: Graph, node: Node, inputs: Inputs) -> Array:
    edges = ((0, 0), *pad.amounts(graph, node))
    return np.pad(_given(inputs[0]), edges, constant_values=pad.fill_value(graph, node))


def _view(graph: Graph, node: Node, inputs: Inputs) -> Array:
    return _given(inputs[0]).reshape(-1, *graph.output(node).shape)


def _softmax(graph: Graph, node: Node, inputs: Inputs) -> Array:
    values = _given(inputs[0]) * np.asarray(node.attrs.beta, dtype=_given(inputs[0]).dtype)
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def _unary(function: Callable[[Array], Array]) -> Callable[[Graph, Node, Inputs], Array]:
    return lambda graph, node, inputs: function(_given(inputs[0]))


def _logistic(values: Array) -> Array:
    return np.asarray(0.5 * np.tanh(0.5 * values) + 0.5, dtype=values.dtype)


def _leaky_relu(graph: Graph, node: Node, inputs: Inputs) -> Array:
    values = _given(inputs[0])
    return np.where(values >= 0, values, values * np.asarray(node.attrs.alpha, values.dtype))


def _hard_swish(values: Array) -> Array:
    return np.asarray(values * np.clip(values + 3, 0, 6) / 6)


@dataclass(frozen=True)
class FloatOp:
    """An operator on floats: its ``forward`` pass, and what it needs of its tensors' shapes."""

    forward: Callable[[Graph, Node, Inputs], Array]
    shapes: tuple[Restriction, ...] = ()


_BINARY = (elementwise.broadcastable,)
_POOL = (image_input, pooling.geometry)
_PADDED = FloatOp(_pad, BY_NAME["PAD"].restrictions)

FLOAT_OPS = {
    "CONV_2D": FloatOp(_conv2d, (image_input, filters, conv2d.geometry, conv2d.moderate_padding)),
    "DEPTHWISE_CONV_2D": FloatOp(
        _depthwise_conv2d,
        (image_input, filters, depthwise_conv2d.geometry, conv2d.moderate_padding),
    ),
    "FULLY_CONNECTED": FloatOp(_fully_connected, (filters, fully_connected.geometry)),
    "ADD": FloatOp(_binary(np.add), _BINARY),
    "SUB": FloatOp(_binary(np.subtract), _BINARY),
    "MUL": FloatOp(_binary(np.multiply), _BINARY),
    "AVERAGE_POOL_2D": FloatOp(_pool(np.sum), _POOL),
    "MAX_POOL_2D": FloatOp(_pool(np.max), _POOL),
    "MEAN": FloatOp(_mean, (mean.constant_axes, mean.countable)),
    "CONCATENATION": FloatOp(_concatenation, (concatenation.geometry,)),
    "PAD": _PADDED,
    "PADV2": _PADDED,
    "RESHAPE": FloatOp(_view, BY_NAME["RESHAPE"].restrictions),
    "SQUEEZE": FloatOp(_view, BY_NAME["SQUEEZE"].restrictions),
    "EXPAND_DIMS": FloatOp(_view, BY_NAME["EXPAND_DIMS"].restrictions),
    "SOFTMAX": FloatOp(_softmax, (softmax.rows,)),
    "LOGISTIC": FloatOp(_unary(_logistic)),
    "TANH": FloatOp(_unary(np.tanh)),
    "RELU": FloatOp(_unary(lambda values: _activate(values, "RELU"))),
    "RELU6": FloatOp(_unary(lambda values: _activate(values, "RELU6"))),
    "LEAKY_RELU": FloatOp(_leaky_relu),
    "HARD_SWISH": FloatOp(_unary(_hard_swish)),
}
"""The operators that can be quantized.  QUANTIZE, which quantization itself puts in, is a copy."""

_COPY = FloatOp(_unary(lambda values: values))


def forward(graph: Graph, node: Node, values: Mapping[int, Array]) -> Array:
    """The output of ``node``, (examples, *shape), from ``values`` of its inputs."""
    given = tuple(None if i == ABSENT else values[i] for i in node.inputs)
    return FLOAT_OPS.get(node.op, _COPY).forward(graph, node, given)


def constants(graph: Graph) -> Values:
    """The constants, each as one example."""
    return {i: t.data[None] for i, t in enumerate(graph.tensors) if t.data is not None}


def run_all(graph: Graph, inputs: Array, given: Mapping[int, Array] | None = None) -> Values:
    """Every tensor's values for ``inputs`` (n, *shape of an input, with or without the batch).

    ``given`` (see :data:`Values`) stands in for constants or for what would be computed.
    """
    values = constants(graph) | {graph.inputs[0]: as_input(graph, inputs)} | dict(given or {})
    for node in graph.nodes:
        if node.outputs[0] not in values:
            values[node.outputs[0]] = forward(graph, node, values)
    return values


def run(graph: Graph, inputs: Array) -> list[Array]:
    """Outputs (n, *shape of the output without its batch) for ``inputs``, computed in batches."""
    parts = [
        [values[i] for i in graph.outputs]
        for values in (run_all(graph, batch) for batch in batches(graph, inputs))
    ]
    shapes = (graph.at(i).shape for i in graph.outputs)
    return [
        np.concatenate(some).reshape(-1, *(shape[1:] if shape[:1] == (1,) else shape))
        for some, shape in zip(zip(*parts, strict=True), shapes, strict=True)
    ]


def as_input(graph: Graph, inputs: Array) -> Array:
    """``inputs`` as values of the network's input; :class:`InputError` when they do not fit it."""
    tensor = graph.at(graph.inputs[0])
    if inputs.shape[1:] not in (tensor.shape, tensor.shape[1:]) or 0 in inputs.shape:
        raise InputError(
            f"{graph.source}: examples of shape {inputs.shape[1:]} do not fit input {tensor.shape}"
        )
    kind = inputs.dtype if inputs.dtype == np.float64 else np.float32
    return inputs.reshape(-1, *tensor.shape).astype(kind, copy=False)


def batches(graph: Graph, inputs: Array) -> Iterator[Array]:
    """``inputs`` in runs of so many examples as the memory for a batch allows."""
    if not len(inputs):
        raise InputError(f"{graph.source}: there are no examples")
    count = int(np.clip(BATCH_BYTES // (4 * elements_of(graph)), 1, MOST_EXAMPLES))
    return (inputs[start : start + count] for start in range(0, len(inputs), count))


def elements_of(graph: Graph) -> int:
    """Values that one example takes: all activations, and the largest convolution's patches."""
    activations = sum(t.elements for t in graph.tensors if not t.constant)
    patches = (
        graph.output(node).elements
        * graph.at(node.inputs[1]).elements
        // graph.at(node.inputs[1]).shape[0]
        // graph.at(node.inputs[1]).shape[0]
        for node in graph.nodes
        if node.op == "CONV_2D"
    )
    return activations + max(patches, default=0)
