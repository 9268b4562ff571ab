"""What can be said of activations before any input is seen: ranges of channels, known channels.

A channel is a slice along the last axis.  A channel is *known* when its values do not depend on
the network's inputs, such as one whose filter is all zero; they need not be equal to each other:
a depthwise convolution that pads turns an even channel into one whose border differs.

Ranges are intervals, propagated operator by operator.  Requantization is monotone as long as
nothing wraps, which is checked, so that a channel both of whose ends become the same value is
known, too.  Known values come from the references.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tinygen.graph import ABSENT, Array, Graph, Node
from tinygen.numerics import INT32_MAX, Int64Array, exact_matmul, requantize, wrap32
from tinygen.ops import (
    BY_NAME,
    concatenation,
    conv2d,
    depthwise_conv2d,
    fully_connected,
    mean,
    mul,
    pad,
)
from tinygen.ops.common import Requant, Window, activation_limits, bias_of, is_int8
from tinygen.passes import narrow

LOW, HIGH = -128, 127
MAX_CLASSES = 256
"""Most kinds of windows (by which taps fall outside the image) that are told apart."""

Mask = npt.NDArray[np.bool_]
BYTEWISE = frozenset({"RELU", "RELU6", "LEAKY_RELU", "HARD_SWISH", "LOGISTIC", "TANH", "QUANTIZE"})
POOLS = frozenset({"AVERAGE_POOL_2D", "MAX_POOL_2D"})
SUMS = frozenset({"ADD", "SUB", "MUL"})
VIEWS = frozenset({"RESHAPE", "SQUEEZE", "EXPAND_DIMS"})


@dataclass(frozen=True, eq=False)
class Values:
    """What is known of an int8 tensor (..., channels).

    ``low`` and ``high`` (channels) hold all values of a channel.  ``image`` has the tensor's shape
    and counts where ``known`` (channels).
    """

    low: Int64Array
    high: Int64Array
    known: Mask
    image: Array

    @property
    def even(self) -> Mask:
        """Known channels all of whose values are equal."""
        same: Mask = self.low == self.high
        return same


def even_or_ranges(low: Array, high: Array, shape: tuple[int, ...]) -> Values:
    """Values of which only ranges are known, and channels whose ends meet."""
    image = np.broadcast_to(low.astype(np.int8), shape).copy()
    return Values(low.astype(np.int64), high.astype(np.int64), low == high, image)


def unknown(shape: tuple[int, ...], low: int = LOW, high: int = HIGH) -> Values:
    ends = np.ones(shape[-1], dtype=np.int64)
    return even_or_ranges(low * ends, high * ends, shape)


def of_data(data: Array) -> Values:
    """A constant."""
    rows = data.reshape(-1, data.shape[-1]).astype(np.int64)
    every = np.ones(data.shape[-1], dtype=bool)
    return Values(rows.min(axis=0), rows.max(axis=0), every, data)


def _sharpened(values: Values, known: Mask, image: Array) -> Values:
    """``values`` with channels ``known`` of ``image`` added, and ranges that follow from them."""
    whole = values.image.copy()
    whole[..., known] = image[..., known]
    flat = whole.reshape(-1, whole.shape[-1]).astype(np.int64)
    return Values(
        np.where(known, flat.min(axis=0), values.low),
        np.where(known, flat.max(axis=0), values.high),
        values.known | known,
        whole,
    )


def analyse(graph: Graph) -> dict[int, Values]:
    """What is known of every int8 tensor with channels and elements, by tensor."""
    found: dict[int, Values] = {}
    for index, tensor in enumerate(graph.tensors):
        if _tracked(graph, index):
            if tensor.data is not None:
                found[index] = of_data(tensor.data)
            elif index in graph.inputs:
                found[index] = unknown(tensor.shape)
    for node in graph.nodes:
        index = node.outputs[0]
        if not _tracked(graph, index):
            continue
        shape = graph.at(index).shape
        rule = _rule(graph, node)
        given = [found[i] for i in node.inputs if i in found]
        if rule is None or not given:
            found[index] = unknown(shape)
        else:
            found[index] = rule(graph, node, found)
    return found


def _tracked(graph: Graph, index: int) -> bool:
    tensor = graph.at(index)
    return is_int8(tensor) and len(tensor.shape) > 0 and tensor.elements > 0


Rule = Callable[[Graph, Node, dict[int, Values]], Values]


def _rule(graph: Graph, node: Node) -> Rule | None:
    """What propagates values through ``node``, None when nothing does."""
    if node.op in (conv2d.OP.name, depthwise_conv2d.OP.name, fully_connected.OP.name):
        return _layer
    if not _tracked(graph, node.inputs[0]) and node.op not in SUMS:
        return None
    if node.op in BYTEWISE:
        return _bytewise
    if node.op in POOLS:
        return _pool
    if node.op in SUMS:
        return _sum if all(_tracked(graph, i) for i in node.inputs) else None
    if node.op == mean.OP.name and mean_keeps_channels(graph, node):
        return _mean
    if node.op == concatenation.OP.name:
        return _concatenation if all(_tracked(graph, i) for i in node.inputs) else None
    if node.op in pad.NAMES:
        return _pad
    return _view if node.op in VIEWS else None


def mean_keeps_channels(graph: Graph, node: Node) -> bool:
    """Whether a MEAN averages over other axes than the channels'."""
    return len(graph.required(node, 0).shape) - 1 not in mean.axes_of(graph, node)


def _bytewise(graph: Graph, node: Node, found: dict[int, Values]) -> Values:
    given = found[node.inputs[0]]
    every = np.arange(LOW, HIGH + 1, dtype=np.int8)
    (table,) = BY_NAME[node.op].reference(graph, node, (every,))
    spans = [
        table[low - LOW : high - LOW + 1] for low, high in zip(given.low, given.high, strict=True)
    ]
    low = np.array([span.min() for span in spans])
    high = np.array([span.max() for span in spans])
    values = even_or_ranges(low, high, graph.output(node).shape)
    image = table[given.image.astype(np.int64) - LOW]
    return _sharpened(values, given.known, image)


def _pool(graph: Graph, node: Node, found: dict[int, Values]) -> Values:
    """Neither averages nor maxima leave the range; then they are limited."""
    given = found[node.inputs[0]]
    limits = activation_limits(graph, node, node.attrs.activation)
    low, high = np.clip(given.low, *limits), np.clip(given.high, *limits)
    values = even_or_ranges(low, high, graph.output(node).shape)
    return _with_reference(graph, node, values, given.known, (given.image,))


def _with_reference(
    graph: Graph, node: Node, values: Values, known: Mask, images: tuple[Array, ...]
) -> Values:
    """``values`` with what the reference computes of ``known`` channels that are not even."""
    missing = known & ~values.even
    if not missing.any():
        return values
    channels = missing.size
    parts = [i[..., missing] if i.shape[-1:] == (channels,) else i for i in images]
    (result,) = BY_NAME[node.op].reference(graph, node, tuple(parts))
    image = values.image.copy()
    image[..., missing] = result
    return _sharpened(values, missing, image)


def _mean(graph: Graph, node: Node, found: dict[int, Values]) -> Values:
    given, source = found[node.inputs[0]], graph.required(node, 0)
    count = mean.count_of(graph, node)
    ends = count * (np.stack([given.low, given.high])[:, None] - source.zero_point)
    low, high = _ranges(mean.requant_of(graph, node), *ends)
    values = even_or_ranges(low, high, graph.output(node).shape)
    return _with_reference(graph, node, values, given.known, (given.image,))


def _sum(graph: Graph, node: Node, found: dict[int, Values]) -> Values:
    """ADD, SUB and MUL have their extremes at those of the operands."""
    shape = graph.output(node).shape
    operands = [found[i] for i in node.inputs]
    ends = [(v.low.astype(np.int8), v.high.astype(np.int8)) for v in operands]
    if node.op == mul.OP.name and any(m.shift > 0 for m in mul.requant_of(graph, node).multipliers):
        values = unknown(shape)
    else:
        corners = np.stack(
            [
                BY_NAME[node.op].reference(graph, node, np.broadcast_arrays(a, b))[0]
                for a in ends[0]
                for b in ends[1]
            ]
        )
        low, high = (np.broadcast_to(f(corners, axis=0), shape[-1:]) for f in (np.min, np.max))
        values = even_or_ranges(low, high, shape)
    known = np.broadcast_to(operands[0].known & operands[1].known, shape[-1:])
    return _with_reference(graph, node, values, known, tuple(v.image for v in operands))


def _concatenation(graph: Graph, node: Node, found: dict[int, Values]) -> Values:
    parts = [found[i] for i in node.inputs]
    axis = concatenation.axis_of(graph, node)
    image = np.concatenate([part.image for part in parts], axis=axis)
    if axis == image.ndim - 1:
        low, high, known = (
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("low", "high", "known")
        )
        return Values(low, high, known, image)
    return Values(
        np.min([part.low for part in parts], axis=0),
        np.max([part.high for part in parts], axis=0),
        np.all([part.known for part in parts], axis=0),
        image,
    )


def _pad(graph: Graph, node: Node, found: dict[int, Values]) -> Values:
    given, fill = found[node.inputs[0]], int(pad.fill_value(graph, node))
    *others, last = pad.amounts(graph, node)
    (image,) = BY_NAME[node.op].reference(graph, node, (given.image,))
    low, high = (np.pad(ends, last, constant_values=fill) for ends in (given.low, given.high))
    if any(amount != (0, 0) for amount in others):
        low, high = np.minimum(low, fill), np.maximum(high, fill)
    return Values(low, high, np.pad(given.known, last, constant_values=True), image)


def _view(graph: Graph, node: Node, found: dict[int, Values]) -> Values:
    return viewed(found[node.inputs[0]], graph.output(node).shape)


def viewed(given: Values, shape: tuple[int, ...]) -> Values:
    """``given`` in the same memory under another ``shape``."""
    before, after = given.known.size, shape[-1]
    if after % before == 0:  # several pixels become one: channel j is channel j % before
        low, high = (np.tile(ends, after // before) for ends in (given.low, given.high))
        known = np.tile(given.known, after // before)
    else:  # a pixel becomes several, or one begins within another
        rows = after if before % after == 0 else 1
        low = np.resize(given.low.reshape(-1, rows).min(axis=0), after)
        high = np.resize(given.high.reshape(-1, rows).max(axis=0), after)
        known = np.resize(given.known.reshape(-1, rows).all(axis=0), after)
    image = given.image.reshape(shape)
    return _sharpened(Values(low, high, known, image), known, image)


# ---- convolutions and dense layers ---------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Taps:
    """A layer's filter as (taps, outputs, inputs), or (taps, outputs, 1) when each output sees one
    input; ``seen`` (windows, taps) tells which taps lie inside the image, a row for each kind of
    window."""

    weights: Int64Array
    seen: Mask
    bias: Int64Array
    scaling: Requant
    zero_point: int

    def contributions(self, inputs: Int64Array) -> Int64Array:
        """Sums (windows, outputs) of even ``inputs`` (inputs), the bias not added."""
        given = inputs - self.zero_point
        if self.weights.shape[2] == 1 and self.weights.shape[1] != given.size:
            given = np.repeat(given, self.weights.shape[1] // given.size)
        if self.weights.shape[2] == 1:
            products = self.weights[:, :, 0] * given
        else:
            products = exact_matmul(self.weights, given)
        return exact_matmul(self.seen, products)


def layer_input(graph: Graph, node: Node, values: Values) -> Values:
    """Input values as the layer takes them: dense layers may flatten theirs."""
    if node.op != fully_connected.OP.name:
        return values
    depth = graph.required(node, 1).shape[1]
    return viewed(values, (graph.required(node, 0).elements // depth, depth))


def taps_of(graph: Graph, node: Node) -> Taps | None:
    """The layer's arithmetic; None for groups, which nobody narrows, and uncommonly many kinds of
    windows."""
    filters = graph.required(node, 1).data
    assert filters is not None
    module = narrow.MODULES[node.op]
    if node.op == fully_connected.OP.name:
        weights, seen = filters[None], np.ones((1, 1), dtype=bool)
    else:
        if node.op == conv2d.OP.name:
            if conv2d.groups_of(graph, node) > 1:
                return None
            weights = filters.transpose(1, 2, 0, 3).reshape(-1, filters.shape[0], filters.shape[3])
        else:
            weights = filters.reshape(-1, filters.shape[3], 1)
        window = conv2d.window_of(graph, node)
        kinds = _kinds_of_windows(window, *graph.required(node, 0).shape[1:3])
        if kinds is None:
            return None
        seen = kinds
    return Taps(
        weights.astype(np.int64),
        seen,
        bias_of(graph, node, weights.shape[1]),
        module.requant_of(graph, node),
        graph.required(node, 0).zero_point,
    )


def _kinds_of_windows(window: Window, height: int, width: int) -> Mask | None:
    """Which taps (rows, then columns) lie inside the image, for each kind of window."""
    pads, counts = window.resolve(height, width), window.output(height, width)
    sides = []
    for axis, (extent, before) in enumerate(((height, pads.top), (width, pads.left))):
        starts = np.arange(counts[axis]) * window.stride[axis] - before
        at = starts[:, None] + np.arange(window.kernel[axis]) * window.dilation[axis]
        sides.append(np.unique((at >= 0) & (at < extent), axis=0))
    if len(sides[0]) * len(sides[1]) > MAX_CLASSES:
        return None
    kinds: Mask = sides[0][:, None, :, None] & sides[1][None, :, None, :]
    return kinds.reshape(len(sides[0]) * len(sides[1]), -1)


def _layer(graph: Graph, node: Node, found: dict[int, Values]) -> Values:
    shape = graph.output(node).shape
    taps = taps_of(graph, node)
    if taps is None or node.inputs[0] not in found:
        return unknown(shape)
    given = layer_input(graph, node, found[node.inputs[0]])
    positive = replace(taps, weights=np.maximum(taps.weights, 0))
    negative = replace(taps, weights=np.minimum(taps.weights, 0))
    least = positive.contributions(given.low) + negative.contributions(given.high)
    most = positive.contributions(given.high) + negative.contributions(given.low)
    low, high = _ranges(taps.scaling, least + taps.bias, most + taps.bias)
    values = even_or_ranges(low, high, shape)
    missing = _independent(taps, given.known) & ~values.even
    if not missing.any():
        return values
    return _computed(graph, node, given, values, missing)


def _independent(taps: Taps, known: Mask) -> Mask:
    """Outputs that depend on known inputs alone."""
    used: Mask = np.asarray(taps.weights.any(axis=0))
    if used.shape[1] == 1:
        used = used & ~np.repeat(known, used.shape[0] // known.size)[:, None]
    else:
        used = used & ~known
    return ~np.asarray(used.any(axis=1))


def _computed(graph: Graph, node: Node, given: Values, values: Values, missing: Mask) -> Values:
    """``values`` with the outputs ``missing`` by the reference, from known inputs alone."""
    shape = graph.output(node).shape
    if node.op == depthwise_conv2d.OP.name:
        multiplier = missing.size // given.known.size
        inputs: Mask = np.asarray(missing.reshape(-1, multiplier).any(axis=1))
        outputs = np.repeat(inputs, multiplier)
    else:
        inputs, outputs = given.known, missing
    small, part = narrow.layer(graph, node, inputs, outputs)
    source = given.image[..., inputs]
    small = small.with_tensor(part.inputs[0], shape=source.shape)
    small = small.with_tensor(part.outputs[0], shape=(*shape[:-1], int(outputs.sum())))
    (result,) = BY_NAME[part.op].reference(
        small, part, (source, *(small.at(i).data for i in part.inputs[1:] if i != ABSENT))
    )
    image = values.image.copy()
    image[..., outputs] = result
    return _sharpened(values, missing, image)


def _ranges(scaling: Requant, least: Int64Array, most: Int64Array) -> tuple[Array, Array]:
    """Outputs' ranges (channels) for accumulators' (windows, channels)."""
    left = np.maximum([m.shift for m in scaling.multipliers], 0)
    mantissas = np.array([m.mantissa for m in scaling.multipliers])
    shifts = np.array([m.shift for m in scaling.multipliers])

    def plain(acc: Int64Array) -> Mask:
        """Where nothing wraps, so that requantization is monotone."""
        fits = (np.abs(acc) << left) <= INT32_MAX
        scaled = np.abs(requantize(np.where(fits, acc, 0), mantissas, shifts))
        good: Mask = fits & (scaled <= INT32_MAX - 256)
        return good

    sure = (least == most) | (plain(least) & plain(most))
    low = np.where(sure, scaling.apply(wrap32(least)), scaling.low)
    high = np.where(sure, scaling.apply(wrap32(most)), scaling.high)
    return low.min(axis=0), high.max(axis=0)


def accumulators_for(scaling: Requant, wanted: Int64Array) -> Int64Array:
    """The accumulators (channels) nearest to 0, of moderate size, that become ``wanted``.

    Large ones would forbid the kernels that need small ones; a clamped output has both.  The caller
    checks what they become.
    """
    least, beyond = (_least_for(scaling, values) for values in (wanted, wanted + 1))
    nearest: Int64Array = np.clip(0, least, np.maximum(beyond - 1, least))
    return nearest


def _least_for(scaling: Requant, wanted: Int64Array) -> Int64Array:
    """The least accumulators that become at least ``wanted``: a search by halving."""
    low = np.full(wanted.size, -(1 << 30), dtype=np.int64)
    high = np.full(wanted.size, 1 << 30, dtype=np.int64)
    while (low < high).any():
        middle = (low + high) >> 1
        enough = scaling.apply(middle) >= wanted
        low, high = np.where(enough, low, middle + 1), np.where(enough, middle, high)
    return low
