"""Dense layers of one row whose weights have four bits, computed as they lie."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import emulated_c
import host_c
import numpy as np
import pytest
from graphs import dense_chain, rectified

from tinygen import boards, plan, selection
from tinygen.graph import Array, Graph, Quant
from tinygen.ops import dsp_int4, fully_connected, int4
from tinygen.ops.dsp import FEATURES as DSP
from tinygen.selection import Option


@pytest.fixture
def preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four bits as they lie, wherever they can be had."""

    def select(found: Sequence[Sequence[Option]], *_: object, **__: object) -> tuple[Option, ...]:
        ours = [[o for o in some if o.kernel.encoding == "int4"] for some in found]
        return tuple(
            selection.fastest(first or selection.plain(some))
            for first, some in zip(ours, found, strict=True)
        )

    monkeypatch.setattr(selection, "select", select)


def four_bits(depth: int, channels: int, seed: int = 0) -> Graph:
    weights = np.random.default_rng(seed).integers(-8, 8, (channels, depth)).astype(np.int8)
    return scaled(dense_chain(depth, channels, seed=seed).with_tensor(1, data=weights))


def scaled(graph: Graph) -> Graph:
    """``graph`` with an output scale that suits weights of four bits."""
    return graph.with_tensor(2, quant=Quant((0.0207,), (5,)))


def clamped(graph: Graph) -> Graph:
    attrs = fully_connected.Attrs(activation="RELU_N1_TO_1")
    wide = graph.with_tensor(2, quant=Quant((0.02,), (5,)))
    return replace(wide, nodes=(replace(wide.nodes[0], attrs=attrs),))


def networks() -> dict[str, Graph]:
    made = {}
    for channels, depth in itertools.product((4, 5, 8, 9, 12, 13, 16, 20, 21, 24), (4, 8, 36)):
        made[f"d{channels}x{depth}"] = four_bits(depth, channels, seed=channels)
    made["large"] = four_bits(400, 120, seed=1)
    for value in (-8, 7):
        weights = np.full((9, 64), value, dtype=np.int8)
        made[f"all{value + 8}"] = scaled(dense_chain(64, 9)).with_tensor(1, data=weights)
    return {
        **made,
        **{f"{name}r": rectified(graph) for name, graph in made.items()},
        **{f"{name}c": clamped(graph) for name, graph in list(made.items())[::4]},
    }


def chosen(graph: Graph, features: frozenset[str] = DSP) -> str:
    (step,) = plan.make(graph, features).steps
    return step.kernel.name


NAMES = {
    DSP: {f"dense_int4_dsp{more}" for more in ("", "_exact", "_exact_clamped")},
    int4.FEATURES: {"dense_int4"},
}


@pytest.mark.usefixtures("preferred")
@pytest.mark.parametrize("features", NAMES, ids=["dsp", "portable"])
def test_every_number_of_channels(features: frozenset[str], tmp_path: Path) -> None:
    graphs = networks()
    assert {chosen(graph, features) for graph in graphs.values()} >= NAMES[features]
    host_c.check(graphs, tmp_path, features)


@pytest.mark.usefixtures("preferred")
@pytest.mark.parametrize("board", ["qemu_m4", "qemu_m0", "qemu_rv32", "qemu_xtensa"])
def test_emulated_cores(board: str, tmp_path: Path) -> None:
    graphs = list(networks().values())[:: 2 if board == "qemu_m4" else 6]
    emulated_c.check(boards.load(board), graphs, tmp_path)


def test_half_the_flash_for_a_tenth_of_cycles() -> None:
    (step,) = plan.make(four_bits(400, 120), DSP).steps
    assert step.kernel.encoding == "int4"
    (dense,) = plan.make(four_bits(400, 120), DSP, plan.Goal(slow_down=1.0)).steps
    assert dense.kernel.encoding == "dense"
    assert step.kernel.bytes < 0.55 * dense.kernel.bytes
    assert step.kernel.cycles < 1.1 * dense.kernel.cycles


@pytest.mark.parametrize("features", [frozenset(), frozenset({"rv32m"}), frozenset({"armv6m"})])
def test_half_the_flash_on_other_cores(features: frozenset[str]) -> None:
    (step,) = plan.make(four_bits(401, 33), features).steps
    assert step.kernel.name == "dense_int4"
    assert step.kernel.bytes < 0.6 * 401 * 33


@pytest.mark.usefixtures("preferred")
def test_what_does_not_fit_is_left_to_others() -> None:
    wide = np.full((8, 2048), 1, dtype=np.int8)
    assert chosen(scaled(dense_chain(2048, 8)).with_tensor(1, data=wide)).startswith("dense_int4")
    assert not chosen(
        scaled(dense_chain(2048, 8)).with_tensor(1, data=np.array(2 * wide + 1))
    ).startswith("dense_int4")
    eight = four_bits(16, 8)
    weights = np.array(eight.at(1).data)
    weights[3, 3] = 8
    assert not chosen(eight.with_tensor(1, data=weights)).startswith("dense_int4")


@pytest.mark.parametrize(("channels", "depth"), [(4, 4), (8, 12), (12, 8), (21, 4)])
def test_words_hold_the_weights(channels: int, depth: int) -> None:
    weights = np.random.default_rng(0).integers(-8, 8, (channels, depth)).astype(np.int8)
    assert np.array_equal(read(dsp_int4.nibble_words(weights), channels, depth), weights)


def read(words: Array, channels: int, depth: int) -> Array:
    """The weights in ``words``, one by one as kernels go through them."""
    found = np.zeros((-(-channels // 4) * 4, depth), dtype=np.int64)
    at = 0
    for first in range(0, channels, 8):
        blocks = 2 if channels - first > 4 else 1
        for pair, block in itertools.product(range(depth // 2), range(blocks)):
            for half in range(2):
                number = int(words[at]) >> 16 * half & 0xFFFF
                column = pair // 2 * 4 + pair % 2 + 2 * half
                nibbles = [number >> shift & 15 for shift in (12, 8, 4, 0)]
                nibbles[0] = (nibbles[0] ^ 8) - 8
                values = [nibbles[0], *(nibble - 8 for nibble in nibbles[1:])]
                found[first + 4 * block : first + 4 * block + 4, column] = values
            at += 1
    assert at == len(words)
    return found[:channels]
