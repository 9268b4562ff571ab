"""Fixed-point arithmetic of TensorFlow Lite for Microcontrollers, vectorised over numpy arrays.

Everything here is exact: integers are computed in int64 and wrapped to 32 bits where the C code
would wrap.  Sources: TFLM ``kernels/internal/quantization_util.cc``, ``common.cc`` and gemmlowp's
``fixedpoint.h`` (double rounding, the default of TFLM).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Int64Array = npt.NDArray[np.int64]
IntLike = npt.ArrayLike

INT16_MAX = (1 << 15) - 1
INT32_MIN, INT32_MAX = -(1 << 31), (1 << 31) - 1
LIMITS = {
    "int8": (-128, 127),
    "int16": (-32768, 32767),
    "int32": (INT32_MIN, INT32_MAX),
    "uint8": (0, 255),
}
"""Smallest and largest value of each quantized element type."""


def float32(value: Any) -> float:
    """``value`` rounded to float32, as a Python float."""
    return float(np.float32(value))


def round_half_away(value: float) -> int:
    """C's ``round``: to the nearest integer, halves away from zero."""
    magnitude = math.floor(abs(value))
    if abs(value) - magnitude >= 0.5:
        magnitude += 1
    return int(math.copysign(magnitude, value))


def wrap32(values: IntLike) -> Int64Array:
    """Two's complement wrap of each value to int32, kept in int64."""
    wide = np.asarray(values, dtype=np.int64)
    return ((wide + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)


@dataclass(frozen=True)
class Multiplier:
    """A positive real number as ``mantissa * 2**(shift - 31)``; ``shift > 0`` shifts left."""

    mantissa: int
    shift: int


def quantize_multiplier(real: float) -> Multiplier:
    """Fixed-point form of a non-negative ``real`` (TFLM ``QuantizeMultiplier``)."""
    if real == 0.0:
        return Multiplier(0, 0)
    fraction, shift = math.frexp(real)
    mantissa = round_half_away(fraction * (1 << 31))
    if mantissa == 1 << 31:
        mantissa //= 2
        shift += 1
    if shift < -31:
        return Multiplier(0, 0)
    return Multiplier(mantissa, shift)


def doubling_high_mul(a: IntLike, b: IntLike) -> Int64Array:
    """gemmlowp ``SaturatingRoundingDoublingHighMul``: ``round(a * b / 2**31)``, halves up.

    ``a`` and ``b`` are int32 values.  gemmlowp's nudge and truncating division equal a floor
    division after adding a half; the one saturating case is both at the minimum.
    """
    product = np.asarray(a, dtype=np.int64) * np.asarray(b, dtype=np.int64)
    high: Int64Array = np.minimum((product + (1 << 30)) >> 31, INT32_MAX)
    return high


def rounding_divide_by_pot(x: IntLike, exponent: IntLike) -> Int64Array:
    """gemmlowp ``RoundingDivideByPOT``: ``x / 2**exponent``, halves away from zero."""
    value, places = np.asarray(x, dtype=np.int64), np.asarray(exponent, dtype=np.int64)
    mask = (np.int64(1) << places) - 1
    threshold = (mask >> 1) + (value < 0)
    quotient: Int64Array = (value >> places) + ((value & mask) > threshold)
    return quotient


def requantize(acc: IntLike, mantissa: IntLike, shift: IntLike) -> Int64Array:
    """TFLM ``MultiplyByQuantizedMultiplier`` on int32 accumulators, double rounding.

    ``mantissa`` and ``shift`` broadcast against ``acc``; a left shift wraps as in C.
    """
    shift = np.asarray(shift, dtype=np.int64)
    left, right = np.maximum(shift, 0), np.maximum(-shift, 0)
    shifted = wrap32(np.asarray(acc, dtype=np.int64) << left)
    return rounding_divide_by_pot(doubling_high_mul(shifted, mantissa), right)


def clamp(values: IntLike, low: int, high: int) -> Int64Array:
    """Each value limited to ``low..high``."""
    return np.clip(np.asarray(values, dtype=np.int64), low, high)


def activation_range(activation: str, scale: float, zero_point: int, dtype: str) -> tuple[int, int]:
    """Quantized output limits of a fused activation.

    TFLM ``CalculateActivationRangeQuantized``, in float32.  ``activation`` is "NONE", "RELU",
    "RELU6" or "RELU_N1_TO_1".  Raises :class:`OverflowError` when a limit is no int32.
    """
    low, high = LIMITS[dtype]

    def quantize(value: float) -> int:
        real = np.float32(value) / np.float32(scale)
        if not np.isfinite(real):
            raise OverflowError(f"{value} / {scale} is not a number that fits 32 bits")
        q = round_half_away(float(real))
        if not INT32_MIN <= q <= INT32_MAX:
            raise OverflowError(f"{value} / {scale} does not fit 32 bits")
        return int(wrap32(zero_point + q))

    if activation in ("RELU", "RELU6"):
        low = max(low, quantize(0.0))
    if activation == "RELU6":
        high = min(high, quantize(6.0))
    if activation == "RELU_N1_TO_1":
        low, high = max(low, quantize(-1.0)), min(high, quantize(1.0))
    return low, high


def exact_matmul(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> Int64Array:
    """``a @ b`` of small integers, exact: float64 holds every sum below 2**53."""
    product: npt.NDArray[np.float64] = a.astype(np.float64) @ b.astype(np.float64)
    return product.astype(np.int64)
