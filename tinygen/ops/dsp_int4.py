"""Dense layers of one row whose weights have four bits, with Arm's DSP extension.

Each weight is used once, so that decoding it before would cost more than its product.  Here a word
holds eight weights of two inputs and four channels, and products are taken of parts of the word:
one of it as it is, three behind one ``AND`` each (see ``helpers/multiply_nibbles.c.j2``).
"""

from __future__ import annotations

import numpy as np

from tinygen.graph import Array
from tinygen.numerics import INT32_MAX, Int64Array, wrap32
from tinygen.ops.base import Const, Input, Kernel, Output
from tinygen.ops.common import overlap
from tinygen.ops.convolution import Convolution
from tinygen.ops.dsp import FEATURES, SCALE, scaling

LARGEST = 4096 * 128
"""What a weight of 1 adds to the first of four accumulators, with the largest input."""

__all__ = ["FEATURES", "dense", "nibble_words"]


def nibble_words(weights: Array) -> Array:
    """Weights (channels, depth) in -8..7 as words, for each eight channels and, behind them, four;
    channels that are missing in the last four are 0.  ``depth`` must be a multiple of 4."""
    channels, depth = weights.shape
    fours = np.pad(weights, ((0, -channels % 4), (0, 0))).astype(np.int64).reshape(-1, 4, depth)
    halves = _halves(fours)
    # Inputs 0 and 2 of four are a word's halves, then 1 and 3.
    quads = halves.reshape(len(halves), depth // 4, 2, 2).swapaxes(2, 3)
    words = (quads[..., 0] | quads[..., 1] << 16).reshape(len(halves), -1).astype(np.uint32)
    pairs = len(words) // 2 * 2
    eights = words[:pairs].reshape(-1, 2, words.shape[1]).swapaxes(1, 2)
    return np.concatenate([eights.reshape(-1), words[pairs:].reshape(-1)])


def _halves(fours: Int64Array) -> Int64Array:
    """Weights (n, 4, depth) as 16-bit numbers (n, depth)."""
    a, b, c, d = np.moveaxis(fours, 1, 0)
    halves: Int64Array = (4096 * a + 256 * (b + 8) + 16 * (c + 8) + (d + 8)) & 0xFFFF
    return halves


def dense(conv: Convolution) -> Kernel | None:
    """Eight channels at a time, then four."""
    if not conv.dense or conv.pixels > 1 or conv.depth % 4 or conv.channels < 4:
        return None
    taps = conv.taps.astype(np.int64)
    if taps.min() < -8 or taps.max() > 7 or LARGEST * np.abs(taps).sum(axis=1).max() > INT32_MAX:
        return None
    scale = scaling(conv, None)
    if scale is None:
        return None
    clamped = (conv.scaling.low, conv.scaling.high) != (-128, 127)
    start = wrap32(SCALE * conv.folded_bias + scale.offset).astype(np.int32)
    exact = "_exact" if scale.exact else ""
    quads, fours = conv.depth // 4, -(-conv.channels // 4)
    eights, left = divmod(fours, 2)
    return Kernel(
        name=f"dense_int4_dsp{exact}{'_clamped' if clamped else ''}",
        template="fully_connected/dsp_int4.c.j2",
        params={"exact": scale.exact, "clamped": clamped},
        args=(
            Input(0),
            Output(0),
            conv.depth,
            conv.channels,
            Const("weights", nibble_words(conv.taps)),
            Const("start", start),
            Const("multiplier", scale.multiplier.astype(np.int32)),
            Const("shift", scale.shift.astype(np.int8)) if scale.exact else int(scale.shift[0]),
            scale.rounding,
            *((conv.scaling.low, conv.scaling.high) if clamped else ()),
        ),
        helpers=(
            "dsp",
            f"scale_output{exact}",
            "multiply_nibbles",
            *(("clamp_outputs",) if clamped else ()),
        ),
        overlap={0: overlap(*conv.rows, conv.window)},
        cycles=quads * (6 + 89 * eights // 2 + 48 * left) + 17 * conv.channels + 100,
        bound=quads * (35 * eights + 20 * left) + 6 * conv.channels,
        encoding="int4",
    )
