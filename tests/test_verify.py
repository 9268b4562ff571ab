"""Verification finds what is wrong, says where, and passes only what is right."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import tty
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import shared_models
import tflite_builder as tb
from dut_bench import Pipe
from dut_bench import build as build_dut
from strategies import Quant as Scaled
from strategies import constant, tensor

from tinygen import compile as compiler
from tinygen import importers, platformio, project, reference, resources
from tinygen.boards import load as load_board
from tinygen.errors import InputError, MismatchError, TinyGenError
from tinygen.graph import Array, Graph, Quant, Tensor
from tinygen.project import Manifest
from tinygen.verify import (
    TRACE,
    Launch,
    VerifyResult,
    check,
    generated,
    launcher,
    mismatch,
    read_npz,
    verify,
)

pytestmark = pytest.mark.xdist_group("verify")  # one worker builds the project once


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model's project for the host, built once; tests copy what they change."""
    folder = tmp_path_factory.mktemp("projects") / "digits"
    compiler.build(compiler.request(folder.parent, {"board": "host", "output": folder}))
    return folder


def copy(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "copy", symlinks=True))


def through_pipes(folder: Path) -> Launch:
    return lambda flags: Pipe(platformio.make(folder, "host", flags))


def checked(folder: Path, cases: int = 3, on: str = "host") -> VerifyResult:
    """:func:`check` of a project, with the host in place of ``on`` and a pipe of the tests' own."""
    manifest = project.load(folder)
    graph = importers.load(folder / manifest.model)
    launch = through_pipes(folder)
    given = list(islice(generated(graph), cases))
    return check(manifest, graph, given, on, launch, launch)


# ---- the whole -----------------------------------------------------------------------------------


def test_right_firmware_passes(built: Path) -> None:
    result = checked(built, 5)
    assert result.passed and (result.cases, result.bytes, result.mismatches) == (5, 50, 0)
    assert (result.failed, result.diverging) == ((), "")
    assert result.layers == 5 * len(project.load(built).layers)


def test_on_host_as_a_user_runs_it(built: Path) -> None:
    result = verify(built, "host", cases=2)
    assert (result.project, result.on, result.passed) == ("digits_int8", "host", True)
    assert verify(built, "emulator", cases=1).passed  # the host's emulator is the host


@pytest.mark.skipif(not shutil.which("qemu-system-arm"), reason="QEMU for Arm is not installed")
def test_in_an_emulator_with_the_stack_it_takes(tmp_path: Path) -> None:
    folder = tmp_path / "digits"
    compiler.build(compiler.request(tmp_path, {"board": "qemu_m4", "output": folder}))
    result = verify(folder, "emulator", cases=5)
    assert result.passed and (result.cases, result.bytes, result.layers) == (5, 50, 0)
    assert 100 < result.stack_peak < load_board("qemu_m4").system.stack


def test_through_a_serial_port(built: Path) -> None:
    board, line = pty.openpty()
    tty.setraw(line)
    firmware = subprocess.Popen([built / "firmware" / "firmware.elf"], stdin=board, stdout=board)
    try:
        result = verify(built, os.ttyname(line), cases=3)
    finally:
        firmware.kill()
        firmware.wait()
        os.close(board)
        os.close(line)
    assert result.passed and (result.on.startswith("/dev/"), result.bytes) == (True, 30)


def test_fifty_cases_in_a_row(built: Path) -> None:
    assert verify(built, "host", cases=50).passed


def test_users_inputs_are_used(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = resources.folder("examples") / "digits" / "digits_test.npz"
    result = verify(built, "host", data=data)
    assert result.passed and (result.cases, result.bytes) == (100, 1000)
    captured = capsys.readouterr()
    assert "not used: labels" in captured.err and captured.out == ""


WEIGHT = re.compile(r"(static const int8_t (\w+_weights)\[\d+\][^=]*= \{\s*)(-?\d+)")


def damage(folder: Path, array: int) -> None:
    """Flip a bit of the first element of the ``array``-th int8 array of weights."""
    (path,) = folder.glob("lib/*/src/*_weights.h")
    text = path.read_text()
    chosen = list(WEIGHT.finditer(text))[array]
    flipped = int(chosen[3]) ^ 64
    path.write_text(f"{text[: chosen.start(3)]}{flipped}{text[chosen.end(3) :]}")


def half_dead() -> bytes:
    """Two convolutions; of the first one's 16 channels 9 are zero, which the passes drop."""
    random = np.random.default_rng(0)
    wide, narrow = (
        random.integers(-127, 128, (16, 3, 3, 2)),
        random.integers(-127, 128, (4, 1, 1, 16)),
    )
    wide[::2] = wide[1] = 0
    filters = [constant(data.astype(np.int8), Scaled(0.01, 0)) for data in (wide, narrow)]
    tensors = (
        tensor((1, 6, 6, 2), Scaled(0.02, 3)),
        filters[0],
        tensor((1, 4, 4, 16), Scaled(0.05, -7)),
        filters[1],
        tensor((1, 4, 4, 4), Scaled(0.1, 0)),
    )
    options = {"Padding": tb.VALID, "StrideH": 1, "StrideW": 1}
    ops = (tb.Op("CONV_2D", (0, 1), (2,), options), tb.Op("CONV_2D", (2, 3), (4,), options))
    return tb.Model(tensors, ops, (0,), (4,)).bytes


@pytest.mark.parametrize(("board", "left"), [("host", 7), ("qemu_m4", 8)])
def test_layers_that_lost_channels_are_compared(board: str, left: int, tmp_path: Path) -> None:
    model, folder = tmp_path / "half.tflite", tmp_path / "half"
    model.write_bytes(half_dead())
    compiler.build(compiler.request(tmp_path, {"model": model, "board": board, "output": folder}))
    sizes = [layer["bytes"] for layer in project.load(folder).layers]
    assert sizes == [4 * 4 * left, 4 * 4 * 4]
    result = checked(folder, 3)
    assert result.passed and result.layers == 3 * 2
    if board == "host":
        damage(folder, 0)
        result = checked(folder, 3)
        assert not result.passed and "layer that differs is 0 CONV_2D" in result.diverging


def test_layers_of_another_size_are_not_compared(built: Path, tmp_path: Path) -> None:
    folder = copy(built, tmp_path)
    damage(folder, 0)
    layers = project.load(folder).layers
    project.record(folder, layers=tuple({**layer, "bytes": layer["bytes"] - 1} for layer in layers))
    result = checked(folder, 5)
    assert not result.passed and result.mismatches and "layer that differs" not in result.diverging


def test_one_flipped_weight_is_found_and_its_layer_named(built: Path, tmp_path: Path) -> None:
    (header,) = built.glob("lib/*/src/*_weights.h")
    arrays = len(WEIGHT.findall(header.read_text()))
    assert arrays >= 4
    named = []
    for array in (0, arrays - 1):
        folder = copy(built, tmp_path / str(array))
        damage(folder, array)
        result = checked(folder, 5)
        assert not result.passed
        assert result.failed == ("lcg1", "ramp", "quiet4", "edges", "zero")
        match = re.match(r"the first layer that differs is (\d+) ([A-Z_0-9]+) '", result.diverging)
        assert match, result.diverging
        named.append((int(match[1]), match[2]))
    assert named[0] == (0, "CONV_2D")
    layers = project.load(built).layers
    assert named[1][0] > 0 and named[1][1] == layers[named[1][0]]["op"]
    error = mismatch(result)
    assert isinstance(error, MismatchError) and error.exit_code == 4
    assert str(result.mismatches) in error.message and result.diverging in error.message


def test_without_traces_the_layer_is_found_by_a_second_run(built: Path, tmp_path: Path) -> None:
    folder = copy(built, tmp_path)
    (path,) = folder.glob("lib/*/src/*_weights.h")
    zeros = re.compile(r"(layer2_weights\[\d+\][^=]*= \{)([^}]*)(\})")
    text, found = zeros.subn(lambda m: m[1] + re.sub(r"-?\d+", "0", m[2]) + m[3], path.read_text())
    assert found == 1
    path.write_text(text)
    result = checked(folder, on="emulator")
    assert result.mismatches > 0 and result.layers == 0
    assert result.diverging.startswith("the first layer that differs is 2 CONV_2D '")


def test_fault_outside_the_layers_is_not_blamed_on_one(built: Path, tmp_path: Path) -> None:
    folder = copy(built, tmp_path)
    (source,) = folder.glob("lib/digits_int8/src/digits_int8.c")
    text = source.read_text()
    call = re.search(r"(int digits_int8_run\(void\)\s*\{.*?)(\n\s*return 0;)", text, re.DOTALL)
    assert call
    spoil = "\n  ((int8_t *)digits_int8_model.outputs[0].data)[0] ^= 1;"
    source.write_text(text[: call.end(1)] + spoil + text[call.end(1) :])
    agree = "with traces compiled in all layers agree"
    elsewhere = "on the host all layers agree: the board runs other firmware, or has a fault"
    for on, words in (("host", agree), ("emulator", agree), ("/dev/board", elsewhere)):
        result = checked(folder, on=on)
        assert result.mismatches == result.cases == len(result.failed)
        assert result.diverging == words


def test_reads_of_garbage_end_the_run_with_the_sanitizers_words(
    built: Path, tmp_path: Path
) -> None:
    folder = copy(built, tmp_path)
    (source,) = folder.glob("lib/digits_int8/src/digits_int8.c")
    text = source.read_text()
    spoilt, count = re.subn(
        r"(int digits_int8_run\(void\)\s*\{)",
        r"\1\n  volatile int8_t far[4] = {0}; volatile int at = 5; far[at] = 1;",
        text,
    )
    assert count == 1
    source.write_text(spoilt)
    with pytest.raises(TinyGenError):
        verify(folder, "host", cases=1)


# ---- a far end that is not what it should be -----------------------------------------------------


@pytest.fixture(scope="module")
def dut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_dut(tmp_path_factory.mktemp("dut"))


@pytest.fixture(scope="module")
def dut_traced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_dut(tmp_path_factory.mktemp("traced"), TRACE)


def graph_of(*inputs: Tensor, sha256: str = "") -> Graph:
    return Graph("m", inputs, (), tuple(range(len(inputs))), (), "m.tflite", sha256)


SPENDER = graph_of(Tensor("a", (1, 3), "int8"), Tensor("b", (1, 3), "int16"))
SHA256 = "0123456789abcdef" * 4


def spender(graph: Graph, inputs: Sequence[Array]) -> list[Array]:
    """What ``dut_host.c`` says its first model computes."""
    a, b = inputs
    total = (2 * a.astype(np.int64) + b).astype(np.int8)
    return [total, a.astype(np.float32) / np.float32(4)]


def manifest(**changes: object) -> Manifest:
    facts = {"tinygen": "0", "name": "spender", "model": "m", "sha256": SHA256, "board": "host"}
    return Manifest.model_validate(facts | {"engine": "aot"} | changes)


def run_check(
    program: Path,
    traced: Path,
    *fault: str,
    facts: Manifest | None = None,
    on: str = "host",
    reference: Callable[[Graph, Sequence[Array]], list[Array]] = spender,
) -> VerifyResult:
    def launch(flags: Sequence[str]) -> Pipe:
        return Pipe(traced if flags else program, *fault)

    cases = list(islice(generated(SPENDER), 6))
    return check(facts or manifest(), SPENDER, cases, on, launch, launch, run=reference)


def test_several_inputs_and_outputs(dut: Path, dut_traced: Path) -> None:
    result = run_check(dut, dut_traced)
    assert result == VerifyResult("spender", "host", 6, 90, 0, layers=12, stack_peak=1234)
    assert run_check(dut, dut_traced, on="emulator").layers == 0


def test_a_device_that_lies_is_caught(dut: Path, dut_traced: Path) -> None:
    result = run_check(dut, dut_traced, "lies", facts=manifest(engine="tflm"))
    assert result.mismatches == result.cases == 6
    assert result.failed == ("lcg1", "ramp", "quiet4", "edges", "zero", "lcg2")


def test_a_wrong_reference_is_caught(dut: Path, dut_traced: Path) -> None:
    def wrong(graph: Graph, inputs: Sequence[Array]) -> list[Array]:
        first, second = spender(graph, inputs)
        return [first, second + np.float32(1)]

    assert not run_check(dut, dut_traced, reference=wrong).passed


def test_other_sizes_are_an_error(dut: Path, dut_traced: Path) -> None:
    with pytest.raises(TinyGenError, match="gives 15 bytes, the reference 3"):
        run_check(dut, dut_traced, reference=lambda g, i: spender(g, i)[:1])


def test_firmware_of_another_model_is_an_error(dut: Path, dut_traced: Path) -> None:
    with pytest.raises(TinyGenError, match="'spender', made from another model file"):
        run_check(dut, dut_traced, facts=manifest(sha256="1" * 64))


def test_firmware_that_dies_is_an_error(dut: Path, dut_traced: Path) -> None:
    with pytest.raises(TinyGenError, match="ended with status 3"):
        run_check(dut, dut_traced, "quits")


def test_a_port_that_is_not_there_is_an_error(built: Path) -> None:
    with pytest.raises(InputError, match="/dev/ttyNOWHERE: cannot be opened"):
        verify(built, "/dev/ttyNOWHERE")


def test_a_board_without_emulator_is_an_error(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lonely = load_board("host").model_copy(update={"emulator": None})
    monkeypatch.setattr("tinygen.boards.load", lambda name: lonely)
    with pytest.raises(InputError, match="no emulator runs its firmware"):
        launcher(built, project.load(built), "emulator")


def test_a_model_that_was_exchanged_is_an_error(built: Path, tmp_path: Path) -> None:
    folder = copy(built, tmp_path)
    path = folder / "model" / "digits_int8.tflite"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match="not the file that the project was made from"):
        verify(folder, "host")


def test_a_manifest_that_points_outside_is_an_error(built: Path, tmp_path: Path) -> None:
    folder = copy(built, tmp_path)
    facts = json.loads((folder / "tinygen.json").read_text())
    (folder / "tinygen.json").write_text(json.dumps(facts | {"model": "../../etc/passwd"}))
    with pytest.raises(InputError, match="lies outside the project"):
        verify(folder, "host")


def test_what_is_no_project_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a TinyGen project"):
        verify(tmp_path, "host")


# ---- inputs --------------------------------------------------------------------------------------


@shared_models.needed
def test_generated_inputs_are_the_published_ones() -> None:
    for model in ("kws_ref_model", "ad01_int8"):
        graph = importers.load(shared_models.path(model))
        ours = {case.name: case.inputs[0] for case in islice(generated(graph), 7)}
        published = shared_models.goldens(model)
        assert len(published) == 5
        for golden in published:
            assert np.array_equal(ours[golden.name], golden.input)


@shared_models.needed
def test_reference_and_goldens_agree_on_generated_inputs() -> None:
    graph = importers.load(shared_models.path("hello_world_int8"))
    ours = {case.name: case.inputs for case in islice(generated(graph), 7)}
    for golden in shared_models.goldens("hello_world_int8"):
        (output,) = reference.run(graph, ours[golden.name])
        assert np.array_equal(output, golden.output)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8", "bool", "float32"])
def test_generated_inputs_have_the_inputs_shape_and_type(dtype: str) -> None:
    graph = graph_of(Tensor("x", (2, 3), dtype), Tensor("y", (1,), "int8"))
    cases = list(islice(generated(graph), 12))
    for case in cases:
        assert [(a.shape, str(a.dtype)) for a in case.inputs] == [((2, 3), dtype), ((1,), "int8")]
        assert np.isfinite(case.inputs[0]).all()
    assert len({case.name for case in cases}) == 12
    assert len({case.data for case in cases}) > 6
    assert cases[3].inputs[0].flat[0] != cases[3].inputs[0].flat[1]


QUANTIZED = Tensor("in", (1, 4), "int8", Quant((0.5,), (-1,)))


def save(path: Path, **arrays: Array) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("shape", "cases"), [((1, 4), 1), ((3, 1, 4), 3), ((3, 4), 3), ((1, 1, 4), 1)]
)
def test_npz_with_one_or_several_cases(tmp_path: Path, shape: tuple[int, ...], cases: int) -> None:
    array = np.arange(np.prod(shape), dtype=np.int8).reshape(shape)
    given = read_npz(save(tmp_path / "x.npz", whatever=array), graph_of(QUANTIZED))
    assert len(given) == cases
    assert [case.inputs[0].shape for case in given] == [(1, 4)] * cases
    assert b"".join(case.data for case in given) == array.tobytes()
    assert given[0].name == "x[0]"


def test_npz_by_name_in_any_order_and_by_order_without(tmp_path: Path) -> None:
    graph = graph_of(Tensor("p", (2,), "int8"), Tensor("q", (2,), "int8"))
    one, two = np.array([1, 2], np.int8), np.array([3, 4], np.int8)
    (case,) = read_npz(save(tmp_path / "a.npz", q=two, other=one, p=one), graph)
    assert case.data == bytes([1, 2, 3, 4])
    (case,) = read_npz(save(tmp_path / "b.npz", x=two, y=one), graph)
    assert case.data == bytes([3, 4, 1, 2])


def test_npz_floats_are_quantized_and_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = np.array([[0.25, -0.25, 100.0, -0.74]])
    (case,) = read_npz(save(tmp_path / "f.npz", x=real), graph_of(QUANTIZED))
    assert case.inputs[0].tolist() == [[0, -2, 127, -2]]
    said = capsys.readouterr().err
    assert "f.npz: x: float64 quantized to int8 with scale 0.5, zero point -1" in said


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((1, 4), np.int64)}, "x: is int64, the input is int8"),
        ({"x": np.zeros((1, 4), np.uint8)}, "x: is uint8, the input is int8"),
        ({"x": np.full((1, 4), np.nan)}, "values that are no numbers"),
        ({"x": np.zeros((1, 5), np.int8)}, r"it has x \(1, 5\), the model wants in \(1, 4\)"),
        ({"x": np.zeros(4, np.int8)}, "no array for each input"),
        ({"x": np.zeros((1, 4), np.int8), "y": np.zeros((1, 4), np.int8)}, "no array for each"),
        ({"x": np.zeros((0, 4), np.int8)}, "0 cases"),
        ({}, "it has none"),
    ],
)
def test_npz_that_does_not_fit_is_refused(
    tmp_path: Path, arrays: dict[str, Array], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_npz(save(tmp_path / "bad.npz", **arrays), graph_of(QUANTIZED))


def test_npz_with_uneven_cases_is_refused(tmp_path: Path) -> None:
    graph = graph_of(replace(QUANTIZED, name="p"), replace(QUANTIZED, name="q"))
    path = save(tmp_path / "x.npz", p=np.zeros((2, 4), np.int8), q=np.zeros((3, 4), np.int8))
    with pytest.raises(InputError, match="2 and 3 cases"):
        read_npz(path, graph)


@pytest.mark.parametrize("content", [b"", b"PK\3\4 no zip", b"\x93NUMPY\1\0", b"text"])
def test_npz_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"not an \.npz file"):
        read_npz(path, graph_of(QUANTIZED))
    np.save(tmp_path / "x.npy", np.zeros(3))
    with pytest.raises(InputError, match=r"not an \.npz file"):
        read_npz(tmp_path / "x.npy", graph_of(QUANTIZED))
    np.savez(path, x=np.array([{}], dtype=object))
    with pytest.raises(InputError, match=r"not an \.npz file"):
        read_npz(path, graph_of(QUANTIZED))
    with pytest.raises(InputError, match="No such file"):
        read_npz(tmp_path / "none.npz", graph_of(QUANTIZED))
