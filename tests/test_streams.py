"""Layers run row by row, and outputs over their own inputs: the same bytes in less memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphs import HASH, activation, constant, random_inputs
from host_c import HostModels

from tinygen import placement, plan, reference, streams
from tinygen.graph import Array, Graph, Node, Tensor
from tinygen.ops import conv2d, depthwise_conv2d, elementwise, pooling
from tinygen.ops.common import Pads
from tinygen.placement import Buffer

DSP = frozenset({"dsp"})

GROUPS, WIDE_GROUPS = 2, 12
PER_GROUP = 5
MOST = 2
"""Streams tried of a chain."""


class Chain:
    """A random chain of layers over images, some with a residual sum."""

    def __init__(self, seed: int) -> None:
        self.chance = np.random.default_rng(seed)
        height, width = (int(n) for n in self.chance.integers(5, 14, 2))
        depth = 4 * int(self.chance.integers(1, 3))
        self.tensors: list[Tensor] = [activation("in", 1, height, width, depth, scale=0.05)]
        self.nodes: list[Node] = []
        self.images = [0]

    def add(self, tensor: Tensor) -> int:
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def pick(self, *values: Any) -> Any:
        return values[int(self.chance.integers(len(values)))]

    def node(self, op: str, inputs: tuple[int, ...], attrs: Any, shape: tuple[int, ...]) -> None:
        zero_point = self.pick(-128, -128, -3)
        scale = self.pick(0.4, 0.9, 2.0)
        out = self.add(
            activation(f"t{len(self.tensors)}", *shape, scale=scale, zero_point=zero_point)
        )
        self.nodes.append(Node(op, inputs, (out,), attrs, len(self.nodes)))
        self.images.append(out)

    def filtered(self) -> None:
        """A convolution, depthwise or not."""
        source = self.images[-1]
        _, height, width, depth = self.tensors[source].shape
        attrs: dict[str, Any] = {
            "stride": (self.pick(1, 1, 2), self.pick(1, 1, 2)),
            "dilation": (self.pick(1, 1, 2), 1),
            "padding": self.pick("SAME", "SAME", "VALID", "EXPLICIT"),
        }
        rows, columns = self.pick(1, 2, 3), self.pick(1, 3)
        if attrs["padding"] == "EXPLICIT":
            attrs["pads"] = Pads(*(int(n) for n in self.chance.integers(0, 3, 4)))
        depthwise = self.pick(True, False)
        made = depthwise_conv2d.Attrs(**attrs) if depthwise else conv2d.Attrs(**attrs)
        channels = depth if depthwise else 4 * self.pick(1, 2)
        window = conv2d.Window((rows, columns), made.stride, made.dilation, made.padding, made.pads)
        out = window.output(height, width)
        if min(out) < 1:
            return
        shape = (1, rows, columns, depth) if depthwise else (channels, rows, columns, depth)
        weights = self.chance.integers(-127, 128, shape).astype(np.int8)
        scales = [float(s) for s in self.chance.uniform(0.005, 0.01, channels)]
        inputs = (
            source,
            self.add(constant("w", weights, *scales, axis=3 if depthwise else 0)),
            self.add(constant("b", self.chance.integers(-900, 900, channels).astype(np.int32))),
        )
        name = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
        self.node(name, inputs, made, (1, *out, channels))

    def pooled(self) -> None:
        source = self.images[-1]
        _, height, width, depth = self.tensors[source].shape
        attrs = pooling.Attrs((2, 2), (self.pick(1, 2), 2), "VALID")
        out = pooling.Window(attrs.kernel, attrs.stride).output(height, width)
        if min(out) < 1:
            return
        before = self.tensors[source]
        index = self.add(replace(before, name="pooled", shape=(1, *out, depth)))
        self.nodes.append(Node("MAX_POOL_2D", (source,), (index,), attrs, len(self.nodes)))
        self.images.append(index)

    def summed(self) -> None:
        """The last image and an earlier one of the same shape."""
        last = self.images[-1]
        alike = [i for i in self.images[:-1] if self.tensors[i].shape == self.tensors[last].shape]
        if alike:
            operands = self.pick((last, alike[-1]), (alike[-1], last))
            self.node("ADD", operands, elementwise.Attrs(), self.tensors[last].shape)

    def graph(self) -> Graph:
        for _ in range(int(self.chance.integers(2, 6))):
            self.pick(self.filtered, self.filtered, self.filtered, self.pooled, self.summed)()
        return Graph(
            "chain",
            tuple(self.tensors),
            tuple(self.nodes),
            (0,),
            (self.images[-1],),
            "c.tflite",
            HASH,
        )


def chains(group: int) -> list[Graph]:
    made = [Chain(100 * group + i).graph() for i in range(PER_GROUP)]
    return [graph for graph in made if graph.nodes]


def first_layer(graph: Graph) -> Graph:
    return replace(graph, nodes=graph.nodes[:1], outputs=graph.nodes[0].outputs)


def extreme(graph: Graph, features: frozenset[str]) -> plan.Plan | None:
    """A plan in which the output of the one step, a layer or a stream, is as high over its input as
    the kernel allows; None when it allows nothing or there are several steps."""
    planner = plan.Planner(graph, features)
    whole = range(len(graph.nodes))
    made = planner.assemble((whole,) if whole in planner.possible() else ())
    if len(made.steps) > 1 or not (made.steps[0].kernel.in_place or made.steps[0].kernel.overlap):
        return None
    (step,) = made.steps
    source, out = step.node.inputs[0], step.node.outputs[0]
    distance = 0 if 0 in step.kernel.in_place else placement.aligned(step.kernel.overlap[0])
    sizes = {t: placement.aligned(graph.at(t).bytes) for t in (source, out)}
    top = max(sizes[out], distance + sizes[source])
    buffers = (
        Buffer((source,), sizes[source], -1, 0, distance),
        Buffer((out,), sizes[out], 0, 1, 0),
        Buffer((), placement.aligned(step.kernel.scratch), 0, 0, top),
    )
    shared = placement.Sharing(0, 1, None if 0 in step.kernel.in_place else distance)
    return replace(
        made,
        buffers=buffers,
        shared=(shared,),
        steps=(replace(step, scratch=top),),
        offsets={source: distance, out: 0},
        arena_bytes=buffers[2].end,
    )


def assert_runs(host: HostModels, name: str, graph: Graph) -> None:
    for seed in range(2):
        inputs = random_inputs(graph, seed)
        want: list[Array] = list(reference.run(graph, inputs))
        got, _ = host.run(name, inputs)
        assert np.array_equal(got[0], want[0]), name


@pytest.mark.parametrize("features", [frozenset(), DSP], ids=["portable", "dsp"])
@pytest.mark.parametrize(
    "group",
    [
        *range(GROUPS),
        *(pytest.param(i, marks=pytest.mark.wide) for i in range(GROUPS, WIDE_GROUPS)),
    ],
)
def test_streams_of_random_chains(group: int, features: frozenset[str], tmp_path: Path) -> None:
    plans: dict[str, plan.Plan] = {}
    for i, graph in enumerate(chains(group)):
        planner = plan.Planner(graph, features)
        for span in planner.possible()[-MOST:]:
            plans[f"c{i}_{span.start}_{span.stop}"] = planner.assemble((span,))
    assert len(plans) > 1
    with HostModels(plans, tmp_path) as host:
        for name, made in plans.items():
            assert_runs(host, name, made.graph)


@pytest.mark.parametrize(
    "features",
    [
        pytest.param(frozenset(), id="portable", marks=pytest.mark.wide),
        pytest.param(DSP, id="dsp"),
    ],
)
def test_outputs_as_high_over_their_inputs_as_claimed(
    features: frozenset[str], tmp_path: Path
) -> None:
    plans: dict[str, plan.Plan] = {}
    for group in range(GROUPS):
        for i, graph in enumerate(chains(group)):
            for kind, part in (("single", first_layer(graph)), ("stream", graph)):
                made = extreme(part, features)
                if made is not None:
                    plans[f"{kind}{group}_{i}"] = made
    assert sum(name.startswith("stream") for name in plans) > 3
    assert sum(name.startswith("single") for name in plans) > 8
    with HostModels(plans, tmp_path) as host:
        for name, made in plans.items():
            assert_runs(host, name, made.graph)


def test_an_output_higher_than_allowed_would_be_noticed(tmp_path: Path) -> None:
    plans = {}
    for i, graph in enumerate(chains(0)):
        made = extreme(first_layer(graph), frozenset())
        distance = made.buffers[0].offset if made else 0
        if made and distance >= 16:
            lower = replace(made.buffers[0], offset=distance - 16)
            offsets = {**made.offsets, lower.tensors[0]: lower.offset}
            shared = replace(made.shared[0], distance=lower.offset)
            plans[f"m{i}"] = replace(
                made, buffers=(lower, *made.buffers[1:]), offsets=offsets, shared=(shared,)
            )
    assert plans
    wrong = 0
    with HostModels(plans, tmp_path) as host:
        for name, made in plans.items():
            inputs = random_inputs(made.graph)
            got, _ = host.run(name, inputs)
            wrong += not np.array_equal(got[0], reference.run(made.graph, inputs)[0])
    assert wrong > len(plans) // 2


def test_a_line_less_would_be_noticed(tmp_path: Path) -> None:
    graph = next(g for g in chains(1) if len(plan.Planner(g).possible()) > 0)
    planner = plan.Planner(graph)
    span = planner.possible()[-1]
    made = planner.assemble((span,))
    position = next(i for i, step in enumerate(made.steps) if step.stream)
    stream = made.steps[position].stream
    assert stream is not None
    index = next(i for i, stage in enumerate(stream.stages) if stage.lines > 1)
    short = replace(stream.stages[index], lines=stream.stages[index].lines - 1)
    stages = (*stream.stages[:index], short, *stream.stages[index + 1 :])
    step = replace(made.steps[position], stream=replace(stream, stages=stages))
    steps = (*made.steps[:position], step, *made.steps[position + 1 :])
    with HostModels({"m": replace(made, steps=steps)}, tmp_path, flags=("-O1",)) as host:
        inputs = random_inputs(graph)
        got, _ = host.run("m", inputs)
        assert not np.array_equal(got[0], reference.run(graph, inputs)[0])


def test_a_residual_block_takes_one_image_and_a_few_rows() -> None:
    chance = np.random.default_rng(0)
    image = (1, 32, 32, 16)
    tensors = [activation("x", *image)]
    for name in ("a", "b"):
        weights = chance.integers(-127, 128, (16, 3, 3, 16)).astype(np.int8)
        tensors += [constant(f"w{name}", weights, 0.01), activation(name, *image)]
    tensors.append(activation("sum", *image))
    nodes = (
        Node("CONV_2D", (0, 1, -1), (2,), conv2d.Attrs(), 0),
        Node("CONV_2D", (2, 3, -1), (4,), conv2d.Attrs(), 1),
        Node("ADD", (4, 0), (5,), elementwise.Attrs(), 2),
    )
    graph = Graph("block", tuple(tensors), nodes, (0,), (5,), "b.tflite", HASH)
    whole = plan.make(graph, goal=plan.Goal("speed"))
    rows = plan.make(graph, goal=plan.Goal("ram"))
    assert whole.arena_bytes > 2 * 16384
    assert rows.arena_bytes < 16384 + 4 * 512 + 512
    assert rows.cycles < 1.05 * whole.cycles


def test_rates_follow_strides() -> None:
    """Two layers of stride 2: four rows of the image a row of the result."""
    chance = np.random.default_rng(0)
    tensors = [activation("x", 1, 32, 8, 4)]
    for i, height in enumerate((16, 8)):
        weights = chance.integers(-127, 128, (4, 3, 3, 4)).astype(np.int8)
        tensors += [
            constant(f"w{i}", weights, 0.01),
            activation(f"t{i}", 1, height, height // 4, 4),
        ]
    attrs = conv2d.Attrs(stride=(2, 2))
    nodes = [Node("CONV_2D", (2 * i, 2 * i + 1, -1), (2 * i + 2,), attrs, i) for i in range(2)]
    graph = Graph("chain", tuple(tensors), tuple(nodes), (0,), (4,), "c.tflite", HASH)
    made = plan.Planner(graph).assemble((range(2),))
    stream = made.steps[0].stream
    assert stream is not None
    assert [(stage.ahead, stage.lead) for stage in stream.stages] == [(2, 3), (1, 1)]
    assert stream.stages[0].lines == 3
    rows = [row for stage, row in streams.schedule(stream.stages) if stage == 0]
    assert rows == list(range(16))
