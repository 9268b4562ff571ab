"""What ``tinygen bench`` says about the kernels it measured."""

from __future__ import annotations

from pathlib import Path

from tinygen import boards
from tinygen.compile import compile_model

DIGITS = Path(__file__).resolve().parents[1] / "examples" / "digits" / "digits_int8.tflite"


def test_steps_keep_the_kernels_that_were_not_taken() -> None:
    steps = compile_model(DIGITS, boards.load("qemu_m4")).plan.steps
    assert any(len(step.alternatives) > 1 for step in steps)
    for step in steps:
        taken = next(c for c in step.alternatives if c.variant == step.variant)
        assert (taken.kernel, taken.cycles) == (step.kernel.name, step.kernel.cycles)
        assert taken.cycles == min(c.cycles for c in step.alternatives)
