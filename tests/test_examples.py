"""The example networks: what is committed is as good, as small and as fast as it is said to be."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import results
from examples import common, figures
from tinygen import datasets

DOCUMENT = figures.load()
FILES = [(name, file) for name, by_file in DOCUMENT["results"].items() for file in by_file]
QUICK = [f for f in FILES if f[0] == "motion" or f == ("lenet", "lenet_int8")]
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


@pytest.mark.parametrize(("name", "file"), list(FILES))
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


def test_document_is_written_as_it_is_read() -> None:
    assert (
        figures.FILE.read_text(encoding="utf-8")
        == json.dumps(DOCUMENT, indent=1, sort_keys=True) + "\n"
    )
