"""Convolutions and dense layers with Armv8.1-M vectors (MVE, Cortex-M55 and M85).

``VMLADAV`` multiplies 16 pairs of bytes and adds all products to one register; requantization goes
by vectors of four sums.  See ``docs/kernels.md``.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np

from tinygen.graph import Array
from tinygen.numerics import wrap32
from tinygen.ops.base import Arg, Const, Input, Kernel, Output, Scratch
from tinygen.ops.common import Pads, Requant, Window, overlap
from tinygen.ops.convolution import Convolution
from tinygen.ops.portable import whole_bytes

FEATURES = frozenset({"mve"})

LANES = 16
"""Bytes of a vector."""

BLOCK = 32
"""Pixels that a kernel with few inputs a pixel takes at a time."""

STRIP_BYTES = 2048
"""Scratch memory for strips of some channels at a time."""

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
            whole_bytes(blocked(conv.taps)),
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


@dataclass(frozen=True)
class _Strips:
    """How ``depthwise_conv2d/mve.c.j2`` computes ``conv``.

    ``turned``: its rows are the model's columns.  ``tall``: two rows of outputs at a time.
    ``paired``: a vector holds two windows of a row.
    """

    conv: Convolution
    turned: bool
    tall: bool

    @property
    def slots(self) -> int:
        """Rows that a strip holds."""
        return self.conv.window.kernel[0] + self.tall * self.conv.window.stride[0]

    @property
    def step(self) -> int:
        """Bytes from one window to the next."""
        return self.slots * self.conv.window.stride[1]

    @property
    def paired(self) -> bool:
        return self.slots * self.conv.window.kernel[1] + self.step <= LANES

    @property
    def size(self) -> int:
        """Bytes of a channel's strip."""
        window = self.conv.window
        columns = (self.conv.output[2] - 1) * window.stride[1] + window.kernel[1]
        return self.slots * columns

    @property
    def in_place(self) -> bool:
        """Whether a channel's outputs may take the places of its inputs: rows are in the strips
        before outputs are written there."""
        conv = self.conv
        return conv.image == conv.output and conv.window.stride == (1, 1)

    @property
    def block(self) -> int:
        """Channels at a time: few, unless outputs are to follow inputs closely."""
        few = max(STRIP_BYTES // self.size // 8, 1) * 8
        return few if self.in_place or self.turned else self.conv.channels

    @property
    def possible(self) -> bool:
        _, rows, columns, _ = self.conv.output
        if self.tall and (min(rows, columns) < 2 or not self.paired or not self._saturates):
            return False
        taps = self.slots * self.conv.window.kernel[1]
        return taps <= LANES and 8 * self.size < 1 << 16 and 2 * self.step <= 127

    @property
    def _saturates(self) -> bool:
        return scale_params(self.conv.scaling)["saturate"]

    @property
    def instructions(self) -> int:
        """Transposing rows, turning weights, windows and their requantization."""
        batch, height, width, depth = self.conv.image
        _, rows, columns, _ = self.conv.output
        copied = batch * height * (-(-depth // 8)) * (8 + 5 * width)
        group = 15 + 2 * bool(scale_params(self.conv.scaling)["away"])
        if self.tall:
            return copied + batch * -(-rows // 2) * depth * (36 + -(-columns // 2) * group)
        group += 2 if self.paired else 4
        return copied + batch * rows * depth * (24 + -(-columns // 4) * group)

    @property
    def turns(self) -> tuple[list[list[int]], list[list[int]]]:
        """By the place of a strip's oldest row: offsets of a window's weights by byte of a vector,
        and which bytes are taps; those of the window below follow."""
        height, width = self.conv.window.kernel
        offsets, masks = [], []
        for oldest in range(self.slots):
            of_rows, mask_of_rows = [], []
            for first in range(
                0, self.tall * self.conv.window.stride[0] + 1, self.conv.window.stride[0]
            ):
                rows = [(slot - oldest) % self.slots - first for slot in range(self.slots)]
                taps = [
                    column * height + row if 0 <= row < height else -1
                    for column in range(width)
                    for row in rows
                ]
                mask_of_rows.append(sum(1 << i for i, tap in enumerate(taps) if tap >= 0))
                of_rows += ([max(tap, 0) for tap in taps] + [0] * LANES)[:LANES]
            offsets.append(of_rows)
            masks.append(mask_of_rows)
        return offsets, masks

    @property
    def overlap(self) -> dict[int, int]:
        """Every input row is read once, before the first output row that needs it is written."""
        if self.turned or self.block < self.conv.channels:
            return {}
        batch, height, width, depth = self.conv.image
        _, rows, columns, channels = self.conv.output
        stride, worst = self.conv.window.stride[0], 0
        for image in range(batch):
            for first in range(0, rows, 1 + self.tall):
                last = min(first + self.tall, rows - 1)
                following = max(last * stride + self.conv.window.kernel[0], (last + 1) * stride)
                read = min(max(following - self.conv.pads.top, 0), height)
                read = height if last + 1 == rows else read
                written = (image * rows + last + 1) * columns * channels
                worst = max(worst, written - (image * height + read) * width * depth)
        return {0: worst}


def _strips(conv: Convolution) -> _Strips | None:
    """The way with the fewest instructions, rows and columns exchanged where it saves some."""
    ways = [
        _Strips(way, turned, tall)
        for way, turned in ((_across(conv), False), (_exchanged(conv), True))
        for tall in (False, True)
    ]
    possible = [way for way in ways if way.possible]
    return min(
        possible, key=lambda way: way.instructions * (1.05 if way.turned else 1), default=None
    )


def depthwise(conv: Convolution) -> Kernel | None:
    """Strips of a few rows a channel, a vector holding one, two or four windows."""
    if not conv.depthwise or conv.depth != conv.channels or conv.window.dilation != (1, 1):
        return None
    way = _strips(conv)
    if way is None or not conv.scaling.fast:
        return None
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
    used, step = way.conv, way.step
    height, width = used.window.kernel
    _, _, columns, channels = used.output
    # By channel, each column by column, as the strips are.
    weights = used.filters.reshape(channels, height, width).transpose(0, 2, 1).reshape(-1)
    pitches = (used.image[2] * channels, channels, columns * channels, channels)
    if way.turned:
        pitches = (channels, used.image[1] * channels, channels, used.output[1] * channels)
    turns, masks = way.turns
    return Kernel(
        name=f"depthwise_{height}x{width}_mve{'_tall' if way.tall else ''}",
        template="depthwise_conv2d/mve.c.j2",
        params={
            "kernel": used.window.kernel,
            "stride": used.window.stride,
            "taps": height * width,
            "ragged": channels % 8 > 0,
            "tall": way.tall,
            "paired": way.paired,
            "pair_step": 2 * step if way.paired else step,
            "turns": turns,
            "masks": masks,
            "shifts": _shifts(step) if way.paired else [],
            **params,
        },
        args=(
            Input(0),
            Output(0),
            Scratch(min(way.block, channels) * way.size + 4 * step + LANES),
            *used.image,
            way.block,
            *used.output[1:3],
            used.pads.top,
            used.pads.left,
            *pitches,
            whole_bytes(weights),
            Const("start", wrap32(conv.folded_bias).astype(np.int32)),
            conv.zero_point,
            *scale,
            scaling.zero_point,
            *limits,
        ),
        helpers=("activate", "mve", "requantize_right"),
        in_place=(0,) if way.in_place else (),
        overlap=way.overlap,
        cycles=way.instructions * 3 // 2,
        bound=way.instructions,
    )


def _shifts(step: int) -> list[int]:
    """Shifts to the left, of at most 32 bits each, by ``step`` bytes."""
    return [8 * min(step - done, 4) for done in range(0, step, 4)]


def _exchanged(conv: Convolution) -> Convolution:
    """``conv`` with rows and columns exchanged; its images lie in memory column by column."""
    (batch, height, width, depth), (_, rows, columns, channels) = conv.image, conv.output
    window, pads = conv.window, conv.pads
    across = Pads(pads.left, pads.right, pads.top, pads.bottom)
    return replace(
        conv,
        image=(batch, width, height, depth),
        output=(batch, columns, rows, channels),
        filters=conv.filters.transpose(0, 2, 1, 3),
        window=Window(
            window.kernel[::-1], window.stride[::-1], window.dilation[::-1], "EXPLICIT", across
        ),
        pads=across,
    )


def _across(conv: Convolution) -> Convolution:
    """``conv`` with rows and columns exchanged when images are a single column, which is the same
    memory: kernels go along rows."""
    pads, window = conv.pads, conv.window
    if conv.image[2] > 1 or conv.output[2] > 1 or window.kernel[1] > 1 or pads.left or pads.right:
        return conv
    return _exchanged(conv)


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
            whole_bytes(blocked(weights)),
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
