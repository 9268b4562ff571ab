"""Convolutions and dense layers for cores without SIMD: Cortex-M0 and M3, RV32IM, Xtensa.

What they share: inputs of four pixels are laid side by side in scratch memory, in the form in which
the core loads them with one instruction, and every loaded weight serves four products.
Requantization multiplies once, without rounding (:mod:`tinygen.ops.rescale`), or on cores that have
32-bit products alone, in parts (:mod:`tinygen.ops.rescale_split`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinygen.graph import Array
from tinygen.numerics import INT32_MAX, Int64Array, wrap32
from tinygen.ops.base import Arg, Channels, Codes, Const, Form, Input, Kernel, Output, Scratch
from tinygen.ops.common import overlap
from tinygen.ops.convolution import Convolution, Lower
from tinygen.ops.portable import interleave, whole_bytes
from tinygen.ops.rescale import accumulator_range
from tinygen.ops.rescale_split import solve_split


@dataclass(frozen=True)
class Costs:
    """Instructions, or cycles on Arm's cores, measured: of a product in a block of four pixels, of
    one of a pixel alone, of an output, of an input that is laid out; and in depthwise convolutions
    of a product, an output, a row of a channel, and an input that is copied.

    ``slow`` is how much longer portable kernels take on the core than they say: expectations are
    divided by it, so that the planner compares like with like."""

    product: float
    alone: float
    output: float
    gather: float
    depthwise: tuple[float, float, int, float]
    slow: float = 1


@dataclass(frozen=True)
class Isa:
    """How one instruction set's kernels work.

    ``sample`` is the C type of values laid out in scratch memory, times ``factor``; ``channels``
    are computed at a time.  ``high`` says that there is an instruction for the upper word of a
    64-bit product; ``unsigned`` that bytes load unsigned alone, so that weights lie 128 higher.
    ``bound`` are the instructions that a product, an output and an input need, counted by hand.
    """

    name: str
    sample: str
    factor: int
    channels: int
    high: bool
    unsigned: bool
    costs: Costs
    bound: tuple[float, float, float]

    @property
    def features(self) -> frozenset[str]:
        return frozenset({self.name})

    @property
    def sample_bytes(self) -> int:
        return int(self.sample.removeprefix("int").removesuffix("_t")) // 8

    @property
    def weight(self) -> str:
        return "uint8_t" if self.unsigned else "int8_t"

    def pack(self, weights: Array, per_channel: int) -> Const:
        """Weights, so many of each channel, as kernels read them."""
        packed = (weights ^ -128).view(np.uint8) if self.unsigned else weights
        form: Form = "flipped" if self.unsigned else "bytes"
        return Const("weights", packed, per_channel, Codes(weights, per_channel, form))


RV32M = Isa(
    name="rv32m",
    sample="int16_t",
    factor=256,
    channels=4,
    high=True,
    unsigned=False,
    costs=Costs(2.6, 5, 24, 7, depthwise=(2.9, 9, 200, 5.5)),
    bound=(2.5, 7, 3),
)
ARMV7M = Isa(
    name="armv7m",
    sample="int16_t",
    factor=256,
    channels=2,
    high=True,
    unsigned=False,
    costs=Costs(3.6, 8, 32, 10, depthwise=(4, 14, 280, 9)),
    bound=(1.75, 6, 3),
)
ARMV6M = Isa(
    name="armv6m",
    sample="int32_t",
    factor=1,
    channels=1,
    high=False,
    unsigned=False,
    costs=Costs(4.4, 11, 60, 11, depthwise=(6.5, 35, 350, 9), slow=2),
    bound=(2.75, 15, 2),
)
XTENSA = Isa(
    name="xtensa",
    sample="int16_t",
    factor=1,
    channels=2,
    high=False,
    unsigned=True,
    costs=Costs(2.95, 7, 50, 9, depthwise=(3.9, 22, 250, 6.5), slow=1.5),
    bound=(2.75, 14, 6),
)


@dataclass(frozen=True, eq=False)
class Scaling:
    """A way to requantize: its ``kind`` in the templates, what accumulators start from, and the
    arguments."""

    kind: str
    start: Array
    args: tuple[Arg, ...]

    @property
    def helpers(self) -> tuple[str, ...]:
        return ("narrow", f"rescale_{self.kind}")


def scaling(conv: Convolution, isa: Isa) -> Scaling | None:
    """The shortest way to requantize exactly, or None.

    Accumulators see every tap, those in the padding as zero points.
    """
    requant = conv.scaling
    if not requant.fast or (requant.low, requant.high) != (-128, 127):
        return None
    return _scaling_high(conv) if isa.high else _scaling_split(conv)


def _scaling_high(conv: Convolution) -> Scaling | None:
    requant, rescale = conv.scaling, conv.rescale
    if 256 * conv.bound > INT32_MAX:
        return None
    if rescale is not None:
        start = 256 * conv.folded_bias + rescale.offset
        multiplier = Const("multiplier", rescale.multiplier, step=1)
        return Scaling("high", _int32(start), (multiplier, rescale.rounding, rescale.shift))
    mantissa = np.broadcast_to([m.mantissa for m in requant.multipliers], conv.channels)
    right = np.broadcast_to([-m.shift for m in requant.multipliers], conv.channels)
    args = (
        Const("multiplier", mantissa.astype(np.int32), step=1),
        Const("shift", right.astype(np.int8), step=1),
        requant.zero_point,
    )
    return Scaling("exact", _int32(256 * conv.folded_bias), args)


def _scaling_split(conv: Convolution) -> Scaling | None:
    least, greatest = accumulator_range(conv.taps, conv.zero_point, conv.bias)
    split = solve_split(conv.scaling, least, greatest)
    if split is None:
        return None
    words = Const("scaling", split.words, step=1)
    args = (words, split.shift, split.nudge, split.zero_point)
    return Scaling(split.kind, _int32(conv.folded_bias), args)


def _int32(values: Int64Array) -> Array:
    return wrap32(values).astype(np.int32)


def dense(isa: Isa) -> Lower:
    """Rows by fours; a single row takes the portable way."""

    def lower(conv: Convolution) -> Kernel | None:
        chosen = scaling(conv, isa)
        if not conv.dense or conv.pixels < 4 or chosen is None:
            return None
        return _matrix(
            conv,
            isa,
            chosen,
            "dense",
            "fully_connected/scalar.c.j2",
            (conv.pixels, conv.depth, Channels(conv.channels), conv.channels),
        )

    return lower


def conv2d(isa: Isa) -> Lower:
    """Patches gathered four pixels at a time."""

    def lower(conv: Convolution) -> Kernel | None:
        chosen = scaling(conv, isa)
        if conv.dense or conv.groups > 1 or chosen is None:
            return None
        window = conv.window
        geometry = np.array(
            [
                *(*conv.image, *conv.output[1:3], *window.kernel, *window.stride),
                *(*window.dilation, conv.pads.top, conv.pads.left, isa.factor * conv.zero_point),
            ],
            dtype=np.int32,
        )
        args = (Const("geometry", geometry), Channels(conv.channels), conv.channels)
        return _matrix(conv, isa, chosen, "conv2d", "conv2d/scalar.c.j2", args)

    return lower


def _matrix(
    conv: Convolution,
    isa: Isa,
    chosen: Scaling,
    what: str,
    template: str,
    sizes: tuple[Arg, ...],
) -> Kernel:
    """A kernel that lays out patches of four pixels and multiplies them by all channels."""
    multiply = f"multiply_{isa.name}_{chosen.kind}"
    taps = conv.taps.shape[1]
    image, output = conv.rows if what == "dense" else (conv.image, conv.output)
    per_image = output[1] * output[2]
    # The last block of an image may be one pixel; two or three are computed as four.
    single = output[0] if per_image % 4 == 1 else 0
    blocks = output[0] * -(-(per_image - (per_image % 4 == 1)) // 4)
    costs, outputs = isa.costs, conv.pixels * conv.channels
    product, output_bound, input_bound = isa.bound
    gather = costs.gather + (0 if what == "dense" else 3)
    return Kernel(
        name=f"{what}_{isa.name}_{chosen.kind}",
        template=template,
        params={
            "kind": chosen.kind,
            "sample": isa.sample,
            "factor": isa.factor,
            "weight": isa.weight,
            "corrected": isa.unsigned,
            "multiply": multiply,
        },
        args=(
            Input(0),
            Output(0),
            Scratch(4 * isa.sample_bytes * taps),
            *sizes,
            isa.pack(interleave(conv.taps, isa.channels), taps),
            Const("start", chosen.start, step=1),
            *chosen.args,
        ),
        helpers=(*chosen.helpers, f"block_{isa.name}", f"scalar_{isa.name}_{chosen.kind}"),
        overlap={0: overlap(image, output, conv.window, 4, rereads=False)},
        cycles=int(
            (
                taps * conv.channels * (4 * costs.product * blocks + costs.alone * single)
                + costs.output * outputs
                + conv.pixels * (gather * taps + 20)
            )
            / costs.slow
        ),
        bound=int(product * conv.macs + output_bound * outputs + input_bound * conv.pixels * taps),
        channels=isa.channels,
        again=int(conv.pixels * (gather * taps + 20) / costs.slow),
    )


def depthwise(isa: Isa) -> Lower:
    """Channel by channel, several outputs of a row at a time."""

    def lower(conv: Convolution) -> Kernel | None:
        chosen = scaling(conv, isa)
        if conv.groups != conv.depth or conv.window.dilation != (1, 1) or chosen is None:
            return None
        (kernel_rows, kernel_columns), (step_y, step_x) = conv.window.kernel, conv.window.stride
        batch, height, width, depth = conv.image
        rows, columns = conv.output[1:3]
        multiplier = conv.channels // depth
        tile = min(_TILE, columns)
        line = (columns - 1) * step_x + kernel_columns
        if (
            conv.pads.left > line
            or kernel_rows * kernel_columns > _MOST_TAPS
            or step_x > kernel_columns
        ):
            return None
        prepared = 0 if isa.high else kernel_columns * multiplier
        geometry = np.array(
            [
                *(batch, height, width, depth, rows, columns, kernel_rows, step_y),
                *(conv.pads.top, conv.pads.left, isa.factor * conv.zero_point, multiplier, line),
            ],
            dtype=np.int32,
        )
        shape = f"{kernel_rows}x{kernel_columns}_stride{step_x}_by{tile}"
        outputs, copied = conv.pixels * conv.channels, min(height, rows * step_y) * width * depth
        computed = -(-columns // tile) * tile * rows * batch * conv.channels
        product, finish, row, copy = isa.costs.depthwise
        product_bound, output_bound, input_bound = isa.bound
        return Kernel(
            name=f"depthwise_{shape}_{isa.name}_{chosen.kind}",
            template="depthwise_conv2d/scalar.c.j2",
            params={
                "kind": chosen.kind,
                "sample": isa.sample,
                "factor": isa.factor,
                "rows": kernel_rows,
                "columns": kernel_columns,
                "stride": step_x,
                "tile": tile,
                "prepared": not isa.high,
            },
            args=(
                Input(0),
                Output(0),
                Scratch(isa.sample_bytes * kernel_rows * (line + prepared)),
                Const("geometry", geometry),
                whole_bytes(conv.taps.reshape(-1)),
                Const("start", chosen.start),
                *chosen.args,
            ),
            helpers=chosen.helpers,
            in_place=(0,) if multiplier == 1 and _behind(conv) else (),
            cycles=int(
                (
                    computed * (product * conv.taps.shape[1] + finish)
                    + row * rows * batch * conv.channels
                    + copy * batch * copied
                )
                / isa.costs.slow
            ),
            bound=int(
                product_bound * outputs * conv.taps.shape[1]
                + output_bound * outputs
                + input_bound * batch * copied
            ),
        )

    return lower


_TILE = 3
"""Outputs of a row computed at a time."""
_MOST_TAPS = 25


def _behind(conv: Convolution) -> bool:
    """Whether every row of a channel is written no further than that channel is read."""
    batch, height, width, _ = conv.image
    rows, columns = conv.output[1:3]
    below = np.arange(rows) * conv.window.stride[0] - conv.pads.top + conv.window.kernel[0]
    read = np.clip(below, 0, height) * width
    written = np.arange(1, rows + 1) * columns
    images = np.arange(batch)[:, None]
    return bool((images * rows * columns + written <= images * height * width + read).all())


ISAS = (RV32M, ARMV7M, ARMV6M, XTENSA)
DENSE = tuple((isa.name, dense(isa), isa.features) for isa in ISAS)
DEPTHWISE = tuple((isa.name, depthwise(isa), isa.features) for isa in ISAS)
# A convolution of one input channel is a depthwise one, too.
CONV2D = (*((isa.name, conv2d(isa), isa.features) for isa in ISAS), *DEPTHWISE)
"""Ways for :func:`tinygen.ops.convolution.variants`."""
