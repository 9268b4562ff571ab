"""Convolutions and dense layers with Arm's DSP extension (Cortex-M4, M7, M33): pairs of products.

Accumulators carry a factor of 256, see :func:`paired_weights`.  With several pixels, blocks of four
pixels and two channels are multiplied at a time; weights, starts and multipliers then lie in flash
as one stream in the order in which they are read, see :func:`stream`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinygen.graph import Array
from tinygen.numerics import INT32_MAX, Int64Array, wrap32
from tinygen.ops.base import Arg, Channels, Codes, Const, Function, Input, Kernel, Output, Scratch
from tinygen.ops.common import overlap
from tinygen.ops.convolution import Convolution
from tinygen.ops.rescale import accumulator_range, solve

FEATURES = frozenset({"dsp"})

SHIFT = 12
"""Shift of the short requantization in blocks: one for all layers, so that they share code."""

SCALE = 256
"""Factor of accumulators of paired weights."""

WIDE = 16
"""Bytes of a kernel's row from which on only what lies outside the image is filled with padding."""

EIGHTS = 1024
"""Multiply-accumulates from which on eight channels at a time are worth their code."""


def paired_weights(weights: Array) -> Array | None:
    """Weights (channels, depth) as words (channels, depth / 4) of two 16-bit numbers -256 a + b.

    A word holds four taps, a and b of one pair being neighbours; see
    ``helpers/prepare_pixels.c.j2``.  Taps that are missing in the last word are 0.  None when a
    pair does not fit 16 bits, which takes a weight of -128.
    """
    padded = by_fours(weights)
    halves = padded[:, 1::2] - SCALE * padded[:, 0::2].astype(np.int64)
    return _paired(padded) if halves.max(initial=0) < 1 << 15 else None


def _paired(weights: Array) -> Array:
    """Weights (..., n), n a multiple of 4, as words (..., n / 4)."""
    wide = weights.astype(np.int64)
    halves = wide[..., 1::2] - SCALE * wide[..., 0::2]
    return halves.astype("<i2").view("<u4").astype(np.uint32)


def by_fours(weights: Array) -> Array:
    """Weights (channels, depth) with zeros behind them, so that ``depth`` is a multiple of 4."""
    return np.pad(weights, ((0, 0), (0, -weights.shape[1] % 4)))


@dataclass(frozen=True, eq=False)
class Scaling:
    """How accumulators become outputs: by channel ``offset`` (for the accumulators' start) and
    ``multiplier``, int64; by layer ``rounding``.

    ``exact`` means TFLM's two rounded steps, with a ``shift`` less one by channel, else it is the
    shift of :class:`tinygen.ops.rescale.Rescale`.
    """

    exact: bool
    offset: Int64Array
    multiplier: Int64Array
    shift: Int64Array
    rounding: int


def scaling(conv: Convolution, shifts: tuple[int, ...] | None) -> Scaling | None:
    """The short requantization with one of ``shifts``, else the exact one; None when accumulators
    do not fit, or something overflows."""
    least, greatest = accumulator_range(conv.taps, conv.zero_point, conv.bias)
    largest = int(max(np.abs(least).max(), np.abs(greatest).max()))
    if not conv.scaling.fast or SCALE * largest > INT32_MAX:
        return None
    found = solve(conv.scaling, least, greatest, SCALE, shifts)
    if found is not None:
        shift = np.full(conv.channels, found.shift, dtype=np.int64)
        wide = found.offset.astype(np.int64), found.multiplier.astype(np.int64)
        return Scaling(False, *wide, shift, found.rounding)
    multipliers = conv.scaling.multipliers
    mantissa = np.array([m.mantissa for m in multipliers], dtype=np.int64)
    right = np.array([-m.shift for m in multipliers], dtype=np.int64)
    rounding = 2 * conv.scaling.zero_point + 1
    most = largest + (abs(rounding) << int(right.max() - 1))
    if right.max() > 22 or most >= INT32_MAX:
        return None
    mantissa, right = (np.broadcast_to(values, conv.channels) for values in (mantissa, right))
    return Scaling(True, np.zeros(conv.channels, dtype=np.int64), mantissa, right - 1, rounding)


def stream(conv: Convolution, taps: Array, words: Array, scale: Scaling) -> Const:
    """What ``multiply_block`` reads: for every two channels (the last one twice, with the one
    before it, when their number is odd) their starts, weights, multipliers and, when ``scale`` is
    exact, both shifts in a word.  ``words`` are the ``taps``, which may have another order than the
    filters'.

    Accumulators there are -256 times TFLM's: multipliers are negative too.
    """
    odd = taps[:, 1::2].astype(np.int64).sum(axis=1)
    start = wrap32(129 * odd - SCALE * conv.folded_bias - scale.offset)
    first = np.minimum(np.arange(0, conv.channels, 2), conv.channels - 2)
    both = np.stack([first, first + 1], axis=1)
    shifts = scale.shift[both] @ np.array([[1], [1 << 8]])
    columns = [start[both], -scale.multiplier[both], *([shifts] if scale.exact else [])]
    around = (np.concatenate(columns, axis=1) & 0xFFFFFFFF).astype(np.uint32)
    quads = words.shape[1]
    products = words[both].transpose(0, 2, 1).reshape(len(both), 2 * quads)
    parts = [around[:, :2], products, around[:, 2:]]
    values = by_fours(taps).reshape(conv.channels, quads, 4)[both].transpose(0, 2, 1, 3)
    codes = Codes(values.reshape(-1), 4 * quads, "woven", around)
    return Const("weights", np.concatenate(parts, axis=1).reshape(-1), codes=codes)


def _fewest(conv: Convolution) -> int:
    """Least number of channels for which a kernel of blocks may be called."""
    return 0 if conv.channels % 2 or conv.limits else 2


def _block_params(conv: Convolution, scale: Scaling) -> dict[str, object]:
    odd = conv.channels % 2 == 1
    return {"exact": scale.exact and odd, "odd": odd, "clamped": bool(conv.limits)}


def _form(scale: Scaling) -> str:
    return "_exact" if scale.exact else ""


def _block_helpers(conv: Convolution, scale: Scaling) -> tuple[str, ...]:
    return (
        "dsp",
        "prepare_pixels",
        f"multiply_block{_form(scale)}",
        *(("clamp_outputs",) if conv.limits else ()),
    )


def _name(base: str, params: dict[str, object]) -> str:
    """``base`` with the names of all ``params`` that are true."""
    return "_".join([base, *(key for key, value in sorted(params.items()) if value is True)])


@dataclass(frozen=True)
class Cost:
    """Instructions that are needed, and cycles."""

    instructions: int
    cycles: int


def _products(conv: Convolution, scale: Scaling, quads: int, blocks: int) -> Cost:
    """What calls of ``multiply_block`` for ``blocks`` times four pixels take."""
    pairs, calls = -(-conv.channels // 2), 1 + conv.channels % 2
    after = (68, 87) if scale.exact else (33, 50)
    return Cost(
        blocks * pairs * (26 * quads + after[0]),
        blocks * (40 * calls + pairs * (69 * quads // 2 + after[1])),
    )


def dense(conv: Convolution) -> Kernel | None:
    """Rows by fours, which are prepared in scratch memory, with two channels; one or two left over
    go one by one."""
    if not conv.dense or conv.pixels < 2 or conv.channels < 2:
        return None
    words, scale = paired_weights(conv.taps), scaling(conv, (SHIFT,))
    if words is None or scale is None:
        return None
    quads, ragged = words.shape[1], conv.depth % 4 != 0
    blocks, left = divmod(conv.pixels, 4)
    if ragged and blocks and left * conv.depth < 3:
        blocks, left = blocks - 1, left + 4
    three = left == 3 and not ragged
    params = _block_params(conv, scale) | {
        "ragged": ragged, "three": three, "ones": left > 0 and not three,
    }  # fmt: skip
    blocks, left = (blocks + 1, 0) if three else (blocks, left)
    cost = _products(conv, scale, quads, blocks)
    single = -(-conv.channels // 2) * (12 * quads + (34 if scale.exact else 14))
    form = _form(scale)
    return Kernel(
        name=_name("dense_by_fours_dsp", params),
        template="fully_connected/dsp_by_fours.c.j2",
        params=params,
        args=(
            Input(0),
            Output(0),
            Scratch(4 * (8 * quads + 1 + (quads if ragged else 0))),
            conv.pixels,
            conv.depth,
            Channels(conv.channels),
            conv.channels,
            stream(conv, conv.taps, words, scale),
            scale.rounding,
            Function(f"multiply_block{form}"),
            *((Function(f"multiply_one{form}"),) if params["ones"] else ()),
            *conv.limits,
        ),
        helpers=(
            *_block_helpers(conv, scale),
            *((f"single_pixel{form}", f"scale_output{form}") if params["ones"] else ()),
        ),
        overlap={0: overlap(*conv.rows, conv.window, 4, rereads=False)},
        cycles=cost.cycles
        + blocks * (80 + 26 * quads)
        + left * (9 * single // 5 + 10 * quads + 40),
        bound=cost.instructions + 15 * blocks * quads + left * (single + 5 * quads),
        channels=_fewest(conv),
        again=blocks * (120 + 26 * quads) + left * (10 * quads + 40) + 40,
    )


def dense_row(conv: Convolution) -> Kernel | None:
    """Row by row, eight channels at a time and those left over one by one."""
    if not conv.dense:
        return None
    words, scale = paired_weights(conv.taps), scaling(conv, None)
    if words is None or scale is None:
        return None
    ragged = conv.depth % 4 != 0
    eights = conv.channels >= 8 and not ragged and conv.macs >= EIGHTS
    block = 8 if eights else 1
    whole = conv.channels // 8 * 8 if eights else 0
    quads = words.shape[1]
    per_channel = len(conv.scaling.multipliers) > 1
    params: dict[str, object] = {
        "exact": scale.exact,
        "clamped": bool(conv.limits),
        "per_channel": per_channel,
        "ragged": ragged,
        "eights": eights,
        "left": conv.channels > whole,
    }
    taps = conv.taps.astype(np.int64)
    sums = SCALE * taps[:, 0::2].sum(axis=1) + 127 * taps[:, 1::2].sum(axis=1)
    start = wrap32(SCALE * conv.folded_bias - sums + scale.offset)
    multiplier: Arg = int(scale.multiplier[0])
    shift: Arg = int(scale.shift[0])
    if per_channel or (scale.multiplier != scale.multiplier[0]).any():
        params["per_channel"] = True
        multiplier = Const("multiplier", scale.multiplier.astype(np.int32), step=1)
        if scale.exact:
            shift = Const("shift", scale.shift.astype(np.int8), step=1)
    fours = by_fours(conv.taps).reshape(conv.channels, quads, 4)
    values = np.concatenate(
        [
            *(fours[i : i + block].transpose(1, 0, 2).reshape(-1) for i in range(0, whole, block)),
            fours[whole:].reshape(-1),
        ]
    )
    codes = Codes(values, 4 * quads, "paired")
    eight_cycles = whole // 8 * (43 * quads + 60)
    left_cycles = (conv.channels - whole) * 16 * quads
    finish = conv.channels * (20 if scale.exact else 14)
    return Kernel(
        name=_name("dense_dsp", params),
        template="fully_connected/dsp.c.j2",
        params=params,
        args=(
            Input(0),
            Output(0),
            conv.pixels,
            conv.depth,
            Channels(conv.channels),
            Const("weights", _paired(values), codes=codes),
            Const("start", start.astype(np.int32), step=1),
            multiplier,
            shift,
            scale.rounding,
            *conv.limits,
        ),
        helpers=(
            "dsp",
            "scale_output_exact" if scale.exact else "scale_output",
            *(("multiply_eight",) if eights else ()),
            *(("clamp_outputs",) if conv.limits else ()),
        ),
        overlap={0: overlap(*conv.rows, conv.window)},
        cycles=conv.pixels * (eight_cycles + left_cycles + finish) + 40,
        bound=conv.pixels
        * (whole // 8 * 33 * quads + (conv.channels - whole) * 9 * quads + 6 * conv.channels),
        channels=block if conv.pixels == 1 and not conv.limits else 0,
        again=40,
    )


def window_taps(conv: Convolution) -> Array:
    """Taps in the order in which windows are prepared: of each kernel row whole words, then what
    all rows have beyond."""
    rows = conv.filters.reshape(conv.channels, conv.window.kernel[0], -1)
    whole = rows.shape[2] // 4 * 4
    parts = [rows[:, :, :whole], rows[:, :, whole:]]
    return np.concatenate([part.reshape(conv.channels, -1) for part in parts], axis=1)


def window_places(rows: int, run: int) -> tuple[int, int, int]:
    """Where copies of four pixels' windows lie in scratch memory, where what they have beyond whole
    words, and the bytes of it all; a window has so many ``rows`` of ``run`` bytes.

    Prepared pixels begin at 0 and grow over the copies, row by row behind those that are still to
    be read.
    """
    words, quads = run // 4, -(-rows * (run % 4) // 4)
    patch = max(28 * words + max(32 * words - 4 * run, 0) * (rows - 1), 0)
    tail = max(patch + 4 * run * rows, 32 * words * rows + 28 * quads)
    prepared = 32 * (words * rows + quads) + 4
    return patch, tail, max(tail + 16 * quads, prepared)


def conv2d(conv: Convolution) -> Kernel | None:
    """Windows of four pixels are prepared in scratch memory, then every pair of channels."""
    if conv.dense or conv.groups > 1 or conv.channels < 2:
        return None
    taps = window_taps(conv)
    words, scale = paired_weights(taps), scaling(conv, (SHIFT,))
    if words is None or scale is None:
        return None
    (kernel, dilation), pads = (conv.window.kernel, conv.window.dilation), conv.pads
    run = kernel[1] * conv.depth
    patch, tail, scratch = window_places(kernel[0], run)
    shape = (*conv.image[1:], *conv.output[1:], *kernel, *conv.window.stride, dilation[0],
             pads.top, pads.left, conv.image[0], dilation[1], patch, tail)  # fmt: skip
    if max(shape) >= 1 << 15:
        return None
    quads = words.shape[1]
    dilated = dilation[1] > 1
    params = _block_params(conv, scale) | {
        "dilated": dilated, "rest": run % 4 > 0, "wide": run >= WIDE and not dilated,
    }  # fmt: skip
    blocks = conv.output[0] * -(-conv.output[1] * conv.output[2] // 4)
    cost = _products(conv, scale, quads, blocks)
    return Kernel(
        name=_name("conv2d_dsp", params),
        template="conv2d/dsp.c.j2",
        params=params,
        args=(
            Input(0),
            Output(0),
            Scratch(scratch),
            Const("shape", np.array(shape, dtype=np.int16)),
            Channels(conv.channels),
            stream(conv, taps, words, scale),
            conv.zero_point,
            scale.rounding,
            Function(f"multiply_block{_form(scale)}"),
            *conv.limits,
        ),
        helpers=(*_block_helpers(conv, scale), *(() if dilated else ("copy_run",))),
        overlap={0: overlap(conv.image, conv.output, conv.window, 4, rereads=False)},
        cycles=cost.cycles + blocks * _gathering(conv, quads),
        bound=cost.instructions + 15 * blocks * quads,
        channels=_fewest(conv),
        again=blocks * (40 + _gathering(conv, quads)) + 60,
    )


def _gathering(conv: Convolution, quads: int) -> int:
    """Cycles for the windows of four pixels."""
    rows, run = conv.window.kernel[0], conv.window.kernel[1] * conv.depth
    inside = 150 + 50 * rows + 26 * quads + 20 * rows * (run % 4)
    copies = 200 + 4 * rows * (25 + 7 * run // 4)
    touched = sum(
        min(extent, -(-pad // stride)) / extent
        for extent, pad, stride in (
            (conv.output[1], conv.pads.top + conv.pads.bottom, conv.window.stride[0]),
            (conv.output[2], 4 * (conv.pads.left + conv.pads.right), conv.window.stride[1]),
        )
    )
    return inside + int(min(touched, 1.0) * copies)
