"""Every operator, three ways: TFLM itself, the numpy reference and the compiled C agree.

The models are random (:mod:`strategies`), the bytes must be equal.  ``make test`` draws a few for
each operator, the wide run hundreds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import emulated_c
import numpy as np
import oracle
import pytest
from host_c import HostModels
from hypothesis import HealthCheck, Phase, given, settings
from strategies import CASES, Case

from tinygen import boards, passes, reference
from tinygen.boards import Board
from tinygen.graph import Graph
from tinygen.importers import tflite
from tinygen.ops import BY_NAME, common
from tinygen.ops.dsp import FEATURES as DSP

Array = np.ndarray[Any, Any]

REPEATABLE = settings(
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
QUICK, WIDE = 15, 300
QUICK_IN_C, WIDE_IN_C, WIDE_EMULATED = 5, 200, 12
PORTABLE: frozenset[str] = frozenset()
WITH_DSP = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
EMULATED = [b.name for b in boards.load_all() if b.emulator and b.emulator.kind == "qemu"]
SANITIZED = ("-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def check_reference(case: Case) -> None:
    """The numpy reference gives TFLM's bytes."""
    wanted = oracle.shared().run(case.model.bytes, case.inputs)
    assert_equal(reference.run(tflite.load(case.model.bytes), case.inputs), wanted)


def assert_equal(got: Sequence[Array], wanted: Sequence[Array]) -> None:
    assert len(got) == len(wanted)
    for one, other in zip(got, wanted, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other, strict=True)


def draw(name: str, count: int) -> list[Case]:
    """The first ``count`` models of an operator, the same ones every time."""
    cases: list[Case] = []

    @settings(REPEATABLE, max_examples=count, phases=[Phase.generate])
    @given(CASES[name])
    def collect(case: Case) -> None:
        cases.append(case)

    collect()
    return cases


def check_compiled(
    cases: Sequence[Case],
    folder: Path,
    compiler: str = "gcc",
    flags: Sequence[str] = SANITIZED,
    features: frozenset[str] = PORTABLE,
) -> None:
    """The C of all ``cases``, built at once, gives TFLM's bytes.

    Each is compiled as it is built into firmware, after the exact passes.
    """
    graphs = [passes.run(tflite.load(case.model.bytes)) for case in cases]
    with HostModels(graphs, folder, compiler, flags, features) as models:
        for i, case in enumerate(cases):
            outputs, _ = models.run(f"m{i}", case.inputs)
            assert_equal(outputs, oracle.shared().run(case.model.bytes, case.inputs))


def check_emulated(cases: Sequence[Case], board: Board, folder: Path) -> None:
    """The emulated core of ``board`` gives TFLM's bytes for all ``cases``."""
    graphs = [passes.run(tflite.load(case.model.bytes)) for case in cases]
    found = emulated_c.run(board, graphs, [case.inputs for case in cases], folder)
    for case, outputs in zip(cases, found, strict=True):
        assert_equal(outputs, oracle.shared().run(case.model.bytes, case.inputs))


def test_every_operator_has_cases() -> None:
    assert set(CASES) == set(BY_NAME)


@pytest.mark.parametrize("name", CASES)
def test_reference_equals_tflm(name: str) -> None:
    settings(REPEATABLE, max_examples=QUICK)(given(CASES[name])(check_reference))()


@pytest.mark.wide
@pytest.mark.parametrize("name", CASES)
def test_reference_equals_tflm_widely(name: str) -> None:
    settings(REPEATABLE, max_examples=WIDE)(given(CASES[name])(check_reference))()


@pytest.mark.parametrize(
    ("compiler", "flags", "features"),
    [("gcc", SANITIZED, PORTABLE), ("gcc", SANITIZED, DSP), ("clang", ("-O2",), PORTABLE)],
    ids=["gcc", "gcc-dsp", "clang"],
)
def test_compiled_c_equals_tflm(
    compiler: str, flags: Sequence[str], features: frozenset[str], tmp_path: Path
) -> None:
    names = list(CASES) if features == PORTABLE else WITH_DSP
    cases = [case for name in names for case in draw(name, QUICK_IN_C)]
    check_compiled(cases, tmp_path, compiler, flags, features)


@pytest.mark.wide
@pytest.mark.parametrize("name", CASES)
def test_compiled_c_equals_tflm_widely(name: str, tmp_path: Path) -> None:
    check_compiled(draw(name, WIDE_IN_C), tmp_path)


@pytest.mark.wide
@pytest.mark.parametrize("name", WITH_DSP)
def test_compiled_dsp_kernels_equal_tflm_widely(name: str, tmp_path: Path) -> None:
    check_compiled(draw(name, WIDE_IN_C), tmp_path, features=DSP)


def test_an_emulated_core_equals_tflm(tmp_path: Path) -> None:
    cases = [case for name in CASES for case in draw(name, 2)]
    check_emulated(cases, boards.load("qemu_m4"), tmp_path)


@pytest.mark.wide
@pytest.mark.parametrize("name", EMULATED)
def test_emulated_cores_equal_tflm_widely(name: str, tmp_path: Path) -> None:
    cases = [case for op in CASES for case in draw(op, WIDE_EMULATED)]
    check_emulated(cases, boards.load(name), tmp_path)


def test_single_rounding_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def single_rounding(acc: Array, mantissa: Array, shift: Array) -> Array:
        total = 31 - shift
        half = np.int64(1) << (total - 1)
        rounded: Array = (np.asarray(acc, np.int64) * mantissa + half) >> total
        return rounded

    monkeypatch.setattr(common, "requantize", single_rounding)
    with pytest.raises(AssertionError):
        for case in draw("DEPTHWISE_CONV_2D", 60):
            check_reference(case)


def test_wrong_weights_in_c_would_be_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(graph: Graph) -> Graph:
        filters = graph.at(1).data
        assert filters is not None
        return graph.with_tensor(1, data=np.negative(filters) - (filters == 0))

    load = tflite.load
    monkeypatch.setattr(tflite, "load", lambda data: spoil(load(data)))
    with pytest.raises(AssertionError):
        check_compiled(draw("CONV_2D", 20), tmp_path)
