"""Dense layers of one row whose weights have four bits, in portable C.

Each weight is used once, so that decoding it before would cost more than its product.  Here a
16-bit number holds an input's weights of four channels, and products are taken of it and of three
parts of it, behind one ``AND`` each; the channels' sums are told apart at the end.
"""

from __future__ import annotations

import numpy as np

from tinygen.graph import Array
from tinygen.numerics import INT32_MAX, Int64Array, wrap32
from tinygen.ops.base import Const, Input, Kernel, Output
from tinygen.ops.common import overlap
from tinygen.ops.convolution import Convolution

FEATURES: frozenset[str] = frozenset()

LARGEST = 4096 * 128
"""What a weight of 1 adds to the first of four sums, with the largest input."""

DEEPEST = 4096
"""Inputs up to which the sums of the parts fit 32 bits."""


def dense(conv: Convolution) -> Kernel | None:
    """Four channels at a time."""
    if not suits(conv):
        return None
    scaling, fours = conv.scaling, -(-conv.channels // 4)
    return Kernel(
        name="dense_int4_per_channel" if len(scaling.multipliers) > 1 else "dense_int4",
        template="fully_connected/int4.c.j2",
        params=scaling.params,
        args=(
            Input(0),
            Output(0),
            conv.depth,
            conv.channels,
            Const("weights", halves(conv.taps).astype(np.uint16).view(np.int16).reshape(-1)),
            Const("bias", wrap32(conv.folded_bias).astype(np.int32)),
            *scaling.args,
        ),
        helpers=(scaling.helper, "activate"),
        overlap={0: overlap(*conv.rows, conv.window)},
        # Next to those with bytes, those of a Cortex-M0, which has few registers; others take less.
        cycles=21 * fours * conv.depth + 4 * conv.depth + 30 * conv.channels,
        encoding="int4",
    )


def suits(conv: Convolution) -> bool:
    """Whether a layer is one row of weights in -8..7 whose sums fit."""
    if not conv.dense or conv.pixels > 1 or conv.channels < 2 or conv.depth > DEEPEST:
        return False
    taps = conv.taps.astype(np.int64)
    fits = LARGEST * int(np.abs(taps).sum(axis=1).max()) <= INT32_MAX
    return fits and int(taps.min()) >= -8 and int(taps.max()) <= 7


def halves(weights: Array) -> Int64Array:
    """Weights (channels, depth) in -8..7 as 16-bit numbers (fours of channels, depth), int64:
    ``4096 a + 256 (b + 8) + 16 (c + 8) + d + 8``; channels missing in the last four are 0."""
    channels, depth = weights.shape
    fours = np.pad(weights, ((0, -channels % 4), (0, 0))).astype(np.int64).reshape(-1, 4, depth)
    a, b, c, d = np.moveaxis(fours, 1, 0)
    numbers: Int64Array = (4096 * a + 256 * (b + 8) + 16 * (c + 8) + (d + 8)) & 0xFFFF
    return numbers
