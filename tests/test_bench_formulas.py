"""Whether kernels know what they cost: the planner chooses by what they say of themselves."""

from __future__ import annotations

import benches
import pytest

TOLERANCE = 0.2
"""How far expected cycles may lie from the estimate, as a share of it."""
SMALLEST = 10_000
"""Cycles below which a layer is too small to matter."""


@pytest.mark.parametrize(("model", "board"), benches.ON_M4)
def test_kernels_know_what_they_take(model: str, board: str) -> None:
    """Expected cycles, by which the planner chooses, against the estimate from executed blocks.

    Portable kernels are left out: they serve any core, and state cycles for none in particular.
    So are kernels that state nothing.
    """
    off = [
        f"{layer.kernel}: expects {layer.expected:,}, took {layer.cycles:,} "
        f"({layer.expected / layer.cycles - 1:+.0%})"
        for layer in benches.of(model, board).layers
        if layer.cycles is not None
        and layer.cycles > SMALLEST
        and layer.variant != "portable"
        and layer.expected > 0
        and abs(layer.expected / layer.cycles - 1) > TOLERANCE
    ]
    assert not off, "\n".join(off)
