"""Convolutions and dense layers of int16 with Arm's DSP extension (Cortex-M4, M7, M33).

Two neighbouring inputs fill a word, so that one instruction multiplies both and adds both products.
A word of weights holds two taps of two channels and is extended to two pairs, see
:func:`paired_weights`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tinygen.graph import Array
from tinygen.numerics import LIMITS
from tinygen.ops.base import Arg, Const, Input, Kernel, Output, Scratch
from tinygen.ops.common import overlap
from tinygen.ops.convolution import Convolution
from tinygen.ops.int16 import Finish
from tinygen.ops.portable import geometry, shape_name

FEATURES = frozenset({"dsp"})

BLOCK = 4
"""Channels that share every input that is read."""


def paired_weights(weights: Array) -> Array:
    """Weights (channels, runs, depth) as words in the order in which kernels read them.

    Blocks of four channels one after another, the last one of two or four; in a block each run of
    neighbouring inputs pair by pair, and for a pair one word of every two channels: the first tap
    of either, then the second of either.  Channels and taps that are missing are 0.
    """
    even = np.pad(weights, ((0, -weights.shape[0] % 2), (0, 0), (0, -weights.shape[2] % 2)))
    words = []
    for first in range(0, len(even), BLOCK):
        block = even[first : first + BLOCK]
        split = block.reshape(len(block) // 2, 2, block.shape[1], -1, 2)
        words.append(split.transpose(2, 3, 0, 4, 1).reshape(-1).view("<u4"))
    return np.concatenate(words).astype(np.uint32)


@dataclass(frozen=True, eq=False)
class Ending:
    """How a kernel scales: with one rounded multiplication where ``high`` says so, else as in
    portable C."""

    high: bool
    params: Mapping[str, object]
    args: tuple[Arg, ...]
    helpers: tuple[str, ...]


def ending(end: Finish) -> Ending:
    """The scaling of 32-bit sums.

    One whose shifts to the right are 17 to 32 is the upper word of a product, rounded.
    """
    full = (end.low, end.high) == LIMITS["int16"]
    limits = () if full else (end.low, end.high)
    high = end.scale == "scale_short" and int(end.shifts.max()) <= 16
    limited = not (high and full)
    params = end.params | {"sums": "int32_t", "high": high, "limited": limited}
    store = "clamp" if limited else "saturate16"
    if not high:
        return Ending(high, params, end.args, ("dsp", "dsp_halves", end.scale, store))
    factors = end.multipliers.astype(np.int32) << (16 - end.shifts.astype(np.int32))
    scale = Const("multiplier", factors) if factors.size > 1 else int(factors[0])
    return Ending(high, params, (scale, *limits), ("dsp", "dsp_halves", "scale_high", store))


def _sums(channels: int, depth: int) -> tuple[str, ...]:
    """The helpers that sum rows of ``depth`` inputs for ``channels``."""
    odd = "_odd" if depth % 2 else ""
    left = channels % BLOCK
    sizes = [BLOCK] * (channels >= BLOCK) + [left + left % 2] * (left > 0)
    return tuple(dict.fromkeys(f"pairs16_{size}{odd}" for size in sizes))


def _cycles(conv: Convolution, depth: int, calls: int) -> int:
    """Cycles: for two taps of four channels 14, 30 a call of the helper, 8 an output."""
    blocks = conv.pixels * -(-conv.channels // BLOCK)
    products = conv.macs * (depth + depth % 2) // depth * 14 // 8
    return products + 30 * blocks * calls + 12 * conv.pixels * conv.channels


def dense(conv: Convolution, end: Finish) -> Kernel | None:
    """Four output channels at a time, one function for every shape; None for sums of 64 bits."""
    if not conv.dense or end.sums == "int64_t":
        return None
    (fours, left), odd = divmod(conv.channels, BLOCK), conv.depth % 2 == 1
    close = ending(end)
    named = {f"left{left}": left > 0, "odd": odd, "per_channel": end.multipliers.size > 1}
    return Kernel(
        name="_".join(["dense16_dsp", *(name for name, holds in named.items() if holds)]),
        template="fully_connected/dsp_int16.c.j2",
        params={**close.params, "fours": fours > 0, "left": left, "odd": odd},
        args=(
            Input(0),
            Output(0),
            conv.pixels,
            conv.depth,
            *((fours,) if fours else ()),
            Const("weights", paired_weights(conv.taps[:, None, :])),
            end.bias,
            *close.args,
        ),
        helpers=(*close.helpers, *_sums(conv.channels, conv.depth)),
        overlap={0: 2 * overlap(*conv.rows, conv.window)},
        cycles=_cycles(conv, conv.depth, 1),
    )


def conv2d(conv: Convolution, end: Finish) -> Kernel | None:
    """Four output channels at a time over the part of the window inside the image; None for sums of
    64 bits and images of one channel, which have no neighbours to pair."""
    depth, per_group = conv.depth // conv.groups, conv.channels // conv.groups
    if end.sums == "int64_t" or depth == 1:
        return None
    close = ending(end)
    grouped = conv.taps.reshape(conv.groups, per_group, -1, depth)
    # Neighbouring pixels are one run where pairs end where pixels do.
    contiguous = conv.window.dilation[1] == 1 and conv.groups == 1 and depth % 2 == 0
    return Kernel(
        name=f"conv2d16_dsp_{shape_name(conv)}",
        template="conv2d/dsp_int16.c.j2",
        params={
            **geometry(conv),
            **close.params,
            "groups": conv.groups,
            "contiguous": contiguous,
        },
        args=(
            Input(0),
            Output(0),
            Const("weights", np.concatenate([paired_weights(group) for group in grouped])),
            end.bias,
            *close.args,
        ),
        helpers=(*close.helpers, *_sums(per_group, depth)),
        overlap={0: 2 * overlap(conv.image, conv.output, conv.window)},
        cycles=_cycles(conv, depth, 1 if contiguous else conv.window.kernel[0]),
    )


def conv2d_rows(conv: Convolution, end: Finish) -> Kernel | None:
    """As :func:`conv2d` for pixels of an odd number of channels, over rows copied with zeros beside
    them; None for even numbers, groups, sums of 64 bits and windows with columns left out."""
    if end.sums == "int64_t" or conv.groups > 1 or conv.depth % 2 == 0:
        return None
    if conv.window.dilation[1] > 1:
        return None
    close = ending(end)
    rows, columns = conv.window.kernel
    run = columns * conv.depth
    pitch = (conv.pads.left + conv.image[2] + conv.pads.right) * conv.depth
    weights = paired_weights(conv.taps.reshape(conv.channels, rows, run))
    copied = conv.output[0] * conv.output[1] * rows * conv.image[2] * conv.depth
    return Kernel(
        name=f"conv2d16_rows_dsp_{shape_name(conv)}",
        template="conv2d/dsp_int16_rows.c.j2",
        params={
            **geometry(conv),
            **close.params,
            "run": run,
            "words": (run + 1) // 2,
            "pitch": pitch,
        },
        args=(
            Input(0),
            Output(0),
            Scratch(2 * rows * pitch),
            Const("weights", weights),
            end.bias,
            *close.args,
        ),
        helpers=(*close.helpers, *_sums(conv.channels, run)),
        overlap={0: 2 * overlap(conv.image, conv.output, conv.window)},
        cycles=_cycles(conv, run, 1) + copied + 20 * rows * conv.pixels,
    )


def depthwise(conv: Convolution, end: Finish) -> Kernel | None:
    """Four channels side by side; None for sums of 64 bits, a depth multiplier above one, and
    channels that are no multiple of four."""
    if end.sums == "int64_t" or conv.channels != conv.depth or conv.channels % BLOCK:
        return None
    close = ending(end)
    # Bytes 0 and 2 of a word are extended to a pair, and bytes 1 and 3.
    lanes = conv.taps.reshape(-1, BLOCK, conv.taps.shape[1])[:, [0, 2, 1, 3]].transpose(0, 2, 1)
    words = np.ascontiguousarray(lanes).reshape(-1).view("<u4").astype(np.uint32)
    blocks = conv.pixels * conv.channels // BLOCK
    return Kernel(
        name=f"depthwise16_dsp_{shape_name(conv)}",
        template="depthwise_conv2d/dsp_int16.c.j2",
        params={**geometry(conv), **close.params},
        args=(Input(0), Output(0), Const("weights", words), end.bias, *close.args),
        helpers=(*close.helpers, "lanes16"),
        overlap={0: 2 * overlap(conv.image, conv.output, conv.window)},
        cycles=4 * conv.macs + 90 * blocks,
    )
