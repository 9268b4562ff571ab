"""Convolutions of few input channels with Arm's DSP extension (Cortex-M4, M7, M33).

Windows of such layers, mostly a network's first, are a few bytes a row, so that laying them out one
by one costs more than the products.  Here the rows of the image under a row of outputs become lines
of 16-bit numbers once, with padding at both ends, and every pair of neighbouring numbers is one
``SMLAD`` away, wherever it begins: loads need not be aligned.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinygen.numerics import INT16_MAX, wrap32
from tinygen.ops.base import Const, Input, Kernel, Output, Scratch
from tinygen.ops.common import overlap
from tinygen.ops.convolution import Convolution
from tinygen.ops.dsp import FEATURES, SCALE, SHIFT, scaling
from tinygen.ops.portable import whole_bytes

LONGEST = 16
"""Taps of a kernel's row up to which its products are unrolled."""

SCRATCH = 2048
"""Bytes that lines and unpacked weights may take."""

FURTHEST = 4095
"""Largest offset of a load, and largest distance of lines."""

Load = tuple[int, int, bool]
"""Of four pixels which, in which of two registers its numbers are, and whether they must be
loaded."""

__all__ = ["FEATURES", "conv2d", "schedule"]


@dataclass(frozen=True)
class Layout:
    """How lines lie: a window's row has ``words`` pairs of numbers, pixels are ``step`` numbers
    apart, lines ``pitch`` bytes; ``scratch`` bytes hold them and the unpacked weights."""

    words: int
    step: int
    pitch: int
    scratch: int

    @property
    def fits(self) -> bool:
        furthest = 2 * (3 * self.step + 2 * self.words)
        return self.scratch <= SCRATCH and max(furthest, self.pitch) <= FURTHEST


def layout(conv: Convolution) -> Layout:
    """For windows of any size, whether or not it fits."""
    (rows, columns), depth = conv.window.kernel, conv.depth
    words, step = (columns * depth + 1) // 2, conv.window.stride[1] * depth
    read = (conv.output[2] - 1) * step + 2 * words
    pitch = 4 * -(-max((conv.pads.left + conv.image[2]) * depth, read) // 2)
    unpacked = 8 * -(-conv.channels // 2) * rows * words
    return Layout(words, step, pitch, rows * pitch + unpacked)


def conv2d(conv: Convolution) -> Kernel | None:
    """Four pixels of a row and two channels at a time; pixels left over go with those before."""
    (kernel_rows, kernel_columns), (rows, columns) = conv.window.kernel, conv.output[1:3]
    run = kernel_columns * conv.depth
    if conv.groups > 1 or conv.window.dilation[1] > 1 or conv.channels < 2 or columns < 4:
        return None
    lines = layout(conv)
    scale = scaling(conv, (SHIFT,)) if 1 < run <= LONGEST and lines.fits else None
    shape = (*conv.image[:2], conv.image[2] * conv.depth, rows, columns, kernel_rows, run,
             conv.window.stride[0], conv.window.dilation[0], conv.pads.top,
             conv.pads.left * conv.depth, conv.channels, conv.zero_point)  # fmt: skip
    if scale is None or max(shape) > INT16_MAX:
        return None
    loads, pairs = schedule(lines.step, lines.words), -(-conv.channels // 2)
    loaded = sum(load for word in loads for _, _, load in word)
    block = kernel_rows * (9 * lines.words + loaded) + (68 if scale.exact else 33)
    return Kernel(
        name="conv2d_lines_dsp_exact" if scale.exact else "conv2d_lines_dsp",
        template="conv2d/dsp_lines.c.j2",
        params={
            "exact": scale.exact,
            "loads": loads,
            "step": lines.step,
            "pitch": lines.pitch,
            "odd": run % 2 == 1,
            "kept": kept_rows(conv) > 0,
            "ragged": columns % 4 > 0,
            "shift": SHIFT,
        },
        args=(
            Input(0),
            Output(0),
            Scratch(lines.scratch),
            Const("shape", np.array(shape, dtype=np.int16)),
            whole_bytes(conv.taps.reshape(-1)),
            Const("start", wrap32(SCALE * conv.folded_bias + scale.offset).astype(np.int32)),
            Const("multiplier", scale.multiplier.astype(np.int32)),
            *((Const("shift", scale.shift.astype(np.int8)),) if scale.exact else ()),
            scale.rounding,
        ),
        helpers=("dsp", "dsp_fill", "dsp_widen"),
        overlap={0: overlap(conv.image, conv.output, conv.window, columns)},
        cycles=conv.output[0] * rows * row_cycles(conv, loads, lines.step, scale.exact)
        + 18 * kernel_rows * lines.words * pairs,
        bound=conv.output[0] * rows * -(-columns // 4) * pairs * block,
    )


def kept_rows(conv: Convolution) -> int:
    """Rows of the image that a row of outputs has in common with the one before."""
    if conv.window.dilation[0] > 1 or conv.output[1] == 1:
        return 0
    return max(conv.window.kernel[0] - conv.window.stride[0], 0)


def row_cycles(conv: Convolution, loads: list[list[Load]], step: int, exact: bool) -> int:
    """What a row of outputs takes."""
    kernel_rows, columns, pairs = conv.window.kernel[0], conv.output[2], -(-conv.channels // 2)
    loaded = [pixel * step % 2 for word in loads for pixel, _, load in word if load]
    products = kernel_rows * (11 * len(loads) + 2 * len(loaded) + sum(loaded) + 8)
    calls = pairs * (1 + (columns % 4 > 0))
    width, kept = conv.image[2] * conv.depth, kept_rows(conv)
    widened = (kernel_rows - kept) * (11 * width // 4 + 30) + kept * width
    return pairs * -(-columns // 4) * (products + (110 if exact else 60)) + 60 * calls + widened


def schedule(step: int, words: int) -> list[list[Load]]:
    """For each word of a window's row the four pixels in the order in which they are multiplied.

    Pixels are ``step`` numbers apart.  What a register still holds of the word before comes first.
    """
    held: list[int | None] = [None, None]
    made = []
    for word in range(words):
        places = [pixel * step + 2 * word for pixel in range(4)]
        ready = [pixel for pixel in range(4) if places[pixel] in held]
        order = [(pixel, held.index(places[pixel]), False) for pixel in ready]
        for i, pixel in enumerate(pixel for pixel in range(4) if pixel not in ready):
            held[i % 2] = places[pixel]
            order.append((pixel, i % 2, True))
        made.append(order)
    return made
