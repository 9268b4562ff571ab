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


_MODELS = ("digits_int8", *(m for m in shared_models.SUPPORTED if m != "hello_world_int8"))
_QUICK = ("digits_int8", "ad01_int8", "kws_ref_model", "str_ww_ref_model")

ON_M4 = [
    grouped(model, "qemu_m4", *(() if model in _QUICK else (pytest.mark.wide,)))
    for model in _MODELS
]
"""Parameters (model, board) of tests that look at every layer on the Cortex-M4."""
