"""Convolutions and dense layers with Arm's DSP extension (Cortex-M4, M7, M33): pairs of products.

Accumulators carry a factor of 256, see :func:`paired_weights`.
"""

from __future__ import annotations

import numpy as np

from tinygen.graph import Array
from tinygen.numerics import Int64Array, wrap32
from tinygen.ops.base import Const, Input, Kernel, Output, Scratch
from tinygen.ops.common import overlap
from tinygen.ops.convolution import Convolution
from tinygen.ops.portable import interleave, shape_name

FEATURES = frozenset({"dsp"})

PAIRED_LIMIT = 1 << 23
"""Magnitudes that accumulators of paired weights, 256 times as large, stay below."""


def paired_weights(weights: Array) -> Array | None:
    """Weights (channels, depth) as words (channels, depth / 4) of two 16-bit numbers 256 a + b.

    A word holds four taps, a and b of one pair being neighbours; see ``helpers/prepare_quad.c.j2``.
    None when the depth is no multiple of four or a pair does not fit 16 bits.
    """
    channels, depth = weights.shape
    if depth % 4:
        return None
    pairs = weights.astype(np.int64).reshape(channels, -1, 2)
    halves = 256 * pairs[:, :, 0] + pairs[:, :, 1]
    if halves.min(initial=0) < -(1 << 15):
        return None
    return halves.astype("<i2").reshape(channels, -1).view("<u4").astype(np.uint32)


def paired_start(weights: Array, bias: Int64Array) -> Array:
    """What accumulators of :func:`paired_weights` (channels, taps) start from, int32.

    The bias times 256, less what the 127 in ``prepare_quad`` adds for every second tap.
    """
    return wrap32(256 * bias - 127 * weights[:, 1::2].astype(np.int64).sum(axis=1)).astype(np.int32)


def dense(conv: Convolution) -> Kernel | None:
    """Four rows by two channels, or a single row by four channels.

    Rows by fours need scratch memory for prepared inputs and an even number of channels.
    """
    if not conv.dense or not conv.scaling.fast or conv.bound >= PAIRED_LIMIT:
        return None
    words = paired_weights(conv.taps)
    if words is None:
        return None
    by_fours = conv.pixels >= 4
    if by_fours and conv.channels % 2:
        return None
    scaling, left = conv.scaling, conv.channels % 4
    suffix = "_per_channel" if len(scaling.multipliers) > 1 else ""
    return Kernel(
        name=("dense_by_fours_dsp" if by_fours else f"dense_dsp_left{left}") + suffix,
        template="fully_connected/dsp_by_fours.c.j2" if by_fours else "fully_connected/dsp.c.j2",
        params=scaling.params | ({} if by_fours else {"left": left}),
        args=(
            Input(0),
            Output(0),
            *((Scratch(8 * conv.depth),) if by_fours else ()),
            conv.pixels,
            conv.depth,
            conv.channels,
            Const("weights", interleave(words, 2 if by_fours else 4)),
            Const("start", paired_start(conv.taps, conv.folded_bias)),
            *scaling.args,
        ),
        helpers=(
            "activate",
            "dsp",
            "prepare_quad",
            "requantize_scaled",
            *(("multiply_4x2",) if by_fours else ()),
        ),
        # Rows left over by the fours are read again for every two channels.
        overlap={
            0: max(
                overlap(*conv.rows, conv.window, 4, rereads=False),
                overlap(*conv.rows, conv.window) if conv.pixels % 4 else 0,
            )
        },
        cycles=2 * conv.macs,
    )


def conv2d(conv: Convolution) -> Kernel | None:
    """Patches gathered four pixels at a time, then every pair of channels."""
    if conv.dense or conv.groups > 1 or conv.channels % 2:
        return None
    if not conv.scaling.fast or conv.bound >= PAIRED_LIMIT:
        return None
    words = paired_weights(np.pad(conv.taps, ((0, 0), (0, -conv.taps.shape[1] % 4))))
    if words is None:
        return None
    batch, height, width, depth = conv.image
    quads = words.shape[1]
    params = {
        "batch": batch, "height": height, "width": width, "depth": depth,
        "rows": conv.output[1], "columns": conv.output[2], "channels": conv.channels,
        "quads": quads, "kernel": conv.window.kernel, "stride": conv.window.stride,
        "dilation": conv.window.dilation,
        "top": conv.pads.top, "left": conv.pads.left, "padded": conv.pads.any,
        **conv.scaling.params,
    }  # fmt: skip
    return Kernel(
        name=f"conv2d_{shape_name(conv)}_dsp",
        template="conv2d/dsp.c.j2",
        params=params,
        args=(
            Input(0),
            Output(0),
            Scratch((4 * 8 + 4) * quads),
            Const("weights", interleave(words, 2)),
            Const("start", paired_start(conv.taps, conv.folded_bias)),
            conv.zero_point,
            *conv.scaling.args,
        ),
        helpers=("activate", "dsp", "multiply_4x2", "prepare_quad", "requantize_scaled"),
        overlap={0: overlap(conv.image, conv.output, conv.window, 4, rereads=False)},
        cycles=2 * conv.macs,
    )
