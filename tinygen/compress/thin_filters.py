"""Filter pruning by reconstruction: drop the channels whose readers can do without them.

Channels that come or go together (through sums, activations, pooling, depthwise convolutions) make
a group.  From each group go those channels whose loss the weights of the layers that read them make
up for best, by least squares on examples (He et al., "Channel Pruning", 2017; Luo et al.,
"ThiNet", 2017), chosen one after the other in the manner of the optimal brain surgeon.  Then all
layers are fitted to the original outputs and rounded, and the exact pass removes the channels: the
result has fewer multiply-accumulates, weights and values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from pydantic import Field

from tinygen.compress import correction, layers, recover
from tinygen.compress.base import Context, Method
from tinygen.compress.layers import Floats, Layer, Moments, Solution
from tinygen.graph import Array, Graph, Node
from tinygen.ops import BY_NAME, conv2d, depthwise_conv2d, dequantize, fully_connected, mean, pad
from tinygen.passes import known
from tinygen.passes.drop_channels import drop_channels

WHAT = "thinning filters"

_CHANNELWISE = known.BYTEWISE | known.POOLS | {dequantize.OP.name}
_MIXING = {conv2d.OP.name, fully_connected.OP.name}


class ThinSettings(layers.LayerSettings):
    amount: float = Field(default=0.25, ge=0, lt=1)
    """Part of the filters that goes at most, of each group."""
    macs: float | None = Field(default=None, gt=0, le=1)
    """Part of the multiply-accumulates to keep: filters then go where the error for what they cost
    is smallest, until this is reached; ``amount`` still bounds every group."""
    error_limit: float | None = Field(default=None, gt=0)
    """Largest error of the outputs of the layers that read a group, squared and relative."""
    multiple: int = Field(default=4, ge=1, le=64)
    """Numbers of filters that are left are multiples of this, where they were before."""
    scope: Literal["layer", "global"] = "layer"
    """Whether ``amount`` is of each group, or of all filters together."""


@dataclass(frozen=True)
class Group:
    """Channels of the same number in several tensors that come or go together.

    ``producers`` compute them, ``followers`` are depthwise layers between them, ``consumers`` read
    them: positions of nodes.
    """

    channels: int
    producers: tuple[int, ...]
    followers: tuple[int, ...]
    consumers: tuple[int, ...]


@dataclass(eq=False)
class _Ties:
    """Tensors whose channels are tied: a forest; ``blocked`` roots have channels that must stay."""

    parent: dict[int, int] = field(default_factory=dict)
    channels: dict[int, int] = field(default_factory=dict)
    blocked: set[int] = field(default_factory=set)

    def new(self, tensor: int, channels: int) -> None:
        self.parent[tensor] = tensor
        self.channels[tensor] = channels

    def root(self, tensor: int) -> int:
        while self.parent[tensor] != tensor:
            tensor = self.parent[tensor]
        return tensor

    def block(self, tensors: Iterable[int]) -> None:
        self.blocked |= {self.root(tensor) for tensor in tensors if tensor in self.parent}

    def tie(self, one: int, other: int) -> None:
        first, second = self.root(one), self.root(other)
        self.parent[second] = first
        if second in self.blocked or self.channels[first] != self.channels[second]:
            self.blocked.add(first)


def groups_of(graph: Graph) -> tuple[Group, ...]:
    """The groups of channels of ``graph`` that may be pruned, in order of their producers."""
    ties = _Ties()
    for index in graph.inputs:
        ties.new(index, max(graph.at(index).shape[-1:], default=1))
    ties.block(graph.inputs)
    for node in graph.nodes:
        _tie(graph, node, ties)
    ties.block(graph.outputs)
    members: dict[int, dict[str, list[int]]] = {}
    for position, node in enumerate(graph.nodes):
        if node.op in _MIXING:
            _member(members, ties, node.outputs[0])["producers"].append(position)
            if node.inputs[0] in ties.parent:
                _member(members, ties, node.inputs[0])["consumers"].append(position)
        elif node.op == depthwise_conv2d.OP.name and node.inputs[0] in ties.parent:
            _member(members, ties, node.outputs[0])["followers"].append(position)
    blocked = {ties.root(tensor) for tensor in ties.blocked}
    return tuple(
        Group(
            ties.channels[root], *(tuple(found[k]) for k in ("producers", "followers", "consumers"))
        )
        for root, found in members.items()
        if root not in blocked and found["producers"] and found["consumers"]
    )


def _member(
    members: dict[int, dict[str, list[int]]], ties: _Ties, tensor: int
) -> dict[str, list[int]]:
    empty: dict[str, list[int]] = {"producers": [], "followers": [], "consumers": []}
    return members.setdefault(ties.root(tensor), empty)


def _tie(graph: Graph, node: Node, ties: _Ties) -> None:
    """Add a node's output, tied to what it has its channels from."""
    (output,) = node.outputs
    shape = graph.at(output).shape
    given = [i for i in node.inputs if i in ties.parent]
    ties.new(output, shape[-1] if shape else 1)
    if not given or not shape:
        ties.block([*given, output])
    elif node.op in _MIXING:
        if not _reads_channels(graph, node, ties.channels[ties.root(given[0])]):
            ties.block(given)
        if graph.required(node, 0).dtype != "int8":
            ties.block([*given, output])
    elif _same_channels(graph, node, ties, given):
        ties.channels[output] = ties.channels[ties.root(given[0])]
        for each in given:
            ties.tie(each, output)
    else:
        ties.block([*given, output])


def _reads_channels(graph: Graph, node: Node, channels: int) -> bool:
    """Whether a layer's taps are the channels in turn."""
    if node.op == conv2d.OP.name and conv2d.groups_of(graph, node) != 1:
        return False
    depth = graph.required(node, 1).shape[-1]
    return depth % channels == 0 and graph.required(node, 0).shape[-1] % channels == 0


def _same_channels(graph: Graph, node: Node, ties: _Ties, given: list[int]) -> bool:
    """Whether the node's output has its inputs' channels, in turn along the last axis."""
    channels = ties.channels[ties.root(given[0])]
    last = graph.output(node).shape[-1]
    if node.op in known.VIEWS:
        return last % channels == 0
    if node.op in known.SUMS:
        shapes = [graph.at(i).shape for i in given]
        return all(shape[-1:] == (last,) for shape in shapes)
    if node.op == depthwise_conv2d.OP.name:
        return graph.required(node, 0).shape[-1] == last == channels
    if node.op == mean.OP.name:
        return known.mean_keeps_channels(graph, node)
    if node.op in pad.NAMES:
        return pad.amounts(graph, node)[-1] == (0, 0)
    return node.op in _CHANNELWISE


@dataclass(eq=False)
class _Reader:
    """A layer that reads a group: the weights as they would be fitted to the channels left.

    ``weights`` are (rows, taps) weighted by their rows' importance, taps in blocks of a channel;
    ``inverse`` is the inverse of the moments of the taps left, ``left`` the channels of the blocks.
    """

    weights: Floats
    inverse: Floats
    left: Array
    size: int

    def costs(self) -> Floats:
        """Relative error of the outputs when a channel goes and the others make up for it."""
        count = len(self.left)
        at = np.arange(count)
        blocks = self.inverse.reshape(count, self.size, count, self.size)[at, :, at]
        each = self.weights.reshape(len(self.weights), count, self.size).transpose(1, 2, 0)
        errors: Floats = (each * np.linalg.solve(blocks, each)).sum(axis=(1, 2))
        return errors

    def remove(self, channel: int) -> None:
        out = np.repeat(self.left == channel, self.size)
        bridge = np.linalg.solve(self.inverse[np.ix_(out, out)], self.inverse[np.ix_(out, ~out)])
        self.weights = self.weights[:, ~out] - self.weights[:, out] @ bridge
        self.inverse = self.inverse[np.ix_(~out, ~out)] - self.inverse[np.ix_(~out, out)] @ bridge
        self.left = self.left[self.left != channel]


def _reader(layer: Layer, moments: Moments, channels: int) -> _Reader:
    """Weights in units in which the squared size of all outputs is 1."""
    taps = layer.weights.shape[1]
    order = np.argsort(np.arange(taps) % channels, kind="stable")
    gram = correction.damped(moments.gram)[0][np.ix_(order, order)]
    weights = (layer.grouped * np.sqrt(layer.importance))[0][:, order]
    size = float(((weights @ gram) * weights).sum())
    scaled = weights / np.sqrt(size) if size > 0 else weights
    return _Reader(scaled, np.linalg.inv(gram), np.arange(channels), taps // channels)


@dataclass(eq=False)
class _Choice:
    """A group in the course of pruning: who reads it, what has gone at which error."""

    group: Group
    readers: list[_Reader]
    least: int
    """Channels that must stay."""
    step: int
    """Channels that go at a time."""
    error: float = 0.0
    done: bool = False

    @property
    def left(self) -> Array:
        return self.readers[0].left

    def next(self) -> tuple[Array, float]:
        """The channels to go next, and about what they cost."""
        costs = sum((reader.costs() for reader in self.readers), np.zeros(len(self.left)))
        cheapest = np.argsort(costs, kind="stable")[: self.step]
        return self.left[cheapest], float(costs[cheapest].sum()) / len(self.readers)

    def remove(self, channels: Array, cost: float) -> None:
        for channel in channels:
            for reader in self.readers:
                reader.remove(int(channel))
        self.error += cost


def apply(graph: Graph, settings: ThinSettings, context: Context) -> Graph:
    """``graph`` with fewer filters; raises :class:`InputError` when there are no examples."""
    every = {layer.position: layer for layer in layers.layers_of(graph)}
    wanted = {layer.position for layer in layers.chosen(graph, settings)}
    groups = [g for g in groups_of(graph) if wanted & set(g.producers) and _int8(g, every)]
    consumers = [every[p] for p in sorted({p for g in groups for p in g.consumers})]
    moments = layers.survey(graph, consumers, context, settings, WHAT)
    gone = chosen_channels(graph, groups, every, moments, settings)
    if not gone:
        return graph
    return layers.checked(layers.compact(drop_channels(_fitted(graph, gone, settings, context))))


def _int8(group: Group, every: Mapping[int, Layer]) -> bool:
    positions = (*group.producers, *group.followers, *group.consumers)
    return all(p in every and every[p].dtype == "int8" for p in positions) and all(
        every[p].moderate for p in positions
    )


def chosen_channels(
    graph: Graph,
    groups: Iterable[Group],
    every: Mapping[int, Layer],
    moments: Mapping[int, Moments],
    settings: ThinSettings,
) -> dict[Group, Array]:
    """Which channels of each group go."""
    choices = []
    for group in groups:
        readers = [_reader(every[p], moments[p], group.channels) for p in group.consumers]
        step = settings.multiple if group.channels % settings.multiple == 0 else 1
        share = (
            1.0 - settings.amount if settings.scope == "layer" and settings.macs is None else 0.0
        )
        least = max(step, -(-round(share * group.channels, 6) // step) * step)
        choices.append(_Choice(group, readers, int(least), step))
    total = sum(choice.group.channels for choice in choices)
    while True:
        removed = {c.group: c.group.channels - len(c.left) for c in choices}
        if settings.macs is not None:
            enough = _macs(graph, removed) <= settings.macs * _macs(graph, {})
        else:
            enough = settings.scope == "global" and sum(removed.values()) >= settings.amount * total
        open_choices = [c for c in choices if not c.done and len(c.left) - c.step >= c.least]
        if enough or not open_choices:
            break
        proposals = []
        for choice in open_choices:
            channels, cost = choice.next()
            if settings.error_limit is not None and choice.error + cost > settings.error_limit:
                choice.done = True
                continue
            more = removed | {choice.group: removed[choice.group] + choice.step}
            saved = _macs(graph, removed) - _macs(graph, more)
            proposals.append((cost / max(saved, 1.0), choice, channels, cost))
        if not proposals:
            break
        _, choice, channels, cost = min(proposals, key=lambda proposal: proposal[0])
        choice.remove(channels, cost)
    found = {
        c.group: np.setdiff1d(np.arange(c.group.channels), c.left, assume_unique=True)
        for c in choices
    }
    return {group: channels for group, channels in found.items() if len(channels)}


def _macs(graph: Graph, removed: Mapping[Group, int]) -> float:
    """Multiply-accumulates when so many channels of each group are gone."""
    kept = [1.0] * len(graph.nodes)
    for group, count in removed.items():
        share = 1 - count / group.channels
        for position in (*group.producers, *group.followers, *group.consumers):
            kept[position] *= share
    return sum(
        share * BY_NAME[node.op].macs(graph, node)
        for share, node in zip(kept, graph.nodes, strict=True)
    )


def _fitted(
    graph: Graph, gone: Mapping[Group, Array], settings: ThinSettings, context: Context
) -> Graph:
    """``graph`` with nothing in the channels that go, and the rest making up for them."""
    every = {layer.position: layer for layer in layers.layers_of(graph)}
    inputs = {p: (g, c) for g, c in gone.items() for p in g.consumers}
    outputs = {p: c for g, c in gone.items() for p in (*g.producers, *g.followers)}
    start = graph
    for position in sorted({*inputs, *outputs}):
        layer = every[position]
        weights = np.where(_mask(layer, inputs, outputs), layer.weights, 0)
        bias = layer.bias.copy()
        bias[outputs.get(position, [])] = 0
        start = layers.with_layer(start, layer, Solution(weights, layer.scales, bias))
    first = min({*inputs, *outputs})
    touched = [layer for p, layer in every.items() if p >= first and layer.moderate]

    def solve(layer: Layer, moments: Moments) -> Solution | None:
        mask = _mask(layer, inputs, outputs).reshape(layer.grouped.shape)
        target = np.where(_kept_rows(layer, outputs), correction.target_of(layer, moments), 0)
        free = _least_squares(target, moments.gram, mask)
        weights, ratio = recover.settled(layer, free, target, moments.gram, mask)
        solution = layers.solution_of(layer, moments, weights, ratio)
        bias = solution.bias.copy()
        bias[outputs.get(layer.position, [])] = 0
        return replace(solution, bias=bias)

    return layers.rewrite(graph, touched, solve, context, settings, WHAT, start)


def _kept_rows(layer: Layer, outputs: Mapping[int, Array]) -> Array:
    rows = np.ones(len(layer.weights), dtype=bool)
    rows[outputs.get(layer.position, [])] = False
    return rows.reshape(layer.groups, -1, 1)


def _mask(
    layer: Layer, inputs: Mapping[int, tuple[Group, Array]], outputs: Mapping[int, Array]
) -> Array:
    """Where weights (channels, taps) may differ from 0."""
    mask: Array = np.ones(layer.weights.shape, dtype=bool)
    if layer.position in inputs:
        group, channels = inputs[layer.position]
        mask[:, np.isin(np.arange(layer.weights.shape[1]) % group.channels, channels)] = False
    mask[outputs.get(layer.position, [])] = False
    return mask


def _least_squares(target: Floats, gram: Floats, mask: Array) -> Floats:
    """As :func:`recover.least_squares`, for channels of a group that all keep the same taps."""
    found = np.zeros_like(target)
    safe = correction.damped(gram)
    for group in range(len(target)):
        rows, taps = mask[group].any(axis=1), mask[group].any(axis=0)
        if rows.any():
            wanted = (target[group][rows] @ safe[group])[:, taps]
            solved = np.linalg.solve(safe[group][np.ix_(taps, taps)], wanted.T).T
            found[group, np.flatnonzero(rows)[:, None], np.flatnonzero(taps)] = solved
    return found


METHOD = Method(
    name="thin_filters",
    stage="int8",
    summary="fewer filters, their readers making up for them, without training or labels",
    source="He and others, 2017; Luo and others, ThiNet, 2017",
    settings=ThinSettings,
    apply=apply,
)
