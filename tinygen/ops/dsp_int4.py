"""Dense layers of one row whose weights have four bits, with Arm's DSP extension.

As :mod:`tinygen.ops.int4`, two inputs at a time: a word holds eight weights of two inputs and four
channels (see ``helpers/multiply_nibbles.c.j2``).
"""

from __future__ import annotations

import numpy as np

from tinygen.graph import Array
from tinygen.numerics import wrap32
from tinygen.ops import int4
from tinygen.ops.base import Const, Input, Kernel, Output
from tinygen.ops.common import overlap
from tinygen.ops.convolution import Convolution
from tinygen.ops.dsp import FEATURES, SCALE, scaling

__all__ = ["FEATURES", "dense", "nibble_words"]


def nibble_words(weights: Array) -> Array:
    """Weights (channels, depth) in -8..7 as words, for each eight channels and, behind them, four;
    ``depth`` must be a multiple of 4."""
    numbers = int4.halves(weights)
    # Inputs 0 and 2 of four are a word's halves, then 1 and 3.
    quads = numbers.reshape(len(numbers), -1, 2, 2).swapaxes(2, 3)
    words = (quads[..., 0] | quads[..., 1] << 16).reshape(len(numbers), -1).astype(np.uint32)
    paired = len(words) // 2 * 2
    eights = words[:paired].reshape(-1, 2, words.shape[1]).swapaxes(1, 2)
    return np.concatenate([eights.reshape(-1), words[paired:].reshape(-1)])


def dense(conv: Convolution) -> Kernel | None:
    """Eight channels at a time, then four."""
    if conv.depth % 4 or conv.channels < 4 or not int4.suits(conv):
        return None
    scale = scaling(conv, None)
    if scale is None:
        return None
    clamped = bool(conv.limits)
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
            *conv.limits,
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
