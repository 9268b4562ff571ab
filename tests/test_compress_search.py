"""The search keeps within limits, goes on where it stopped, and repeats by its seed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import compress_child
import numpy as np
import pytest
from graphs import dense_chain

from tinygen import importers, reference
from tinygen.cli import main
from tinygen.compress import METHODS, chain, network, parse, recipe, search, space
from tinygen.compress.base import Context, Method, Settings
from tinygen.datasets import Data
from tinygen.errors import InputError
from tinygen.exporters import tflite as exporter
from tinygen.graph import Quant
from tinygen.report import compress as report

HERE = Path(__file__).parent
PICTURES = report._pictures

pytestmark = pytest.mark.xdist_group("compress_search")


@dataclass(frozen=True)
class Files:
    """A small network, and data that it is right for."""

    model: Path
    data: Path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("small")
    graph = dense_chain(16, 12, 4)
    tensors = [replace(t, quant=_in_float32(t.quant)) if t.quant else t for t in graph.tensors]
    graph = replace(graph, tensors=tuple(tensors))
    files = Files(folder / "small.tflite", folder / "data.npz")
    files.model.write_bytes(exporter.dump(graph))
    rng = np.random.default_rng(0)
    inputs = rng.integers(-128, 128, (200, 1, 16)).astype(np.int8)
    outputs = np.concatenate([reference.run(graph, [one])[0] for one in inputs])
    np.savez(files.data, inputs=inputs, labels=outputs.argmax(axis=1))
    return files


def _in_float32(quant: Quant) -> Quant:
    return replace(quant, scale=tuple(float(np.float32(scale)) for scale in quant.scale))


@pytest.fixture
def rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """The quick method in place of the real ones, and no pictures."""
    monkeypatch.setattr(report, "_pictures", lambda outcome: {})
    monkeypatch.setattr(search, "METHODS", compress_child.METHODS)
    for name in ("DRAWS", "SLOTS", "PRESETS"):
        monkeypatch.setattr(space, name, getattr(compress_child, name))


def words(
    files: Files, folder: Path, *more: str, model: Path | None = None, data: Path | None = None
) -> list[str]:
    found = ["compress", str(model or files.model), "--board", "host", "--json"]
    return [*found, "--data", str(data or files.data), "-o", str(folder / "out.tflite"), *more]


def without_data(arguments: list[str]) -> list[str]:
    at = arguments.index("--data")
    return arguments[:at] + arguments[at + 2 :]


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, Any, str]:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    said = capsys.readouterr()
    assert "Traceback" not in said.err and "bug" not in said.err
    return int(end.value.code or 0), json.loads(said.out) if said.out else None, said.err


def tried(document: Any) -> list[Any]:
    return [
        (row["recipe"], row["points"], row["figures"] and row["figures"]["weights"])
        for row in document["rows"]
    ]


# ---- recipes -------------------------------------------------------------------------------------


def test_words_become_tables() -> None:
    assert recipe.from_words("prune") == {"method": "prune"}
    assert recipe.from_words("prune:sparsity=0.7, pattern=1x4,first=true,epochs=3") == {
        "method": "prune",
        "sparsity": 0.7,
        "pattern": "1x4",
        "first": True,
        "epochs": 3,
    }
    assert recipe.from_words('prune:skip=["a,b", "c"],layers={a = 0.5, "b.c" = 1},x="p,q"') == {
        "method": "prune",
        "skip": ["a,b", "c"],
        "layers": {"a": 0.5, "b.c": 1},
        "x": "p,q",
    }
    with pytest.raises(InputError, match="no setting"):
        recipe.from_words("prune:sparsity")


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_recipes_survive_being_written(method: Method, tmp_path: Path) -> None:
    steps = parse([{"method": method.name}], METHODS)
    path = tmp_path / "r.toml"
    path.write_text(recipe.toml(recipe.document(steps)))
    assert parse(recipe.from_file(path), METHODS) == steps


def test_odd_settings_survive_being_written(tmp_path: Path) -> None:
    table = {"method": "x", "a": {"b c": [1, 2.5, 'q"\\\n'], "d": False}, "e": 1e-30}
    path = tmp_path / "r.toml"
    path.write_text(recipe.toml([table, table]))
    assert recipe.from_file(path) == (table, table)


@pytest.mark.parametrize("kind", space.SLOTS)
def test_whatever_is_drawn_is_a_recipe(kind: network.Kind) -> None:
    """Every setting in the table is one of the method's, at both ends of what is drawn."""
    data = Data(np.zeros((2, 3), np.float32), np.zeros(2, np.int64))
    drawn = space.space(kind, data, METHODS)
    for name, draws in space.DRAWS.items():
        method = next(m for m in METHODS if m.name == name)
        for setting, draw in draws.items():
            ends = draw.values.values() if isinstance(draw, space.Choice) else (draw.low, draw.high)
            for value in ends:
                parse([{"method": method.name, setting: value}], METHODS)
    assert drawn.slots

    class Pick:
        def __init__(self, last: bool) -> None:
            self.at = -1 if last else 0

        def suggest_categorical(self, name: str, choices: Any) -> Any:
            return choices[self.at]

        def suggest_float(self, name: str, low: float, high: float, *, step: Any = None) -> float:
            return high if self.at else low

        suggest_int = suggest_float

    for last in (False, True):
        steps = parse(drawn.tables(Pick(last)), METHODS)  # type: ignore[arg-type]
        network.complete(steps, kind, METHODS)


def test_presets_are_within_what_is_drawn() -> None:
    data = Data(np.zeros((2, 3), np.float32), np.zeros(2, np.int64))
    drawn = space.space("keras", data, METHODS)
    presets = drawn.presets()
    assert presets and presets[0]["quantize.quantize.calibration"] == "minmax"
    for preset in presets:
        for name, value in preset.items():
            _, _, rest = name.partition(".")
            if not rest:
                continue
            method, _, setting = rest.partition(".")
            draw = space.DRAWS[method][setting]
            if isinstance(draw, space.Choice):
                assert value in draw.values
            else:
                assert draw.low <= value <= draw.high


def test_every_method_is_searched_or_left_out_on_purpose() -> None:
    searched = {name for slots in space.SLOTS.values() for slot in slots for name in slot.methods}
    assert searched == set(space.DRAWS)
    assert {method.name for method in METHODS} - searched == set()


def test_labels_and_data_decide_what_is_searched() -> None:
    def method(name: str, needs: Any) -> Method:
        return Method(name, "float", "", "", Settings, lambda n, s, c: n, needs)

    known = [
        method("prune_filters", "labels"),
        method("low_rank", "inputs"),
        method("other", "nothing"),
    ]
    draws: dict[str, Any] = {m.name: {} for m in known}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(space, "DRAWS", draws)
        unlabelled = Data(np.zeros((2, 3), np.float32))
        (slot,) = space.space("keras", unlabelled, known).slots
        assert slot.methods == ("low_rank",)
        labelled = Data(unlabelled.inputs, np.zeros(2, np.int64))
        (slot,) = space.space("keras", labelled, known).slots
        assert slot.methods == ("prune_filters", "low_rank")


# ---- what recipes make is kept -------------------------------------------------------------------


def test_networks_are_kept_by_what_they_are_made_of(
    small: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    monkeypatch.setenv("ROUND_LOG", str(log))
    methods = compress_child.METHODS

    def made(*inputs: str, steps: list[int]) -> bytes:
        links = chain.Chain(small.model, "int8", inputs, Context(), tmp_path / "kept")
        tables = [{"method": "round", "step": step} for step in steps]
        return links.file(parse(tables, methods)).read_bytes()

    first = made("seed 0", steps=[8, 16])
    assert log.read_text() == "8\n16\n"
    assert made("seed 0", steps=[8, 16]) == first
    made("seed 0", steps=[8])
    assert log.read_text() == "8\n16\n"
    made("seed 0", steps=[8, 32])
    assert log.read_text() == "8\n16\n32\n"
    made("seed 1", steps=[8])
    made("seed 0", steps=[16])
    assert log.read_text() == "8\n16\n32\n8\n16\n"


def test_steps_must_follow_from_each_other() -> None:
    def step(name: str, stage: Any) -> dict[str, Method]:
        return {name: Method(name, stage, "", "", Settings, lambda n, s, c: n)}

    methods = tuple(
        (step("f", "float") | step("quantize", "quantize") | step("i", "int8")).values()
    )

    def names(kind: network.Kind, *given: str) -> list[str]:
        steps = parse([{"method": name} for name in given], methods)
        return [s.method.name for s in network.complete(steps, kind, methods)]

    assert names("keras", "f", "i") == ["f", "quantize", "i"]
    assert names("keras") == names("float") == ["quantize"]
    assert names("int8", "i") == ["i"]
    for kind, given in (
        ("int8", ["f"]),
        ("int8", ["quantize"]),
        ("float", ["f"]),
        ("keras", ["quantize", "f"]),
        ("keras", ["i", "quantize"]),
    ):
        with pytest.raises(InputError, match="takes"):
            names(kind, *given)  # type: ignore[arg-type]


# ---- the verb ------------------------------------------------------------------------------------


def test_search_chooses_the_least_flash_within_the_limits(
    rounding: None,
    small: Files,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(report, "_pictures", PICTURES)
    code, document, err = run(words(small, tmp_path, "--trials", "4"), capsys)
    assert code == 0, err
    rows = document["rows"]
    assert len(rows) == 4 and document["chosen"]["points"] >= document["given"]["points"] - 0.5
    within = [row for row in rows if all(v <= 0 for v in row["beyond"].values())]
    least = min(row["figures"]["flash"] for row in within)
    assert document["chosen"]["figures"]["flash"] == least
    made = importers.load(tmp_path / "out.tflite")
    assert [n.op for n in made.nodes] == [n.op for n in importers.load(small.model).nodes]
    folder = tmp_path / "out.report"
    assert json.loads((folder / "report.json").read_text()) == document
    assert "## Recipe" in (folder / "report.md").read_text()
    assert (folder / "tradeoff.png").stat().st_size > 1000
    assert (folder / "tradeoff.svg").read_text().lstrip().startswith("<?xml")
    assert not list(tmp_path.glob(".*"))


def test_recipe_of_the_report_makes_the_same_network(
    rounding: None, small: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = ("--method", "round:step=3", "--method", "round:step=9")
    code, document, err = run(words(small, tmp_path, *steps, "--test", str(small.data)), capsys)
    assert code == 0, err
    assert [row["what"] for row in document["rows"]] == ["round step=3", "round step=9"]
    assert document["test_scores"]["given"]["accuracy"] == 1
    assert set(document["test_scores"]) == {"given", "plain", "chosen"}
    again = tmp_path / "again"
    again.mkdir()
    file = tmp_path / "out.report" / "recipe.toml"
    assert run(words(small, again, "--recipe", str(file)), capsys)[0] == 0
    assert (again / "out.tflite").read_bytes() == (tmp_path / "out.tflite").read_bytes()


def test_project_file_may_hold_the_recipe(
    rounding: None,
    small: Files,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tinygen.toml").write_text('[[compress]]\nmethod = "round"\nstep = 5\n')
    code, document, _ = run(words(small, tmp_path), capsys)
    assert code == 0 and [row["what"] for row in document["rows"]] == ["round step=5"]
    (tmp_path / "tinygen.toml").write_text('[[compress]]\nmethod = "round"\nsteps = 5\n')
    code, document, _ = run(words(small, tmp_path), capsys)
    assert code == 2 and "steps" in document["error"]["message"]


def test_limits_that_cannot_be_met_leave_no_output(
    rounding: None, small: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = words(small, tmp_path, "--trials", "2", "--ram-limit", "10", "--flash-limit", "100")
    code, document, _ = run(arguments, capsys)
    assert code == 3 and not (tmp_path / "out.tflite").exists()
    message = document["error"]["message"]
    assert "nearest is" in message and message.count("more than") == 2
    assert (tmp_path / "out.study.db").is_file()
    assert "Nothing that was tried" in (tmp_path / "out.report" / "report.md").read_text()


def test_accuracy_lost_is_a_limit_of_recipes_when_asked_for(
    rounding: None, small: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = words(small, tmp_path, "--method", "round:step=127")
    assert run(arguments, capsys)[0] == 0
    (tmp_path / "out.tflite").unlink()
    code, document, _ = run([*arguments, "--max-accuracy-loss", "1"], capsys)
    assert code == 3 and "points" in document["error"]["message"]
    assert not (tmp_path / "out.tflite").exists()


def test_a_failing_method_ends_its_trial_alone(
    rounding: None,
    small: Files,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    presets = ((), ({"method": "round", "fail": True},), ({"method": "round", "step": 2},))
    draws = {
        "round": {"step": space.Number(1, 4), "fail": space.Choice({"False": False, "True": True})}
    }
    monkeypatch.setattr(space, "PRESETS", presets)
    monkeypatch.setattr(space, "DRAWS", draws)
    code, document, _ = run(words(small, tmp_path, "--trials", "3"), capsys)
    assert code == 0
    assert [row["note"] for row in document["rows"]] == ["", "failed: RuntimeError: asked to", ""]


def test_a_float_model_that_lost_far_too_much_is_given_up() -> None:
    """Behind the step that lost it, the ones after not being carried out."""
    step = Method("f", "float", "", "", Settings, lambda n, s, c: n)
    steps = parse([{"method": "f"}] * 3, (step,))
    asked = []

    def points(prefix: Any) -> float:
        asked.append(len(prefix))
        return (99.0, 100 - 0.5 - search.HOPELESS - 0.1, 0.0)[len(prefix) - 1]

    limits = search.Limits(accuracy_loss=0.5)
    job: Any = SimpleNamespace(request=SimpleNamespace(limits=limits), _float_points=points)
    given = search.Row("given", float_points=100.0)
    assert search._Job._hopeless(job, steps, given) == pytest.approx(5.6)
    assert asked == [1, 2]
    assert search._Job._hopeless(job, steps[:1], given) is None


def test_without_labels_the_given_model_is_the_judge(
    rounding: None, small: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "inputs.npz"
    np.savez(path, x=np.load(small.data)["inputs"])
    arguments = words(small, tmp_path, "--method", "round:step=4", data=path)
    code, document, _ = run(arguments, capsys)
    assert code == 0 and document["given"]["points"] == 100
    assert document["judged_by"] == "the classes that the given model finds"
    assert 50 < document["rows"][0]["points"] <= 100


def test_without_data_nothing_lossy_is_done(
    rounding: None, small: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, document, err = run(without_data(words(small, tmp_path)), capsys)
    assert code == 0 and "without data" in err and document["rows"] == []
    assert (tmp_path / "out.tflite").read_bytes() == small.model.read_bytes()
    code, document, _ = run(without_data(words(small, tmp_path, "--method", "round")), capsys)
    assert code == 2 and "needs data" in document["error"]["message"]


def test_timeout_keeps_what_there_is(
    rounding: None,
    small: Files,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter(range(0, 100_000, 1))
    monkeypatch.setattr(search.time, "monotonic", lambda: float(next(clock)))
    code, document, _ = run(words(small, tmp_path, "--timeout", "60", "--trials", "40"), capsys)
    assert code == 0 and len(document["rows"]) < 40


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--method", "nothing"], "no method is called 'nothing'"),
        (["--method", "round:step=x"], "step"),
        (["--method", "round:step"], "no setting"),
        (["--method", "round", "--recipe", "r.toml"], "give one of them"),
        (["--method", "round", "--trials", "3"], "give one of them"),
        (["--recipe", "none.toml"], "none.toml"),
        (["--study", "nosuch://host/x"], "cannot keep a study"),
        (["--validation", "none.npz"], "none.npz"),
        (["--task", "regression"], "targets"),
        (["--board", "nosuch"], "nosuch"),
        (["-o", "out.bin"], ".tflite"),
    ],
)
def test_bad_usage(
    more: list[str],
    message: str,
    rounding: None,
    small: Files,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, document, _ = run(words(small, tmp_path, *more), capsys)
    assert code == 2 and message in document["error"]["message"]
    assert not (tmp_path / "out.tflite").exists()


def test_bad_data(
    rounding: None, small: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.npz"
    for inputs, labels in (
        (np.zeros((9, 5)), np.zeros(9, int)),
        (np.zeros((9, 16)), np.full(9, 10)),
        (np.zeros((1, 16)), np.zeros(1, int)),
    ):
        np.savez(path, inputs=inputs, labels=labels)
        assert run(words(small, tmp_path, data=path), capsys)[0] == 2
    path.write_text("no archive")
    assert run(words(small, tmp_path, data=path), capsys)[0] == 2
    assert run(words(small, tmp_path, model=path), capsys)[0] == 2


def test_several_edges_are_refused(
    small: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = importers.load(small.model)
    model = tmp_path / "two.tflite"
    model.write_bytes(exporter.dump(replace(graph, outputs=(*graph.outputs, 2))))
    path = tmp_path / "d.npz"
    np.savez(path, x=np.zeros((9, 16)), y=np.zeros(9, int))
    code, document, _ = run(words(small, tmp_path, model=model, data=path), capsys)
    assert code == 2 and "2 outputs" in document["error"]["message"]


# ---- stop, resume, repeat ------------------------------------------------------------------------


def killed(files: Files, folder: Path) -> subprocess.CompletedProcess[str]:
    """A search in a process of its own, killed with its second new trial made but not recorded."""
    command = [sys.executable, str(HERE / "compress_child.py"), *words(files, folder)]
    return subprocess.run(
        [*command, "--trials", "6"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=os.environ | {"PYTHONPATH": str(HERE.parent), "KILL_AFTER": "2"},
    )


def test_stopped_search_goes_on_as_if_it_had_not_been(
    rounding: None,
    small: Files,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed first, then refused without --resume, then interrupted, then resumed."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    code, through, _ = run(words(small, whole, "--trials", "6"), capsys)
    assert code == 0 and len(through["rows"]) == 6
    assert killed(small, parts).returncode == -signal.SIGKILL
    again = words(small, parts, "--trials", "6")
    code, document, _ = run(again, capsys)
    assert code == 2 and "--resume" in document["error"]["hint"]
    with monkeypatch.context() as patch:
        patch.setattr(report.Lines, "__call__", report.Lines.__call__)
        compress_child.stop_after(2, signal.SIGTERM)
        code, document, _ = run([*again, "--resume"], capsys)
    assert code == 1 and "--resume goes on" in document["error"]["hint"]
    assert not (parts / "out.tflite").exists()
    log = tmp_path / "log"
    monkeypatch.setenv("ROUND_LOG", str(log))
    code, resumed, _ = run([*again, "--resume"], capsys)
    assert code == 0 and tried(resumed) == tried(through)
    assert len(log.read_text().split()) == 2  # the interrupted one had been made
    assert (parts / "out.tflite").read_bytes() == (whole / "out.tflite").read_bytes()


@pytest.mark.wide
def test_searches_repeat_by_their_seed_and_share_a_journal(
    rounding: None, small: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def search_in(name: str, trials: int, seed: int, *more: str) -> list[Any]:
        (tmp_path / name).mkdir()
        common = ("--trials", str(trials), "--seed", str(seed), *more)
        code, document, _ = run(words(small, tmp_path / name, *common), capsys)
        assert code == 0 and (tmp_path / name / "out.tflite").is_file()
        return tried(document)

    shared = ("--study", str(tmp_path / "journal.log"))
    first = search_in("a", 4, 1)
    assert search_in("b", 4, 2) != first
    assert search_in("c", 2, 1, *shared) == first[:2]
    assert search_in("d", 4, 1, *shared) == first


# ---- float models --------------------------------------------------------------------------------

_KERAS = """
import contextlib, io, json, pathlib, sys
import numpy as np
from tinygen import cli, floatrun
keras = floatrun.import_keras()
folder = pathlib.Path(sys.argv[1])
keras.utils.set_random_seed(0)
model = keras.Sequential([
    keras.Input((6, 6, 1), batch_size=1),
    keras.layers.Conv2D(8, 3, activation="relu"),
    keras.layers.Flatten(),
    keras.layers.Dense(3, activation="softmax"),
])
rng = np.random.default_rng(0)
inputs = rng.normal(size=(300, 6, 6)).astype(np.float32)
labels = np.argmax(floatrun.predict(model, inputs), axis=1)
np.savez(folder / "data.npz", inputs=inputs, labels=labels)
model.save(folder / "m.keras")
from tinygen.compress import keras_graph
(folder / "m.tflite").write_bytes(keras_graph.to_tflite(model))

def run(model, name, *more):
    said = io.StringIO()
    arguments = ["compress", str(folder / model), "--data", str(folder / "data.npz"), "--json",
                 "--board", "host", "-o", str(folder / f"{name}.tflite"), *more]
    with contextlib.redirect_stdout(said):
        try:
            cli.main(arguments)
        except SystemExit as end:
            assert end.code == 0, said.getvalue()
    return json.loads(said.getvalue())

prune = ("--method", "prune:epochs=2,sparsity=0.5")
documents = {
    "steps": run("m.keras", "steps", *prune, "--method", "cluster:epochs=1,entries=8"),
    "float": run("m.tflite", "float", "--method", "cluster_weights:entries=4"),
}
if "wide" in sys.argv:
    again = run("m.keras", "again", *prune, "--method", "cluster:epochs=1,entries=8", "--seed", "0")
    documents |= {"again": again, "search": run("m.keras", "search", "--trials", "6")}
print(json.dumps(documents))
"""


def keras_child(folder: Path, *more: str) -> Any:
    """In a process of its own, for TensorFlow and tflite_micro crash in one."""
    command = [sys.executable, "-c", _KERAS, str(folder), *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_float_models_from_end_to_end(tmp_path: Path) -> None:
    documents = keras_child(tmp_path)
    steps = documents["steps"]
    assert steps["given"]["float_points"] == 100 and steps["given"]["figures"] is None
    assert steps["plain"]["points"] > 90 and steps["plain"]["float_points"] == 100
    names = [row["recipe"][-1]["method"] for row in steps["rows"]]
    assert names == ["prune", "cluster", "quantize"]
    floats = [row["float_points"] for row in steps["rows"]]
    assert None not in floats and floats[1] == floats[2] and steps["rows"][2]["points"] is not None
    tensors = importers.load(tmp_path / "steps.tflite").tensors
    (dense,) = (t.data for t in tensors if t.shape == (3, 128) and t.data is not None)
    assert len(np.unique(dense)) <= 9 and (dense == 0).mean() > 0.45
    shared = importers.load(tmp_path / "float.tflite").tensors
    assert any(t.data is not None and len(np.unique(t.data)) in (3, 4) for t in shared)
    assert documents["float"]["rows"][-1]["what"] == "cluster_weights entries=4"


@pytest.mark.wide
def test_float_models_repeat_and_are_searched(tmp_path: Path) -> None:
    documents = keras_child(tmp_path, "wide")
    assert tried(documents["again"]) == tried(documents["steps"])
    assert (tmp_path / "again.tflite").read_bytes() == (tmp_path / "steps.tflite").read_bytes()
    assert len(documents["search"]["rows"]) == 6
    assert not any(row["note"].startswith("failed") for row in documents["search"]["rows"])


def test_float_models_need_data(
    tmp_path: Path, small: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "m.keras"
    model.write_text("nothing")
    code, document, _ = run(words(small, tmp_path, model=model), capsys)
    assert code == 2 and "m.keras" in document["error"]["message"]
