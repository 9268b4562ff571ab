"""The whole way: model file to firmware to verified bytes, on the host and in emulators."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shared_models

from benchmarks import published
from tinygen import boards, importers, project, reference, verify
from tinygen import compile as compiler
from tinygen.errors import FitError
from tinygen.graph import Array
from tinygen.protocol import Device

DIGITS = compiler.bundled_model()
CHIPS = ("nano33ble", "esp32", "esp32c3", "pico", "nucleo_l4r5zi")
CORES = ("qemu_m0", "qemu_m3", "qemu_m4", "qemu_m7", "qemu_m55", "qemu_rv32", "qemu_xtensa")


def tinygen(*words: str | Path, status: int = 0, cwd: Path | None = None) -> Any:
    """Run the command line with ``--json`` and return its document."""
    command = [sys.executable, "-m", "tinygen", *map(str, words), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout)


def outputs(folder: Path, on: str, inputs: Sequence[Array]) -> list[bytes]:
    """Output bytes of the project's firmware for each of ``inputs``, in one run."""
    manifest = project.load(folder)
    with verify.launcher(folder, manifest, on)(()) as transport:
        device = verify.connect(transport, manifest, on)
        return [device.run(array.tobytes()) for array in inputs]


def test_build_without_a_model_then_verify(tmp_path: Path) -> None:
    made = tinygen("build", "--board", "nano33ble", cwd=tmp_path)
    assert made["board"] == "nano33ble"
    assert made["engine"] == "aot"
    assert made["flashable"] is True
    assert made["fits"] is True
    assert 50_000 < made["macs"] <= 53_632, "dead channels folded"
    assert 3_000 < made["flash"]["weights"] < made["flash"]["total"] < made["flash"]["limit"]
    assert 2_000 < made["ram"]["arena"] < 3_000
    assert Path(made["artifacts"]["elf"]).is_file()
    folder = made["project"]
    for on in ("emulator", "host"):
        result = tinygen("verify", folder, "--on", on, cwd=tmp_path)
        assert result["pass"] is True
        assert result["mismatches"] == 0
        assert result["bytes"] == 10 * result["cases"]
    assert result["stack_estimate"] > 0


def test_settings_file(tmp_path: Path) -> None:
    shutil.copy(DIGITS, tmp_path / "mine.tflite")
    (tmp_path / "tinygen.toml").write_text('[build]\nmodel = "mine.tflite"\nboard = "qemu_m0"\n')
    made = tinygen("build", cwd=tmp_path)
    assert Path(made["project"]) == tmp_path / "build" / "mine-qemu_m0"
    assert made["flashable"] is False
    assert "emulation-only" in made["artifacts"]["elf"]


def test_memory_is_traded_as_asked(tmp_path: Path) -> None:
    """Less RAM in each step from speed to ram; a limit takes the first step that meets it."""
    arenas = {
        goal: tinygen("inspect", DIGITS, "--board", "qemu_m4", "--optimize", goal)["arena"]
        for goal in ("speed", "balanced", "ram")
    }
    assert arenas["ram"] < arenas["balanced"] == arenas["speed"], "too little to save"
    limited = tinygen("inspect", DIGITS, "--board", "qemu_m4", "--ram-limit", arenas["ram"])
    assert limited["arena"] == arenas["ram"]
    (tmp_path / "tinygen.toml").write_text('[build]\nboard = "qemu_m4"\noptimize = "ram"\n')
    made = tinygen("build", cwd=tmp_path)
    assert made["ram"]["arena"] < arenas["speed"]
    assert tinygen("verify", made["project"], cwd=tmp_path)["pass"] is True


def test_least_flash(tmp_path: Path) -> None:
    """Fewer functions, compiled for size: less flash, same bytes, in a project as in a bench."""
    usual, small = (
        tinygen("bench", DIGITS, "--board", "qemu_rv32", "--optimize", goal)
        for goal in ("balanced", "size")
    )
    assert small["flash"] < usual["flash"] - 200
    tinygen("build", "--board", "qemu_rv32", "-o", "p", "--optimize", "size", cwd=tmp_path)
    assert '"-Os"' in (tmp_path / "p" / "lib" / "digits_int8" / "library.json").read_text()
    assert tinygen("verify", "p", cwd=tmp_path)["pass"] is True


def test_a_limit_that_nothing_meets(tmp_path: Path) -> None:
    document = tinygen("inspect", DIGITS, "--ram-limit", "64", status=3)
    assert "more than the limit of 64" in document["error"]["message"]
    least = document["error"]["hint"].split()[-1]
    assert tinygen("inspect", DIGITS, "--ram-limit", least)["arena"] == int(least)
    (tmp_path / "tinygen.toml").write_text('[build]\nboard = "qemu_m4"\nram_limit = "20q"\n')
    document = tinygen("build", cwd=tmp_path, status=2)
    assert "'20q' is no size" in document["error"]["message"]


def test_fifty_inferences_without_drift(tmp_path: Path) -> None:
    request = compiler.Request(DIGITS, boards.load("qemu_m4"), tmp_path / "p", "digits")
    compiler.build(request)
    graph = importers.load(DIGITS)
    random = np.random.default_rng(0)
    images = [random.integers(-128, 128, (1, 8, 8, 1)).astype(np.int8) for _ in range(5)]
    wanted = [reference.run(graph, [image])[0].tobytes() for image in images]
    assert outputs(tmp_path / "p", verify.EMULATOR, images * 10) == wanted * 10


@pytest.mark.parametrize("board", ["qemu_m4", "qemu_rv32"])
def test_two_models_in_one_firmware(board: str, tmp_path: Path) -> None:
    """Two networks whose kernels have the same names, switched back and forth."""
    folder = tmp_path / "p"
    facts = boards.load(board)
    compiler.build(compiler.Request(DIGITS, facts, folder, "one"))
    other = tmp_path / "other"
    compiler.build(compiler.Request(DIGITS, facts, other, "two"))
    shutil.copytree(other / "lib" / "two", folder / "lib" / "two")
    main = folder / "src" / "main.cpp"
    text = main.read_text()
    text = text.replace("#include <one.h>", "#include <one.h>\n#include <two.h>")
    text = text.replace("{&one_model}", "{&one_model, &two_model}")
    text = text.replace("&io, models, 1)", "&io, models, 2)")
    assert text.count("two") == 2
    main.write_text(text)
    compiler.build(compiler.Request(DIGITS, facts, folder, "one"))
    assert main.read_text() == text, "the user's program was overwritten"

    graph = importers.load(DIGITS)
    image = np.arange(64, dtype=np.int8).reshape(1, 8, 8, 1)
    wanted = reference.run(graph, [image])[0].tobytes()
    manifest = project.load(folder)
    with verify.launcher(folder, manifest, verify.EMULATOR)(()) as transport:
        device = Device(transport, board)
        assert device.connect().models == 2
        for name in ("two", "one", "two"):
            assert device.select(name).model == name
            assert device.run(image.tobytes()) == wanted


def test_a_fault_is_seen_and_named(tmp_path: Path) -> None:
    """One weight changed in the generated C, and verify says so with the layer and exit code 4."""
    made = tinygen("build", DIGITS, "--board", "qemu_m4", "-o", tmp_path / "p")
    name = project.load(Path(made["project"])).name
    weights = tmp_path / "p" / "lib" / name / "src" / f"{name}_weights.h"
    text = weights.read_text()
    at = text.index("layer2_weights")
    start = text.index("{", at) + 1
    first = text[start : text.index(",", start)]
    weights.write_text(text[:start] + f"{(int(first) + 60) % 120}" + text[start + len(first) :])
    command = [sys.executable, "-m", "tinygen", "verify", str(tmp_path / "p"), "--on", "host"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert "the first layer that differs is 2 CONV_2D" in done.stderr


def test_too_big_for_the_board(tmp_path: Path) -> None:
    small = boards.load("qemu_m4").model_copy(update={"flash": 2_000})
    with pytest.raises(FitError, match="flash"):
        compiler.build(compiler.Request(DIGITS, small, tmp_path / "p", "digits"))
    tight = boards.load("qemu_m4").model_copy(update={"ram": 6_000})
    with pytest.raises(FitError, match="stack"):
        compiler.build(compiler.Request(DIGITS, tight, tmp_path / "q", "digits"))
    nearly = boards.load("qemu_m4").model_copy(update={"flash": 8_000})
    with pytest.raises(FitError, match="too big"):
        compiler.build(compiler.Request(DIGITS, nearly, tmp_path / "r", "digits"))


@pytest.mark.parametrize(
    "words, status",
    [
        (("build", "--board", "nano33"), 2),
        (("build",), 2),
        (("build", "missing.tflite", "--board", "host"), 2),
        (("build", "--board", "host", "--name", "not a name"), 2),
        (("verify", "nowhere"), 2),
        (("inspect", "pyproject.toml"), 2),
        (("bench", "missing.tflite"), 2),
        (("flash", "nowhere"), 2),
    ],
)
def test_bad_usage(words: tuple[str, ...], status: int, tmp_path: Path) -> None:
    result = tinygen(*words, status=status, cwd=tmp_path)
    assert result["error"]["message"]
    assert result["error"]["exit_code"] == status


@pytest.mark.parametrize("board", CORES)
def test_bench_on_every_core(board: str) -> None:
    result = tinygen("bench", DIGITS, "--board", board)
    assert result["board"] == board
    assert 25_000 < result["instructions"] < 2_000_000
    assert sum(layer["macs"] for layer in result["layers"]) == result["macs"] <= 53_632
    spent = sum(layer["instructions"] for layer in result["layers"])
    # Layers are counted in a build of their own, which the compiler may inline otherwise.
    assert abs(spent - result["instructions"]) < 0.02 * result["instructions"]
    assert result["weights"] <= result["flash"] < 20_000
    assert result["arena"] <= result["ram"] < result["arena"] + 600, "arena and next to nothing"


def test_a_bench_repeats_itself() -> None:
    first = tinygen("bench", DIGITS)
    assert first == tinygen("bench", DIGITS)
    assert first["board"] == "qemu_m4"
    assert first["cycles_estimate"] > first["instructions"]


def gives_the_goldens(board: str, model: str, folder: Path, cases: int = 5) -> None:
    """Build ``model`` for ``board`` and compare its first ``cases`` golden outputs."""
    where = verify.HOST if board == "host" else verify.EMULATOR
    request = compiler.Request(
        shared_models.path(model), boards.load(board), folder / "p", model.lower()
    )
    assert compiler.build(request).firmware.sizes.fits
    goldens = shared_models.goldens(model)[:cases]
    found = outputs(folder / "p", where, [golden.input for golden in goldens])
    assert found == [golden.output.tobytes() for golden in goldens]


@pytest.mark.wide
@shared_models.needed
@pytest.mark.parametrize("model", shared_models.SUPPORTED)
@pytest.mark.parametrize("board", ["host", *CORES])
def test_every_core_gives_the_goldens(board: str, model: str, tmp_path: Path) -> None:
    gives_the_goldens(board, model, tmp_path)


LARGE = ("person_detect", "pretrainedResnet_quant", "vww_96_int8")
LARGE_CASES = 5 if os.environ.get("TINYGEN_EVERY_CASE") else 1
"""Golden cases of large models on emulated chips, which take up to a minute each."""


@pytest.mark.wide
@shared_models.needed
@pytest.mark.parametrize("model", shared_models.SUPPORTED)
@pytest.mark.parametrize("board", CHIPS)
def test_every_chip_gives_the_goldens(board: str, model: str, tmp_path: Path) -> None:
    gives_the_goldens(board, model, tmp_path, LARGE_CASES if model in LARGE else 5)


@pytest.mark.wide
@shared_models.needed
@pytest.mark.parametrize("model", published.TFLM)
def test_cheaper_than_the_interpreter(model: str) -> None:
    result = tinygen("bench", shared_models.path(model))
    instructions, flash, ram = published.TFLM[model]["tflm"]
    assert result["instructions"] < instructions
    assert result["flash"] < flash
    assert result["ram"] < ram
