"""Kernels that read weights without their zeros: exact on any shape, faster where they say so."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import emulated_c
import host_c
import numpy as np
import pytest
from graphs import convolution, dense_chain
from host_c import HostModels
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygen import bench, boards, plan, reference
from tinygen.compile import Compiled
from tinygen.graph import Graph, Quant
from tinygen.ops import BY_NAME, conv2d, sparse
from tinygen.ops.base import Kernel, Variant
from tinygen.ops.common import Pads

PIXEL = conv2d.Attrs(padding="VALID")
SHARES = (0.6, 0.95, 0.8, 1.0)
CORES = ("qemu_m4", "qemu_m3", "qemu_m0", "qemu_rv32", "qemu_xtensa")


def thinned(graph: Graph, zeros: float, seed: int = 0, block: int = 1) -> Graph:
    """``graph`` with so large a share of its first layer's weights zero, ``block`` at a time."""
    random = np.random.default_rng(seed)
    weights = graph.required(graph.nodes[0], 1).data
    assert weights is not None
    blocks = np.pad(weights.reshape(-1), (0, -weights.size % block)).reshape(-1, block)
    blocks[random.random(len(blocks)) < zeros] = 0
    return graph.with_tensor(1, data=blocks.reshape(-1)[: weights.size].reshape(weights.shape))


def blocked(graph: Graph, zeros: float, seed: int = 0) -> Graph:
    """``graph`` with zeros for four inputs of two channels at a time in its first layer."""
    random = np.random.default_rng(seed)
    weights = graph.required(graph.nodes[0], 1).data
    assert weights is not None
    taps = weights.reshape(len(weights) // 2, 2, -1)
    fours = random.random((len(taps), 1, -(-taps.shape[2] // 4))) < zeros
    gone = np.repeat(fours, 4, axis=2)[:, :, : taps.shape[2]]
    return graph.with_tensor(1, data=np.where(gone, 0, taps).astype(np.int8).reshape(weights.shape))


def few_valued(graph: Graph) -> Graph:
    """``graph`` with no more than fourteen values of its first layer's weights, and zero."""
    weights = graph.required(graph.nodes[0], 1).data
    assert weights is not None
    return graph.with_tensor(1, data=(np.trunc(weights / 17) * 17).astype(np.int8))


def with_output(graph: Graph, zero_point: int, scale: float | None = None) -> Graph:
    """``graph`` with another output quantization: it decides how kernels requantize."""
    index = graph.outputs[0]
    return graph.with_tensor(index, quant=Quant((scale or graph.at(index).scale,), (zero_point,)))


def activated(graph: Graph, activation: str) -> Graph:
    """``graph`` with an activation fused into its layer."""
    node = graph.nodes[0]
    return replace(graph, nodes=(replace(node, attrs=replace(node.attrs, activation=activation)),))


@functools.cache
def networks() -> dict[str, Graph]:
    """Layers of one row and of several, of every remainder of entries and channels."""
    made = {}
    shapes = ((1, 1), (3, 2), (8, 5), (17, 3), (40, 8), (64, 13), (300, 4), (1100, 2), (1024, 3))
    for i, (depth, channels) in enumerate(shapes):
        graph = thinned(dense_chain(depth, channels, seed=i), SHARES[i % 4], seed=i)
        graph = few_valued(graph) if i % 2 else graph
        made[f"dense{depth}x{channels}"] = with_output(graph, (-128, -9, 5)[i % 3])
    for i, zero_point in enumerate((-128, 0, 127)):
        graph = thinned(dense_chain(50, 6, seed=i), 0.7)
        made[f"both{i}"] = with_output(graph, zero_point, 0.11)
        made[f"relu{i}"] = activated(with_output(graph, zero_point, 0.13), "RELU6")
    for width, depth in ((1, 30), (3, 32), (5, 30), (6, 32), (7, 32)):
        graph = thinned(convolution((1, width, depth), (7, 1, 1), PIXEL, seed=width), 0.75)
        graph = few_valued(graph) if width > 3 else graph
        made[f"pixels{width}"] = with_output(graph, (-9, -128)[width in (5, 6)])
    for i, (image, filters, attrs) in enumerate(WINDOWS):
        graph = thinned(convolution(image, filters, attrs, seed=i), (0.5, 0.8)[i % 2], seed=i)
        graph = few_valued(graph) if i > 1 else graph
        made[f"window{i}"] = graph if i % 2 else with_output(graph, -128)
    for i, (image, filters, zeros) in enumerate(BLOCKS):
        graph = blocked(convolution(image, filters, PIXEL, seed=i), zeros, seed=i)
        made[f"blocks{i}"] = with_output(graph, (-9, -128)[i % 2])
    return made


BLOCKS = (
    ((5, 6, 8), (4, 3, 3), 0.6),
    ((6, 7, 3), (6, 3, 3), 0.8),
    ((1, 7, 32), (8, 1, 1), 0.7),
    ((1, 6, 30), (4, 1, 1), 0.6),
    ((1, 5, 32), (6, 1, 1), 1.0),
    ((1, 4, 1200), (4, 1, 1), 0.995),
)
"""Images, filters and shares of zeros in blocks."""


WINDOWS = (
    ((5, 6, 3), (4, 3, 3), conv2d.Attrs()),
    ((5, 5, 12), (3, 3, 3), conv2d.Attrs(stride=(2, 2))),
    ((7, 7, 1), (1, 2, 2), conv2d.Attrs()),
    ((9, 8, 4), (6, 3, 2), conv2d.Attrs(padding="VALID", stride=(2, 1))),
    ((9, 11, 2), (5, 3, 2), conv2d.Attrs(dilation=(2, 3))),
    ((3, 3, 40), (2, 3, 3), conv2d.Attrs(padding="EXPLICIT", pads=Pads(3, 3, 3, 3))),
)
"""Images, filters and windows that pad, stride, dilate; most leave pixels over from fours."""


@contextmanager
def only(graph: Graph, kernel: Kernel) -> Iterator[None]:
    """The planner knows no other kernel for the one layer of ``graph``."""
    name = graph.nodes[0].op
    op = BY_NAME[name]
    variant = Variant(kernel.encoding, lambda graph, node: kernel)
    BY_NAME[name] = replace(op, variants=(variant,))
    try:
        yield
    finally:
        BY_NAME[name] = op


def kernels(graph: Graph, features: frozenset[str]) -> list[Kernel]:
    """All kernels for a core that leave zeros out."""
    (node,) = graph.nodes
    usable = (v for v in BY_NAME[node.op].variants if v.features <= features)
    found = (v.lower(graph, node) for v in usable)
    return [kernel for kernel in found if kernel is not None and kernel.encoding != "dense"]


def plans(graphs: dict[str, Graph], features: frozenset[str]) -> dict[str, plan.Plan]:
    """A plan for each graph and kernel that leaves zeros out."""
    made = {}
    for name, graph in graphs.items():
        for i, kernel in enumerate(kernels(graph, features)):
            with only(graph, kernel):
                made[f"{name}_{i}"] = plan.make(graph, features)
    return made


def test_networks_reach_every_kernel() -> None:
    names = {
        kernel.name
        for board in CORES
        for graph in networks().values()
        for kernel in kernels(graph, boards.load(board).features)
    }
    for wanted in (
        "dense_sparse",
        "dense_sparse_long",
        "dense_sparse_per_channel",
        "dense_sparse_dsp",
        "dense_sparse_dsp_exact",
        "dense_sparse_dsp_exact_clamped",
        "dense_sparse_rv32m_high",
        "dense_sparse_armv7m_high",
        "dense_sparse_armv6m_split10",
        "dense_sparse_xtensa_split10_signed",
        "dense_by_fours_sparse_dsp_ones",
        "dense_by_fours_sparse_dsp_ones_ragged",
        "dense_by_fours_sparse_dsp_exact_three",
        "conv2d_by_fours_sparse_dsp_exact_wide",
        "conv2d_by_fours_sparse_dsp_rest",
        "conv2d_sparse_rv32m_exact",
        "conv2d_sparse_armv7m_high",
        "conv2d_sparse_armv6m_split10",
        "conv2d_sparse_xtensa_split10",
        "dense_sparse_coded",
        "dense_sparse_coded_per_channel",
        "conv2d_by_fours_quads_dsp_exact_wide",
        "conv2d_by_fours_quads_dsp_rest",
        "dense_by_fours_quads_dsp_exact_three",
        "dense_by_fours_quads_dsp_ones_ragged",
        "dense_by_fours_quads_dsp_ones",
        "dense_by_fours_quads_dsp",
        "dense_sparse_coded_dsp",
        "dense_sparse_coded_dsp_exact",
        "dense_by_fours_sparse_coded_dsp_ones_ragged",
        "dense_by_fours_sparse_coded_dsp_ones",
        "conv2d_by_fours_sparse_coded_dsp_exact_wide",
        "conv2d_sparse_coded_rv32m_exact",
        "conv2d_sparse_coded_armv7m_exact",
        "conv2d_sparse_coded_armv6m_split10",
        "conv2d_sparse_coded_xtensa_split10",
    ):
        assert wanted in names, sorted(names)


@pytest.mark.parametrize(
    "board",
    ["qemu_m4", *(pytest.param(b, marks=pytest.mark.wide) for b in ("qemu_m3", "qemu_m0"))],
)
def test_on_the_host(board: str, tmp_path: Path) -> None:
    made = plans(networks(), boards.load(board).features)
    assert len(made) > 20
    host_c.check(made, tmp_path)


@pytest.mark.parametrize("board", CORES)
def test_on_an_emulated_core(board: str, tmp_path: Path) -> None:
    core = boards.load(board)
    made = plans(networks(), core.features)
    chosen = [planned for i, planned in enumerate(made.values()) if i % 2 == 0]
    emulated_c.check(core, chosen, tmp_path)


@settings(deadline=None)
@given(
    st.integers(1, 6),
    st.integers(1, 700),
    st.sampled_from((0.0, 0.3, 0.9, 0.995, 1.0)),
    st.sampled_from((1, 2, 4)),
    st.sampled_from((15, 255)),
    st.integers(0, 1 << 16),
)
def test_entries_hold_the_weights(
    channels: int, taps: int, zeros: float, together: int, furthest: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    weights = random.integers(-128, 128, (channels, taps)).astype(np.int8)
    weights[random.random(weights.shape) < zeros] = 0
    stream = sparse.entries(weights, furthest, together)
    assert np.array_equal(stream.weights(taps), weights)
    assert not (stream.counts % together).any()
    assert stream.gaps.max(initial=0) <= furthest
    if weights.any():
        spoilt = replace(stream, values=stream.values ^ (np.arange(stream.values.size) == 0))
        assert not np.array_equal(spoilt.weights(taps), weights)


def test_codes_hold_the_weights() -> None:
    graph = few_valued(thinned(dense_chain(300, 9), 0.8))
    weights = graph.required(graph.nodes[0], 1).data
    assert weights is not None
    table = sparse.codebook(weights)
    assert table is not None and table[0] == 0 and table.size == 16
    stream = sparse.entries(weights, sparse.NEAR)
    packed = sparse.codes(stream, table)
    decoded = replace(stream, values=table[packed >> 4], gaps=(packed & 15).astype(np.int64))
    assert np.array_equal(decoded.weights(300), weights)
    assert sparse.codebook(np.arange(-8, 8, dtype=np.int8)) is not None
    assert sparse.codebook(np.arange(-8, 9, dtype=np.int8)) is None


@pytest.mark.parametrize("what", ["weights", "counts"])
def test_a_wrong_entry_shows(what: str, tmp_path: Path) -> None:
    graph = thinned(dense_chain(64, 8), 0.75)
    (kernel, *_) = kernels(graph, frozenset())
    args = tuple(
        replace(arg, data=np.roll(arg.data, 1)) if getattr(arg, "role", "") == what else arg
        for arg in kernel.args
    )
    made = {}
    for name, used in (("right", kernel), ("wrong", replace(kernel, args=args))):
        with only(graph, used):
            made[name] = plan.make(graph)
    inputs = [np.arange(64, dtype=np.int8).reshape(1, 64)]
    want = reference.run(graph, inputs)[0]
    with HostModels(made, tmp_path, flags=("-O1",)) as host:
        assert np.array_equal(host.run("right", inputs)[0][0], want)
        assert not np.array_equal(host.run("wrong", inputs)[0][0], want)


def test_layers_without_zeros_are_left_alone() -> None:
    assert kernels(dense_chain(64, 8), frozenset({"dsp"})) == []
    assert kernels(thinned(dense_chain(64, 8), 0.2), frozenset({"dsp"})) == []


def cost(graph: Graph, board: boards.Board, kernel: Kernel) -> bench.Cost:
    """What an inference takes with ``kernel``, on an emulated core."""
    with only(graph, kernel), tempfile.TemporaryDirectory() as folder:
        made = plan.make(graph, board.features, plan.Goal("speed"))
        program = bench.generated(Compiled("m", graph, made, b""), Path(folder))
        return bench.measure(board, bench.build(program, board, Path(folder, "m.elf")))


def taken(graph: Graph, features: frozenset[str]) -> tuple[Kernel, Kernel]:
    """The kernel that the planner takes, and the fastest that keeps the zeros."""
    (node,) = graph.nodes
    dense = [
        kernel
        for v in BY_NAME[node.op].variants
        if v.features <= features
        and (kernel := v.lower(graph, node)) is not None
        and kernel.encoding == "dense"
    ]
    made = plan.make(graph, features, plan.Goal("speed"))
    return made.steps[0].kernel, min(dense, key=lambda k: k.cycles)


@pytest.mark.parametrize("board", CORES)
def test_three_quarters_of_zeros_make_a_dense_layer_faster(board: str) -> None:
    core = boards.load(board)
    graph = thinned(dense_chain(256, 64), 0.75)
    kernel, dense = taken(graph, core.features)
    assert kernel.encoding.startswith("sparse")
    thin, full = cost(graph, core, kernel), cost(graph, core, dense)
    assert thin.instructions < (0.95 if board == "qemu_m4" else 0.65) * full.instructions
    if thin.cycles is not None and full.cycles is not None:
        assert thin.cycles < 0.95 * full.cycles
    sizes = [sum(c.data.nbytes for c in k.constants) for k in (kernel, dense)]
    assert sizes[0] < 0.6 * sizes[1]


@pytest.mark.parametrize("board", CORES)
def test_three_quarters_of_zeros_make_a_convolution_faster(board: str) -> None:
    core = boards.load(board)
    graph = with_output(thinned(convolution((6, 8, 16), (16, 3, 3)), 0.75), -128)
    kernel, dense = taken(graph, core.features)
    assert kernel.encoding == "sparse"
    thin, full = cost(graph, core, kernel), cost(graph, core, dense)
    assert thin.instructions < (0.85 if board == "qemu_m4" else 0.6) * full.instructions


def test_blocks_of_zeros_halve_a_convolution() -> None:
    core = boards.load("qemu_m4")
    graph = with_output(blocked(convolution((8, 8, 16), (16, 3, 3)), 0.75), -128)
    kernel, dense = taken(graph, core.features)
    assert kernel.encoding == "blocks"
    thin, full = cost(graph, core, kernel), cost(graph, core, dense)
    assert thin.instructions < 0.5 * full.instructions
    assert thin.cycles is not None
    assert kernel.bound <= thin.instructions
    assert abs(kernel.cycles - thin.cycles) < 0.1 * thin.cycles


COSTLY = {
    "dense640": dense_chain(640, 128),
    "dense128": dense_chain(128, 64),
    "pixels": convolution((5, 5, 64), (32, 1, 1), PIXEL),
    "window": convolution((8, 8, 16), (16, 3, 3)),
}


@pytest.mark.parametrize("name", COSTLY)
def test_expected_costs_are_near_what_is_measured(name: str) -> None:
    core = boards.load("qemu_m4")
    for encoding, zeros in (("sparse", 0.6), ("sparse", 0.9), ("sparse+codebook4", 0.75)):
        graph = few_valued(thinned(COSTLY[name], zeros))
        fitting = [k for k in kernels(graph, core.features) if k.encoding == encoding]
        kernel = min(fitting, key=lambda kernel: kernel.cycles)
        measured = cost(graph, core, kernel)
        assert measured.cycles is not None
        assert kernel.bound <= measured.instructions <= 1.4 * kernel.bound
        assert abs(kernel.cycles - measured.cycles) < 0.1 * measured.cycles
