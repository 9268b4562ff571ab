"""Convolutions of few channels and largest values with Arm's DSP extension, at every edge."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import emulated_c
import host_c
import pytest
import test_streams
from graphs import HASH, activation, convolution, rectified
from host_c import HostModels

from tinygen import boards, plan
from tinygen.graph import Graph, Node
from tinygen.ops import conv2d, dsp_lines, pooling
from tinygen.ops.common import Pads, Window
from tinygen.ops.dsp import FEATURES as DSP

VALID = conv2d.Attrs(padding="VALID")
Attrs = conv2d.Attrs


def in_batches(graph: Graph, batch: int) -> Graph:
    """``graph`` with so many images at a time."""
    for index in (graph.inputs[0], graph.outputs[0]):
        graph = graph.with_tensor(index, shape=(batch, *graph.at(index).shape[1:]))
    return graph


def convolutions() -> dict[str, Graph]:
    """Windows that pad, stride, dilate, leave pixels over and lie outside the image."""
    made = {}
    for width, (channels, columns) in itertools.product((4, 5, 6, 7, 9), ((2, 5), (3, 2), (5, 3))):
        made[f"w{width}x{channels}"] = convolution(
            (4, width, 1), (channels, 3, columns), seed=width
        )
    for depth, across in itertools.product((1, 2, 3), (1, 2, 3)):
        attrs = Attrs(stride=(2, across))
        made[f"s{depth}x{across}"] = convolution((7, 17, depth), (4, 3, 3), attrs, seed=depth)
    for i, attrs in enumerate(
        (
            VALID,
            Attrs(dilation=(2, 1)),
            Attrs(padding="VALID", stride=(3, 1), dilation=(2, 1)),
            Attrs(padding="EXPLICIT", pads=Pads(5, 4, 6, 7)),
            Attrs(padding="EXPLICIT", pads=Pads(0, 1, 0, 3), stride=(1, 2)),
        )
    ):
        made[f"a{i}"] = convolution((8, 9, 1), (6, 3, 5), attrs, seed=i)
        made[f"b{i}"] = convolution((8, 9, 2), (7, 3, 3), attrs, seed=i)
    made["line"] = convolution((1, 40, 1), (3, 1, 9), seed=1)
    made["lenet"] = convolution((28, 28, 1), (6, 5, 5), seed=2)
    made["batches"] = in_batches(convolution((6, 6, 1), (4, 3, 5), seed=3), 3)
    return made | {f"{name}r": rectified(graph) for name, graph in made.items()}


def pool(
    image: tuple[int, int, int],
    kernel: tuple[int, int] = (2, 2),
    stride: tuple[int, int] = (2, 2),
    padding: str = "VALID",
    activated: str = "NONE",
    batch: int = 1,
) -> Graph:
    rows, columns = Window(kernel, stride, padding=padding).output(*image[:2])
    tensors = (
        activation("in", batch, *image, scale=0.05, zero_point=-20),
        activation("out", batch, rows, columns, image[2], scale=0.05, zero_point=-20),
    )
    attrs = pooling.Attrs(kernel, stride, padding, activated)
    node = Node("MAX_POOL_2D", (0,), (1,), attrs, 0)
    return Graph("pool", tensors, (node,), (0,), (1,), "p.tflite", HASH)


def pools() -> dict[str, Graph]:
    made = {}
    for depth, activated in itertools.product((4, 5, 7, 8, 13), ("NONE", "RELU6")):
        made[f"d{depth}{activated}"] = pool((6, 7, depth), activated=activated)
        made[f"s{depth}{activated}"] = pool((6, 7, depth), (3, 3), (2, 2), "SAME", activated)
    for kernel, stride in itertools.product(((1, 3), (3, 1), (4, 5), (6, 9)), ((1, 1), (3, 2))):
        name = f"k{kernel[0]}x{kernel[1]}s{stride[0]}"
        made[name] = pool((6, 9, 5), kernel, stride)
        made[f"{name}p"] = pool((6, 9, 4), kernel, stride, "SAME", batch=2)
    return made


def kernels(graphs: dict[str, Graph]) -> set[str]:
    return {step.kernel.name for graph in graphs.values() for step in plan.make(graph, DSP).steps}


@pytest.fixture
def preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines, wherever they can be had."""
    monkeypatch.setattr(dsp_lines, "row_cycles", lambda *_: -(1 << 30))


@pytest.mark.usefixtures("preferred")
@pytest.mark.parametrize("half", [0, pytest.param(1, marks=pytest.mark.wide)])
def test_convolutions_on_the_host(half: int, tmp_path: Path) -> None:
    graphs = dict(list(convolutions().items())[half::2])
    assert kernels(graphs) == {"conv2d_lines_dsp", "conv2d_lines_dsp_exact"}
    host_c.check(graphs, tmp_path, DSP)


def test_pools_on_the_host(tmp_path: Path) -> None:
    graphs = pools()
    assert all(name.endswith("_dsp") for name in kernels(graphs))
    host_c.check(graphs, tmp_path, DSP)


@pytest.mark.usefixtures("preferred")
def test_assembly_on_an_emulated_core(tmp_path: Path) -> None:
    chosen = [*list(convolutions().values())[::3], *list(pools().values())[::3]]
    emulated_c.check(boards.load("qemu_m4"), chosen, tmp_path)


@pytest.mark.usefixtures("preferred")
def test_outputs_as_high_over_their_inputs_as_claimed(tmp_path: Path) -> None:
    graphs = convolutions() | pools()
    average = {
        f"average{name}": replace(
            graph, nodes=(replace(graph.nodes[0], op="AVERAGE_POOL_2D"),)
        )
        for name, graph in pools().items()
    }  # fmt: skip
    for features, some in ((DSP, graphs), (frozenset[str](), average | pools())):
        plans = {
            name: test_streams.extreme(graph, features) for name, graph in list(some.items())[::2]
        }
        known = {name: made for name, made in plans.items() if made is not None}
        assert len(known) > 30
        (tmp_path / str(len(features))).mkdir()
        with HostModels(known, tmp_path / str(len(features))) as host:
            for name in known:
                test_streams.assert_runs(host, name, some[name])


def test_first_layers_of_one_channel_take_them() -> None:
    assert kernels({"": rectified(convolution((28, 28, 1), (6, 5, 5)))}) == {"conv2d_lines_dsp"}


@pytest.mark.usefixtures("preferred")
def test_large_ones_are_left_to_other_kernels() -> None:
    rows = convolution((12, 500, 1), (4, 5, 5))
    run = convolution((6, 9, 4), (4, 3, 5))
    few = convolution((9, 3, 1), (4, 3, 3))
    for graph in (rows, run, few):
        assert not any("lines" in name for name in kernels({"": graph}))


@pytest.mark.parametrize("step", [1, 2, 3, 6])
@pytest.mark.parametrize("words", [1, 2, 5, 8])
def test_registers_hold_what_is_multiplied(step: int, words: int) -> None:
    held: list[int | None] = [None, None]
    for word, order in enumerate(dsp_lines.schedule(step, words)):
        assert sorted(pixel for pixel, _, _ in order) == [0, 1, 2, 3]
        for pixel, register, load in order:
            place = pixel * step + 2 * word
            if load:
                held[register] = place
            assert held[register] == place
