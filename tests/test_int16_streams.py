"""Layers of int16 run row by row, and their outputs over their own inputs: the chains of
:mod:`test_streams` with int16 activations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import test_streams
from graphs import convolution
from host_c import HostModels

from tinygen import plan, reference
from tinygen.graph import Graph, Quant, Tensor
from tinygen.ops import conv2d
from tinygen.ops.common import Pads
from tinygen.ops.dsp import FEATURES as DSP

FINER = 2.0**-8


def widened(tensor: Tensor) -> Tensor:
    """Activations as int16 of a finer scale without zero points, biases as int64."""
    if tensor.data is not None:
        if tensor.dtype == "int8":
            return tensor
        return replace(tensor, dtype="int64", data=tensor.data.astype(np.int64) << 8)
    return replace(tensor, dtype="int16", quant=Quant((tensor.scale * FINER,), (0,)))


def chains(group: int) -> list[Graph]:
    return [
        replace(graph, tensors=tuple(map(widened, graph.tensors)))
        for graph in test_streams.chains(group)
    ]


def assert_runs(plans: dict[str, plan.Plan], folder: Path) -> None:
    random = np.random.default_rng(0)
    with HostModels(plans, folder) as host:
        for name, made in plans.items():
            shape = made.graph.at(made.graph.inputs[0]).shape
            given = [random.integers(-32768, 32768, shape).astype(np.int16)]
            outputs, _ = host.run(name, given)
            np.testing.assert_array_equal(outputs[0], reference.run(made.graph, given)[0], name)


def test_windows_over_pixels_of_odd_depth(tmp_path: Path) -> None:
    """They are copied row by row, zeros beside them; outputs lie as high as they may."""
    plans: dict[str, plan.Plan] = {}
    for depth in (1, 3):
        for i, attrs in enumerate(
            (
                conv2d.Attrs(),
                conv2d.Attrs((2, 2)),
                conv2d.Attrs((1, 3), (2, 1), "VALID"),
                conv2d.Attrs((2, 1), padding="EXPLICIT", pads=Pads(2, 1, 1, 3)),
            )
        ):
            graph = convolution((9, 8, depth), (6, 3, 3), attrs)
            graph = replace(graph, tensors=tuple(map(widened, graph.tensors)))
            made = plans[f"d{depth}_{i}"] = plan.make(graph, DSP)
            assert made.steps[0].kernel.template == "conv2d/dsp_int16_rows.c.j2"
            extreme = test_streams.extreme(graph, DSP)
            assert extreme is not None
            plans[f"d{depth}_{i}_extreme"] = extreme
    assert_runs(plans, tmp_path)


@pytest.mark.parametrize("features", [frozenset(), DSP], ids=["portable", "dsp"])
@pytest.mark.parametrize("group", [2, *(pytest.param(i, marks=pytest.mark.wide) for i in range(9))])
def test_streams_of_random_chains(group: int, features: frozenset[str], tmp_path: Path) -> None:
    plans: dict[str, plan.Plan] = {}
    for i, graph in enumerate(chains(group)):
        planner = plan.Planner(graph, features)
        for span in planner.possible()[-test_streams.MOST :]:
            plans[f"c{i}_{span.start}_{span.stop}"] = planner.assemble((span,))
    assert len(plans) > 1
    assert_runs(plans, tmp_path)


@pytest.mark.parametrize("features", [frozenset(), DSP], ids=["portable", "dsp"])
@pytest.mark.parametrize(
    "group", [0, *(pytest.param(i, marks=pytest.mark.wide) for i in range(1, 9))]
)
def test_outputs_as_high_over_their_inputs_as_claimed(
    group: int, features: frozenset[str], tmp_path: Path
) -> None:
    plans: dict[str, plan.Plan] = {}
    for i, graph in enumerate(chains(group)):
        for kind, part in (("single", test_streams.first_layer(graph)), ("stream", graph)):
            made = test_streams.extreme(part, features)
            if made is not None:
                plans[f"{kind}_{i}"] = made
    assert {name.split("_")[0] for name in plans} == {"single", "stream"}
    assert_runs(plans, tmp_path)
