"""int16 activations with int8 weights, operator by operator: TFLM itself, the numpy reference and
the compiled C agree on random models (:mod:`strategies_int16`)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import test_operators
import tflite_builder as tb
from hypothesis import Phase, given, settings
from strategies import Case
from strategies_int16 import CASES

from tinygen import boards, plan
from tinygen.errors import InputError
from tinygen.importers import tflite
from tinygen.ops import BY_NAME, int16
from tinygen.ops.dsp import FEATURES as DSP

QUICK, WIDE = 15, 120
QUICK_IN_C, WIDE_IN_C = 3, 60
MANY = 60
"""Models among which there are some for every kernel."""


@functools.cache
def draw(name: str, count: int) -> list[Case]:
    """The first ``count`` models of an operator, the same ones every time."""
    cases: list[Case] = []

    @settings(test_operators.REPEATABLE, max_examples=count, phases=[Phase.generate])
    @given(CASES[name])
    def collect(case: Case) -> None:
        cases.append(case)

    collect()
    return cases


def test_every_operator_has_cases_or_refuses_int16() -> None:
    assert set(BY_NAME) - set(CASES) == {"HARD_SWISH"}
    tensors = tuple(tb.Tensor((4,), "int16", (2.0**-12,), (0,)) for _ in range(2))
    ops = (tb.Op("HARD_SWISH", (0,), (1,), {}),)
    with pytest.raises(InputError, match=r"needs int8 input and output .* has int16 and int16"):
        tflite.load(tb.Model(tensors, ops, (0,), (1,)).bytes)


@pytest.mark.parametrize("name", CASES)
def test_reference_equals_tflm(name: str) -> None:
    for case in draw(name, QUICK):
        test_operators.check_reference(case)


@pytest.mark.wide
@pytest.mark.parametrize("name", CASES)
def test_reference_equals_tflm_widely(name: str) -> None:
    for case in draw(name, WIDE):
        test_operators.check_reference(case)


@pytest.mark.parametrize("features", [test_operators.PORTABLE, DSP], ids=["portable", "dsp"])
def test_compiled_c_equals_tflm(features: frozenset[str], tmp_path: Path) -> None:
    names = test_operators.WITH_DSP if features else CASES
    cases = [case for name in names for case in draw(name, QUICK_IN_C * (2 if features else 1))]
    test_operators.check_compiled(cases, tmp_path, features=features)


@pytest.mark.wide
@pytest.mark.parametrize(
    ("compiler", "flags"),
    [("gcc", test_operators.SANITIZED), ("clang", ("-O2",)), ("g++", ("-O2",))],
    ids=["gcc", "clang", "g++"],
)
@pytest.mark.parametrize("name", CASES)
def test_compiled_c_equals_tflm_widely(
    name: str, compiler: str, flags: Sequence[str], tmp_path: Path
) -> None:
    test_operators.check_compiled(draw(name, WIDE_IN_C), tmp_path, compiler, flags)


@pytest.mark.wide
@pytest.mark.parametrize("name", test_operators.WITH_DSP)
def test_compiled_dsp_kernels_equal_tflm_widely(name: str, tmp_path: Path) -> None:
    test_operators.check_compiled(draw(name, WIDE_IN_C), tmp_path, features=DSP)


def test_an_emulated_core_equals_tflm(tmp_path: Path) -> None:
    cases = [case for name in CASES for case in draw(name, 2)]
    test_operators.check_emulated(cases, boards.load("qemu_m4"), tmp_path)


@pytest.mark.wide
@pytest.mark.parametrize("name", test_operators.EMULATED)
def test_emulated_cores_equal_tflm_widely(name: str, tmp_path: Path) -> None:
    cases = [case for op in CASES for case in draw(op, 12)]
    test_operators.check_emulated(cases, boards.load(name), tmp_path)


def test_all_ways_to_sum_and_scale_are_drawn() -> None:
    found = set()
    for case in (case for name in test_operators.WITH_DSP for case in draw(name, MANY)):
        (step,) = plan.make(tflite.load(case.model.bytes)).steps
        found.add((step.kernel.params["sums"], step.kernel.params["scale"]))
    assert found >= {
        ("uint32_t", "requantize_right"),
        ("int32_t", "scale_short"),
        ("int32_t", "scale_wide"),
        ("int64_t", "scale_wide"),
    }


def test_all_kernels_with_dsp_are_drawn() -> None:
    found = set()
    for case in (case for name in test_operators.WITH_DSP for case in draw(name, MANY)):
        (step,) = plan.make(tflite.load(case.model.bytes), DSP).steps
        found.add(
            (step.kernel.template.split("/")[0], step.variant, step.kernel.params.get("high"))
        )
    for template in ("conv2d", "depthwise_conv2d", "fully_connected"):
        assert found >= {(template, "dsp", True), (template, "dsp", False)}
        assert (template, "portable", None) in found


def test_a_multiplier_of_full_width_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int16, "_reduced", lambda m: (m.mantissa >> 16, 15 - m.shift))
    with pytest.raises(AssertionError):
        for case in draw("DEPTHWISE_CONV_2D", QUICK):
            test_operators.check_reference(case)


def test_short_scaling_equals_the_wide_one() -> None:
    """The C of ``scale_short``, in numpy, over accumulators of all sizes."""
    random = np.random.default_rng(0)
    acc = np.concatenate(
        [random.integers(-(1 << n), 1 << n, 200) for n in (3, 15, 16, 17, 24, 31)]
        + [np.array([-(1 << 31), (1 << 31) - 1, -1, 0, 1, 65535, 65536, -65536, -65537])]
    )
    for right in (1, 2, 7, 15, 30):
        for factor in (0, 1, 16384, 32767, *random.integers(0, 32768, 20)):
            wide = int16.Wide((int(factor),), (16 + right,), -(1 << 15), (1 << 15) - 1)
            carry = (acc & 0xFFFF) * factor >> 16
            short = ((acc >> 16) * factor + carry + (1 << (right - 1))) >> right
            assert np.abs((acc >> 16) * factor + carry + (1 << (right - 1))).max() < 1 << 31
            np.testing.assert_array_equal(wide.apply(acc), np.clip(short, -32768, 32767))
