"""Kernels for Arm's DSP extension: the C twin of their assembly on the host, exact on any shape."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import emulated_c
import host_c
import numpy as np
import pytest
import shared_models
import test_streams
from graphs import convolution, dense_chain, rectified
from host_c import HostModels

from tinygen import bench, boards, importers, passes, plan
from tinygen.graph import Graph
from tinygen.ops import conv2d
from tinygen.ops.common import Pads
from tinygen.ops.dsp import FEATURES as DSP
from tinygen.ops.dsp import paired_weights, window_places

PIXEL = conv2d.Attrs(padding="VALID")


WINDOWS = (
    ((5, 6, 3), (4, 3, 3), conv2d.Attrs()),
    ((5, 6, 1), (2, 3, 3), conv2d.Attrs(stride=(2, 2))),
    ((9, 8, 4), (6, 3, 2), conv2d.Attrs(padding="VALID", stride=(2, 1))),
    ((9, 11, 2), (4, 3, 2), conv2d.Attrs(dilation=(2, 3))),
    ((9, 11, 2), (4, 3, 2), conv2d.Attrs(padding="VALID", dilation=(2, 3))),
    ((4, 3, 5), (2, 7, 5), conv2d.Attrs()),
    ((1, 30, 8), (4, 1, 5), conv2d.Attrs(padding="EXPLICIT", pads=Pads(0, 0, 4, 0))),
    ((6, 6, 3), (2, 1, 1), conv2d.Attrs(padding="VALID", stride=(2, 2))),
    ((2, 2, 3), (2, 3, 3), conv2d.Attrs(padding="EXPLICIT", pads=Pads(5, 5, 5, 5))),
    ((2, 2, 8), (3, 3, 3), conv2d.Attrs(padding="EXPLICIT", pads=Pads(5, 5, 5, 5))),
    ((7, 9, 6), (5, 3, 3), conv2d.Attrs(stride=(1, 2))),
    ((6, 10, 8), (4, 3, 3), conv2d.Attrs()),
    ((6, 8, 8), (3, 1, 1), conv2d.Attrs(padding="VALID", stride=(2, 2))),
    ((12, 6, 1), (4, 10, 4), conv2d.Attrs(stride=(2, 2))),
)
"""Windows that pad, stride, dilate, and lie outside the image as a whole."""


def variants(graph: Graph) -> list[str]:
    return [step.variant for step in plan.make(graph, DSP).steps]


def networks() -> dict[str, Graph]:
    """Dense layers and 1x1 convolutions over all remainders of pixels and channels."""
    made = {}
    for channels in range(1, 10):
        made[f"dense{channels}"] = dense_chain(4 * channels, channels, seed=channels)
        for width in (1, 2, 3, 4, 7, 9):
            image, filters = (1, width, 8), (channels, 1, 1)
            name = f"pixels{width}x{channels}"
            made[name] = convolution(image, filters, PIXEL, seed=10 * channels + width)
    for depth in (1, 2, 3, 5, 6, 7):
        made[f"depth{depth}"] = dense_chain(depth, 4, seed=depth)
        made[f"ragged{depth}"] = convolution((1, 2 * depth, depth), (5, 1, 1), PIXEL, seed=depth)
    for i, (image, filters, attrs) in enumerate(WINDOWS):
        made[f"window{i}"] = convolution(image, filters, attrs, seed=i)
    return made | {f"{name}r": rectified(graph) for name, graph in made.items()}


@pytest.mark.parametrize("half", [0, pytest.param(1, marks=pytest.mark.wide)])
def test_all_remainders(half: int, tmp_path: Path) -> None:
    graphs = dict(list(networks().items())[half::2])
    used = [variant for graph in graphs.values() for variant in variants(graph)]
    assert used.count("dsp") > 40
    names = {step.kernel.name for graph in graphs.values() for step in plan.make(graph, DSP).steps}
    assert {name for name in names if "exact" in name} != names
    host_c.check(graphs, tmp_path, DSP)


def test_assembly_on_an_emulated_core(tmp_path: Path) -> None:
    graphs = [graph for i, graph in enumerate(networks().values()) if i % 3 == 0]
    emulated_c.check(boards.load("qemu_m4"), graphs, tmp_path)


@pytest.mark.parametrize("run", [1, 3, 4, 6, 9, 11, 16, 23, 60])
@pytest.mark.parametrize("rows", [1, 2, 3, 10])
def test_prepared_pixels_stay_behind_what_is_still_to_be_read(rows: int, run: int) -> None:
    patch, tail, size = window_places(rows, run)
    words, quads = run // 4, -(-rows * (run % 4) // 4)
    reads = [
        [patch + 4 * run * row + run * pixel + 4 * word for pixel in range(4)]
        for row in range(rows)
        for word in range(words)
    ]
    reads += [[tail + 4 * quads * pixel + 4 * word for pixel in range(4)] for word in range(quads)]
    assert patch + 4 * run * rows <= tail
    assert tail + 16 * quads <= size
    for done in range(len(reads)):
        later = [address for addresses in reads[done + 1 :] for address in addresses]
        assert 32 * (done + 1) <= min(later, default=size)
    assert 32 * len(reads) + 4 <= size


def test_outputs_as_high_over_their_inputs_as_claimed(tmp_path: Path) -> None:
    graphs = {name: graph for name, graph in networks().items() if not name.endswith("r")}
    for width in range(1, 12):
        for depth, channels in ((4, 16), (3, 8), (8, 5), (5, 13)):
            graph = convolution((1, width, depth), (channels, 1, 1), PIXEL, seed=width)
            graphs[f"grows{width}_{depth}"] = graph
    plans = {name: test_streams.extreme(graph, DSP) for name, graph in graphs.items()}
    known = {name: made for name, made in plans.items() if made is not None}
    assert len(known) > 80
    with HostModels(known, tmp_path) as host:
        for name in known:
            test_streams.assert_runs(host, name, graphs[name])


def test_pairs_hold_the_weights() -> None:
    random = np.random.default_rng(0)
    weights = random.integers(-127, 128, (5, 11)).astype(np.int8)
    words = paired_weights(weights)
    assert words is not None
    halves = words.view(np.int16).reshape(5, 6).astype(int)
    low = halves.astype(np.int8).astype(int)
    assert np.array_equal(low[:, :5], weights[:, 1::2])
    assert not low[:, 5].any()
    assert np.array_equal((low - halves) // 256, weights[:, 0::2])


def test_pairs_that_do_not_fit_stay_portable() -> None:
    graph = dense_chain(8, 4)
    weights = np.ones((4, 8), dtype=np.int8)
    weights[2, 4:6] = (-128, 0)  # 256 * 128 is no 16-bit number
    assert variants(graph.with_tensor(1, data=weights)) == ["portable"]
    weights[2, 4:6] = (-128, -1)
    assert variants(graph.with_tensor(1, data=weights)) == ["dsp"]


def test_sums_that_could_overflow_stay_portable() -> None:
    graph = dense_chain(2048, 4)
    weights = np.full((4, 2048), 127, dtype=np.int8)
    assert variants(graph.with_tensor(1, data=weights)) == ["portable"]
    weights[:, 8:] = 1
    assert variants(graph.with_tensor(1, data=weights)) == ["dsp"]


@shared_models.needed
@pytest.mark.parametrize("model", ["kws_ref_model", "ad01_int8"])
def test_expected_costs_are_near_what_is_measured(model: str) -> None:
    layers = bench.bench(shared_models.path(model), boards.load("qemu_m4")).layers
    ours = [layer for layer in layers if layer.kernel.startswith(("conv2d_dsp", "dense_"))]
    assert len(ours) >= 5
    for layer in ours:
        assert layer.cycles is not None
        if layer.macs > 2000:
            assert layer.bound <= layer.instructions <= 1.2 * layer.bound, layer
            assert abs(layer.expected - layer.cycles) < 0.1 * layer.cycles, layer


@pytest.mark.wide
@shared_models.needed
def test_whole_models(tmp_path: Path) -> None:
    graphs = {
        m: replace(passes.run(importers.load(shared_models.path(m))), name=m)
        for m in shared_models.SUPPORTED
    }
    with HostModels(graphs, tmp_path, features=DSP) as host:
        for model in graphs:
            for golden in shared_models.goldens(model):
                assert np.array_equal(host.run(model, [golden.input])[0][0], golden.output), model
