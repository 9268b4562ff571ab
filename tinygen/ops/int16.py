"""int16 activations with int8 weights ("16x8"): what their operators share, and their layers in C.

All zero points are 0.  Layers with an int64 bias, or with none, sum in 64 bits and scale with a
multiplier reduced to 15 bits and one rounding; layers with an int32 bias sum modulo 2**32 and scale
as int8 layers do, with two roundings.

Arithmetic: the int16 parts of TFLM ``kernels/internal/reference/integer_ops/conv.h``,
``depthwise_conv.h`` and ``fully_connected.h``, and ``MultiplyByQuantizedMultiplier`` for 64 bits in
``kernels/internal/common.cc``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import numpy as np

from tinygen.graph import Array, Graph, Node, Tensor
from tinygen.numerics import (
    INT32_MAX,
    Int64Array,
    Multiplier,
    clamp,
    quantize_multiplier,
    wrap32,
)
from tinygen.ops.base import Arg, Const, Input, Kernel, Output, Restriction, Variant
from tinygen.ops.common import (
    Requant,
    accumulator_bound,
    bias_of,
    filter_scales,
    is_int8,
    overlap,
)
from tinygen.ops.convolution import Convolution
from tinygen.ops.portable import geometry, interleave, shape_name

MAX_SHIFT = 7
"""Largest shift to the left that TFLM's 64-bit scaling is made for."""

MAX_ACCUMULATOR = 1 << 47
"""What accumulators must stay below for it."""

HALF_WORD = 16

_INT32 = 2
"""``tflite.TensorType.INT32``"""

# ---- types ---------------------------------------------------------------------------------------


def is_int16(tensor: Tensor | None) -> bool:
    """An int16 tensor with one scale and a zero point of 0."""
    return (
        tensor is not None
        and tensor.dtype == "int16"
        and tensor.quant is not None
        and tensor.quant.per_tensor
        and tensor.zero_point == 0
    )


def alike(*tensors: Tensor | None) -> bool:
    """Whether all are int8, or all int16, with one scale each."""
    return all(map(is_int8, tensors)) or all(map(is_int16, tensors))


def int8_or_int16(graph: Graph, node: Node) -> bool:
    """needs input and output both int8, or both int16 with a zero point of 0, with one scale each,
    has {inputs[0].dtype} and {outputs[0].dtype}"""
    return alike(graph.input(node, 0), graph.output(node))


def reads_int16(graph: Graph, node: Node) -> bool:
    return graph.required(node, 0).dtype == "int16"


def when_int16(restriction: Restriction) -> Restriction:
    """``restriction`` for nodes that read int16; others are fine."""

    @wraps(restriction)
    def restrict(graph: Graph, node: Node) -> bool:
        return not reads_int16(graph, node) or restriction(graph, node)

    return restrict


def unless_int16(restriction: Restriction) -> Restriction:
    """``restriction`` for nodes that do not read int16; those that do are fine."""

    @wraps(restriction)
    def restrict(graph: Graph, node: Node) -> bool:
        return reads_int16(graph, node) or restriction(graph, node)

    return restrict


def activate(dtype: str) -> str:
    """The C helper that makes an output element of a requantized accumulator."""
    return "activate" if dtype == "int8" else "activate16"


def limits_kernel(graph: Graph, node: Node, low: int, high: int) -> Kernel:
    """Values as they are, limited."""
    return Kernel(
        name="limits16",
        template="lookup/limits.c.j2",
        params={"source": "int16", "target": "int16"},
        args=(Input(0), Output(0), graph.output(node).elements, 0, low, high),
        helpers=("clamp",),
        overlap={0: 0},
    )


def requantize_kernel(graph: Graph, node: Node, scaling: Requant) -> Kernel:
    """Values on another scale, limited."""
    return Kernel(
        name="requantize_int16_to_int16",
        template="requantize/portable.c.j2",
        params={"source": "int16", "target": "int16", **scaling.params},
        args=(Input(0), Output(0), graph.output(node).elements, 0, *scaling.args),
        helpers=(scaling.helper, "clamp"),
        overlap={0: 0},
    )


# ---- scaling of 64-bit accumulators --------------------------------------------------------------


@dataclass(frozen=True)
class Wide:
    """``acc * factor / 2**right`` of 64-bit accumulators, to nearest, halves up, then limited.

    ``factors`` (0 to 2**15 - 1) and ``rights`` have one entry a channel, or one for all.
    """

    factors: tuple[int, ...]
    rights: tuple[int, ...]
    low: int
    high: int

    def apply(self, acc: Int64Array) -> Array:
        """int16 outputs for accumulators whose last axis is the channel."""
        factor, right = (np.array(v, dtype=np.int64) for v in (self.factors, self.rights))
        scaled = (acc * factor + (np.int64(1) << (right - 1))) >> right
        return clamp(wrap32(scaled), self.low, self.high).astype(np.int16)


def wide(scaling: Requant) -> Wide:
    """The scaling by the same multipliers of accumulators of 64 bits."""
    factors, rights = zip(*map(_reduced, scaling.multipliers), strict=True)
    return Wide(factors, rights, scaling.low, scaling.high)


def _reduced(multiplier: Multiplier) -> tuple[int, int]:
    """Factor of 15 bits and shift to the right."""
    factor = min((multiplier.mantissa + (1 << 15)) >> HALF_WORD, (1 << 15) - 1)
    return factor, 15 - multiplier.shift


def bias_type(options: Any) -> str:
    """What ``QuantizedBiasType`` of an options table says of sums: "int32", or "" for 64 bits."""
    return "int32" if options.QuantizedBiasType() == _INT32 else ""


def bias_type_option(bias_type: str) -> dict[str, int]:
    """The field that :func:`bias_type` reads."""
    return {"QuantizedBiasType": _INT32} if bias_type else {}


def sums_in_32_bits(graph: Graph, node: Node) -> bool:
    """Whether TFLM's accumulators for ``node``, a layer, are int32 rather than int64."""
    if not reads_int16(graph, node):
        return True
    bias = graph.input(node, 2)
    if node.op == "DEPTHWISE_CONV_2D":
        return False
    return (node.attrs.bias_type if bias is None else bias.dtype) == "int32"


def outputs(graph: Graph, node: Node, scaling: Requant, acc: Int64Array) -> Array:
    """A layer's outputs for its exact accumulators, whose last axis is the channel."""
    if sums_in_32_bits(graph, node):
        return scaling.apply(wrap32(acc), graph.output(node).dtype)
    return wide(scaling).apply(acc)


# ---- what layers must be -------------------------------------------------------------------------


def constant_bias(graph: Graph, node: Node) -> bool:
    """needs a constant int64 or int32 bias or none for int16 input"""
    bias = graph.input(node, 2)
    return bias is None or (bias.constant and bias.dtype in ("int64", "int32"))


def constant_int64_bias(graph: Graph, node: Node) -> bool:
    """needs a constant int64 bias or none for int16 input"""
    bias = graph.input(node, 2)
    return bias is None or (bias.constant and bias.dtype == "int64")


def moderate_scale(axis: int) -> Restriction:
    """A restriction for layers whose filter has its output channels along ``axis``."""

    def restrict(graph: Graph, node: Node) -> bool:
        """output scale {outputs[0].scale} is too small for int16"""
        if sums_in_32_bits(graph, node):
            return True
        filters = graph.required(node, 1).data
        assert filters is not None
        channels = filters.shape[axis]
        rows = np.moveaxis(filters, axis, 0).reshape(channels, -1)
        bound = accumulator_bound(rows, 0, bias_of(graph, node, channels), "int16")
        scales = filter_scales(graph, node, channels)
        return bound < MAX_ACCUMULATOR and all(
            quantize_multiplier(scale).shift <= MAX_SHIFT for scale in scales
        )

    return restrict


# ---- kernels of layers ---------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Finish:
    """How a kernel sums and scales.

    ``sums`` and ``bias`` are C types, ``scale`` is the C helper that maps a sum, a multiplier and a
    shift to what is limited to ``low`` and ``high``.
    """

    sums: str
    scale: str
    bias: Const
    multipliers: Array
    shifts: Array
    low: int
    high: int

    @property
    def params(self) -> dict[str, object]:
        index = "[channel]" if self.multipliers.size > 1 else ""
        return {
            "sums": self.sums,
            "scale": self.scale,
            "bias_type": f"{self.bias.data.dtype}_t",
            "multiplier_type": f"{self.multipliers.dtype}_t",
            "per_channel": bool(index),
            "scaling": f"multiplier{index}, shift{index}",
        }

    @property
    def args(self) -> tuple[Arg, ...]:
        """Multiplier, shift and limits, in call order."""
        scale: tuple[Arg, Arg] = (int(self.multipliers[0]), int(self.shifts[0]))
        if self.multipliers.size > 1:
            scale = (Const("multiplier", self.multipliers), Const("shift", self.shifts))
        return (*scale, self.low, self.high)

    @property
    def helpers(self) -> tuple[str, ...]:
        return (self.scale, "clamp")


def finish(conv: Convolution, in_32_bits: bool) -> Finish:
    """How the C for ``conv`` sums and scales.

    Sums that are proved to fit 32 bits are made in 32 bits, and if every channel shifts right
    by 17 or more, scaled without 64-bit arithmetic.
    """
    scaling = conv.scaling
    if in_32_bits:
        sign = -1 if scaling.fast else 1
        bias = wrap32(conv.bias).astype(np.int32)
        mantissas = np.array([m.mantissa for m in scaling.multipliers], dtype=np.int32)
        shifts = np.array([sign * m.shift for m in scaling.multipliers], dtype=np.int8)
        sums, scale = "uint32_t", scaling.helper
    else:
        exact = wide(scaling)
        fits = conv.bound <= INT32_MAX
        short = fits and min(exact.rights) > HALF_WORD
        small = int(np.abs(conv.bias).max(initial=0)) <= INT32_MAX
        bias = conv.bias.astype(np.int32 if small else np.int64)
        mantissas = np.array(exact.factors, dtype=np.int16)
        shifts = np.array(exact.rights, dtype=np.int8) - np.int8(HALF_WORD if short else 0)
        sums, scale = "int32_t" if fits else "int64_t", "scale_short" if short else "scale_wide"
    return Finish(sums, scale, Const("bias", bias), mantissas, shifts, scaling.low, scaling.high)


def dense(conv: Convolution, end: Finish) -> Kernel | None:
    """Four output channels at a time, one function for every shape."""
    if not conv.dense:
        return None
    return Kernel(
        name="dense16_per_channel" if end.multipliers.size > 1 else "dense16",
        template="fully_connected/portable_int16.c.j2",
        params=end.params,
        args=(
            Input(0),
            Output(0),
            conv.pixels,
            conv.depth,
            conv.channels,
            Const("weights", interleave(conv.taps)),
            end.bias,
            *end.args,
        ),
        helpers=end.helpers,
        overlap={0: 2 * overlap(*conv.rows, conv.window)},
        cycles=5 * conv.macs + 30 * conv.pixels * conv.channels,
    )


def conv2d(conv: Convolution, end: Finish) -> Kernel | None:
    """Four output channels at a time over the part of the window inside the image."""
    grouped = conv.taps.reshape(conv.groups, conv.channels // conv.groups, -1)
    return _over_window(
        conv,
        end,
        name=f"conv2d16_{shape_name(conv)}",
        template="conv2d/portable_int16.c.j2",
        params=geometry(conv) | {"groups": conv.groups},
        weights=np.concatenate([interleave(group) for group in grouped]),
        cycles=6 * conv.macs,
    )


def depthwise(conv: Convolution, end: Finish) -> Kernel | None:
    """Four channels at a time, or one when the depth multiplier is above one."""
    return _over_window(
        conv,
        end,
        name=f"depthwise16_{shape_name(conv)}",
        template="depthwise_conv2d/portable_int16.c.j2",
        params=geometry(conv) | {"multiplier": conv.channels // conv.depth},
        weights=conv.taps.T.reshape(-1),
        cycles=10 * conv.macs,
    )


def _over_window(
    conv: Convolution,
    end: Finish,
    name: str,
    template: str,
    params: dict[str, object],
    weights: Array,
    cycles: int,
) -> Kernel:
    """A kernel that skips the window's taps outside the image."""
    return Kernel(
        name=name,
        template=template,
        params=params | end.params,
        args=(Input(0), Output(0), Const("weights", weights), end.bias, *end.args),
        helpers=end.helpers,
        overlap={0: 2 * overlap(conv.image, conv.output, conv.window)},
        cycles=cycles + 60 * conv.pixels * conv.channels,
    )


Lower = Callable[[Convolution, Finish], Kernel | None]

PORTABLE: frozenset[str] = frozenset()


def variants(
    convolution: Callable[[Graph, Node], Convolution],
    *ways: tuple[str, Lower, frozenset[str]],
) -> tuple[Variant, ...]:
    """Variants of a layer's operator for int16 input from ``ways``: what each is called, does and
    needs of the core."""

    def variant(isa: str, way: Lower, features: frozenset[str]) -> Variant:
        def lower(graph: Graph, node: Node) -> Kernel | None:
            if not reads_int16(graph, node):
                return None
            conv = convolution(graph, node)
            return way(conv, finish(conv, sums_in_32_bits(graph, node)))

        return Variant(isa, lower, features)

    return tuple(variant(*way) for way in ways)
