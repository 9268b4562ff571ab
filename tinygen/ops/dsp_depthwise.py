"""Depthwise convolutions with Arm's DSP extension (Cortex-M4, M7, M33).

Any shape: four neighbouring channels of a pixel are a word, one extension gives two of them.
"""

from __future__ import annotations

import numpy as np

from tinygen.numerics import INT32_MAX, wrap32
from tinygen.ops.base import Arg, Const, Input, Kernel, Output
from tinygen.ops.common import overlap
from tinygen.ops.convolution import Convolution
from tinygen.ops.dsp import FEATURES

INT16_MAX = (1 << 15) - 1

__all__ = ["FEATURES", "quads"]


def quads(conv: Convolution) -> Kernel | None:
    """Four channels of an output pixel at a time, over the part of the window inside the image."""
    if conv.channels != conv.depth or conv.depth < 4:
        return None
    shape, form = _shape(conv), _requantization(conv)
    if shape is None or form is None:
        return None
    short, args = form
    padded = conv.pads.any
    limited = (conv.scaling.low, conv.scaling.high) != (-128, 127)
    params = {
        "short": short,
        "padded": padded,
        "limited": limited,
        "left": conv.depth % 4 > 0,
    }
    words = [word for word, true in params.items() if true and word != "limited"]
    return Kernel(
        name="_".join(["depthwise_dsp", *words]),
        template="depthwise_conv2d/dsp_quads.c.j2",
        params=params,
        args=(
            Input(0),
            Output(0),
            Const("weights", conv.taps.T.reshape(-1)),
            Const("shape", shape),
            *args,
            *((conv.scaling.low, conv.scaling.high) if limited else ()),
            *((conv.zero_point,) if padded else ()),
        ),
        helpers=(
            "dsp",
            "dsp_halves",
            "dsp_rescale" if short else "dsp_requantize",
            "dsp_saturate",
            *(("clamp",) if limited else ()),
        ),
        overlap={0: overlap(conv.image, conv.output, conv.window)},
        cycles=5 * conv.macs + 25 * conv.pixels * conv.channels,
        bound=(12 if padded else 10) * conv.macs // 4 + 6 * conv.pixels * conv.channels,
    )


def _shape(conv: Convolution) -> np.ndarray[tuple[int], np.dtype[np.int16]] | None:
    """What the kernel has to know of the shapes, in its order; None when it is too large.

    The kernel's inner loop is over columns: a column of pixels is as well a row.
    """
    window, (batch, height, width, depth) = conv.window, conv.image
    pairs = [(height, width), conv.output[1:3], window.kernel, window.stride, window.dilation]
    pairs.append((conv.pads.top, conv.pads.left))
    if width == window.kernel[1] == conv.output[2] == 1:
        pairs = [(across, down) for down, across in pairs]
    numbers = (batch, *pairs[0], depth, *(number for pair in pairs[1:] for number in pair))
    return np.array(numbers, dtype=np.int16) if max(numbers) <= INT16_MAX else None


def _requantization(conv: Convolution) -> tuple[bool, tuple[Arg, ...]] | None:
    """Whether the short form serves, and call arguments: starts, multipliers, shift, rounding.

    Kernels shift by one less than that and by one more when they limit to int8.  None when
    neither form is exact.
    """
    scaling, channels = conv.scaling, conv.channels
    bias = conv.bias if conv.pads.any else conv.folded_bias
    rescale = conv.rescale
    if rescale is not None:
        start = wrap32(256 * bias + rescale.offset).astype(np.int32)
        multiplier = np.broadcast_to(rescale.multiplier, channels)
        constants = Const("start", start), Const("multiplier", multiplier)
        return True, (*constants, rescale.shift - 1, rescale.rounding)
    shifts = np.broadcast_to([-m.shift - 1 for m in scaling.multipliers], channels)
    nudge = 2 * scaling.zero_point + 1
    if not scaling.fast or conv.bound + (abs(nudge) << int(shifts.max())) >= INT32_MAX:
        return None
    mantissas = np.broadcast_to([m.mantissa for m in scaling.multipliers], channels)
    return False, (
        Const("start", wrap32(bias).astype(np.int32)),
        Const("multiplier", mantissas.astype(np.int32)),
        Const("shift", shifts.astype(np.int8)),
        nudge,
    )
