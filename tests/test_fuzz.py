"""Damaged model files: refused as input errors, or computed as TFLM computes them.

Sound models are truncated, bits are flipped, words overwritten, pieces cut out, copied or swapped,
most of it where the file's structure is and not its weights.  What must never happen: a traceback,
a hang, more than 1 GB of memory, or an output that is not TFLM's.
"""

from __future__ import annotations

import functools
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fuzz_target
import numpy as np
import oracle
import pytest
import shared_models
import tflite
from child import Child, DiedError
from host_c import SANITIZERS, HostModels
from hypothesis import HealthCheck, Phase, given, settings
from oracle import RefusedError
from strategies import CASES, Case

from tinygen import passes, resources
from tinygen.graph import Graph
from tinygen.importers import tflite as importer

Array = np.ndarray[Any, Any]
Random = np.random.Generator

TIMEOUT_SECONDS = 120.0
QUICK, WIDE, PARTS = 400, 10_000, 10
QUICK_IN_C, WIDE_IN_C = 25, 60
SMALL = 12_000  # bytes of a file whose C compiles quickly
ARENA_BYTES = 8_000_000
LARGE = 64  # bytes from which a buffer counts as weights, not structure
RECYCLE = 1_000  # requests after which a child is replaced

SMALL_WORDS = (0, 1, 2, 3, 4, 5, 7, 8, 16, 127, 255, 256)
LARGE_WORDS = (0xFFFF, *(1 << n for n in (16, 20, 24, 28, 30, 31)), (1 << 31) - 1)
WORDS = (*SMALL_WORDS, *LARGE_WORDS, *((1 << 32) - n for n in (1, 2, 3, 4, 16, 128, 1 << 16)))


@functools.cache
def sound_models() -> tuple[bytes, ...]:
    """What is damaged: the bundled model, the published ones, single operators."""
    files = [resources.folder("examples") / "digits" / "digits_int8.tflite"]
    if shared_models.FOLDER.is_dir():
        names = (*shared_models.SUPPORTED, shared_models.STATEFUL)
        files += [shared_models.path(name) for name in names]
    whole = [path.read_bytes() for path in files]
    small = [data for data in whole if len(data) < 60_000]
    # Small files first and often: they run quickly, and more of each is structure.
    return (*small * 4, *whole, *(case.model.bytes for name in CASES for case in _some(name)))


def _some(name: str) -> list[Case]:
    cases: list[Case] = []

    @settings(
        max_examples=4,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(CASES[name])
    def collect(case: Case) -> None:
        cases.append(case)

    collect()
    return cases


@functools.cache
def structure(data: bytes) -> tuple[int, ...]:
    """Positions in a model file that are not inside its larger buffers."""
    free = np.ones(len(data), dtype=bool)
    model = tflite.Model.GetRootAsModel(data, 0)
    for i in range(model.BuffersLength()):
        buffer = model.Buffers(i)
        if buffer.DataLength() >= LARGE:
            table = buffer._tab
            start = table.Vector(table.Offset(4))
            free[start : start + buffer.DataLength()] = False
    return tuple(np.flatnonzero(free).tolist())


def damaged(index: int) -> bytes:
    """The damaged file number ``index``; the same one every time."""
    random = np.random.default_rng([2025, index])
    models = sound_models()
    data = bytearray(models[int(random.integers(len(models)))])
    places = structure(bytes(data))
    kind = random.choice(["truncate", "bits", "bits", "bits", "words", "words", "pieces"])
    if kind == "truncate":
        return bytes(data[: int(random.integers(len(data)))])
    for _ in range(int(random.choice([1, 1, 1, 1, 2, 4]))):
        place = _place(random, places, len(data))
        if kind == "bits":
            data[place] ^= 1 << int(random.integers(8))
        elif kind == "words":
            aligned = min(place & ~3, len(data) - 4)
            data[aligned : aligned + 4] = struct.pack("<I", int(random.choice(WORDS)))
        else:
            _move_a_piece(random, data, place, _place(random, places, len(data)))
    return bytes(data)


def _place(random: Random, places: Sequence[int], size: int) -> int:
    if random.random() < 0.1:
        return int(random.integers(size))
    return min(places[int(random.integers(len(places)))], size - 1)


def _move_a_piece(random: Random, data: bytearray, one: int, other: int) -> None:
    length = int(random.integers(1, 33))
    piece = data[one : one + length]
    kind = random.choice(["copy", "cut", "insert"])
    if kind == "copy":
        data[other : other + len(piece)] = piece
    elif kind == "cut" and len(data) > 100:
        del data[one : one + length]
    else:
        data[other:other] = piece


@functools.cache
def _target() -> Child:
    # One thread: each further one would reserve address space of its own.
    threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return Child(Path(fuzz_target.__file__), TIMEOUT_SECONDS, threads)


REFUSED, EQUAL, UNCHECKED = "refused", "equal to TFLM", "refused by TFLM alone"
FINE = {REFUSED, EQUAL, UNCHECKED}


def outcome(data: bytes) -> str:
    """How TinyGen takes ``data``: one of ``FINE``, or what is wrong about it."""
    try:
        answer = _target().ask(data)
    except DiedError as error:
        return f"died: {error}"
    except Exception as error:
        return f"raised {type(error).__name__}: {error}"
    if answer is None:
        return REFUSED
    inputs, outputs = answer
    try:
        wanted = oracle.shared().run(data, inputs, ARENA_BYTES)
    except RefusedError:
        return UNCHECKED
    for index, (one, other) in enumerate(zip(outputs, wanted, strict=True)):
        if one.shape != other.shape or one.tobytes() != other.tobytes():
            return f"output {index} is not TFLM's"
    return EQUAL


def outcomes(indices: range) -> dict[int, str]:
    """Outcomes by the number of the damaged file."""
    found = {}
    for count, index in enumerate(indices):
        if count % RECYCLE == 0:
            _target().close()
        found[index] = outcome(damaged(index))
    return found


def wrong(found: dict[int, str]) -> dict[int, str]:
    return {index: what for index, what in found.items() if what not in FINE}


def test_sound_models_are_taken_and_agree() -> None:
    found = [outcome(data) for data in dict.fromkeys(sound_models())]
    # All but the model with state, which is not supported.
    assert found.count(REFUSED) == shared_models.FOLDER.is_dir()
    assert set(found) <= {EQUAL, REFUSED}


def test_damaged_files_are_refused_or_agree() -> None:
    found = outcomes(range(QUICK))
    assert wrong(found) == {}
    # Some damage leaves a model sound; else nothing would have been compared.
    assert min(list(found.values()).count(what) for what in (REFUSED, EQUAL)) > QUICK // 10


@pytest.mark.wide
@pytest.mark.parametrize("part", range(PARTS))
def test_damaged_files_are_refused_or_agree_widely(part: int) -> None:
    size = WIDE // PARTS
    assert wrong(outcomes(range(part * size, (part + 1) * size))) == {}


def check_compiled(indices: range, count: int, folder: Path) -> None:
    """The C of the first ``count`` small files that are taken gives the reference's bytes."""
    graphs: list[Graph] = []
    runs: list[Any] = []
    for data in map(damaged, indices):
        answer = _target().ask(data) if len(data) < SMALL and len(graphs) < count else None
        if answer is not None:
            graphs.append(passes.run(importer.load(data)))
            runs.append(answer)
    assert len(graphs) == count
    with HostModels(graphs, folder, flags=("-O0", *SANITIZERS)) as models:
        for i, (inputs, outputs) in enumerate(runs):
            found, _ = models.run(f"m{i}", inputs)
            assert [one.tobytes() for one in found] == [other.tobytes() for other in outputs]


def test_damaged_files_that_are_taken_compile(tmp_path: Path) -> None:
    check_compiled(range(QUICK), QUICK_IN_C, tmp_path)


@pytest.mark.wide
@pytest.mark.parametrize("part", range(PARTS))
def test_damaged_files_that_are_taken_compile_widely(part: int, tmp_path: Path) -> None:
    size = WIDE // PARTS
    check_compiled(range(part * size, (part + 1) * size), WIDE_IN_C, tmp_path)


def test_the_command_line_refuses_with_exit_code_2(tmp_path: Path) -> None:
    path = tmp_path / "damaged.tflite"
    data = (resources.folder("examples") / "digits" / "digits_int8.tflite").read_bytes()
    for damage in (b"", data[:1000], data[:-1000], b"\0" * 100, data[4:]):
        path.write_bytes(damage)
        done = subprocess.run(
            [sys.executable, "-m", "tinygen", "inspect", str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr


def test_a_wrong_output_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    data = sound_models()[0]
    inputs, outputs = _target().ask(data)
    spoilt = tuple(output ^ 1 for output in outputs)
    monkeypatch.setattr(Child, "ask", _spoiling(Child.ask, (inputs, spoilt)))
    assert outcome(data) == "output 0 is not TFLM's"


def _spoiling(ask: Any, answer: Any) -> Any:
    """``Child.ask`` that gives ``answer`` for the fuzz target and the truth for the oracle."""
    return lambda self, *request: answer if self is _target() else ask(self, *request)
