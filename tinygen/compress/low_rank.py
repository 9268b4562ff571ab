"""Low rank: a kernel becomes the product of smaller ones, where that saves.

Dense layers and 1x1 convolutions are split in two by singular values.  A convolution with a window
is split into a window of few outputs and a 1x1 convolution, into a column and a row of the window,
or into 1x1, window and 1x1 (Tucker-2: Kim et al., "Compression of Deep Convolutional Neural
Networks for Fast and Low Power Mobile Applications", 2016), whichever saves most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from tinygen.compress import rewire, train
from tinygen.compress.base import Context, Method
from tinygen.errors import InputError
from tinygen.graph import Array

WHAT = "low_rank"
SWEEPS = 5
"""Rounds of higher-order orthogonal iteration after the first guess of Tucker's factors."""


class LowRankSettings(train.Training):
    """How much of a kernel is kept, and in which form."""

    energy: float = Field(
        default=0.95, gt=0, le=1, description="part of the squared singular values that is kept"
    )
    parameters: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="instead of energy: part of the model's weights to keep",
    )
    macs: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="instead of energy: part of the multiply-accumulates to keep",
    )
    split: Literal["auto", "svd", "tucker", "spatial"] = Field(
        default="auto",
        description="how kernels with a window are split; auto takes what saves most",
    )
    multiple: int = Field(default=4, ge=1, le=64, description="ranks are multiples of this")
    layers: dict[str, Annotated[float, Field(gt=0, le=1)]] = Field(
        default={}, description="energy of single layers, by name"
    )
    skip: tuple[str, ...] = Field(default=(), description="names of layers to leave alone")
    epochs: int = Field(
        default=5, ge=0, le=100_000, description="passes over the data; 0: no training"
    )


@dataclass(frozen=True, eq=False)
class _Split:
    """Kernels that follow each other in place of one.  ``kind`` says how."""

    kind: str
    kernels: tuple[Array, ...]

    @property
    def weights(self) -> int:
        return sum(k.size for k in self.kernels)


def apply(model: Any, settings: LowRankSettings, context: Context) -> Any:
    """A copy of ``model`` with layers split, trained on.

    The last of a split layer's parts has its name, bias and activation.  Raises
    :class:`InputError` when no layer is worth a split, or a budget cannot be met.
    """
    model = rewire.plain(model, WHAT)
    task = train.task(model, context.data(WHAT), WHAT) if settings.epochs else None
    if settings.parameters is None and settings.macs is None:
        result = _split_all(model, settings, settings.energy)
    else:
        result = _within_budget(model, settings)
    if result is None:
        raise InputError(
            f"{WHAT}: no layer of '{model.name}' takes less when split", "lower energy or multiple"
        )
    if task is not None:
        train.fit(result, task, settings, context, WHAT)
    return result


def _within_budget(model: Any, settings: LowRankSettings) -> Any:
    """The split model that keeps the most energy, the same in each layer, within the budget."""
    best, low, high = None, 0.0, 1.0
    for _ in range(10):
        energy = (low + high) / 2
        result = _split_all(model, settings, energy)
        if _fits(result or model, model, settings):
            best, low = result or model, energy
        else:
            high = energy
    if best is None:
        raise InputError(
            f"{WHAT}: the budget of parameters or macs cannot be met",
            "raise it, or prune filters first",
        )
    return best


def _fits(result: Any, model: Any, settings: LowRankSettings) -> bool:
    if settings.macs is not None and rewire.macs(result) > settings.macs * rewire.macs(model):
        return False
    whole = settings.parameters
    return whole is None or result.count_params() <= whole * model.count_params()


def _split_all(model: Any, settings: LowRankSettings, energy: float) -> Any:
    """``model`` with each layer split that gains by it; None where none does."""
    layers = rewire.weighed(model)
    rewire.known(layers, (*settings.skip, *settings.layers), WHAT)
    shapes = {
        id(n.operation): (n.input_tensors[0].shape, n.outputs[0].shape) for n in rewire.nodes(model)
    }
    chains: dict[int, Sequence[rewire.Part]] = {}
    for layer in layers:
        if layer.name not in settings.skip and getattr(layer, "groups", 1) == 1:
            wanted = settings.layers.get(layer.name, energy)
            split = _best(layer, wanted, settings, *shapes[id(layer)])
            if split is not None:
                chains[id(layer)] = _parts(layer, split)
    return rewire.rebuild(model, lambda x: chains.get(id(x))) if chains else None


def _best(
    layer: Any,
    energy: float,
    settings: LowRankSettings,
    given: Sequence[int | None],
    out: Sequence[int | None],
) -> _Split | None:
    """The split with the fewest multiply-accumulates that takes fewer weights too, if any."""
    if rewire.kind(layer) in rewire.DEPTHWISE:
        return None
    values = np.asarray(rewire.kernel(layer), dtype=np.float64)
    window = values.shape[:-2]
    ways: dict[str, Callable[[Array, float, int], _Split]] = {"svd": svd}
    if np.prod(window) > 1:
        ways["tucker"] = tucker
        if len(window) == 2 and min(window) > 1:
            ways["spatial"] = spatial
        if settings.split != "auto":
            ways = {k: v for k, v in ways.items() if k == settings.split}
    whole = _macs(_Split("", (values,)), given, out)
    found = []
    for way in ways.values():
        split = way(values, energy, settings.multiple)
        if split.weights < values.size and _macs(split, given, out) < whole:
            found.append(split)
    return min(found, key=lambda s: _macs(s, given, out), default=None)


def _macs(split: _Split, given: Sequence[int | None], out: Sequence[int | None]) -> int:
    """Multiply-accumulates: 1x1 before a window run at each input, the rest at each output."""
    before, after = (int(np.prod([e or 1 for e in s[1:-1]], dtype=np.int64)) for s in (given, out))
    if split.kind == "tucker":
        first, *others = split.kernels
        return first.size * before + sum(k.size for k in others) * after
    if split.kind == "spatial":
        first, second = split.kernels
        return first.size * (out[1] or 1) * (given[2] or 1) + second.size * after
    return split.weights * after


def _rank(values: Array, energy: float, multiple: int) -> int:
    """The smallest rank, of singular values that fall, that keeps the energy."""
    kept = np.cumsum(values**2)
    rank = int(np.searchsorted(kept, energy * kept[-1] * (1 - 1e-12))) + 1
    return min(-(-rank // multiple) * multiple, len(values))


def svd(values: Array, energy: float, multiple: int) -> _Split:
    """A kernel (*window, in, out) as one of few outputs and one of a window of 1."""
    *window, _, outputs = values.shape
    u, s, v = np.linalg.svd(values.reshape(-1, outputs), full_matrices=False)
    rank = _rank(s, energy, multiple)
    root = np.sqrt(s[:rank])
    first = (u[:, :rank] * root).reshape(*values.shape[:-1], rank)
    second = (root[:, np.newaxis] * v[:rank]).reshape(*(1 for _ in window), rank, outputs)
    return _Split("svd", (first, second))


def spatial(values: Array, energy: float, multiple: int) -> _Split:
    """A kernel (h, w, in, out) as a column (h, 1, in, r) and a row (1, w, r, out)."""
    h, w, inputs, outputs = values.shape
    matrix = values.transpose(0, 2, 1, 3).reshape(h * inputs, w * outputs)
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    rank = _rank(s, energy, multiple)
    root = np.sqrt(s[:rank])
    column = (u[:, :rank] * root).reshape(h, 1, inputs, rank)
    row = (root[:, np.newaxis] * v[:rank]).reshape(1, rank, w, outputs).transpose(0, 2, 1, 3)
    return _Split("spatial", (column, row))


def tucker(values: Array, energy: float, multiple: int) -> _Split:
    """A kernel (*window, in, out) as 1x1, a window between few channels, and 1x1.

    Each of the two cuts loses half of the energy that may go; the factors are those of
    higher-order singular values, bettered by orthogonal iteration.
    """
    *window, inputs, outputs = values.shape
    each = 1 - (1 - energy) / 2
    cube = values.reshape(-1, inputs, outputs)
    left, s = _factor(cube, 1)
    into = _rank(s, each, multiple)
    right, s = _factor(cube, 2)
    out = _rank(s, each, multiple)
    left, right = left[:, :into], right[:, :out]
    for _ in range(SWEEPS):
        left = _factor(cube @ right, 1)[0][:, :into]
        right = _factor(np.einsum("kio,ir->kro", cube, left), 2)[0][:, :out]
    core = np.einsum("kio,ir,os->krs", cube, left, right)
    ones = tuple(1 for _ in window)
    return _Split(
        "tucker",
        (
            left.reshape(*ones, *left.shape),
            core.reshape(*window, left.shape[1], right.shape[1]),
            right.T.reshape(*ones, *right.T.shape),
        ),
    )


def _factor(cube: Array, axis: int) -> tuple[Array, Array]:
    """Left singular vectors and values of the cube unfolded along an axis."""
    matrix = np.moveaxis(cube, axis, 0).reshape(cube.shape[axis], -1)
    u, s, _ = np.linalg.svd(matrix, full_matrices=False)
    return u, s


def _parts(layer: Any, split: _Split) -> Sequence[rewire.Part]:
    """Layers of the kernels; those before the last have neither bias nor activation."""
    names = {
        "svd": ("in",),
        "spatial": ("column",),
        "tucker": ("in", "core"),
    }[split.kind]
    bias = layer.get_weights()[1:]
    parts = []
    for number, values in enumerate(split.kernels):
        last = number == len(names)
        changes: dict[str, Any] = {} if last else {"use_bias": False, "activation": "linear"}
        changes["name"] = layer.name if last else f"{layer.name}_{names[number]}"
        if rewire.kind(layer) == "Dense":
            changes["units"] = values.shape[-1]
        else:
            changes |= _window(layer, split.kind, number, values)
        weights = [values.astype(np.float32), *(bias if last else ())]
        parts.append(rewire.Part(rewire.like(layer, **changes), weights))
    return parts


def _window(layer: Any, kind: str, number: int, values: Array) -> dict[str, Any]:
    """Settings of the convolution ``number`` of a split one: strides go with the window."""
    size = values.shape[:-2]
    moves = {"svd": number == 0, "tucker": number == 1, "spatial": True}[kind]
    strides, dilation = tuple(layer.strides), tuple(layer.dilation_rate)
    if kind == "spatial":
        strides = (strides[0], 1) if number == 0 else (1, strides[1])
        dilation = (dilation[0], 1) if number == 0 else (1, dilation[1])
    ones = tuple(1 for _ in size)
    return {
        "filters": values.shape[-1],
        "kernel_size": size,
        "strides": strides if moves else ones,
        "dilation_rate": dilation if moves else ones,
    }


METHOD = Method(
    name="low_rank",
    stage="float",
    summary="split layers into products of smaller ones and train on",
    source="Kim et al., Compression of Deep Convolutional Neural Networks, 2016; Jaderberg et al., "
    "Speeding up Convolutional Neural Networks with Low Rank Expansions, 2014",
    settings=LowRankSettings,
    apply=apply,
)
