"""What LOGISTIC and TANH share: int8 inputs as fixed-point numbers of 4 integer bits.

Arithmetic: TFLM ``micro/kernels/logistic_common.cc``, ``micro/kernels/tanh.cc`` and
``CalculateInputRadius`` in ``kernels/internal/quantization_util.cc``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tinygen.graph import Graph, Node
from tinygen.numerics import Int64Array, Multiplier, clamp, quantize_multiplier, requantize

INTEGER_BITS = 4
FRACTION = 31 - INTEGER_BITS
MAX_SHIFT = 62
"""TFLM divides by ``1 << shift`` in 64 bits."""


def input_radius(integer_bits: int, shift: int) -> int:
    """Largest input that, shifted left by ``shift``, stays below ``2**integer_bits - 1``."""
    return (((1 << integer_bits) - 1) << (31 - integer_bits)) >> shift


@dataclass(frozen=True)
class Scaling:
    """``radius`` is where inputs, counted from their zero point, saturate."""

    multiplier: Multiplier
    radius: int

    def apply(self, values: Int64Array) -> Int64Array:
        """Fixed-point numbers for inputs inside the radius; those outside are limited to it."""
        inside = clamp(values, -self.radius, self.radius)
        return requantize(inside, self.multiplier.mantissa, min(self.multiplier.shift, 30))


def scaling(graph: Graph, node: Node) -> Scaling:
    multiplier = quantize_multiplier(graph.required(node, 0).scale * (1 << FRACTION))
    return Scaling(multiplier, input_radius(INTEGER_BITS, multiplier.shift))


def saturate(values: Int64Array, radius: int, inside: Int64Array) -> Int64Array:
    """``inside``, and the ends of int8 for inputs at the radius and beyond."""
    return np.select([values <= -radius, values >= radius], [np.int64(-128), np.int64(127)], inside)


def usual_scale(graph: Graph, node: Node) -> bool:
    """input scale {inputs[0].scale} is out of all proportion"""
    _, shift = math.frexp(graph.required(node, 0).scale * (1 << FRACTION))
    return 0 <= shift <= MAX_SHIFT
