"""The example networks: what is committed is as good, as small and as fast as it is said to be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import results, tables
from examples import common, compress, distillation, figures, sparsity
from tinygen import datasets, importers

DOCUMENT = figures.load()
FILES = [(name, file) for name, by_file in DOCUMENT["results"].items() for file in by_file]
COMPRESSED = [f for f in FILES if not f[1].endswith("_int8")]
WEIGHED = ("CONV_2D", "FULLY_CONNECTED")
QUICK = [("motion", "motion_fast"), ("lenet", "lenet_small")]
PARAMETERS = [
    pytest.param(*f, id=f[1], marks=() if f in QUICK else (pytest.mark.wide,)) for f in FILES
]


def test_all_networks_are_there() -> None:
    assert set(DOCUMENT["results"]) == set(common.NAMES)
    for name in common.NAMES:
        assert f"{name}_int8" in DOCUMENT["results"][name]
        assert common.keras_file(name).stat().st_size < 500_000
        assert common.sample_file(name).stat().st_size < 300_000


@pytest.mark.parametrize("name", common.NAMES)
def test_samples_are_like_the_test_set(name: str) -> None:
    sample = datasets.load(common.sample_file(name))
    assert sample.labels is not None and sample.classes is not None
    counts = np.bincount(sample.labels)
    assert counts.min() > 0.3 * len(sample) / sample.classes


@pytest.mark.parametrize(
    ("name", "file"),
    [
        pytest.param(*f, id=f[1], marks=() if f[1].endswith("fast") else (pytest.mark.wide,))
        for f in FILES
    ],
)
def test_accuracy_is_what_it_was(name: str, file: str) -> None:
    """To the example: the same network, the same arithmetic."""
    said = DOCUMENT["results"][name][file]
    sample = datasets.load(common.sample_file(name))
    right = common.accuracy_of(common.HERE / name / f"{file}.tflite", sample) * len(sample)
    assert round(right) == said["sample_right"]
    assert abs(said["accuracy"] - right / len(sample)) < 0.04


@pytest.mark.parametrize(("name", "file"), PARAMETERS)
def test_cost_is_what_it_was(name: str, file: str) -> None:
    other = {k: v for k, v in results.tools().items() if DOCUMENT["tools"].get(k) != v}
    if other:
        pytest.skip(f"the committed results were measured with other tools than {other}")
    found = figures.cost(common.HERE / name / f"{file}.tflite")
    assert not results.changes(DOCUMENT["results"][name][file], found)


@pytest.mark.parametrize(("name", "file"), COMPRESSED)
def test_recipes_bring_what_is_claimed(name: str, file: str) -> None:
    """Against plain int8 of the same network; the figures themselves are held above."""
    plain, found = (DOCUMENT["results"][name][f] for f in (f"{name}_int8", file))
    assert found["accuracy"] >= plain["accuracy"] - 0.005 - 1e-9
    assert 4 * found["weights"] <= plain["elements"]
    assert 2 * found["library"] <= plain["library"]
    most = 1.2 if file.endswith("small") else 0.5
    assert found["instructions"] <= most * plain["instructions"]


@pytest.mark.parametrize(("name", "file"), COMPRESSED)
def test_structure_is_in_the_weights(name: str, file: str) -> None:
    graph = importers.load(common.HERE / name / f"{file}.tflite")
    kernels = [graph.at(node.inputs[1]).data for node in graph.nodes if node.op in WEIGHED]
    largest = max((k for k in kernels if k is not None), key=lambda k: k.size)
    assert len(np.unique(largest)) <= 32
    assert (largest == 0).mean() > 0.7 or file.endswith("fast")


def test_distillation_helps_with_every_seed() -> None:
    found = json.loads(distillation.FILE.read_text(encoding="utf-8"))
    assert len(found["taught"]) == len(found["alone"]) == len(distillation.SEEDS)
    assert np.mean(found["taught"]) > np.mean(found["alone"]) + 0.005


def test_sparse_recovery_beats_magnitude_pruning() -> None:
    points = json.loads(sparsity.FILE.read_text(encoding="utf-8"))
    at = {(p["solver"], p["sparsity"]): p for p in points}
    for part in sparsity.SPARSITIES:
        magnitude = at["magnitude", part]
        for solver in sparsity.SOLVERS[1:]:
            assert at[solver, part]["error"] < magnitude["error"]
            assert at[solver, part]["accuracy"] >= magnitude["accuracy"] - 0.001


@pytest.mark.parametrize("path", sorted(common.HERE.glob("*/*.toml")), ids=lambda p: p.stem)
def test_recipes_can_be_read(path: Path) -> None:
    assert compress.read(path)


def test_document_is_written_as_it_is_read() -> None:
    assert (
        figures.FILE.read_text(encoding="utf-8")
        == json.dumps(DOCUMENT, indent=1, sort_keys=True) + "\n"
    )


def test_readme_says_the_same() -> None:
    page = tables.README.read_text(encoding="utf-8")
    assert page == figures.readme(page, DOCUMENT)
    assert "`lenet_fast`" in page
