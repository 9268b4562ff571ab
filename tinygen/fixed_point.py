"""Exponential, logistic and hyperbolic tangent in fixed point, as gemmlowp computes them.

Arrays hold the raw values of 32-bit fixed-point numbers in int64.  A number with ``m`` integer
bits is ``raw * 2**(m - 31)``; without integer bits it lies in [-1, 1).  Source of the algorithms:
gemmlowp ``fixedpoint/fixedpoint.h``.
"""

from __future__ import annotations

import numpy as np

from tinygen.numerics import (
    INT32_MAX,
    INT32_MIN,
    Int64Array,
    IntLike,
    clamp,
    doubling_high_mul,
    rounding_divide_by_pot,
)

EXP_MINUS_EIGHTH = 1895147668
ONE_THIRD = 715827883
EXP_MINUS_POWERS = {
    -2: 1672461947,
    -1: 1302514674,
    0: 790015084,
    1: 290630308,
    2: 39332535,
    3: 720401,
    4: 242,
}
"""``exp(-2**k)`` by ``k``, without integer bits."""

# Two integer bits: where Newton's division of a number in [1/2, 1] starts.
_48_OVER_17 = 1515870810
_32_OVER_17 = 1010580540
_ONE_Q2 = 1 << 29


def shift_left(raw: IntLike, places: int) -> Int64Array:
    """``raw * 2**places``, saturated to 32 bits."""
    return clamp(np.asarray(raw, dtype=np.int64) << places, INT32_MIN, INT32_MAX)


def _exp_near_zero(raw: Int64Array) -> Int64Array:
    """``exp(x)`` for x in [-1/4, 0), no integer bits: a Taylor polynomial around -1/8."""
    x = raw + (1 << 28)
    x2 = doubling_high_mul(x, x)
    x3 = doubling_high_mul(x2, x)
    x4 = doubling_high_mul(x2, x2)
    high_terms = doubling_high_mul(rounding_divide_by_pot(x4, 2) + x3, ONE_THIRD) + x2
    series = x + rounding_divide_by_pot(high_terms, 1)
    return EXP_MINUS_EIGHTH + doubling_high_mul(EXP_MINUS_EIGHTH, series)


def exp_on_negative_values(raw: IntLike, integer_bits: int) -> Int64Array:
    """``exp(x)`` without integer bits, for x <= 0 with at most 5 ``integer_bits``."""
    x = np.asarray(raw, dtype=np.int64)
    quarter = 1 << (29 - integer_bits)
    fraction = (x & (quarter - 1)) - quarter
    rest = fraction - x  # whole quarters left to apply
    result = _exp_near_zero(fraction << integer_bits)
    for power, factor in EXP_MINUS_POWERS.items():
        if power < integer_bits:
            applies = rest & (1 << (31 - integer_bits + power)) != 0
            result = np.where(applies, doubling_high_mul(result, factor), result)
    return np.where(x == 0, INT32_MAX, result)


def _half_reciprocal(raw: IntLike) -> Int64Array:
    """``2 / (1 + x)`` with two integer bits, for x in [0, 1) without: Newton's division."""
    half = (np.asarray(raw, dtype=np.int64) + (1 << 31)) >> 1
    x = _48_OVER_17 + doubling_high_mul(half, -_32_OVER_17)
    for _ in range(3):
        error = _ONE_Q2 - doubling_high_mul(half, x)
        x = x + shift_left(doubling_high_mul(x, error), 2)
    return x


def one_over_one_plus(raw: IntLike) -> Int64Array:
    """``1 / (1 + x)`` for x in [0, 1), both without integer bits."""
    return shift_left(_half_reciprocal(raw), 1)


def logistic(raw: IntLike, integer_bits: int) -> Int64Array:
    """``1 / (1 + exp(-x))`` without integer bits, for x with ``integer_bits``."""
    x = np.asarray(raw, dtype=np.int64)
    upper = one_over_one_plus(exp_on_negative_values(-np.abs(x), integer_bits))
    return np.select([x == 0, x > 0], [np.int64(1 << 30), upper], INT32_MAX - upper)


def tanh(raw: IntLike, integer_bits: int) -> Int64Array:
    """``tanh(x)`` without integer bits, for x with at most 4 ``integer_bits``."""
    x = np.asarray(raw, dtype=np.int64)
    decay = exp_on_negative_values(-np.abs(x), integer_bits + 1)
    magnitude = shift_left(_half_reciprocal(decay) - _ONE_Q2, 2)
    return np.sign(x) * magnitude
