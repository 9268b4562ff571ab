"""Evaluation says of generated C what is true of it, and refuses data that do not fit."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tflite_builder as tb
from graphs import convolution, dense_chain, random_inputs
from strategies import Quant as Scaled
from strategies import constant, tensor

from tinygen import boards, datasets, evaluate, hostrun, importers, passes, plan, reference
from tinygen import compile as compiler
from tinygen.cli import main
from tinygen.datasets import Data
from tinygen.errors import InputError, TinyGenError
from tinygen.graph import Array, Graph

DIGITS = compiler.bundled_model()
DATA = DIGITS.with_name("digits_test.npz")

pytestmark = pytest.mark.xdist_group("evaluate")


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return int(end.value.code or 0), said.out, said.err


def npz(folder: Path, **arrays: Array) -> Path:
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="module")
def project_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model's project with another board's kernels, not built by PlatformIO."""
    folder = tmp_path_factory.mktemp("projects") / "digits"
    compiled = compiler.compile_model(DIGITS, boards.load("nano33ble"))
    compiler.project.write(folder, boards.load("nano33ble"), compiler._generated(compiled))
    return folder


# ---- running generated C -------------------------------------------------------------------------


@pytest.mark.parametrize("board", ["host", "qemu_m4", "qemu_m55", "qemu_m0", "qemu_rv32"])
def test_host_gives_the_reference_bytes_with_kernels_of_any_core(board: str) -> None:
    graph = importers.load(DIGITS)
    features = boards.load(board).features
    made = plan.make(passes.run(graph, features), features)
    inputs = np.stack([random_inputs(graph, seed)[0] for seed in range(2 * hostrun.FEWEST + 3)])
    with hostrun.compiled(made, "digits") as program:
        (found,) = program.run([inputs])
    (wanted,) = hostrun.by_reference(graph, [inputs])
    assert found.dtype == wanted.dtype and found.shape == wanted.shape == (131, 1, 10)
    assert np.array_equal(found, wanted)


def test_outputs_stay_with_their_examples() -> None:
    """Of several processes each has its own examples, and their order holds."""
    graph = dense_chain(6, 4)
    inputs = np.arange(6 * 200).astype(np.int8).reshape(200, 1, 6)
    steps = []

    @evaluate_progress
    def count(what: str, total: int) -> Callable[[], None]:
        assert total == 200
        return lambda: steps.append(what)

    with hostrun.compiled(plan.make(graph)) as program:
        (found,) = program.run([inputs], count)
    for i in (0, 1, 63, 64, 100, 199):
        assert np.array_equal(found[i], reference.run(graph, [inputs[i]])[0])
    assert len(steps) == 200


def evaluate_progress(start: Callable[[str, int], Callable[[], None]]) -> Any:
    from contextlib import contextmanager

    @contextmanager
    def progress(what: str, total: int) -> Any:
        yield start(what, total)

    return progress


def test_a_fault_in_the_generated_c_changes_the_figures(
    project_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(project_folder, tmp_path / "copy", symlinks=True)
    arguments = ["evaluate", str(copy), "--data", str(DATA), "--json"]
    assert json.loads(run(arguments, capsys)[1])["accuracy"] == 0.98
    source = copy / "lib" / "digits_int8" / "src" / "digits_int8.c"
    text = source.read_text()
    call = text.index("return 0;", text.index("int digits_int8_run(void)"))
    fault = "((int8_t *)digits_int8_model.outputs[0].data)[3] = 127; "
    source.write_text(text[:call] + fault + text[call:])
    faulty = json.loads(run(arguments, capsys)[1])
    assert faulty["accuracy"] < 0.6 and faulty["classes"][3]["recall"] == 1


def test_a_program_that_fails_is_an_error(tmp_path: Path) -> None:
    graph = dense_chain(6, 4)
    with hostrun.compiled(plan.make(graph)) as program:
        script = tmp_path / "fails"
        script.write_text("#!/bin/sh\nexit 3\n")
        script.chmod(0o755)
        with pytest.raises(TinyGenError, match="ended with 3"):
            replace(program, program=script).run([np.zeros((2, 1, 6), np.int8)])


def test_without_a_compiler_the_hint_says_how_to_get_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, err = run(["evaluate", str(DIGITS), "--data", str(DATA)], capsys)
    assert code == 1 and "apt-get install gcc" in err
    code, out, _ = run(["evaluate", str(DIGITS), "--data", str(DATA), "--reference"], capsys)
    assert code == 0 and "98.00 %" in out


# ---- inputs --------------------------------------------------------------------------------------


def test_quantized_inputs_are_taken_as_they_are_and_real_ones_quantized(tmp_path: Path) -> None:
    graph = importers.load(DIGITS)
    stored = datasets.load(DATA)
    assert stored.stored == "int8"
    quantized = evaluate.network_inputs(graph, stored, "data")
    assert np.array_equal(quantized[:, 0], np.load(DATA)["inputs"])
    real = evaluate.in_real(graph, stored)
    assert real.inputs.min() >= 0 and real.inputs.max() <= 1
    again = datasets.load(npz(tmp_path, x=real.inputs.astype(np.float64)))
    assert np.array_equal(evaluate.network_inputs(graph, again, "data"), quantized)
    pixels = datasets.load(npz(tmp_path, x=np.full((2, 8, 8), 1, np.uint8)))
    assert (evaluate.network_inputs(graph, pixels, "data") == 127).all()


def test_halves_are_rounded_away_from_zero() -> None:
    graph = dense_chain(4, 2)  # scale 0.05, zero point -3
    graph = graph.with_tensor(0, quant=replace(graph.at(0).quant, scale=(0.5,)))
    data = Data(np.array([[0.25, -0.25, 0.75, 1000]], np.float32))
    assert evaluate.network_inputs(graph, data, "data").tolist() == [[[-2, -4, -1, 127]]]


@pytest.mark.parametrize(
    ("inputs", "labels", "words"),
    [
        (np.zeros((3, 7, 8)), np.zeros(3, int), "examples of shape (7, 8)"),
        (np.zeros((3, 64)), np.zeros(3, int), "examples of shape (64,)"),
        (np.zeros((3, 8, 8)), None, "no labels"),
        (np.zeros((3, 8, 8)), np.array([0, 1, 10]), "a label is 10"),
        (np.zeros((3, 8, 8)), np.zeros((3, 4), np.float32), "targets of shape (4,)"),
        (np.zeros((3, 8, 8)), np.zeros(2, int), "3 inputs and 2 labels"),
        (np.full((3, 8, 8), np.nan), np.zeros(3, int), "no numbers"),
    ],
)
def test_data_that_do_not_fit_are_bad_input(
    inputs: Array,
    labels: Array | None,
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = npz(tmp_path, inputs=inputs, **({} if labels is None else {"labels": labels}))
    code, out, err = run(["evaluate", str(DIGITS), "--data", str(path), "--json"], capsys)
    assert code == 2 and words in err
    assert json.loads(out)["error"]["exit_code"] == 2


@pytest.mark.parametrize("what", ["missing", "text", "model", "folder"])
def test_other_bad_arguments_are_bad_input(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.npz"
    text.write_text("no archive")
    model, data = {
        "missing": (DIGITS, tmp_path / "none.npz"),
        "text": (DIGITS, text),
        "model": (text, DATA),
        "folder": (tmp_path, DATA),
    }[what]
    assert run(["evaluate", str(model), "--data", str(data)], capsys)[0] == 2


def test_task_that_does_not_fit_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    for task in ("anomaly", "regression"):
        arguments = ["evaluate", str(DIGITS), "--data", str(DATA), "--task", task]
        assert run(arguments, capsys)[0] == 2


# ---- tasks ---------------------------------------------------------------------------------------


def test_autoencoder_scores_by_its_reconstruction_error() -> None:
    graph = dense_chain(6, 6)
    inputs = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    data = Data(inputs, np.arange(40) % 2)
    assert evaluate.choose_task(graph, data) == "anomaly"
    outputs = evaluate.run(plan.make(graph), data)
    errors = ((outputs - inputs) ** 2).mean(axis=1)
    labels = (errors > np.median(errors)).astype(np.int64)
    scores = evaluate.assess(outputs, Data(inputs, labels), "anomaly")
    assert scores.auc == 1.0 and scores.points == 100.0
    assert scores.mean_squared_error == pytest.approx(errors.mean())
    alone = evaluate.assess(outputs, Data(inputs), "anomaly")
    assert alone.auc is None and alone.mean_squared_error == scores.mean_squared_error


def test_regression_has_errors_in_real_units() -> None:
    graph = dense_chain(6, 3)
    inputs = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    found = evaluate.run(plan.make(graph), Data(inputs))
    data = Data(inputs, found + np.float32(0.5))
    assert evaluate.choose_task(graph, data) == "regression"
    scores = evaluate.assess(found, data, "regression")
    assert scores.mean_absolute_error == pytest.approx(0.5)
    assert scores.mean_squared_error == pytest.approx(0.25)
    assert evaluate.assess(found, Data(inputs, found), "regression").points == 100.0


def test_one_output_tells_two_classes_apart() -> None:
    labels = np.array([0, 0, 1, 1])
    data = Data(np.zeros((4, 3), np.float32), labels)
    scores = evaluate.assess(np.array([[0.1], [0.6], [0.4], [0.9]]), data, "classification")
    assert scores.accuracy == 0.5 and scores.auc == 0.75
    logits = evaluate.assess(np.array([[-3], [-1], [1], [2]]), data, "classification")
    assert logits.accuracy == 1.0 and logits.auc == 1.0


def test_scores_by_hand() -> None:
    outputs = np.eye(3)[[0, 1, 1, 2, 2, 2]]
    data = Data(np.zeros((6, 2), np.float32), np.array([0, 0, 1, 1, 2, 2]))
    scores = evaluate.assess(outputs, data, "classification")
    assert scores.confusion is not None
    assert scores.confusion.tolist() == [[1, 1, 0], [0, 1, 1], [0, 0, 2]]
    assert scores.accuracy == pytest.approx(4 / 6)
    assert [c.precision for c in scores.classes] == pytest.approx([1, 1 / 2, 2 / 3])
    assert [c.recall for c in scores.classes] == [0.5, 0.5, 1.0]
    assert scores.top5 is None


def test_top_5_of_many_classes() -> None:
    outputs = np.tile(np.arange(20), (4, 1)).astype(float)
    data = Data(np.zeros((4, 2), np.float32), np.array([19, 15, 14, 0]))
    assert evaluate.assess(outputs, data, "classification").top5 == 0.5


def test_area_under_the_curve_counts_ties_half() -> None:
    positive = np.array([True, True, False, False])
    assert evaluate.area_under_curve(np.array([1, 1, 1, 1]), positive) == 0.5
    assert evaluate.area_under_curve(np.array([2, 1, 1, 0]), positive) == 0.875
    assert evaluate.area_under_curve(np.array([2, 1, 1, 0]), positive | True) is None


# ---- models of every kind ------------------------------------------------------------------------


def test_float_edges(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A network that quantizes its float input and dequantizes its output itself."""
    scale = Scaled(1 / 16, 0)
    built = tb.Model(
        (
            tb.Tensor((1, 4), "float32"),
            tensor((1, 4), scale),
            constant(np.eye(3, 4, dtype=np.int8) * 100, Scaled(0.01, 0)),
            tensor((1, 3), scale),
            tb.Tensor((1, 3), "float32"),
        ),
        (
            tb.Op("QUANTIZE", (0,), (1,)),
            tb.Op("FULLY_CONNECTED", (1, 2, -1), (3,)),
            tb.Op("DEQUANTIZE", (3,), (4,)),
        ),
        (0,),
        (4,),
    )
    model = tmp_path / "edges.tflite"
    model.write_bytes(built.bytes)
    inputs = np.eye(4, dtype=np.float32)[[0, 1, 2]]
    data = npz(tmp_path, inputs=inputs, labels=np.array([0, 1, 1]))
    arguments = ["evaluate", str(model), "--data", str(data), "--json"]
    assert json.loads(run(arguments, capsys)[1])["accuracy"] == pytest.approx(2 / 3)


def test_project_of_a_board_and_model_file_agree(
    project_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    documents = []
    for model in (project_folder, DIGITS):
        arguments = ["evaluate", str(model), "--data", str(DATA), "--json"]
        documents.append(json.loads(run(arguments, capsys)[1]))
    assert documents[0] | {"model": ""} == documents[1] | {"model": ""}
    assert documents[0]["task"] == "classification" and documents[0]["examples"] == 100


def test_manifest_with_another_name_is_bad_input(
    project_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(project_folder, tmp_path / "copy", symlinks=True)
    manifest = json.loads((copy / "tinygen.json").read_text())
    (copy / "tinygen.json").write_text(json.dumps(manifest | {"name": "../../x"}))
    assert run(["evaluate", str(copy), "--data", str(DATA)], capsys)[0] == 2


_TRAINED = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import contextlib, io, json, pathlib
import numpy as np
from tinygen import floatrun
keras = floatrun.import_keras()
folder = pathlib.Path(sys.argv[1])
keras.utils.set_random_seed(0)
model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
model.save(folder / "m.keras")
with contextlib.redirect_stdout(io.StringIO()):
    import tensorflow as tf
    converted = tf.lite.TFLiteConverter.from_keras_model(model).convert()
(folder / "m.tflite").write_bytes(converted)
(folder / "bad.keras").write_text("nothing")
from tinygen import evaluate, errors
from tinygen.datasets import Data
inputs = np.random.default_rng(0).random((70, 8, 8), np.float32)
found = [evaluate.outputs_of(folder / f, Data(inputs)) for f in ("m.keras", "m.tflite")]
assert found[0].shape == found[1].shape == (70, 10), (found[0].shape, found[1].shape)
assert np.allclose(*found, atol=1e-5)
for bad, data in (("bad.keras", inputs), ("m.keras", inputs[:, :7])):
    try:
        evaluate.outputs_of(folder / bad, Data(data))
    except errors.InputError:
        continue
    raise SystemExit(f"{bad} was taken")
from tinygen.cli import main
main(["evaluate", sys.argv[2], "--data", str(folder / "data.npz"), "--json",
      "--float", str(folder / "m.keras")])
"""


def test_float_models_are_compared_with(tmp_path: Path) -> None:
    """In a process of its own, for TensorFlow and tflite_micro crash in one."""
    inputs, labels = np.load(DATA)["inputs"], np.load(DATA)["labels"]
    npz(tmp_path, inputs=inputs, labels=labels)
    command = [sys.executable, "-c", _TRAINED, str(tmp_path), str(DIGITS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    document = json.loads(done.stdout)
    assert document["accuracy"] == 0.98
    assert document["float"]["model"] == "m.keras" and document["float"]["accuracy"] < 0.5
    assert 0 <= document["float"]["same_class"] < 0.5
    assert document["float"]["mean_difference"] > 0


def test_several_inputs_are_refused() -> None:
    graph: Graph = convolution()
    twice = replace(graph, outputs=(3, 3))
    data = Data(np.zeros((1, 5, 6, 3), np.float32))
    with pytest.raises(InputError, match="1 inputs and 2 outputs"):
        evaluate.network_inputs(twice, data, "data")
    assert list(islice(evaluate.TASKS, 1)) == ["classification"]
