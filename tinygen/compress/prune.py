"""Pruning: the smallest weights become zero, step by step, while the rest is trained.

The schedule is that of Zhu & Gupta, "To prune, or not to prune" (2017): sparsity rises as
1 - (1 - t)^3.  A weight that was masked may come back until the schedule ends; then the masks are
held.  Patterns are those that kernels can skip: blocks of neighbouring inputs, N of M.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from tinygen.compress import forms, rewire, train
from tinygen.compress.base import Context, Method
from tinygen.errors import InputError
from tinygen.graph import Array

WHAT = "prune"


class PruneSettings(train.Training):
    """What is pruned, and how."""

    sparsity: float = Field(
        default=0.75, ge=0, lt=1, description="part of the weights that become zero"
    )
    scope: Literal["layer", "global"] = Field(
        default="layer", description="rank within each layer, or over all layers"
    )
    pattern: str = Field(
        default="any",
        pattern=r"^(any|[12]x[1-9]\d?|[1-9]\d?:[1-9]\d?)$",
        description="any; 1x4: blocks of 4 inputs; 2x4: shared by 2 outputs; 2:4: 2 of 4 stay",
    )
    first: bool = Field(default=False, description="prune the first layer too")
    depthwise: bool = Field(
        default=False, description="prune depthwise filters too, weight by weight"
    )
    skip: tuple[str, ...] = Field(default=(), description="names of layers to leave alone")
    layers: dict[str, Annotated[float, Field(ge=0, lt=1)]] = Field(
        default={}, description="sparsity of single layers, by name"
    )
    ramp: float = Field(
        default=0.6, ge=0, le=1, description="part of the training in which it rises"
    )
    every: int = Field(default=16, ge=1, description="steps between two choices of what is zero")
    most: float = Field(
        default=0.98, gt=0, le=1, description="most that scope global takes of a layer"
    )


def apply(model: Any, settings: PruneSettings, context: Context) -> Any:
    """A pruned copy of ``model``, trained on; biases stay as they are.

    Layers of any other kind than convolutions and dense layers pass through.
    """
    model = rewire.plain(model, WHAT)
    layers = _chosen(model, settings)
    masked = {rewire.kernel(layer).path: _masked(layer) for layer in layers}

    def before(step: int, steps: int) -> None:
        ramp = max(1, round(steps * settings.ramp))
        if steps and step >= ramp + settings.every:
            return
        there = [masked[rewire.kernel(layer).path] for layer in layers]
        masks = choose(
            layers,
            [np.asarray(form.kernel) for form in there],
            settings,
            schedule(step, ramp) if steps else 1.0,
        )
        for form, mask in zip(there, masks, strict=True):
            form.mask.assign(mask)

    if settings.epochs:
        task = train.task(model, context.data(WHAT), WHAT)
        hooks = train.Hooks(masked, before, settings.every)
        train.fit(model, task, settings, context, WHAT, hooks)
    before(0, 0)
    for form in masked.values():
        form.kernel.assign(form.value())
    return model


def schedule(step: int, ramp: int) -> float:
    """Part of the sparsity to have at ``step`` of ``ramp``: Zhu & Gupta, equation 1."""
    return 1 - (1 - min(1.0, step / ramp)) ** 3


def _chosen(model: Any, settings: PruneSettings) -> list[Any]:
    layers = rewire.weighed(model)
    rewire.known(layers, (*settings.skip, *settings.layers), WHAT)
    left_out = set(settings.skip)
    if not settings.first and len(layers) > 1:
        left_out.add(layers[0].name)
    if not settings.depthwise:
        left_out |= {layer.name for layer in layers if rewire.kind(layer) in rewire.DEPTHWISE}
    chosen = [x for x in layers if x.name in settings.layers or x.name not in left_out]
    if not chosen:
        raise InputError(f"{WHAT}: no layer of the model is left to prune", "see first, depthwise")
    return chosen


def _masked(layer: Any) -> forms.Masked:
    import keras

    kernel = rewire.kernel(layer)
    return forms.Masked(kernel, keras.Variable(np.ones(kernel.shape, "float32"), trainable=False))


@dataclass(frozen=True, eq=False)
class _Blocks:
    """The L1 norm per weight of each block of a layer, and how many weights it holds.

    ``groups`` are the blocks of which the pattern keeps so many: none where any may go.
    """

    norms: Array
    sizes: Array


def choose(
    layers: Sequence[Any], kernels: Sequence[Array], settings: PruneSettings, part: float
) -> list[Array]:
    """Masks, float32 0 and 1 of the kernels' shapes, with ``part`` of the sparsity wanted."""
    if ":" in settings.pattern:
        keep, of = (int(n) for n in settings.pattern.split(":"))
        if keep >= of:
            raise InputError(f"{WHAT}: pattern {settings.pattern} keeps all weights", "try 2:4")
        kept = of - round(part * (of - keep))
        return [_n_of_m(x, k, kept, of) for x, k in zip(layers, kernels, strict=True)]
    blocks = [_blocks(x, k, settings.pattern) for x, k in zip(layers, kernels, strict=True)]
    wanted = [settings.layers.get(layer.name, settings.sparsity) * part for layer in layers]
    if settings.scope == "global":
        shared = [i for i, layer in enumerate(layers) if layer.name not in settings.layers]
        for i, sparsity in _globally([blocks[i] for i in shared], settings, part).items():
            wanted[shared[i]] = sparsity
    return [
        _spread(layer, kernel, _smallest(block, sparsity), settings.pattern)
        for layer, kernel, block, sparsity in zip(layers, kernels, blocks, wanted, strict=True)
    ]


def _smallest(blocks: _Blocks, sparsity: float) -> Array:
    """Bool of the blocks' shape: which stay.

    Of equal norms the first go; weights rather fewer than ``sparsity`` are zero, by under a block.
    """
    order = np.argsort(blocks.norms, axis=None, kind="stable")
    total = np.cumsum(blocks.sizes.reshape(-1)[order])
    gone = int(np.searchsorted(total, sparsity * total[-1] + 1e-6, side="right"))
    stays = np.ones(order.size, dtype=bool)
    stays[order[:gone]] = False
    return stays.reshape(blocks.norms.shape)


def _globally(blocks: Sequence[_Blocks], settings: PruneSettings, part: float) -> dict[int, float]:
    """Sparsity of each layer when blocks are ranked over all layers."""
    norms = np.concatenate([b.norms.reshape(-1) for b in blocks])
    sizes = np.concatenate([b.sizes.reshape(-1) for b in blocks])
    owner = np.concatenate([np.full(b.norms.size, i) for i, b in enumerate(blocks)])
    totals = np.array([b.sizes.sum() for b in blocks])
    order = np.argsort(norms, kind="stable")
    size, layer = sizes[order], owner[order]
    taken = np.zeros(len(order))  # weights of its layer that have gone when a block goes
    for i in range(len(blocks)):
        taken[layer == i] = np.cumsum(size[layer == i])
    allowed = taken <= settings.most * totals[layer] + 1e-6
    gone = allowed & (np.cumsum(size * allowed) <= settings.sparsity * part * sizes.sum() + 1e-6)
    return {i: float(size[gone & (layer == i)].sum() / totals[i]) for i in range(len(blocks))}


def _block(layer: Any, pattern: str) -> tuple[int, int]:
    """Outputs and inputs of a block; depthwise filters are pruned weight by weight."""
    if pattern == "any" or rewire.kind(layer) in rewire.DEPTHWISE:
        return 1, 1
    outputs, inputs = pattern.split("x")
    return int(outputs), int(inputs)


def _blocks(layer: Any, kernel: Array, pattern: str) -> _Blocks:
    high, wide = _block(layer, pattern)
    rows = np.abs(rewire.rows(layer, kernel)).astype(np.float64)
    sums = _sums(_sums(rows, high, 0), wide, 1)
    sizes = _sums(_sums(np.ones(rows.shape), high, 0), wide, 1)
    return _Blocks(sums / sizes, sizes)


def _sums(values: Array, of: int, axis: int) -> Array:
    """Sums of ``of`` neighbours along an axis; the last may have fewer."""
    return np.add.reduceat(values, np.arange(0, values.shape[axis], of), axis=axis)


def _spread(layer: Any, kernel: Array, stays: Array, pattern: str) -> Array:
    high, wide = _block(layer, pattern)
    outputs, inputs = rewire.rows(layer, kernel).shape
    mask = np.repeat(np.repeat(stays, high, 0), wide, 1)[:outputs, :inputs]
    return rewire.from_rows(layer, mask).astype(np.float32)


def _n_of_m(layer: Any, kernel: Array, keep: int, of: int) -> Array:
    """The ``keep`` largest of each ``of`` neighbouring inputs; what is left at the end stays."""
    rows = np.abs(rewire.rows(layer, kernel))
    whole = rows.shape[1] // of * of
    groups = rows[:, :whole].reshape(len(rows), -1, of)
    ranks = np.argsort(np.argsort(-groups, axis=2, kind="stable"), axis=2, kind="stable")
    mask = np.ones(rows.shape, dtype=np.float32)
    mask[:, :whole] = (ranks < keep).reshape(len(rows), -1)
    return rewire.from_rows(layer, mask)


METHOD = Method(
    name="prune",
    stage="float",
    summary="make the smallest weights zero while training the others",
    source="Zhu & Gupta, To prune, or not to prune, 2017; Han et al., Learning both weights and "
    "connections, 2015",
    settings=PruneSettings,
    apply=apply,
)
