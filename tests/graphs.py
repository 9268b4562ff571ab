"""Small graphs for tests, built in memory."""

from __future__ import annotations

import itertools

import numpy as np

from tinygen.graph import ABSENT, Array, Graph, Node, Quant, Tensor
from tinygen.ops import conv2d, fully_connected

HASH = "0" * 64


def activation(name: str, *shape: int, scale: float = 0.5, zero_point: int = 0) -> Tensor:
    """An int8 tensor that is computed or given."""
    return Tensor(name, shape, "int8", Quant((scale,), (zero_point,)))


def constant(name: str, data: Array, *scales: float, axis: int = 0) -> Tensor:
    """A constant, quantized with zero points of 0 when scales are given."""
    axis_or_none = axis if len(scales) > 1 else None
    quant = Quant(scales, (0,) * len(scales), axis_or_none) if scales else None
    return Tensor(name, data.shape, str(data.dtype), quant, data)


def dense_chain(*widths: int, seed: int = 0, name: str = "chain") -> Graph:
    """Fully connected layers of the given widths, the first being the input's."""
    random = np.random.default_rng(seed)
    tensors = [activation("in", 1, widths[0], scale=0.05, zero_point=-3)]
    nodes = []
    for i, (depth, channels) in enumerate(itertools.pairwise(widths)):
        weights = random.integers(-127, 128, (channels, depth)).astype(np.int8)
        at = len(tensors)
        tensors += [
            constant(f"w{i}", weights, 0.01),
            activation(f"out{i}", 1, channels, scale=0.07, zero_point=5),
        ]
        source = 0 if i == 0 else at - 1
        attrs = fully_connected.Attrs()
        nodes.append(Node("FULLY_CONNECTED", (source, at, ABSENT), (at + 1,), attrs, i))
    return Graph(name, tuple(tensors), tuple(nodes), (0,), (len(tensors) - 1,), "m.tflite", HASH)


def convolution(
    image: tuple[int, int, int] = (5, 6, 3),
    filters: tuple[int, int, int] = (4, 3, 3),
    attrs: conv2d.Attrs | None = None,
    seed: int = 0,
) -> Graph:
    """One convolution; ``image`` is (height, width, depth), ``filters`` (channels, rows, columns).

    SAME padding and stride 1 unless ``attrs`` says otherwise.
    """
    random = np.random.default_rng(seed)
    attrs = attrs or conv2d.Attrs()
    channels, rows, columns = filters
    weights = random.integers(-127, 128, (channels, rows, columns, image[2])).astype(np.int8)
    window = conv2d.Window((rows, columns), attrs.stride, attrs.dilation, attrs.padding, attrs.pads)
    out = window.output(*image[:2])
    tensors = (
        activation("in", 1, *image, scale=0.05, zero_point=7),
        constant("w", weights, *(0.01 + 0.001 * i for i in range(channels))),
        constant("b", random.integers(-999, 999, channels).astype(np.int32)),
        activation("out", 1, *out, channels, scale=0.1, zero_point=-9),
    )
    nodes = (Node("CONV_2D", (0, 1, 2), (3,), attrs, 0),)
    return Graph("convolution", tensors, nodes, (0,), (3,), "c.tflite", HASH)


def random_inputs(graph: Graph, seed: int = 0) -> list[Array]:
    """Int8 inputs over their whole range."""
    random = np.random.default_rng(seed)
    shapes = [graph.at(i).shape for i in graph.inputs]
    return [random.integers(-128, 128, shape).astype(np.int8) for shape in shapes]


def corner_inputs(graph: Graph) -> list[list[Array]]:
    """Random inputs, and the least and greatest there are."""
    shape = graph.at(graph.inputs[0]).shape
    ends = [[np.full(shape, value, dtype=np.int8)] for value in (-128, 127)]
    return [random_inputs(graph, seed) for seed in range(3)] + ends


def rectified(graph: Graph) -> Graph:
    """``graph`` with the output's zero point at the lower limit, as behind a rectifier: most such
    layers have the short requantization."""
    index = graph.outputs[0]
    return graph.with_tensor(index, quant=Quant((graph.at(index).scale,), (-128,)))
