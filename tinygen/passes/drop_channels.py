"""Drop channels that nothing reads.

Channels of different tensors that must come or go together (those of an activation's input and
output, of both operands of a sum) are joined.  A channel is kept when it is joined with one that
is, or something needs it: the network's outputs, an operator that mixes channels, or a layer whose
filter is not zero on it for an output channel that is kept.  Whatever is left goes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from tinygen.graph import Graph, Node
from tinygen.ops import (
    concatenation,
    conv2d,
    depthwise_conv2d,
    dequantize,
    fully_connected,
    mean,
    pad,
)
from tinygen.passes import known, narrow
from tinygen.passes.known import Mask

Slots = npt.NDArray[np.int64]

VECTOR_MULTIPLE = 4
"""Channels are dropped down to a multiple of this where kernels take several values at a time; the
filters of the rest become zero.  What that costs in weights it saves in code for remainders."""

_CHANNELWISE = known.BYTEWISE | known.POOLS | {dequantize.OP.name}


class _Channels:
    """Channels of activations, numbered through: which are needed, which others are kept."""

    def __init__(self, graph: Graph) -> None:
        self._slots: dict[int, Slots] = {}
        count = 0
        computed = [i for node in graph.nodes for i in node.outputs]
        for index in (*graph.inputs, *computed):
            tensor = graph.at(index)
            if tensor.shape and tensor.elements:
                self._slots[index] = np.arange(count, count + tensor.shape[-1])
                count += tensor.shape[-1]
        self._needed = np.zeros(count, dtype=bool)
        self._kept = self._needed.copy()
        self._joined: list[tuple[Slots, Slots]] = []

    def of(self, tensor: int) -> Slots:
        """The channels of ``tensor``."""
        return self._slots.get(tensor, np.zeros(0, dtype=np.int64))

    def join(self, some: Slots, others: Slots) -> None:
        """Keep each of ``some`` if its counterpart of ``others`` is, and the other way round."""
        self._joined.append((some, others))

    def need(self, slots: Slots) -> bool:
        """Keep ``slots`` with the values they have; whether that is news."""
        news = not self._needed[slots].all()
        self._needed[slots] = True
        return news

    def spread(self) -> bool:
        """Need what is joined with what is needed; whether that is news."""
        return self._spread(self._needed)

    def _spread(self, marked: Mask) -> bool:
        before = np.count_nonzero(marked)
        for pairs in (reversed(self._joined), self._joined):
            for some, others in pairs:
                marked[some[marked[others]]] = True
                marked[others[marked[some]]] = True
        return bool(np.count_nonzero(marked) > before)

    def needed(self, tensor: int) -> Mask:
        return self._needed[self.of(tensor)]

    def fill(self, multiple: int) -> None:
        """Keep more channels, whatever their values, until each tensor has one at least and a
        multiple of ``multiple`` if it has so many."""
        self._kept = self._needed.copy()
        news = True
        while news:
            news = self._spread(self._kept)
            for slots in self._slots.values():
                kept = self._kept[slots]
                count = max(int(kept.sum()), 1)
                missing = -(-count // multiple) * multiple - int(kept.sum())
                more = slots[~kept][:missing]
                self._kept[more] = True
                news |= more.size > 0

    def masks(self) -> dict[int, tuple[Mask, Mask]]:
        """By tensor, which channels are kept, and which of those are needed."""
        return {t: (self._kept[slots], self._needed[slots]) for t, slots in self._slots.items()}


def drop_channels(graph: Graph, multiple: int = 1) -> Graph:
    """``graph`` without channels that nothing reads, down to a multiple of ``multiple`` each.

    What goes in and out keeps its shape.
    """
    channels = _Channels(graph)
    for index in (*graph.inputs, *graph.outputs):
        channels.need(channels.of(index))
    layers = [
        (node, _uses(graph, node)) for node in graph.nodes if not _joined(graph, node, channels)
    ]
    news = True
    while news:
        news = channels.spread()
        for node, uses in reversed(layers):
            needed = uses[channels.needed(node.outputs[0])].any(axis=0)
            news |= channels.need(channels.of(node.inputs[0])[needed])
    channels.fill(multiple)
    masks = channels.masks()
    return graph if all(kept.all() for kept, _ in masks.values()) else _without(graph, masks)


def multiple_for(features: frozenset[str]) -> int:
    """What channels should be a multiple of on a core with ``features``."""
    return VECTOR_MULTIPLE if features & {"dsp", "mve"} else 1


def _joined(graph: Graph, node: Node, channels: _Channels) -> bool:
    """Join or keep the channels that ``node`` goes between; False if it is a layer whose outputs
    choose what they need."""
    if channels.of(node.inputs[0]).size:
        if node.op == fully_connected.OP.name and _flattens(graph, node):
            return False
        if node.op == conv2d.OP.name and conv2d.groups_of(graph, node) == 1:
            return False
    pairs = _pairs(graph, node, channels)
    if pairs is None:
        for index in (*node.inputs, *node.outputs):
            channels.need(channels.of(index))
        return True
    for some, others in pairs:
        channels.join(some, others)
    return True


def _flattens(graph: Graph, node: Node) -> bool:
    """Whether a dense layer takes whole pixels of its input as its rows."""
    return graph.required(node, 1).shape[1] % graph.required(node, 0).shape[-1] == 0


def _pairs(graph: Graph, node: Node, channels: _Channels) -> Iterable[tuple[Slots, Slots]] | None:
    """Channels that ``node`` maps to each other; None when it mixes them."""
    source, target = channels.of(node.inputs[0]), channels.of(node.outputs[0])
    if node.op in known.SUMS:
        return _operands(graph, node, channels)
    if not source.size or not target.size:
        return None
    if node.op in _CHANNELWISE or _pads_no_channels(graph, node):
        return [(source, target)]
    if node.op == mean.OP.name and known.mean_keeps_channels(graph, node):
        return [(source, target)]
    if node.op == depthwise_conv2d.OP.name:
        return [(np.repeat(source, target.size // source.size), target)]
    if node.op == concatenation.OP.name and not any(graph.at(i).constant for i in node.inputs):
        sources = [channels.of(i) for i in node.inputs]
        if concatenation.axis_of(graph, node) == len(graph.output(node).shape) - 1:
            return [(np.concatenate(sources), target)]
        return [(each, target) for each in sources]
    return _views(source, target) if node.op in known.VIEWS else None


def _pads_no_channels(graph: Graph, node: Node) -> bool:
    return node.op in pad.NAMES and pad.amounts(graph, node)[-1] == (0, 0)


def _operands(
    graph: Graph, node: Node, channels: _Channels
) -> Iterable[tuple[Slots, Slots]] | None:
    """An operand with one channel for all is no part of a group, and is needed."""
    target = channels.of(node.outputs[0])
    pairs = []
    for index in node.inputs:
        if graph.at(index).constant:
            continue
        source = channels.of(index)
        if source.size == target.size:
            pairs.append((source, target))
        else:
            channels.need(source)
    return pairs if target.size else None


def _views(source: Slots, target: Slots) -> Iterable[tuple[Slots, Slots]] | None:
    """Channels that repeat in memory after each other's numbers."""
    if target.size % source.size == 0:
        return [(np.tile(source, target.size // source.size), target)]
    if source.size % target.size == 0:
        return [(source, np.tile(target, source.size // target.size))]
    return None


def _uses(graph: Graph, node: Node) -> Mask:
    """Which inputs each output of a layer reads: (outputs, inputs)."""
    filters = graph.required(node, 1).data
    assert filters is not None
    depth = graph.required(node, 0).shape[-1]
    return np.asarray(filters.reshape(filters.shape[0], -1, depth).any(axis=1))


def _without(graph: Graph, masks: dict[int, tuple[Mask, Mask]]) -> Graph:
    """``graph`` with the channels that are kept."""
    nodes = []
    for node in graph.nodes:
        graph, node = _narrowed(graph, node, masks)
        nodes.append(node)
    tensors = list(graph.tensors)
    for index, (kept, _) in masks.items():
        shape = (*tensors[index].shape[:-1], int(kept.sum()))
        tensors[index] = replace(tensors[index], shape=shape)
    return replace(graph, tensors=tuple(tensors), nodes=tuple(nodes))


def _narrowed(graph: Graph, node: Node, masks: dict[int, tuple[Mask, Mask]]) -> tuple[Graph, Node]:
    """``node`` with constants for the channels that are kept."""
    if node.outputs[0] not in masks:
        return graph, node
    kept, needed = masks[node.outputs[0]]
    if node.op in narrow.MODULES:
        every = np.ones(graph.required(node, 0).shape[-1:], dtype=bool)
        inputs, _ = masks.get(node.inputs[0], (every, every))
        if node.op == fully_connected.OP.name:
            inputs = np.tile(inputs, graph.required(node, 1).shape[1] // inputs.size)
        if inputs.all() and kept.all():
            return graph, node
        return narrow.layer(graph, node, inputs, kept, needed)
    if node.op == "RESHAPE":
        return graph, replace(node, inputs=node.inputs[:1])
    if node.op in known.SUMS and not kept.all():
        given = []
        for index in node.inputs:
            tensor = graph.at(index)
            if tensor.constant and tensor.shape[-1:] == (kept.size,):
                graph, index = graph.add_tensor(narrow.cut(tensor, len(tensor.shape) - 1, kept))
            given.append(index)
        return graph, replace(node, inputs=tuple(given))
    return graph, node
