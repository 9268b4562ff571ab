"""What several operators share: windows and padding, requantization, restrictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinygen.errors import InputError
from tinygen.graph import Array, Graph, Node, Tensor
from tinygen.numerics import (
    INT32_MAX,
    LIMITS,
    Int64Array,
    Multiplier,
    activation_range,
    clamp,
    quantize_multiplier,
    requantize,
    wrap32,
)
from tinygen.ops.base import Arg, Const

ACTIVATIONS = {0: "NONE", 1: "RELU", 2: "RELU_N1_TO_1", 3: "RELU6"}
PADDINGS = {0: "SAME", 1: "VALID"}


def lookup(table: dict[int, str], code: int, what: str) -> str:
    """``table[code]``; raises :class:`InputError` naming ``what`` for a code not in it."""
    if code not in table:
        raise InputError(f"{what} {code} is not supported")
    return table[code]


def code_of(table: dict[int, str], name: str, what: str) -> int:
    """The inverse of :func:`lookup`; raises :class:`InputError` for a name not in the table."""
    codes = {known: code for code, known in table.items()}
    if name not in codes:
        raise InputError(f"{what} {name} cannot be written to a file")
    return codes[name]


def version_by_type(graph: Graph, node: Node) -> int:
    """2 when the node reads int8, 3 for int16, 1 else: what most operators count."""
    return {"int8": 2, "int16": 3}.get(graph.required(node, 0).dtype, 1)


@dataclass(frozen=True)
class Pads:
    """Rows and columns of padding on each side of an image."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0

    @property
    def any(self) -> bool:
        return (self.top, self.bottom, self.left, self.right) != (0, 0, 0, 0)


NO_PADS = Pads()


@dataclass(frozen=True)
class Window:
    """A sliding window over an NHWC image.

    ``padding`` is "SAME" or "VALID" as TFLite has it, or "EXPLICIT" with ``pads``.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)
    padding: str = "VALID"
    pads: Pads = NO_PADS

    def _extent(self, axis: int) -> int:
        return (self.kernel[axis] - 1) * self.dilation[axis] + 1

    def output(self, height: int, width: int) -> tuple[int, int]:
        """Output height and width (TFLM ``ComputeOutSize``); 0 when the window does not fit."""
        if self.padding == "SAME":
            return -(-height // self.stride[0]), -(-width // self.stride[1])
        high = height + self.pads.top + self.pads.bottom - self._extent(0)
        wide = width + self.pads.left + self.pads.right - self._extent(1)
        return max(high // self.stride[0] + 1, 0), max(wide // self.stride[1] + 1, 0)

    def resolve(self, height: int, width: int) -> Pads:
        """Padding in pixels (TFLM ``ComputePaddingHeightWidth``): the smaller half comes first."""
        if self.padding != "SAME":
            return self.pads
        rows, columns = self.output(height, width)
        down = max((rows - 1) * self.stride[0] + self._extent(0) - height, 0)
        across = max((columns - 1) * self.stride[1] + self._extent(1) - width, 0)
        return Pads(down // 2, down - down // 2, across // 2, across - across // 2)


def pointwise(graph: Graph, node: Node) -> Window | None:
    """The window of an operator that computes each element from those at the same place.

    None when an operand has another shape, constants of rank one aside.
    """
    operands = [graph.at(i) for i in node.inputs]
    shapes = {t.shape for t in operands if not t.constant} | {graph.output(node).shape}
    flat = all(len(t.shape) <= 1 for t in operands if t.constant)
    return Window((1, 1), (1, 1)) if flat and len(shapes) == 1 else None


def pad_image(image: Array, pads: Pads, value: int) -> Array:
    """NHWC ``image`` with ``value`` around it."""
    edges = ((0, 0), (pads.top, pads.bottom), (pads.left, pads.right), (0, 0))
    return np.pad(image, edges, constant_values=value)


def windows(image: Array, window: Window) -> Array:
    """View of a padded NHWC ``image`` as (n, rows, columns, kernel rows, kernel columns, c)."""
    span = (window._extent(0), window._extent(1))
    view = np.lib.stride_tricks.sliding_window_view(image, span, axis=(1, 2))
    view = view[:, :: window.stride[0], :: window.stride[1]]
    view = view[..., :: window.dilation[0], :: window.dilation[1]]
    return np.moveaxis(view, 3, 5)


@dataclass(frozen=True, eq=False)
class Requant:
    """How accumulators become int8 outputs, one multiplier a channel.

    ``fast`` says that every channel shifts right by at least one and that nothing overflows, so
    that the short form of the rounding shift is exact.
    """

    multipliers: tuple[Multiplier, ...]
    zero_point: int
    low: int
    high: int
    fast: bool = False

    def apply(self, acc: Int64Array, dtype: str = "int8") -> Array:
        """Outputs for accumulators whose last axis is the channel (or any, when one for all)."""
        mantissa = np.array([m.mantissa for m in self.multipliers], dtype=np.int64)
        shift = np.array([m.shift for m in self.multipliers], dtype=np.int64)
        scaled = wrap32(requantize(acc, mantissa, shift) + self.zero_point)
        return clamp(scaled, self.low, self.high).astype(dtype).reshape(acc.shape)

    @property
    def helper(self) -> str:
        """The C helper function that computes this."""
        return "requantize_right" if self.fast else "requantize"

    @property
    def params(self) -> dict[str, object]:
        """What kernel templates need to know: the helper, and how to name a channel's numbers."""
        index = "[channel]" if len(self.multipliers) > 1 else ""
        return {
            "requantize": self.helper,
            "per_channel": bool(index),
            "scaling": f"multiplier{index}, shift{index}",
        }

    @property
    def args(self) -> tuple[Arg, ...]:
        """Multiplier, shift (to the right when ``fast``), zero point and limits, in call order.

        Multipliers and shifts are arrays (int32 and int8) when there is one a channel.
        """
        sign = -1 if self.fast else 1
        mantissas = [m.mantissa for m in self.multipliers]
        shifts = [sign * m.shift for m in self.multipliers]
        scale: tuple[Arg, Arg] = (mantissas[0], shifts[0])
        if len(self.multipliers) > 1:
            scale = (
                Const("multiplier", np.array(mantissas, dtype=np.int32), step=1),
                Const("shift", np.array(shifts, dtype=np.int8), step=1),
            )
        return (*scale, self.zero_point, self.low, self.high)


def requant(
    graph: Graph,
    node: Node,
    scales: Sequence[float],
    activation: str,
    bound: int,
) -> Requant:
    """Requantization from real multipliers ``scales`` to the node's int8 output.

    ``bound`` is the largest magnitude that an accumulator can have.
    """
    return requant_by(graph, node, tuple(map(quantize_multiplier, scales)), activation, bound)


def requant_by(
    graph: Graph,
    node: Node,
    multipliers: tuple[Multiplier, ...],
    activation: str,
    bound: int,
) -> Requant:
    """As :func:`requant`, from fixed-point ``multipliers``.

    Raises :class:`InputError` when one shifts left by more than TFLM's 32-bit arithmetic can.
    """
    out = graph.output(node)
    if any(m.shift > 30 for m in multipliers):
        raise InputError(f"{graph.where(node)}: output scale {out.scale} is too small")
    low, high = activation_limits(graph, node, activation)
    fast = all(m.shift <= -1 and bound + (1 << (-m.shift - 1)) <= INT32_MAX for m in multipliers)
    return Requant(multipliers, out.zero_point, low, high, fast)


def activation_limits(graph: Graph, node: Node, activation: str) -> tuple[int, int]:
    """Output limits of a fused activation; raises :class:`InputError` when it has none."""
    out = graph.output(node)
    try:
        low, high = activation_range(activation, out.scale, out.zero_point, out.dtype)
    except OverflowError as error:
        raise InputError(f"{graph.where(node)}: activation limit {error}") from error
    if low > high:
        raise InputError(f"{graph.where(node)}: {activation} leaves no output value")
    return low, high


def filter_scales(graph: Graph, node: Node, channels: int) -> tuple[float, ...]:
    """Real multiplier of each output channel: input scale times filter scale over output scale.

    One entry when the filter is quantized per tensor (TFLM
    ``PopulateConvolutionQuantizationParams``, in double precision).
    """
    filter_quant = graph.required(node, 1).quant
    if filter_quant is None:
        raise InputError(f"{graph.where(node)}: the filter has no quantization")
    if len(filter_quant.scale) not in (1, channels):
        raise InputError(
            f"{graph.where(node)}: {len(filter_quant.scale)} filter scales for {channels} channels"
        )
    source, target = graph.required(node, 0).scale, graph.output(node).scale
    return tuple(source * scale / target for scale in filter_quant.scale)


def bias_of(graph: Graph, node: Node, channels: int) -> Int64Array:
    """The bias (input 2) as int64, zeros when left out."""
    bias = graph.input(node, 2)
    if bias is None or bias.data is None:
        return np.zeros(channels, dtype=np.int64)
    return bias.data.astype(np.int64).reshape(-1)


def accumulator_bound(
    filters: Array, zero_point: int, bias: Int64Array, dtype: str = "int8"
) -> int:
    """Largest magnitude of ``bias + sum(w * (x - zero_point))`` over inputs ``x`` of ``dtype``.

    ``filters`` has one output channel a row.  Skipped (padded) taps contribute nothing, so each
    tap is bounded on its own side of zero.
    """
    wide = filters.astype(np.int64)
    low, high = LIMITS[dtype]
    ends = np.stack([wide * (low - zero_point), wide * (high - zero_point), 0 * wide])
    upper = bias + ends.max(axis=0).sum(axis=1)
    lower = bias + ends.min(axis=0).sum(axis=1)
    return int(max(np.abs(upper).max(initial=0), np.abs(lower).max(initial=0)))


def overlap(
    image: tuple[int, ...],
    output: tuple[int, ...],
    window: Window,
    block: int = 1,
    rereads: bool = True,
) -> int:
    """How far below its input's address the output of a kernel must lie to share its memory.

    ``image`` and ``output`` are NHWC shapes of one-byte elements.  The kernel goes through output
    pixels in memory order, ``block`` of an image at a time; with ``rereads`` it may read a block's
    window again after it has written some of the block, else all is read before.  See
    :class:`tinygen.ops.base.Kernel`.
    """
    batch, height, width, depth = image
    _, rows, columns, channels = output
    image_bytes = batch * height * width * depth
    pads = window.resolve(height, width)
    y = np.clip(np.arange(rows) * window.stride[0] - pads.top, 0, height)
    x = np.clip(np.arange(columns) * window.stride[1] - pads.left, 0, width)
    pixels = (np.arange(batch)[:, None, None] * height + y[:, None]) * width + x
    reads = (pixels * depth).reshape(-1)
    later = np.minimum.accumulate(reads[::-1])[::-1]  # the lowest address read from here on
    per_image = np.arange(0, rows * columns, block)
    starts = (np.arange(batch)[:, None] * rows * columns + per_image).reshape(-1)
    written = np.append(starts[1:], reads.size) * channels
    kept = later[starts] if rereads else np.append(later[starts[1:]], image_bytes)
    return max(int((written - kept).max(initial=0)), 0)


def parameters(tensor: Tensor) -> tuple[float, int]:
    """Scale and zero point as TFLM sees them: the first of many, zeros when there are none."""
    return (tensor.quant.scale[0], tensor.quant.zero_point[0]) if tensor.quant else (0.0, 0)


def is_int8(tensor: Tensor | None) -> bool:
    """An int8 tensor with one scale and a zero point that int8 holds."""
    return (
        tensor is not None
        and tensor.dtype == "int8"
        and tensor.quant is not None
        and tensor.quant.per_tensor
        and -128 <= tensor.zero_point <= 127
    )


def int8_in_and_out(graph: Graph, node: Node) -> bool:
    """needs int8 input and output with one scale each, has {inputs[0].dtype} and
    {outputs[0].dtype}"""
    return is_int8(graph.input(node, 0)) and is_int8(graph.output(node))


def image_input(graph: Graph, node: Node) -> bool:
    """needs an input of rank 4 without empty extents, has {inputs[0].shape}"""
    shape = graph.required(node, 0).shape
    return len(shape) == 4 and all(shape)


def constant_filter(graph: Graph, node: Node) -> bool:
    """needs a constant int8 filter with zero points of 0"""
    filters = graph.input(node, 1)
    return (
        filters is not None
        and filters.constant
        and filters.dtype == "int8"
        and filters.elements > 0
        and filters.quant is not None
        and not any(filters.quant.zero_point)
    )


def constant_bias(graph: Graph, node: Node) -> bool:
    """needs a constant int32 bias or none"""
    bias = graph.input(node, 2)
    return bias is None or (bias.constant and bias.dtype == "int32")
