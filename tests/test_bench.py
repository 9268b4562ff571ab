"""What ``tinygen bench`` says about the kernels it measured."""

from __future__ import annotations

import io
import time
from pathlib import Path

import benches
import pytest
import shared_models
from rich.console import Console

from tinygen import bench, boards, emit
from tinygen.compile import compile_model
from tinygen.report import bench as report

DIGITS = Path(__file__).resolve().parents[1] / "examples" / "digits" / "digits_int8.tflite"


def test_steps_keep_the_kernels_that_were_not_taken() -> None:
    steps = compile_model(DIGITS, boards.load("qemu_m4")).plan.steps
    assert any(len(step.alternatives) > 1 for step in steps)
    for step in steps:
        cycles = {(c.variant, c.kernel): c.cycles for c in step.alternatives}
        assert cycles[step.variant, step.kernel.name] == step.kernel.cycles
        assert step.kernel.cycles == min(cycles.values())


@pytest.mark.parametrize(("model", "board"), benches.ON_M4)
def test_no_kernel_beats_its_bound(model: str, board: str) -> None:
    beaten = [
        f"{layer.kernel}: bound {layer.bound:,}, took {layer.instructions:,}"
        for layer in benches.of(model, board).layers
        if layer.bound > layer.instructions
    ]
    assert not beaten, "\n".join(beaten)


@shared_models.needed
def test_code_for_the_largest_model_is_made_in_five_seconds() -> None:
    """Of processor time, so that other work on the machine does not count."""
    largest = max(
        (shared_models.path(m) for m in shared_models.SUPPORTED), key=lambda p: p.stat().st_size
    )
    for board in ("qemu_m4", "qemu_m0"):
        start = time.process_time()
        compiled = compile_model(largest, boards.load(board))
        assert emit.sources(compiled.plan, compiled.name)
        assert time.process_time() - start < 5.0


def shown(result: bench.Bench, why: bool = False) -> str:
    console = Console(file=io.StringIO(), width=200)
    report.show(result, console, why)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.xdist_group("digits_int8-qemu_m4")
def test_a_report_says_why() -> None:
    result = benches.of("digits_int8", "qemu_m4")
    brief, long = shown(result), shown(result, why=True)
    assert "cycles (expected)" in brief
    assert "kernel that applies" not in brief
    assert long.count("taken") == len(result.layers)
    assert any(len(layer.alternatives) > 1 for layer in result.layers)
    entries = report.document(result)["layers"]
    assert [e["bound"] or 0 for e in entries] == [layer.bound for layer in result.layers]
    assert all(
        any(c["variant"] == e["variant"] and c["kernel"] == e["kernel"] for c in e["alternatives"])
        for e in entries
    )
