"""The fixed-point arithmetic against plain definitions in big integers and fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygen import numerics

INT32 = st.integers(numerics.INT32_MIN, numerics.INT32_MAX)
MANTISSA = st.integers(1 << 30, numerics.INT32_MAX)


def truncating_division(a: int, b: int) -> int:
    """C's division."""
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


def high_mul_by_definition(a: int, b: int) -> int:
    """As gemmlowp writes it: a nudge by sign, then a truncating division."""
    if a == b == numerics.INT32_MIN:
        return numerics.INT32_MAX
    nudge = (1 << 30) if a * b >= 0 else 1 - (1 << 30)
    return truncating_division(a * b + nudge, 1 << 31)


def round_half_away(value: Fraction) -> int:
    magnitude = int(abs(value) + Fraction(1, 2))
    return magnitude if value >= 0 else -magnitude


@given(INT32, INT32)
def test_doubling_high_mul(a: int, b: int) -> None:
    assert int(numerics.doubling_high_mul(a, b)) == high_mul_by_definition(a, b)


@given(INT32, st.integers(0, 31))
def test_rounding_divide_by_pot(x: int, exponent: int) -> None:
    expected = round_half_away(Fraction(x, 1 << exponent))
    assert int(numerics.rounding_divide_by_pot(x, exponent)) == expected


@given(INT32, MANTISSA, st.integers(-31, 30))
def test_requantize(acc: int, mantissa: int, shift: int) -> None:
    shifted = int(numerics.wrap32(acc << max(shift, 0)))
    high = high_mul_by_definition(shifted, mantissa)
    expected = round_half_away(Fraction(high, 1 << max(-shift, 0)))
    assert int(numerics.requantize(acc, mantissa, shift)) == expected


@given(st.floats(1e-12, 1e6))
def test_quantize_multiplier(real: float) -> None:
    made = numerics.quantize_multiplier(real)
    if made.mantissa == 0:
        assert real < 2.0**-31
        return
    assert 1 << 30 <= made.mantissa <= numerics.INT32_MAX
    value = Fraction(made.mantissa) * Fraction(2) ** (made.shift - 31)
    assert abs(value / Fraction(real) - 1) <= Fraction(1, 1 << 30)


def test_quantize_multiplier_rounds_up_to_the_next_power() -> None:
    assert numerics.quantize_multiplier(1 - 2.0**-40) == numerics.Multiplier(1 << 30, 1)


@pytest.mark.parametrize("value, expected", [(0.5, 1), (-0.5, -1), (2.5, 3), (-2.4, -2), (0.0, 0)])
def test_round_half_away(value: float, expected: int) -> None:
    assert numerics.round_half_away(value) == expected


def test_round_half_away_below_one_half() -> None:
    assert numerics.round_half_away(0.49999999999999994) == 0


def test_activation_range() -> None:
    assert numerics.activation_range("NONE", 0.1, 3, "int8") == (-128, 127)
    assert numerics.activation_range("RELU", 0.1, 3, "int8") == (3, 127)
    assert numerics.activation_range("RELU6", 0.1, 3, "int8") == (3, 63)
    assert numerics.activation_range("RELU_N1_TO_1", 0.1, 3, "int8") == (-7, 13)
    with pytest.raises(OverflowError):
        numerics.activation_range("RELU6", 1e-30, 0, "int8")


def test_exact_matmul_keeps_large_sums() -> None:
    a = np.full((1, 1 << 20), 255)
    assert int(numerics.exact_matmul(a, a.T)[0, 0]) == (1 << 20) * 255 * 255
