"""Cross-layer equalization: channels of neighbouring layers brought to one range of weights.

Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction (ICCV 2019),
section 4.1.  Between two layers with weights there may be operators f for which
f(s * x) = s * f(x) holds channel by channel with s > 0, such as ReLU and pooling.  Then the first
layer's outputs can be divided by s and the second layer's weights multiplied by it; the network
computes the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from tinygen.graph import ABSENT, Array, Graph, Node
from tinygen.ops import mean

CHANNEL_AXIS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}
"""Where the weights of each operator that has some have their output channels."""

ROUNDS = 20
"""Most passes over all pairs: each moves what is left to a layer's neighbours."""

SETTLED = 1e-3
MOST = 1e4
"""Largest factor for a channel at once."""


@dataclass(frozen=True)
class Pair:
    """Two layers (positions among the nodes), and how many inputs of the second see a channel.

    The second layer's input channels are ``repeats`` times the first layer's outputs, in order: a
    flattened image has them once a pixel.
    """

    first: int
    second: int
    repeats: int


def equalize(graph: Graph) -> Graph:
    """``graph`` (float32) with equalized weights; its outputs are the same up to rounding.

    Layers whose outputs are limited from above (RELU6) or read by several operators stay as they
    are, and so do those with which another layer shares its weights.
    """
    graph = _with_own_biases(graph)
    found = tuple(pairs(graph))
    arrays = {i: t.data for i, t in enumerate(graph.tensors) if t.data is not None}
    for _ in range(ROUNDS):
        changes = [_scale(graph, pair, arrays) for pair in found]
        if max(changes, default=0) < SETTLED:
            break
    for index, data in arrays.items():
        if data is not graph.at(index).data:
            graph = graph.with_tensor(index, data=data.astype(np.float32))
    return graph


def _with_own_biases(graph: Graph) -> Graph:
    """``graph`` with a bias for each layer; converters let layers share those of zeros."""
    seen: set[int] = set()
    nodes = []
    for node in graph.nodes:
        if node.op in CHANNEL_AXIS and len(node.inputs) > 2 and node.inputs[2] != ABSENT:
            bias = node.inputs[2]
            if bias in seen:
                graph, bias = graph.add_tensor(graph.at(bias))
                node = replace(node, inputs=(*node.inputs[:2], bias))
            seen.add(bias)
        nodes.append(node)
    return replace(graph, nodes=tuple(nodes))


def pairs(graph: Graph) -> Iterator[Pair]:
    """All pairs of layers that can be equalized, in execution order."""
    position = {node.outputs[0]: i for i, node in enumerate(graph.nodes)}
    for i, node in enumerate(graph.nodes):
        if not _changeable(graph, node) or node.attrs.activation not in ("NONE", "RELU"):
            continue
        channels = graph.at(node.inputs[1]).shape[CHANNEL_AXIS[node.op]]
        after, repeats = node, 1
        while True:
            readers = graph.consumers(after.outputs[0])
            if len(readers) != 1 or after.outputs[0] in graph.outputs:
                break
            following = readers[0]
            if following.op in CHANNEL_AXIS:
                inside = _input_channels(graph, following)
                if _changeable(graph, following) and inside == channels * repeats:
                    yield Pair(i, position[following.outputs[0]], repeats)
                break
            if not _homogeneous(graph, following, after.outputs[0]):
                break
            after = following
            depth = graph.output(after).shape[-1] if graph.output(after).shape else 0
            if depth % channels:
                break
            repeats = depth // channels


def _input_channels(graph: Graph, node: Node) -> int:
    return graph.at(node.inputs[1]).shape[-1]


def _changeable(graph: Graph, node: Node) -> bool:
    """Whether the node's weights are its own, and each output of it sees what it has to."""
    if node.op not in CHANNEL_AXIS or len(graph.consumers(node.inputs[1])) != 1:
        return False
    source, weights = graph.at(node.inputs[0]).shape, graph.at(node.inputs[1]).shape
    return source[-1] == weights[-1]  # neither groups nor a depth multiplier, nor rows regrouped


def _homogeneous(graph: Graph, node: Node, given: int) -> bool:
    """Whether scaling channels of ``given`` scales those of what ``node`` makes of it."""
    source, target = graph.at(given).shape, graph.output(node).shape
    if node.op in ("RELU", "LEAKY_RELU"):
        return True
    if node.op in ("MAX_POOL_2D", "AVERAGE_POOL_2D"):
        return node.attrs.activation in ("NONE", "RELU")
    if node.op == "MEAN":
        return len(source) - 1 not in mean.axes_of(graph, node)
    if node.op == "PAD":
        padding = graph.required(node, 1).data
        assert padding is not None
        return len(node.inputs) == 2 and not padding.reshape(-1, 2)[-1].any()
    if node.op in ("RESHAPE", "SQUEEZE", "EXPAND_DIMS"):
        return bool(target) and target[-1] % max(source[-1], 1) == 0
    return False


def _scale(graph: Graph, pair: Pair, arrays: dict[int, Array]) -> float:
    """Equalize a pair in ``arrays`` (tensors' data, replaced); how far from equal it was."""
    first, second = graph.nodes[pair.first], graph.nodes[pair.second]
    axis, channels = CHANNEL_AXIS[first.op], graph.at(first.inputs[1]).shape[CHANNEL_AXIS[first.op]]
    before = np.moveaxis(arrays[first.inputs[1]], axis, -1).astype(np.float64)
    after = arrays[second.inputs[1]].astype(np.float64)
    split = after.reshape(*after.shape[:-1], pair.repeats, channels)
    tops = np.abs(before).reshape(-1, channels).max(axis=0)
    following = np.abs(split).reshape(-1, channels).max(axis=0)
    live = (tops > 0) & (following > 0)
    ratio = np.divide(tops, following, out=np.ones(channels), where=live)
    factors = np.clip(np.sqrt(ratio), 1 / MOST, MOST)
    arrays[first.inputs[1]] = np.moveaxis(before / factors, -1, axis)
    arrays[second.inputs[1]] = (split * factors).reshape(after.shape)
    if len(first.inputs) > 2 and first.inputs[2] != ABSENT:
        bias = arrays[first.inputs[2]]
        arrays[first.inputs[2]] = bias / factors.reshape(bias.shape)
    return float(np.abs(np.log(factors)).max(initial=0))
