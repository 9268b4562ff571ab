"""Depthwise convolutions with Arm's DSP extension (Cortex-M4, M7, M33).

Three ways.  ``quads`` takes any shape: four neighbouring channels of a pixel are a word, one
extension gives two of them.  ``planes`` and, for images of one row or column, ``line`` copy
channels into 16-bit numbers first, so that one ``SMLAD`` multiplies two neighbouring pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tinygen.graph import Array
from tinygen.numerics import INT16_MAX, INT32_MAX, Int64Array, wrap32
from tinygen.ops.base import Arg, Const, Input, Kernel, Output, Scratch
from tinygen.ops.common import overlap
from tinygen.ops.convolution import Convolution
from tinygen.ops.dsp import FEATURES
from tinygen.ops.portable import whole_bytes
from tinygen.ops.rescale import Rescale, accumulator_range, solve, thresholds

SHIFTS = (8, 9, 10, 11, 12, 7, 6, 5, 4, 3, 2, 1)
"""Shifts of the requantization in planes, the first that serves: one for all is one function."""

WIDEST = (60, 31)
"""Outputs in a row of a plane of 128 bytes, next to each other or two columns apart."""

NEVER = 1 << 62
"""More than any product."""

SCRATCH = 2560
"""Bytes that planes may take whatever the layer."""

__all__ = ["FEATURES", "line", "pitch", "planes", "quads"]


def quads(conv: Convolution) -> Kernel | None:
    """Four channels of an output pixel at a time, over the part of the window inside the image."""
    if conv.channels != conv.depth or conv.depth < 4:
        return None
    bias = conv.bias if conv.pads.any else conv.folded_bias
    shape, form = _shape(conv), _requantization(conv, bias)
    if shape is None or form is None:
        return None
    short, args = form
    padded = conv.pads.any
    limited = bool(conv.limits)
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
            whole_bytes(conv.taps.T.reshape(-1)),
            Const("shape", shape),
            *args,
            *conv.limits,
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
        cycles=5 * conv.macs + (30 if padded else 24) * conv.pixels * conv.channels,
        bound=(12 if padded else 10) * conv.macs // 4 + 6 * conv.pixels * conv.channels,
    )


def line(conv: Convolution) -> Kernel | None:
    """Windows along a line of pixels, four outputs of a channel at a time."""
    window, pads, (batch, *image, depth) = conv.window, conv.pads, conv.image
    axis = 1 if image[0] == window.kernel[0] == conv.output[1] == 1 else 0
    if image[1 - axis] != 1 or window.kernel[1 - axis] != 1 or conv.output[2 - axis] != 1:
        return None
    taps, columns, width = window.kernel[axis], conv.output[1 + axis], image[axis]
    stride, left = window.stride[axis], (pads.top, pads.left)[axis]
    if window.dilation[axis] > 1 or conv.channels != depth or not depth >= 2:
        return None
    if pads.any and (pads.top, pads.left)[1 - axis] + (pads.bottom, pads.right)[1 - axis]:
        return None
    form = _requantization(conv, conv.folded_bias)
    # What the last four outputs read, those that do not count among them.
    length = max((-(-columns // 4) * 4 - 1) * stride + taps + taps % 2, left + width)
    length += length % 2
    shape = (batch, width, depth, columns, taps, stride, left, length, conv.zero_point)
    if form is None or max(shape) > INT16_MAX or length > SCRATCH:
        return None
    short, args = form
    limited = bool(conv.limits)
    outputs = -(-columns // 4) * 4
    words = (taps + 1) // 2
    cycles = 15 * outputs // 4 * words + 25 * columns + 4 * width + 15 * words + 60
    return Kernel(
        name="_".join(["depthwise_line_dsp", *(["short"] if short else [])]),
        template="depthwise_conv2d/dsp_line.c.j2",
        params={"short": short, "limited": limited},
        args=(
            Input(0),
            Output(0),
            Scratch(4 * length + 4 * words),
            whole_bytes(np.append(conv.taps.reshape(-1), np.int8(0))),
            Const("shape", np.array(shape, dtype=np.int16)),
            *args,
            *conv.limits,
        ),
        helpers=(
            "dsp",
            "dsp_fill",
            "dsp_channels",
            "dsp_line",
            "dsp_rescale" if short else "dsp_requantize",
            "dsp_saturate",
            *(("clamp",) if limited else ()),
        ),
        in_place=(0,) if columns <= width and (batch == 1 or columns == width) else (),
        cycles=batch * depth * cycles,
        bound=batch * depth * columns * (9 * words // 4 + 6),
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


def _requantization(conv: Convolution, bias: Int64Array) -> tuple[bool, tuple[Arg, ...]] | None:
    """Whether the short form serves, and call arguments: starts, multipliers, shift, rounding.

    Kernels shift by one less than that and by one more when they limit to int8.  None when
    neither form is exact.
    """
    scaling, channels = conv.scaling, conv.channels
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


@dataclass(frozen=True)
class Layout:
    """How planes lie: their rows along the image's, or ``turned``, along its columns.

    Sizes and steps are those of the planes' rows and columns.  ``pitch`` is the bytes from one row
    of a plane to the next, ``band`` the rows of outputs that are computed at a time, ``block`` the
    columns.
    """

    image: tuple[int, int]
    output: tuple[int, int]
    stride: tuple[int, int]
    pads: tuple[int, int]
    turned: bool
    pitch: int
    band: int
    block: int
    count: int

    @property
    def needed(self) -> int:
        """Rows of a plane."""
        return (self.band - 1) * self.stride[0] + 3

    @property
    def scratch(self) -> int:
        """Bytes, those included that align the planes."""
        return self.count * self.needed * self.pitch + 4 + self.pitch - 4

    @property
    def bands(self) -> int:
        return -(-self.output[0] // self.band)

    @property
    def blocks(self) -> int:
        return -(-self.output[1] // self.block)

    @property
    def cycles(self) -> int:
        """What one channel takes, its planes being there."""
        columns = self.output[1]
        row = 33 * (columns // 2) + 19 * (columns % 2) if self.stride[1] == 1 else 18 * columns
        return self.output[0] * (row + 25 * self.blocks) + 100 * self.bands * self.blocks

    @property
    def filling(self) -> int:
        """Cycles that filling one plane takes."""
        again = 3 - self.stride[0] if self.stride[0] < 3 else 0
        rows = self.image[0] + again * (self.bands - 1)
        columns = self.image[1] + (self.blocks - 1) * (3 - self.stride[1])
        pixels = (11 if self.count > 1 else 20) * columns // 4
        return rows * (pixels + 12 * self.blocks) + 70 * self.bands * self.blocks

    @property
    def products(self) -> int:
        """Instructions that loads, products and requantization of one channel take."""
        rows, columns = self.output
        return rows * (22 * columns // 2 if self.stride[1] == 1 else 12 * columns)

    def walk(self) -> Iterator[tuple[slice, slice]]:
        """For each band the rows of the image read and the rows of the output written then."""
        (height, _), (rows, _) = self.image, self.output
        done = 0
        for y in range(0, rows, self.band):
            tall = min(self.band, rows - y)
            end = min(max((y + tall - 1) * self.stride[0] + 3 - self.pads[0], 0), height)
            yield slice(min(done, end), end), slice(y, y + tall)
            done = max(done, end)


def pitch(columns: int, stride: int) -> int:
    """Bytes from one row of a plane to the next, for so many outputs a row."""
    return 64 if columns <= (WIDEST[stride > 1] - 3) // 2 else 128


def planes(conv: Convolution, least: int = 0, spare: int = 0) -> Kernel | None:
    """Windows of at most 3x3, planes of one or two channels at a time.

    ``least`` bytes are from row to row, or more: kernels of one distance are one function.
    ``spare`` bytes of scratch memory cost nothing, other layers needing more than this one.
    """
    if conv.groups != conv.depth:
        return None
    taps = _nine_taps(conv)
    layouts = [made for turned in (False, True) if (made := _layout(conv, turned, least, spare))]
    if taps is None or not layouts:
        return None
    scaling = _folded(conv)
    if scaling is None:
        return None
    layout = min(layouts, key=lambda a: (not _in_place(conv, a), a.cycles + a.filling))
    shape = _planes_shape(conv, layout)
    if max(shape) > INT16_MAX:
        return None
    if layout.turned:
        taps = taps.swapaxes(1, 2)
    starts, multipliers, shift = scaling
    across = layout.stride[1]
    return Kernel(
        name=f"depthwise_3x3_step{across}_dsp",
        template="depthwise_conv2d/dsp_3x3.c.j2",
        params={"stride": across, "shift": shift, "pitch": layout.pitch},
        args=(
            Input(0),
            Output(0),
            Scratch(layout.scratch),
            # The last channel's taps are read with the byte behind them.
            whole_bytes(np.append(taps.reshape(-1), np.int8(0))),
            Const("scaling", np.stack([starts, multipliers], axis=1).reshape(-1)),
            Const("shape", np.array(shape, dtype=np.int16)),
        ),
        helpers=("dsp", "dsp_fill", "dsp_channels", "dsp_halves", "dsp_planes"),
        in_place=(0,) if _in_place(conv, layout) else (),
        cycles=conv.output[0] * (layout.filling * conv.depth + layout.cycles * conv.channels),
        bound=conv.output[0] * conv.channels * layout.products,
    )


def _nine_taps(conv: Convolution) -> Array | None:
    """Filters as (channels, 3, 3), zeros where there are none; None when the window is larger."""
    (high, wide), (down, across) = conv.window.kernel, conv.window.dilation
    if (high - 1) * down >= 3 or (wide - 1) * across >= 3:
        return None
    taps = np.zeros((conv.channels, 3, 3), dtype=np.int8)
    rows, columns = np.arange(high) * down, np.arange(wide) * across
    taps[:, rows[:, None], columns] = conv.taps.reshape(-1, high, wide)
    return taps


def _folded(conv: Convolution) -> tuple[Array, Array, int] | None:
    """Starts and multipliers (int32) and the shift of the short requantization, its rounding in the
    starts: ``ssat8((acc * multiplier >> 32) >> shift)``, proved for every accumulator.
    """
    least, greatest = accumulator_range(conv.taps, conv.zero_point, conv.bias)
    solved = (solve(conv.scaling, least, greatest, shifts=(shift,)) for shift in SHIFTS)
    folded = (_with_rounding(conv, rescale, least, greatest) for rescale in solved if rescale)
    return next((found for found in folded if found is not None), None)


def _with_rounding(
    conv: Convolution, rescale: Rescale, least: Int64Array, greatest: Int64Array
) -> tuple[Array, Array, int] | None:
    """:func:`_folded` with the shift of ``rescale`` and multipliers near its own."""
    steps = thresholds(conv.scaling, least, greatest)
    needed = np.arange(-127, 128, dtype=np.int64) << (32 + rescale.shift)
    offsets, multipliers = np.zeros_like(least), np.zeros_like(least)
    for channel, nearest in enumerate(rescale.multiplier.astype(np.int64)):
        reached = steps[channel] <= greatest[channel]
        missed = steps[channel] > least[channel]
        given = nearest, 256 * steps[channel], needed, reached, missed
        found = _fold(*given, tries=4) or _fold(*given, tries=300)
        if found is None:
            return None
        multipliers[channel], offsets[channel] = found
    largest = np.maximum(np.abs(256 * least + offsets), np.abs(256 * greatest + offsets))
    if largest.max() > INT32_MAX:
        return None
    start = wrap32(256 * conv.folded_bias + offsets).astype(np.int32)
    return start, multipliers.astype(np.int32), rescale.shift


def _fold(
    nearest: int,
    steps: Int64Array,
    needed: Int64Array,
    reached: Array,
    missed: Array,
    tries: int,
) -> tuple[int, int] | None:
    """Multiplier and offset with which one channel's ``steps`` (scaled) reach what is ``needed``
    and those of one accumulator less, 256, do not; None when none of the ``tries`` on each side
    of ``nearest`` has them."""
    trial = nearest + np.arange(-tries, tries + 1)
    trial = trial[(trial > 0) & (trial <= INT32_MAX)]
    missing = needed - steps * trial[:, None]
    low = np.where(reached, missing, -NEVER).max(axis=1)
    high = np.where(missed, missing, NEVER).min(axis=1) + 256 * trial
    offset = np.where(low > -NEVER, -(-low // trial), (high - 1) // trial)
    good = np.flatnonzero(offset * trial < high)
    if not good.size:
        return None
    best = good[np.abs(trial[good] - nearest).argmin()]
    return int(trial[best]), int(offset[best])


def _layout(conv: Convolution, turned: bool, least: int, spare: int = 0) -> Layout | None:
    """Planes for ``conv``; None when neighbouring outputs are neither one nor two columns apart."""
    window, pads = conv.window, (conv.pads.top, conv.pads.left)
    pairs = [conv.image[1:3], conv.output[1:3], window.stride, pads]
    image, output, stride, before = ((b, a) if turned else (a, b) for a, b in pairs)
    if stride[1] > 2:
        return None
    rows, columns = output
    blocks = -(-columns // WIDEST[stride[1] > 1])
    block = -(-columns // blocks)
    block += block % 2 if blocks > 1 and stride[1] == 1 else 0
    least = max(least, pitch(block, stride[1]))
    count = 2 if conv.depth > 1 else 1
    tall = max(SCRATCH, spare - least) // (count * least)
    band = max((tall - 3) // stride[0] + 1, 2)
    band = max(-(-rows // -(-rows // band)), min(rows, 2))
    return Layout(image, output, stride, before, turned, least, band, block, count)


def _planes_shape(conv: Convolution, layout: Layout) -> tuple[int, ...]:
    """What the kernel has to know, in its order."""
    (_, _, wide, depth), (_, _, columns, channels) = conv.image, conv.output
    steps_in, steps_out = (depth, wide * depth), (channels, columns * channels)
    if layout.turned:
        steps_in, steps_out = steps_in[::-1], steps_out[::-1]
    return (
        conv.image[0], *layout.image, depth, channels // depth, *steps_in, *layout.output,
        *steps_out, *layout.stride, *layout.pads, layout.band, layout.block, layout.pitch,
        conv.zero_point,
    )  # fmt: skip


def _in_place(conv: Convolution, layout: Layout) -> bool:
    """Whether every pixel is read before an output takes its place, both starting at one address.

    Channels do not meet: those of an output lie where the same ones of a pixel did.
    """
    (batch, *image, depth), (_, *output, channels) = conv.image, conv.output
    if depth != channels or layout.blocks > 1 or (batch > 1 and image != output):
        return False
    pixels, outputs = (np.arange(a * b).reshape(a, b) for a, b in (image, output))
    if layout.turned:
        pixels, outputs = pixels.T, outputs.T
    written = np.zeros(max(pixels.size, outputs.size), dtype=bool)
    for read, made in layout.walk():
        if written[pixels[read]].any():
            return False
        written[outputs[made]] = True
    return True
