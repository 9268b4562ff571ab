"""Filter pruning: whole filters go, and with them everything that computes or reads their channel.

The filters with the smallest L1 norm go first (Li et al., "Pruning Filters for Efficient ConvNets",
2017), and a smaller model is built.  A channel is followed from the filter that makes it through
norms, activations, depthwise filters, sums, concatenations and reshapes to the kernels that read
it.  Channels that a sum adds to each other are one: they stay or go together, by the mean of their
filters' norms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from tinygen.compress import rewire, train
from tinygen.compress.base import Context, Method
from tinygen.errors import InputError
from tinygen.graph import Array

WHAT = "prune_filters"

PASSING = {
    *("ReLU", "LeakyReLU", "ELU", "PReLU", "BatchNormalization", "Rescaling"),
    *("Dropout", "SpatialDropout1D", "SpatialDropout2D", "GaussianNoise", "GaussianDropout"),
    *("MaxPooling1D", "MaxPooling2D", "AveragePooling1D", "AveragePooling2D"),
    *("GlobalAveragePooling1D", "GlobalAveragePooling2D"),
    *("GlobalMaxPooling1D", "GlobalMaxPooling2D"),
    *("ZeroPadding1D", "ZeroPadding2D", "Cropping1D", "Cropping2D"),
    *("UpSampling1D", "UpSampling2D", "Relu", "Relu6"),
}
"""Layers that compute each channel from itself alone."""

JOINING = {"Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"}
MIXING = ("softmax", "log_softmax")
"""Activations in which channels depend on each other."""


class FilterSettings(train.Training):
    """How many filters go, from where."""

    amount: float = Field(default=0.5, ge=0, lt=1, description="part of the filters that goes")
    macs: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="instead of amount: part of the multiply-accumulates to keep",
    )
    scope: Literal["layer", "global"] = Field(
        default="layer", description="rank within each layer, or over all layers"
    )
    multiple: int = Field(
        default=4, ge=1, le=64, description="numbers of channels are multiples of this"
    )
    layers: dict[str, Annotated[float, Field(ge=0, lt=1)]] = Field(
        default={}, description="amount of single layers, by name"
    )
    skip: tuple[str, ...] = Field(default=(), description="names of layers to leave alone")
    rounds: int = Field(default=1, ge=1, le=100, description="times to prune and train in turn")


@dataclass(eq=False)
class Channels:
    """For each tensor, by its id, the number of each channel along its last axis.

    Equal :meth:`root` means that channels stay or go together.  ``owners`` are the layers with
    kernels that make a channel, and which of their outputs it is.
    """

    of: dict[int, Array] = field(default_factory=dict)
    parents: list[int] = field(default_factory=list)
    owners: dict[int, list[tuple[str, int]]] = field(default_factory=dict)
    kept: set[int] = field(default_factory=set)

    def new(self, count: int) -> Array:
        start = len(self.parents)
        self.parents += range(start, start + count)
        return np.arange(start, start + count)

    def root(self, channel: int) -> int:
        while self.parents[channel] != channel:
            self.parents[channel] = self.parents[self.parents[channel]]
            channel = self.parents[channel]
        return channel

    def tie(self, one: Array, two: Array) -> None:
        for a, b in zip(one, two, strict=True):
            low, high = sorted((self.root(int(a)), self.root(int(b))))
            self.parents[high] = low

    def keep(self, channels: Array) -> None:
        """These are never removed."""
        self.kept |= set(channels.tolist())

    def roots(self, channels: Array) -> Array:
        return np.array([self.root(int(c)) for c in channels], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Group:
    """Channels that the same layers make: their roots, and how much each matters.

    ``scores`` are L1 norms of filters, relative to their layers' mean; ``whole`` is how many there
    were before the first round.
    """

    layers: tuple[str, ...]
    roots: Array
    scores: Array
    whole: int


def apply(model: Any, settings: FilterSettings, context: Context) -> Any:
    """A smaller copy of ``model``, trained on.  Raises :class:`InputError` if nothing can go."""
    model = rewire.plain(model, WHAT)
    task = train.task(model, context.data(WHAT), WHAT) if settings.epochs else None
    macs = rewire.macs(model)
    counts: dict[tuple[str, ...], int] = {}
    for number in range(1, settings.rounds + 1):
        channels = trace(model)
        groups = _groups(model, channels, settings, counts)
        done = number / settings.rounds
        if settings.macs is None:
            gone = _gone(groups, settings, done, settings.amount)
        else:
            goal = settings.macs**done * macs
            gone = _down_to(model, channels, groups, settings, done, goal)
        model = shrink(model, channels, gone)
        if task is not None:
            train.fit(model, task, settings, context, WHAT)
    return model


def trace(model: Any) -> Channels:
    """Follows the channels of a :func:`~tinygen.compress.rewire.plain` model."""
    channels = Channels()
    start = model.inputs[0]
    channels.of[id(start)] = channels.new(start.shape[-1] or 0)
    channels.keep(channels.of[id(start)])
    made: dict[int, tuple[Array, Array]] = {}
    for node in rewire.nodes(model):
        read = [channels.of[id(t)] for t in node.input_tensors]
        for tensor, ids in zip(node.outputs, _follow(node, read, channels, made), strict=True):
            channels.of[id(tensor)] = ids
    channels.keep(channels.of[id(model.outputs[0])])
    channels.kept = {channels.root(c) for c in channels.kept}
    return channels


def _follow(
    node: Any, read: list[Array], channels: Channels, made: dict[int, tuple[Array, Array]]
) -> list[Array]:
    """Channels of the call's outputs.  ``made`` are those that layers read and made before."""
    layer, kind = node.operation, rewire.kind(node.operation)
    shape = node.outputs[0].shape
    if kind in rewire.WEIGHED and getattr(layer, "groups", 1) == 1:
        if id(layer) in made:  # a layer that is called again
            channels.tie(made[id(layer)][0], read[0])
        elif kind in rewire.DEPTHWISE:
            made[id(layer)] = (read[0], np.repeat(read[0], layer.depth_multiplier))
        else:
            out = channels.new(shape[-1])
            channels.owners |= {int(c): [(layer.name, i)] for i, c in enumerate(out)}
            made[id(layer)] = (read[0], out)
        if getattr(layer.activation, "__name__", "") in MIXING:
            channels.keep(made[id(layer)][1])
        return [made[id(layer)][1]]
    if _passes(layer, kind, shape):
        return [read[0]]
    if kind in JOINING and _only_tensors(node):
        return [_join(read, channels)]
    if kind == "Concatenate":
        last = layer.axis in (-1, len(shape) - 1)
        return [np.concatenate(read) if last else _join(read, channels)]
    if kind in ("Flatten", "Reshape") and None not in (
        *shape[1:],
        *node.input_tensors[0].shape[1:],
    ):
        given = np.broadcast_to(read[0], node.input_tensors[0].shape[1:]).reshape(shape[1:])
        if (given == given.reshape(-1, shape[-1])[0]).all():
            return [given.reshape(-1, shape[-1])[0].copy()]
    for ids in read:
        channels.keep(ids)
    outs = [channels.new(t.shape[-1] if len(t.shape) > 1 else 0) for t in node.outputs]
    for ids in outs:
        channels.keep(ids)
    return outs


def _passes(layer: Any, kind: str, shape: Sequence[int | None]) -> bool:
    if kind == "Activation":
        return getattr(layer.activation, "__name__", "") not in MIXING
    if kind == "BatchNormalization":
        return layer.axis in (-1, len(shape) - 1)
    if kind == "Rescaling":
        return not np.ndim(layer.scale) and not np.ndim(layer.offset)
    return kind in PASSING


def _only_tensors(node: Any) -> bool:
    """Whether no constant array takes part, which would have to shrink too."""
    import keras

    flat = keras.tree.flatten((node.arguments.args, node.arguments.kwargs))
    return all(isinstance(x, keras.KerasTensor) or np.ndim(x) == 0 for x in flat)


def _join(read: list[Array], channels: Channels) -> Array:
    """What is added to each other is tied; what is spread over all channels stays."""
    widest = max(read, key=len)
    for ids in read:
        if len(ids) == len(widest):
            channels.tie(widest, ids)
        else:
            channels.keep(ids)
    return widest


def _groups(
    model: Any, channels: Channels, settings: FilterSettings, counts: dict[tuple[str, ...], int]
) -> list[Group]:
    """Channels that may go; ``counts`` keeps how many there were at first."""
    layers = {layer.name: layer for layer in rewire.weighed(model)}
    rewire.known(layers.values(), (*settings.skip, *settings.layers), WHAT)
    norms = {}
    for name, layer in layers.items():
        sums = np.abs(rewire.rows(layer, np.asarray(rewire.kernel(layer)))).sum(axis=1)
        norms[name] = sums / max(float(sums.mean()), 1e-30)
    members: dict[int, list[tuple[str, int]]] = {}
    for channel, owners in channels.owners.items():
        members.setdefault(channels.root(channel), []).extend(owners)
    found: dict[tuple[str, ...], list[tuple[int, float]]] = {}
    for root, owners in sorted(members.items()):
        names = tuple(sorted({name for name, _ in owners}))
        if root not in channels.kept and not set(names) & set(settings.skip):
            score = float(np.mean([norms[name][i] for name, i in owners]))
            found.setdefault(names, []).append((root, score))
    if not found:
        raise InputError(f"{WHAT}: the model has no filter that could go", "see skip")
    return [
        Group(
            names,
            np.array([root for root, _ in pairs]),
            np.array([score for _, score in pairs]),
            counts.setdefault(names, len(pairs)),
        )
        for names, pairs in found.items()
    ]


def _gone(
    groups: Sequence[Group], settings: FilterSettings, done: float, amount: float
) -> set[int]:
    """Roots of the channels that go when at the end ``amount`` of all should have gone.

    ``done`` is the part of the rounds that is over then.
    """
    scores = np.sort(np.concatenate([g.scores for g in groups]))
    left = (1 - amount) ** done * sum(g.whole for g in groups)
    limit = scores[max(0, len(scores) - 1 - int(left))]
    gone: set[int] = set()
    for group in groups:
        own = [settings.layers[name] for name in group.layers if name in settings.layers]
        if own or settings.scope == "layer":
            stay = group.whole * (1 - min(own, default=amount)) ** done
        else:
            stay = int((group.scores >= limit).sum())
        kept = max(1, math.ceil(stay / settings.multiple - 1e-9)) * settings.multiple
        order = np.argsort(group.scores, kind="stable")
        gone |= set(group.roots[order[: max(0, len(order) - kept)]].tolist())
    return gone


def _down_to(
    model: Any,
    channels: Channels,
    groups: Sequence[Group],
    settings: FilterSettings,
    done: float,
    goal: float,
) -> set[int]:
    """Roots that go for at most ``goal`` multiply-accumulates to be left, rather few."""
    for amount in np.linspace(0, 0.999, 500):
        gone = _gone(groups, settings, done, float(amount))
        if macs_without(model, channels, gone) <= goal:
            return gone
    raise InputError(
        f"{WHAT}: {goal:.0f} multiply-accumulates cannot be reached, "
        f"{macs_without(model, channels, gone)} are left of {rewire.macs(model)}",
        "raise macs, or lower multiple",
    )


def _left(channels: Channels, gone: set[int], tensor: Any) -> Array:
    """Indices along the tensor's last axis that stay."""
    return np.flatnonzero([root not in gone for root in channels.roots(channels.of[id(tensor)])])


def macs_without(model: Any, channels: Channels, gone: set[int]) -> int:
    """Multiply-accumulates of the model when channels of the roots ``gone`` are."""
    total = 0
    for node in rewire.nodes(model):
        whole = rewire.layer_macs(node)
        if whole:
            into, out = node.input_tensors[0], node.outputs[0]
            total_in, total_out = into.shape[-1], out.shape[-1]
            whole = whole // total_out * len(_left(channels, gone, out))
            if rewire.kind(node.operation) not in rewire.DEPTHWISE:
                whole = whole // total_in * len(_left(channels, gone, into))
        total += whole
    return total


def shrink(model: Any, channels: Channels, gone: set[int]) -> Any:
    """A copy of ``model`` without the channels whose roots are ``gone``."""
    parts: dict[int, Sequence[rewire.Part] | None] = {}
    for node in rewire.nodes(model):
        into, out = node.input_tensors[0], node.outputs[0]
        left = _left(channels, gone, into), _left(channels, gone, out)
        if tuple(map(len, left)) != (into.shape[-1], out.shape[-1]):
            parts[id(node.operation)] = _cut(node.operation, *left, out.shape)
    return rewire.rebuild(model, lambda layer: parts.get(id(layer)))


def _cut(
    layer: Any, into: Array, out: Array, shape: Sequence[int | None]
) -> Sequence[rewire.Part] | None:
    """The layer with the inputs ``into`` and the outputs ``out`` alone."""
    kind = rewire.kind(layer)
    weights = layer.get_weights() if hasattr(layer, "get_weights") else []
    changes: Mapping[str, Any] = {}
    if kind in rewire.DEPTHWISE:
        weights = [weights[0][..., into, :], *(w[out] for w in weights[1:])]
    elif kind in rewire.WEIGHED:
        weights = [weights[0][..., into, :][..., out], *(w[out] for w in weights[1:])]
        changes = {"units" if kind == "Dense" else "filters": len(out)}
    elif kind in ("BatchNormalization", "PReLU"):
        weights = [w[..., out] if w.shape[-1] == shape[-1] else w for w in weights]
    elif kind == "Reshape":
        changes = {"target_shape": (*shape[1:-1], len(out))}
    elif not weights:
        return None
    return (rewire.Part(rewire.like(layer, **changes), weights),)


METHOD = Method(
    name="prune_filters",
    stage="float",
    summary="remove whole filters and train on: fewer weights and fewer operations",
    source="Li et al., Pruning Filters for Efficient ConvNets, 2017",
    settings=FilterSettings,
    apply=apply,
)
