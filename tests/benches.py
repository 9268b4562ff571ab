"""Benchmarks that several tests look at, measured once a process."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import shared_models

from benchmarks import results
from benchmarks.__main__ import models
from tinygen import bench, boards


def file(model: str) -> Path:
    """The file of ``model``; skips when it is a reference model and these are not there."""
    found = models(None, (model,))
    if not found:
        assert model != "digits_int8"
        pytest.skip(f"reference models not at {shared_models.FOLDER.name}")
    return found[0]


@functools.cache
def of(model: str, board: str) -> bench.Bench:
    """What ``model`` costs on ``board``; skips like :func:`file`."""
    return bench.bench(file(model), boards.load(board))


def row(model: str, board: str) -> results.Row:
    """The same as a row of the committed results."""
    return results.row(file(model), of(model, board))


def grouped(model: str, board: str, *marks: pytest.MarkDecorator) -> object:
    """Parameters for a test of ``model`` on ``board``, in the process that has measured it."""
    group = pytest.mark.xdist_group(f"{model}-{board}")
    return pytest.param(model, board, id=f"{model}-{board}", marks=(group, *marks))
