"""Whole networks of int16 activations with int8 weights: a converted one, and passes over drawn
ones."""

from __future__ import annotations

import subprocess
from pathlib import Path

import emulated_c
import numpy as np
import oracle
import pytest
import test_operators
import tflite_builder as tb
from host_c import SANITIZERS, WARNINGS, HostModels

from tinygen import boards, emit, passes, plan, reference, resources, verify
from tinygen.errors import InputError
from tinygen.graph import Array, Graph
from tinygen.importers import tflite
from tinygen.passes.fuse_pad import fuse_pad
from tinygen.passes.regroup import regroup

CONVERTED = Path(__file__).parent / "models" / "digits_16x8.tflite"
SCALE = 2.0**-10


def inputs_of(graph: Graph, count: int) -> list[list[Array]]:
    """int16 inputs over their whole range, and small ones."""
    random = np.random.default_rng(1)
    shapes = [graph.at(i).shape for i in graph.inputs]
    limits = [(1 << 15) >> (6 * (i % 3)) for i in range(count)]
    return [[random.integers(-n, n, s).astype(np.int16) for s in shapes] for n in limits]


def test_every_layer_of_a_converted_network_equals_tflm() -> None:
    graph = tflite.load(CONVERTED.read_bytes())
    assert {n.op for n in graph.nodes} >= {"CONV_2D", "DEPTHWISE_CONV_2D", "SOFTMAX", "LOGISTIC"}
    made = [i for node in graph.nodes for i in node.outputs]
    for given in inputs_of(graph, 4):
        wanted = oracle.shared().tensors(CONVERTED.read_bytes(), given, made)
        values = reference.run_all(graph, given)
        for index in made:
            np.testing.assert_array_equal(values[index], wanted[index].reshape(values[index].shape))


def test_a_converted_network_in_c_equals_the_reference(tmp_path: Path) -> None:
    graph = tflite.load(CONVERTED.read_bytes())
    smaller = passes.run(graph)
    goals: tuple[plan.Optimize, ...] = ("speed", "ram", "size")
    plans = {
        f"{goal}_{'_'.join(features)}": plan.make(smaller, features, plan.Goal(goal))
        for goal in goals
        for features in (frozenset[str](), frozenset({"dsp"}))
    }
    assert any(step.stream for step in plans["ram_dsp"].steps)
    with HostModels(plans, tmp_path) as models:
        for given in inputs_of(graph, 6):
            wanted = reference.run(graph, given)
            for name in plans:
                test_operators.assert_equal(models.run(name, given)[0], wanted)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ("qemu_m0", "qemu_rv32") else pytest.mark.wide)
        for name in test_operators.EMULATED
    ],
)
def test_a_converted_network_on_emulated_cores(name: str, tmp_path: Path) -> None:
    graph = tflite.load(CONVERTED.read_bytes())
    board = boards.load(name)
    given = inputs_of(graph, 3)
    made = passes.run(graph, board.features)
    for case, outputs in zip(
        given, emulated_c.run(board, [made] * len(given), given, tmp_path), strict=True
    ):
        test_operators.assert_equal(outputs, reference.run(graph, case))


_EDGES = """
#include <stdio.h>
#include <string.h>
#include "m.h"
int main(void)
{
  float value;
  while (fread(&value, sizeof value, 1, stdin) == 1) {
    const int16_t element = m_quantize_input0(value);
    const float real = m_dequantize_output0(element);
    fwrite(&element, sizeof element, 1, stdout);
    fwrite(&real, sizeof real, 1, stdout);
  }
  return 0;
}
"""


def test_conversions_of_the_header(tmp_path: Path) -> None:
    graph = passes.run(tflite.load(CONVERTED.read_bytes()))
    for path, text in emit.sources(plan.make(graph), "m").items():
        (tmp_path / Path(path).name).write_text(text)
    (tmp_path / "main.c").write_text(_EDGES)
    runtime = resources.folder("firmware") / "runtime"
    command = ["gcc", "-std=c99", *WARNINGS, *SANITIZERS, f"-I{tmp_path}", f"-I{runtime}"]
    command += [str(tmp_path / name) for name in ("main.c", "m.c")]
    subprocess.run([*command, "-o", str(tmp_path / "edges")], check=True)
    source, target = graph.at(graph.inputs[0]), graph.at(graph.outputs[0])
    steps = np.array([-40000, -32769, -32768, -1000.75, -1.25, -0.25, 0, 0.75, 32766, 32768, 1e9])
    values = (steps * source.scale).astype(np.float32)
    made = subprocess.run(
        [tmp_path / "edges"], input=values.tobytes(), capture_output=True, check=True
    ).stdout
    found = np.frombuffer(made, np.dtype([("element", "<i2"), ("real", "<f4")]))
    np.testing.assert_array_equal(found["element"], verify.quantized(values, source))
    elements = found["element"].astype(np.float32)
    np.testing.assert_array_equal(found["real"], elements * np.float32(target.scale))


# ---- passes --------------------------------------------------------------------------------------


def activation(*shape: int, scale: float = SCALE) -> tb.Tensor:
    return tb.Tensor(shape, "int16", (scale,), (0,))


def weights(data: Array, bias: Array | None = None, *scales: float) -> list[tb.Tensor]:
    """A filter, its output channels along the first axis if there are ``scales`` for them."""
    every = scales or (0.01,)
    zeros = (0,) * len(every)
    found = [tb.Tensor(data.shape, "int8", every, zeros, data=data.astype(np.int8))]
    if bias is not None:
        products = tuple(float(np.float32(SCALE * scale)) for scale in every)
        found.append(tb.Tensor(bias.shape, str(bias.dtype), products, zeros, data=bias))
    return found


def dead_channels() -> tb.Model:
    """PAD, CONV_2D, RELU, DEPTHWISE_CONV_2D, CONV_2D, RELU6, FULLY_CONNECTED; of the first
    convolution's channels the next ones read no more than half, and some are constant."""
    random = np.random.default_rng(2)
    first = random.integers(-127, 128, (8, 3, 3, 2))
    first[[1, 6]] = 0
    second = random.integers(-127, 128, (4, 1, 1, 8))
    second[..., [0, 2, 5, 7]] = 0
    second[3] = 0
    last = random.integers(-127, 128, (5, 4 * 25))
    last[:, 1::4] = 0
    bias = random.integers(-(1 << 20), 1 << 20, 8)
    tensors = [
        activation(1, 5, 5, 2),
        tb.Tensor((4, 2), "int32", data=np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32)),
        activation(1, 7, 7, 2),
        *weights(first, bias),
        activation(1, 5, 5, 8),
        activation(1, 5, 5, 8),
        *weights(random.integers(-127, 128, (1, 3, 3, 8)), bias),
        activation(1, 5, 5, 8),
        *weights(second, bias[:4] << 6, 0.01, 0.011, 0.012, 0.013),
        activation(1, 5, 5, 4),
        activation(1, 5, 5, 4),
        *weights(last, bias[:5]),
        activation(1, 5),
    ]
    window = {"Padding": tb.VALID, "StrideH": 1, "StrideW": 1}
    window |= {"DilationHFactor": 1, "DilationWFactor": 1}
    same = window | {"Padding": tb.SAME}
    ops = (
        tb.Op("PAD", (0, 1), (2,), {}),
        tb.Op("CONV_2D", (2, 3, 4), (5,), window),
        tb.Op("RELU", (5,), (6,)),
        tb.Op("DEPTHWISE_CONV_2D", (6, 7, 8), (9,), same | {"DepthMultiplier": 1}),
        tb.Op("CONV_2D", (9, 10, 11), (12,), window),
        tb.Op("RELU6", (12,), (13,)),
        tb.Op("FULLY_CONNECTED", (13, 14, 15), (16,), {}),
    )
    return tb.Model(tuple(tensors), ops, (0,), (16,))


@pytest.mark.parametrize("features", [frozenset(), frozenset({"dsp"})], ids=["any", "dsp"])
def test_passes_keep_every_byte(features: frozenset[str], tmp_path: Path) -> None:
    model = dead_channels()
    graph = tflite.load(model.bytes)
    smaller = passes.run(graph, features)
    assert [n.op for n in smaller.nodes].count("PAD") == 0
    weights_of = [
        sum(g.required(n, 1).elements for n in g.nodes if len(n.inputs) == 3)
        for g in (graph, smaller)
    ]
    assert weights_of[1] < 0.9 * weights_of[0]
    with HostModels([smaller], tmp_path, features=features) as models:
        for given in inputs_of(graph, 6):
            wanted = oracle.shared().run(model.bytes, given)
            test_operators.assert_equal(reference.run(graph, given), wanted)
            test_operators.assert_equal(reference.run(smaller, given), wanted)
            test_operators.assert_equal(models.run("m0", given)[0], wanted)


def convolution(op: str, shape: tuple[int, ...], depth: int, bias: Array | None) -> tb.Model:
    """A 1x1 convolution of an image of 2x2 pixels."""
    data = np.random.default_rng(3).integers(-127, 128, shape)
    tensors = [activation(1, 2, 2, depth), *weights(data, bias), activation(1, 2, 2, depth)]
    options = {"Padding": tb.VALID, "StrideH": 1, "StrideW": 1}
    options |= {"DilationHFactor": 1, "DilationWFactor": 1}
    options |= {"DepthMultiplier": 1} if op == "DEPTHWISE_CONV_2D" else {}
    last = len(tensors) - 1
    ops = (tb.Op(op, tuple(range(last)), (last,), options),)
    return tb.Model(tuple(tensors), ops, (0,), (last,))


def test_groups_keep_their_operator() -> None:
    """As depthwise convolutions they would sum in 64 bits."""
    model = convolution("CONV_2D", (3, 1, 1, 1), 3, np.full(3, 1 << 30, np.int32))
    graph = tflite.load(model.bytes)
    assert regroup(graph) is graph


def test_a_pad_of_something_else_than_zero_stays() -> None:
    value = np.array([1], np.int16)
    model = dead_channels()
    tensors = (*model.tensors, tb.Tensor((1,), "int16", (SCALE,), (0,), data=value))
    ops = (tb.Op("PADV2", (0, 1, len(tensors) - 1), (2,), {}), *model.ops[1:])
    graph = tflite.load(tb.Model(tensors, ops, (0,), (16,)).bytes)
    assert fuse_pad(graph) is graph


# ---- what is refused -----------------------------------------------------------------------------

BIAS = np.zeros(3, np.int64)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            convolution("DEPTHWISE_CONV_2D", (1, 1, 1, 3), 3, BIAS.astype(np.int32)),
            "needs a constant int64 bias or none for int16 input",
        ),
        (
            convolution("CONV_2D", (3, 1, 1, 3), 3, BIAS.astype(np.int16)),
            "needs a constant int64 or int32 bias or none for int16 input",
        ),
        (
            convolution("CONV_2D", (3, 1, 1, 3), 3, BIAS + (1 << 48)),
            "output scale .* is too small for int16",
        ),
        (
            tb.Model(
                (tb.Tensor((4,), "int16", (1.0,), (1,)), activation(4)),
                (tb.Op("RELU", (0,), (1,)),), (0,), (1,),
            ),
            "both int16 with a zero point of 0",
        ),
        (
            tb.Model(
                (activation(4), tb.Tensor((4,), "int16", (1 / 65536,), (-32768,))),
                (tb.Op("SOFTMAX", (0,), (1,), {"Beta": 1.0}),), (0,), (1,),
            ),
            "needs int16 input and output with zero points of 0, the output of scale 1/32768",
        ),
        (
            tb.Model(
                (activation(4), activation(4)), (tb.Op("TANH", (0,), (1,)),), (0,), (1,),
            ),
            "needs an int16 output of scale 1/32768, has 0.0009765625",
        ),
        (
            tb.Model(
                (activation(4, scale=4.0), activation(4, scale=2.0**-15)),
                (tb.Op("LOGISTIC", (0,), (1,)),), (0,), (1,),
            ),
            "input scale 4.0 is out of all proportion",
        ),
        (
            tb.Model(
                (activation(1, 300, 300, 1), activation(1, 1, 1, 1)),
                (tb.Op("AVERAGE_POOL_2D", (0,), (1,), {
                    "Padding": tb.VALID, "StrideH": 1, "StrideW": 1,
                    "FilterHeight": 300, "FilterWidth": 300,
                }),), (0,), (1,),
            ),
            r"window \(300, 300\) with stride \(1, 1\) does not fit",
        ),
    ],
)  # fmt: skip
def test_refused(model: tb.Model, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tflite.load(model.bytes)
