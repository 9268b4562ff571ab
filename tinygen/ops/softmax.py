"""SOFTMAX over the last axis, int8 to int8 or int16; int16 as ``softmax_int16.py`` says.

Arithmetic: TFLM ``kernels/internal/reference/softmax.h``, ``micro/kernels/softmax_common.cc`` and
``PreprocessSoftmaxScaling`` in ``kernels/internal/quantization_util.cc``.

Rows are exponentials of how far each value lies below the row's largest, over their sum.  A value
lies 0 to 255 steps below, so the exponentials are a table of at most 1 KiB.  The kernel has it in
flash when that is smaller than the code that computes them, or the layer large.

Rows of two values, as classifiers that say yes or no have them, depend on a single difference:
their outputs themselves are a table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygen.fixed_point import exp_on_negative_values, one_over_one_plus
from tinygen.graph import Array, Graph, Node
from tinygen.numerics import (
    INT32_MAX,
    LIMITS,
    Int64Array,
    Multiplier,
    clamp,
    doubling_high_mul,
    quantize_multiplier,
    rounding_divide_by_pot,
)
from tinygen.ops import int16, softmax_int16
from tinygen.ops.base import Arg, Const, Input, Kernel, Op, Output, Shape, Variant
from tinygen.ops.common import is_int8

SCALED_BITS = 5
"""Integer bits of the differences whose exponentials are taken."""

SUM_BITS = 12
"""Integer bits of the sum of a row's exponentials."""

MAX_DEPTH = (1 << SUM_BITS) - 1
"""Longest row whose sum fits."""

NEGLIGIBLE = 1 << (SUM_BITS - 1)
"""An exponential below this adds 0 to the sum and gives the smallest output."""

EXP_CODE_BYTES = 184
"""Flash that the code for exponentials takes: Thumb-2 at -O2, and less than on any other core."""

MOST_PAIR_BYTES = 440
"""Largest table of pairs: what the code for rows of any length takes beyond that for pairs."""

MANY = 1024
"""From so many values on, the time that a table saves counts for more than its flash."""


@dataclass(frozen=True)
class Attrs:
    beta: float = 0.0


def read(options: Any) -> Attrs:
    """Attributes from ``tflite.SoftmaxOptions``; TFLM takes 0 for a beta that is not there."""
    return Attrs() if options is None else Attrs(float(options.Beta()))


def write(graph: Graph, node: Node) -> dict[str, Any]:
    """Fields of ``tflite.SoftmaxOptions``."""
    return {"Beta": node.attrs.beta}


def version(graph: Graph, node: Node) -> int:
    """Version 2 takes int8, version 3 gives int16."""
    return 3 if graph.output(node).dtype == "int16" else 2


def shapes(graph: Graph, node: Node) -> tuple[Shape, ...]:
    return (graph.required(node, 0).shape,)


def real_multiplier(graph: Graph, node: Node) -> float:
    """From a difference of inputs to its fixed-point number; NaN when beta is."""
    attrs: Attrs = node.attrs
    scaled = attrs.beta * graph.required(node, 0).scale * (1 << (31 - SCALED_BITS))
    return scaled if math.isnan(scaled) else min(scaled, float(INT32_MAX))


def multiplier_of(graph: Graph, node: Node) -> Multiplier:
    return quantize_multiplier(real_multiplier(graph, node))


def exponentials(graph: Graph, node: Node) -> Int64Array:
    """``exp(-beta * scale * d)`` without integer bits, for steps d = 0, 1, … below the largest.

    Ends where TFLM's ``diff_min`` does, or before: where the rest is negligible.
    """
    multiplier = multiplier_of(graph, node)
    radius = (((1 << SCALED_BITS) - 1) << (31 - SCALED_BITS)) >> multiplier.shift
    steps = np.arange(min(radius, 255) + 1)
    scaled = doubling_high_mul(-steps << multiplier.shift, multiplier.mantissa)
    values = exp_on_negative_values(scaled, SCALED_BITS)
    return values[: int(np.flatnonzero(values >= NEGLIGIBLE)[-1]) + 1]


def reference(graph: Graph, node: Node, inputs: tuple[Array | None, ...]) -> tuple[Array, ...]:
    (source,) = inputs
    assert source is not None
    if source.dtype == np.int16:
        return (softmax_int16.reference(graph, node, source),)
    dtype = graph.output(node).dtype
    low, high = LIMITS[dtype]
    table = exponentials(graph, node)
    wide = source.astype(np.int64)
    below = wide.max(axis=-1, keepdims=True) - wide
    terms = np.where(below < len(table), table[np.minimum(below, len(table) - 1)], 0)
    sums = rounding_divide_by_pot(terms, SUM_BITS).sum(axis=-1, keepdims=True)
    headroom = 32 - np.frexp(sums)[1].astype(np.int64)
    reciprocals = one_over_one_plus((sums << headroom) - (1 << 31))
    # TFLM stops the program when the exponent is above 31; all outputs then round to nothing.
    exponent = SUM_BITS - headroom + 31 - 8 * np.dtype(dtype).itemsize
    parts = doubling_high_mul(reciprocals, terms) * (exponent <= 31)
    outputs = rounding_divide_by_pot(parts, np.minimum(exponent, 31)) + low
    return (clamp(outputs, low, high).astype(dtype),)


def lower(graph: Graph, node: Node) -> Kernel:
    """Portable kernel: three walks along a row, for the largest, the sum and the outputs."""
    source, target = graph.required(node, 0), graph.output(node)
    if source.dtype == "int16":
        return softmax_int16.kernel(graph, node)
    depth = source.shape[-1]
    table = exponentials(graph, node).astype(np.int32)
    bits = 8 * np.dtype(target.dtype).itemsize
    tabled = table.nbytes <= EXP_CODE_BYTES or source.elements >= MANY
    multiplier = multiplier_of(graph, node)
    code: tuple[Arg, ...] = (multiplier.mantissa, multiplier.shift)
    return Kernel(
        name=f"softmax_{target.dtype}",
        template="softmax/portable.c.j2",
        params={
            "target": target.dtype,
            "tabled": tabled,
            "exponent": SUM_BITS + 31 - bits,
            "crowded": depth >= 1 << (bits + 1),
            "largest": (1 << bits) - 1,
            "offset": 1 << (bits - 1),
        },
        args=(
            Input(0),
            Output(0),
            source.elements // depth,
            depth,
            len(table),
            *((Const("table", table),) if tabled else code),
        ),
        helpers=("high_mul", "reciprocal", *(() if tabled else ("negative_exp",))),
        overlap={0: 0} if target.dtype == "int8" else {},
    )


def pairs(graph: Graph, node: Node) -> Array:
    """Outputs (differences, 2) for the larger and the smaller of two values 0, 1, … steps apart.

    Ends with the first of the differences from which on nothing changes.
    """
    steps = np.arange(256)
    rows = np.stack([np.full(256, 127), 127 - steps], axis=1).astype(np.int8)
    (parts,) = reference(graph, node, (rows,))
    different = np.flatnonzero((parts != parts[-1]).any(axis=1))
    return parts[: int(different[-1]) + 2 if different.size else 1]


def lower_pairs(graph: Graph, node: Node) -> Kernel | None:
    """Portable kernel for rows of two values, where its table is smaller than code.

    One output is mostly the other's negative, so that one of them need be stored.
    """
    source, target = graph.required(node, 0), graph.output(node)
    if source.shape[-1] != 2 or target.dtype != "int8" or source.dtype != "int8":
        return None
    parts = pairs(graph, node)
    mirrored = bool((parts[:, 0] == -parts[:, 1].astype(np.int64)).all())
    table = parts[:, 0] if mirrored else parts.reshape(-1)
    if table.nbytes > MOST_PAIR_BYTES and source.elements < MANY:
        return None
    return Kernel(
        name="softmax_pair",
        template="softmax/pair.c.j2",
        params={"mirrored": mirrored},
        args=(
            Input(0),
            Output(0),
            source.elements // 2,
            Const("table", table.copy()),
            len(parts) - 1,
        ),
        overlap={0: 0},
    )


def int8_input(graph: Graph, node: Node) -> bool:
    """needs int8 input with one scale and int8 or int16 output, has {inputs[0].dtype} and
    {outputs[0].dtype}"""
    target = graph.output(node)
    return is_int8(graph.input(node, 0)) and target.dtype in ("int8", "int16")


def unit_output(graph: Graph, node: Node) -> bool:
    """needs output of scale 1/256 and zero point -128, or int16 of 1/65536 and -32768, has
    {outputs[0].quant}"""
    target = graph.output(node)
    if target.quant is None or not target.quant.per_tensor:
        return False
    if target.dtype == "int8":
        return (target.scale, target.zero_point) == (1 / 256, -128)
    unit, tolerance = np.float32(1 / 65536), np.float32(0.001) / np.float32(65536)
    apart = abs(np.float32(target.scale) - unit)
    return bool(apart <= tolerance) and target.zero_point == -32768


def rows(graph: Graph, node: Node) -> bool:
    """needs rows of 1 to 4095 values, has shape {inputs[0].shape}"""
    shape = graph.required(node, 0).shape
    return bool(shape) and all(shape) and shape[-1] <= MAX_DEPTH


def large_beta(graph: Graph, node: Node) -> bool:
    """beta {attrs.beta} is too small for input scale {inputs[0].scale}"""
    return real_multiplier(graph, node) > 1


OP = Op(
    name="SOFTMAX",
    options="SoftmaxOptions",
    read=read,
    write=write,
    version=version,
    restrictions=(
        int16.unless_int16(int8_input),
        int16.unless_int16(unit_output),
        int16.unless_int16(rows),
        int16.unless_int16(large_beta),
        int16.when_int16(softmax_int16.unit_output),
        int16.when_int16(softmax_int16.rows),
        int16.when_int16(softmax_int16.moderate_beta),
    ),
    shapes=shapes,
    reference=reference,
    variants=(Variant("portable", lower_pairs), Variant("portable", lower)),
)
