"""Two-instruction requantization: equal to TFLM's wherever the solver says so."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygen.numerics import Int64Array, quantize_multiplier
from tinygen.ops import rescale
from tinygen.ops.common import Requant

SCALES = st.lists(st.floats(1e-5, 0.2), min_size=1, max_size=6)


def requant(scales: list[float], zero_point: int) -> Requant:
    return Requant(tuple(map(quantize_multiplier, scales)), zero_point, -128, 127, fast=True)


def ranges(scaling: Requant, seed: int) -> tuple[Int64Array, Int64Array]:
    """Accumulators that reach most outputs, and beyond, around a bias."""
    chance = np.random.default_rng(seed)
    real = np.array([m.mantissa * 2.0 ** (m.shift - 31) for m in scaling.multipliers])
    spans = chance.uniform(10, 400, len(real)) / real
    least = (chance.uniform(-1, 0.2, len(real)) * spans).astype(np.int64)
    limit = (1 << 22) - 1
    return np.maximum(least, -limit), np.minimum(least + spans.astype(np.int64), limit)


@settings(max_examples=80, deadline=None)
@given(SCALES, st.sampled_from([-128, -128, -100, 0, 127]), st.integers(0, 1 << 16))
def test_equal_on_every_accumulator(scales: list[float], zero_point: int, seed: int) -> None:
    scaling = requant(scales, zero_point)
    least, greatest = ranges(scaling, seed)
    found = rescale.solve(scaling, least, greatest)
    if found is None:
        return
    for start in np.arange(least.min(), greatest.max() + 1, 1 << 16):
        acc = np.arange(start, start + (1 << 16))[:, None] + np.zeros(len(least), dtype=np.int64)
        inside = (least <= acc) & (acc <= greatest)
        same = found.apply(256 * acc + found.offset) == scaling.apply(acc)
        assert same[inside].all()


def test_usual_layers_have_the_form() -> None:
    """Per-channel scales and a rectifier's zero point, as in most layers of published models."""
    chance = np.random.default_rng(0)
    scaling = requant(list(chance.uniform(0.0005, 0.004, 64)), -128)
    least, greatest = np.full(64, -(1 << 18)), np.full(64, 1 << 18)
    found = rescale.solve(scaling, least, greatest)
    assert found is not None
    assert found.multiplier.dtype == found.offset.dtype == np.int32
    assert found.multiplier.min() > 0


def test_a_neighbouring_offset_would_be_noticed() -> None:
    scaling = requant([0.0017], -128)
    least, greatest = np.array([-1000]), np.array([1 << 18])
    found = rescale.solve(scaling, least, greatest)
    assert found is not None
    steps = rescale.thresholds(scaling, least, greatest)[0]
    acc = np.stack([steps, steps - 1]).reshape(-1, 1)
    acc = acc[(acc >= least) & (acc <= greatest)][:, None]
    want = scaling.apply(acc)
    assert np.array_equal(found.apply(256 * acc + found.offset), want)
    assert not np.array_equal(found.apply(256 * acc + found.offset + 200), want)


def test_limits_within_int8_have_no_form() -> None:
    scaling = Requant((quantize_multiplier(0.001),), -128, -128, 100, fast=True)
    assert rescale.solve(scaling, np.array([-100]), np.array([10000])) is None


def test_accumulators_without_room_have_no_form() -> None:
    scaling = requant([0.00001], -128)
    assert rescale.solve(scaling, np.array([-(1 << 23)]), np.array([1 << 23])) is None


def test_constant_channels_take_the_scale_of_the_others() -> None:
    scaling = requant([0.002, 0.25], -128)
    least, greatest = np.array([-(1 << 16), 200]), np.array([1 << 16, 200])
    found = rescale.solve(scaling, least, greatest)
    assert found is not None
    acc = np.array([[1234, 200]])
    assert np.array_equal(found.apply(256 * acc + found.offset), scaling.apply(acc))
