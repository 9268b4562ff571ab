"""What encoded weights cost and save on real networks, measured on an emulated Cortex-M4."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import shared_models
from test_selection import few_values, shaped

from tinygen import bench, boards, importers
from tinygen.exporters import tflite
from tinygen.graph import Array
from tinygen.plan import Goal

M4 = boards.load("qemu_m4")


pytestmark = shared_models.needed


def measured(path: Path, goal: Goal) -> bench.Bench:
    """Costs; while they are measured the output bytes are held against the reference."""
    return bench.bench(path, M4, goal)


def four_bits(weights: Array) -> Array:
    return np.random.default_rng(3).integers(-7, 8, weights.shape).astype(np.int8)


def sixteen_values(weights: Array) -> Array:
    table = np.linspace(-127, 127, 16).astype(np.int8)
    return np.asarray(table[np.abs(weights[..., None] - table.astype(int)).argmin(-1)])


@pytest.mark.parametrize("structure", [four_bits, sixteen_values, few_values])
def test_packed_weights_cost_convolutions_little(
    structure: Callable[[Array], Array], tmp_path: Path
) -> None:
    graph = shaped(importers.load(shared_models.path("kws_ref_model")), structure)
    path = tmp_path / "kws.tflite"
    path.write_bytes(tflite.dump(graph))
    dense, packed = measured(path, Goal("speed", slow_down=1.0)), measured(path, Goal())
    pairs = [
        (plain.instructions, coded.instructions)
        for plain, coded in zip(dense.layers, packed.layers, strict=True)
        if plain.op == "CONV_2D" and coded.alternatives[-1].kernel.startswith(f"{plain.kernel}, ")
    ]
    assert len(pairs) >= 4
    assert all(plain < coded <= 1.15 * plain for plain, coded in pairs), pairs
    assert packed.weight_bytes < 0.66 * dense.weight_bytes


def test_entropy_coding_takes_a_quarter_off_a_network_of_dense_layers() -> None:
    path = shared_models.path("ad01_int8")
    plain, coded = measured(path, Goal()), measured(path, Goal(slow_down=40.0))
    assert coded.sizes.flash.total <= 0.75 * plain.sizes.flash.total
    assert coded.instructions > plain.instructions
