"""Convolutions and dense layers with Armv8.1-M vectors (MVE, Cortex-M55 and M85).

``VMLADAV`` multiplies 16 pairs of bytes and adds all products to one register; requantization goes
by vectors of four sums.  See ``docs/kernels.md``.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from tinygen.graph import Array
from tinygen.numerics import wrap32
from tinygen.ops.base import Arg, Const, Input, Kernel, Output, Scratch
from tinygen.ops.common import Pads, Requant, Window, overlap
from tinygen.ops.convolution import Convolution

FEATURES = frozenset({"mve"})

LANES = 16
"""Bytes of a vector."""

BLOCK = 32
"""Pixels that a kernel with few inputs a pixel takes at a time."""

MAX_CHANNELS = 1 << 15
"""Channels stay below, so that offsets of scattered bytes fit 16 bits."""


def blocked(taps: Array) -> Array:
    """Weights (channels, depth) in the order in which ``mve/rows.j2`` reads them.

    Blocks of four channels, each cut into pieces of 16 taps, the first being what is left over.
    Channels left over follow one after another.
    """
    channels, depth = taps.shape
    cuts = [0, *range((depth - 1) % LANES + 1, depth + 1, LANES)]
    whole = channels - channels % 4
    pieces = [
        taps[channel : channel + 4, start:end].reshape(-1)
        for channel in range(0, whole, 4)
        for start, end in itertools.pairwise(cuts)
    ]
    return np.concatenate([*pieces, taps[whole:].reshape(-1)])


def scale_params(scaling: Requant) -> dict[str, bool]:
    """What templates must know of a requantization.

    Halves of negative numbers are rounded away from zero, which costs two instructions a vector;
    it makes no difference when the activation's lower limit is the zero point or above.
    """
    return {
        "per_channel": len(scaling.multipliers) > 1,
        "away": scaling.low < scaling.zero_point,
        "saturate": (scaling.low, scaling.high) == (-128, 127),
    }


def scale_args(conv: Convolution, start: Array) -> tuple[Arg, ...]:
    """What sums start from and are requantized by, the zero point, and limits unless int8's.

    For a block of four channels one array holds four starts and, when there is one a channel, four
    multipliers and a word of four shifts (negative: to the right); for a channel left over one of
    each.
    """
    scaling = conv.scaling
    mantissas = [m.mantissa for m in scaling.multipliers]
    shifts = [m.shift for m in scaling.multipliers]
    words = wrap32(start).astype(np.int32)[:, None]
    scale: tuple[Arg, ...] = (mantissas[0], shifts[0])
    if len(mantissas) > 1:
        words = np.column_stack([words, mantissas, shifts]).astype(np.int32)
        scale = ()
    blocks = []
    whole = len(words) - len(words) % 4
    for block in words[:whole].reshape(-1, 4, words.shape[1]):
        blocks += [block[:, 0], block[:, 1:2].reshape(-1)]
        blocks += [block[:, 2:].astype(np.int8).reshape(-1).view(np.int32)]
    limits = () if scale_params(scaling)["saturate"] else (scaling.low, scaling.high)
    array = np.concatenate([*blocks, words[whole:].reshape(-1)])
    return (Const("scales", array), *scale, scaling.zero_point, *limits)


def dense(conv: Convolution) -> Kernel | None:
    """Two pixels by four channels, or one by four when there is only one."""
    if not conv.dense or not conv.scaling.fast or conv.channels >= MAX_CHANNELS:
        return None
    params = row_params(conv, conv.depth, conv.pixels)
    return Kernel(
        name=f"dense_mve{row_suffix(params)}",
        template="fully_connected/mve.c.j2",
        params=params,
        args=(
            Input(0),
            conv.depth,
            Output(0),
            conv.pixels,
            conv.depth,
            conv.channels,
            Const("weights", blocked(conv.taps)),
            *scale_args(conv, conv.folded_bias),
        ),
        helpers=("activate", "mve", "mve_dot", "requantize_right"),
        overlap={0: overlap(*conv.rows, conv.window, BLOCK if params["small"] else 2)},
        cycles=row_cycles(conv, conv.depth, conv.pixels),
        bound=row_bound(conv, conv.depth, conv.pixels),
    )


def row_params(conv: Convolution, depth: int, pixels: int) -> dict[str, object]:
    """Template parameters of ``mve/rows.j2`` for pixels of ``depth`` bytes."""
    scale = scale_params(conv.scaling)
    small = depth <= LANES and pixels > 1 and scale["saturate"]
    return {
        "small": small,
        "single": pixels == 1,
        "tail": depth % LANES > 0,
        "left": conv.channels % 4 > 0,
        "block": BLOCK,
        **scale,
    }


def row_suffix(params: dict[str, object]) -> str:
    """What tells functions of different ``params`` apart by name."""
    words = [
        "_" + word for word in ("small", "single", "tail", "left", "per_channel") if params[word]
    ]
    return "".join(words)


def row_bound(conv: Convolution, depth: int, pixels: int) -> int:
    """Instructions that ``mve/rows.j2`` needs: loads, products, moves, requantization, stores."""
    chunks = -(-depth // LANES)
    scale = 4 * bool(scale_params(conv.scaling)["away"]) + 14
    if depth <= LANES and pixels > 1:
        pair = 2 * (1 + 4 + 2) + scale
    elif pixels == 1:
        return chunks * 9 * conv.channels // 4 + 11 * conv.channels // 4
    else:
        pair = 14 * chunks + 4 + scale
    return pair * (-(-pixels // 2)) * (-(-conv.channels // 4))


def row_cycles(conv: Convolution, depth: int, pixels: int) -> int:
    """Cycles of ``mve/rows.j2``: a vector instruction takes two, one of which runs beside the next
    when that is of another kind."""
    return row_bound(conv, depth, pixels) * 3 // 2 + 12 * pixels * conv.channels // 8


def depthwise(conv: Convolution) -> Kernel | None:
    """Strips of a few rows a channel, a vector holding a window or two: at most 16 taps."""
    conv = _across(conv)
    taps = conv.taps.shape[1]
    height, width = conv.window.kernel
    if not conv.depthwise or conv.depth != conv.channels or conv.window.dilation != (1, 1):
        return None
    if taps > LANES or not conv.scaling.fast:
        return None
    step = height * conv.window.stride[1]
    columns = (conv.output[2] - 1) * conv.window.stride[1] + width
    size = height * columns
    if 8 * size >= 1 << 16 or 2 * step > 127:
        return None
    paired = taps + step <= LANES
    scaling = conv.scaling
    mantissas = [m.mantissa for m in scaling.multipliers]
    shifts = [m.shift for m in scaling.multipliers]
    scale: tuple[Arg, Arg] = (mantissas[0], shifts[0])
    if len(mantissas) > 1:
        scale = (
            Const("multiplier", np.array(mantissas, dtype=np.int32)),
            Const("shift", np.array(shifts, dtype=np.int8)),
        )
    params = scale_params(scaling)
    limits = () if params["saturate"] else (scaling.low, scaling.high)
    # By channel, each column by column, as the strips are.
    weights = conv.filters.reshape(conv.channels, height, width).transpose(0, 2, 1).reshape(-1)
    return Kernel(
        name=f"depthwise_{height}x{width}_mve",
        template="depthwise_conv2d/mve.c.j2",
        params={
            "kernel": conv.window.kernel,
            "stride": conv.window.stride,
            "taps": taps,
            "ragged": conv.channels % 8 > 0,
            "paired": paired,
            "pair_step": 2 * step if paired else step,
            "turns": _turns(conv.window.kernel, step if paired else None),
            "mask": hex((1 << taps) - 1),
            "mask_next": hex(((1 << taps) - 1) << step),
            **params,
        },
        args=(
            Input(0),
            Output(0),
            Scratch(conv.channels * size + 4 * step + LANES),
            *conv.image,
            conv.output[1],
            conv.output[2],
            conv.pads.top,
            conv.pads.left,
            Const("weights", weights),
            Const("start", wrap32(conv.folded_bias).astype(np.int32)),
            conv.zero_point,
            *scale,
            scaling.zero_point,
            *limits,
        ),
        helpers=("activate", "mve", "requantize_right"),
        overlap={0: _row_overlap(conv)},
        cycles=_depthwise_cost(conv, paired) * 3 // 2,
        bound=_depthwise_cost(conv, paired),
    )


def _across(conv: Convolution) -> Convolution:
    """``conv`` with rows and columns exchanged when images are a single column, which is the same
    memory: kernels go along rows."""
    pads, window = conv.pads, conv.window
    if conv.image[2] > 1 or conv.output[2] > 1 or window.kernel[1] > 1 or pads.left or pads.right:
        return conv
    (batch, height, _, depth), (_, rows, _, channels) = conv.image, conv.output
    across = Pads(left=pads.top, right=pads.bottom)
    return replace(
        conv,
        image=(batch, 1, height, depth),
        output=(batch, 1, rows, channels),
        filters=conv.filters.transpose(0, 2, 1, 3),
        window=Window(
            (1, window.kernel[0]),
            (1, window.stride[0]),
            (1, window.dilation[0]),
            "EXPLICIT",
            across,
        ),
        pads=across,
    )


def _turns(kernel: tuple[int, int], next_window: int | None) -> list[list[int]]:
    """For each place of the oldest row, offsets of a window's weights by byte of a vector.

    After 16 of the window at byte 0 come 16 of one at byte ``next_window``, if there is one.
    """
    height, width = kernel
    found = []
    for oldest in range(height):
        order = [
            column * height + (place - oldest) % height
            for column in range(width)
            for place in range(height)
        ]
        first = (order + [0] * LANES)[:LANES]
        second = [] if next_window is None else ([0] * next_window + first)[:LANES]
        found.append(first + second)
    return found


def _row_overlap(conv: Convolution) -> int:
    """How far below its input an output may begin when every input row is read once, as late as
    the output row that needs it first."""
    batch, height, width, depth = conv.image
    _, rows, columns, channels = conv.output
    stride, extent = conv.window.stride[0], conv.window.kernel[0]
    worst = 0
    for image in range(batch):
        for y in range(rows):
            following = max(y * stride + extent, (y + 1) * stride) - conv.pads.top
            read = height if y + 1 == rows else min(max(following, 0), height)
            written = (image * rows + y + 1) * columns * channels
            worst = max(worst, written - (image * height + read) * width * depth)
    return worst


def _depthwise_cost(conv: Convolution, paired: bool) -> int:
    """Instructions of ``depthwise_conv2d/mve.c.j2``: transposing rows, windows, requantization."""
    batch, height, width, depth = conv.image
    rows, columns = conv.output[1:3]
    copied = batch * height * (-(-depth // 8)) * (8 + 5 * width)
    group = (15 if paired else 17) + 2 * bool(scale_params(conv.scaling)["away"]) + 2
    return copied + batch * rows * depth * (24 + -(-columns // 4) * group)


def conv2d(conv: Convolution) -> Kernel | None:
    """A strip of the rows under a row of outputs, then what a dense layer does."""
    conv = _across(conv)
    if conv.dense or conv.groups > 1 or conv.window.dilation[1] != 1:
        return None
    if not conv.scaling.fast or conv.channels >= MAX_CHANNELS:
        return None
    (height, width), depth, columns = conv.window.kernel, conv.depth, conv.output[2]
    taps = conv.taps.shape[1]
    narrow = depth <= LANES
    if narrow and (LANES // depth - 1) * height * depth + depth > 256:
        return None
    direct = height == 1 and not conv.pads.any
    strip = ((columns - 1) * conv.window.stride[1] + width) * height * depth
    params = row_params(conv, taps, columns) | {"direct": direct, "narrow": narrow}
    # Column by column, as strips are.
    weights = conv.filters.transpose(0, 2, 1, 3).reshape(conv.channels, taps)
    place: tuple[Arg, ...] = (
        conv.window.dilation[0],
        conv.pads.top,
        conv.pads.left,
        conv.zero_point,
    )
    kind = "_direct" if direct else "_narrow" if narrow else ""
    return Kernel(
        name=f"conv2d_mve{kind}{row_suffix(params)}",
        template="conv2d/mve.c.j2",
        params=params,
        args=(
            Input(0),
            Output(0),
            *(() if direct else (Scratch(strip),)),
            *conv.image,
            *conv.output[1:],
            *conv.window.kernel,
            *conv.window.stride,
            *(() if direct else place),
            Const("weights", blocked(weights)),
            *scale_args(conv, conv.folded_bias),
        ),
        helpers=("activate", "mve", "mve_dot", "requantize_right"),
        overlap={
            0: overlap(conv.image, conv.output, conv.window, columns, rereads=direct),
        },
        cycles=_strip_cost(conv) * 2
        + conv.image[0] * conv.output[1] * row_cycles(conv, taps, columns),
        bound=_strip_cost(conv) + conv.image[0] * conv.output[1] * row_bound(conv, taps, columns),
    )


def _strip_cost(conv: Convolution) -> int:
    """Instructions that gather strips: seven for some small pixels, or three for 16 bytes."""
    height = conv.window.kernel[0]
    if height == 1 and not conv.pads.any:
        return 0
    vectors = (
        -(-conv.image[2] * 7 // (LANES // conv.depth))
        if conv.depth <= LANES
        else (conv.image[2] * (4 + 3 * -(-conv.depth // LANES)))
    )
    return conv.image[0] * conv.output[1] * height * vectors
