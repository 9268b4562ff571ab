"""HARD_SWISH, int8: x * relu6(x + 3) / 6 in 16-bit fixed point.

Arithmetic: TFLM ``kernels/internal/reference/hard_swish.h`` and
``micro/kernels/hard_swish_common.cc``.  Old releases of TFLM divide the scales in single precision.
"""

from __future__ import annotations

import numpy as np

from tinygen.graph import Graph, Node
from tinygen.numerics import (
    INT16_MAX,
    Int64Array,
    IntLike,
    Multiplier,
    clamp,
    float32,
    quantize_multiplier,
)
from tinygen.ops import lookup

HIGH_BITS = 7
"""Bits by which inputs are shifted left to fill 16 bits."""


def saturate16(values: IntLike) -> Int64Array:
    return clamp(values, -INT16_MAX - 1, INT16_MAX)


def high_mul16(a: IntLike, b: IntLike) -> Int64Array:
    """``round(a * b / 2**15)``, halves up, saturated: the 16-bit ``doubling_high_mul``."""
    product = np.asarray(a, dtype=np.int64) * np.asarray(b, dtype=np.int64)
    return saturate16((product + (1 << 14)) >> 15)


def truncating_high_mul16(a: Int64Array, b: Int64Array) -> Int64Array:
    """``a * b / 2**15`` rounded towards zero, saturated."""
    product = a * b
    return saturate16(np.sign(product) * (np.abs(product) >> 15))


def divide_by_pot16(x: Int64Array, exponent: int) -> Int64Array:
    """gemmlowp ``RoundingDivideByPOT`` on int16.

    Its mask is an int16 too: from exponent 16 on it is -1, so that what should round to 0 becomes
    1 for values that are not negative and -1 for those that are.
    """
    mask = (1 << exponent) - 1 if exponent < 16 else -1
    threshold = (mask >> 1) + (x < 0)
    return (x >> exponent) + ((x & mask) > threshold)


def multiplier16(multiplier: Multiplier) -> int:
    """The mantissa rounded to 16 bits (TFLM ``DownScaleInt32ToInt16Multiplier``)."""
    return min((multiplier.mantissa + (1 << 15)) >> 16, INT16_MAX)


def multipliers(graph: Graph, node: Node) -> tuple[float, float]:
    """Real multipliers from the shifted input to the output, and to units of 3/32768."""
    fine = float32(graph.required(node, 0).scale / (1 << HIGH_BITS))
    return fine / graph.output(node).scale, fine / (3 / 32768)


def function(graph: Graph, node: Node, values: Int64Array) -> Int64Array:
    to_output, to_gate = map(quantize_multiplier, multipliers(graph, node))
    x = (values - graph.required(node, 0).zero_point) << HIGH_BITS
    gate = x
    if to_gate.shift > 0:
        gate = saturate16(gate << (to_gate.shift - 1))
    gate = high_mul16(gate, multiplier16(to_gate))
    if to_gate.shift > 0:
        gate = saturate16(gate << 1)
    elif to_gate.shift < 0:
        gate = divide_by_pot16(gate, -to_gate.shift)
    gate = (gate + (1 << 15)) >> 1  # from [-1, 1] to [0, 1]
    product = truncating_high_mul16(gate, high_mul16(x, multiplier16(to_output)))
    scaled = divide_by_pot16(product, -to_output.shift)
    return lookup.limited(scaled + graph.output(node).zero_point, "int8")


def comparable_scales(graph: Graph, node: Node) -> bool:
    """input scale {inputs[0].scale} is too large for output scale {outputs[0].scale}"""
    to_output, to_gate = multipliers(graph, node)
    return (
        lookup.fits_32_bits(to_output)
        and quantize_multiplier(to_output).shift <= 0
        and lookup.fits_32_bits(to_gate)
    )


OP = lookup.unary("HARD_SWISH", function, (comparable_scales,), "HardSwishOptions", version=1)
