"""Small float networks for tests, built in memory, random weights in them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import tflite_builder as tb

from tinygen.graph import Array, Graph, Node, Tensor
from tinygen.ops import (
    BY_NAME,
    concatenation,
    conv2d,
    depthwise_conv2d,
    elementwise,
    fully_connected,
    leaky_relu,
    mean,
    pooling,
    softmax,
)
from tinygen.ops.base import Op, Shape


class Net:
    """A float network as it grows; every method adds an operator and gives its output's index."""

    def __init__(self, *shape: int, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.tensors = [Tensor("in", (1, *shape), "float32")]
        self.nodes: list[Node] = []

    def graph(self, *outputs: int) -> Graph:
        ends = outputs or (len(self.tensors) - 1,)
        return Graph("net", tuple(self.tensors), tuple(self.nodes), (0,), ends, "net.tflite")

    def constant(self, data: Array, name: str = "constant") -> int:
        self.tensors.append(Tensor(name, data.shape, str(data.dtype), None, data))
        return len(self.tensors) - 1

    def op(self, name: str, inputs: tuple[int, ...], attrs: Any = None, shape: Shape = ()) -> int:
        """Append an operator; its output has ``shape`` or what the operator makes of its inputs."""
        at = len(self.tensors)
        self.tensors.append(Tensor(f"{name.lower()}{at}", shape, "float32"))
        self.nodes.append(Node(name, inputs, (at,), attrs, len(self.nodes)))
        if not shape:
            op: Op = BY_NAME[name]
            (found,) = op.shapes(self.graph(at), self.nodes[-1])
            self.tensors[at] = replace(self.tensors[at], shape=found)
        return at

    def weights(self, *shape: int) -> Array:
        fan = np.prod(shape[1:]) if len(shape) == 2 or shape[0] > 1 else np.prod(shape[:3])
        return (self.random.standard_normal(shape) * (2 / fan) ** 0.5).astype(np.float32)

    def _layer(self, name: str, source: int, data: Array, channels: int, attrs: Any) -> int:
        where = f"layer{len(self.nodes)}"
        filters = self.constant(data, f"{where}/weights")
        bias = (0.1 * self.random.standard_normal(channels)).astype(np.float32)
        return self.op(name, (source, filters, self.constant(bias, f"{where}/bias")), attrs)

    def conv(
        self, source: int, channels: int, kernel: tuple[int, int] = (3, 3), **attrs: Any
    ) -> int:
        data = self.weights(channels, *kernel, self.tensors[source].shape[3])
        return self._layer("CONV_2D", source, data, channels, conv2d.Attrs(**attrs))

    def depthwise(
        self, source: int, kernel: tuple[int, int] = (3, 3), multiplier: int = 1, **attrs: Any
    ) -> int:
        channels = self.tensors[source].shape[3] * multiplier
        given = depthwise_conv2d.Attrs(**attrs)
        data = self.weights(1, *kernel, channels)
        return self._layer("DEPTHWISE_CONV_2D", source, data, channels, given)

    def dense(self, source: int, channels: int, activation: str = "NONE") -> int:
        data = self.weights(channels, self.tensors[source].shape[-1])
        attrs = fully_connected.Attrs(activation)
        return self._layer("FULLY_CONNECTED", source, data, channels, attrs)

    def binary(self, name: str, first: int, second: int, activation: str = "NONE") -> int:
        return self.op(name, (first, second), elementwise.Attrs(activation))

    def pool(self, name: str, source: int, padding: str = "VALID", activation: str = "NONE") -> int:
        return self.op(name, (source,), pooling.Attrs((2, 2), (2, 2), padding, activation))

    def flatten(self, source: int) -> int:
        elements = self.tensors[source].elements
        shape = self.constant(np.array([1, elements], dtype=np.int32))
        return self.op("RESHAPE", (source, shape), None, (1, elements))

    def mean(self, source: int, keep_dims: bool = False) -> int:
        axes = self.constant(np.array([1, 2], dtype=np.int32))
        return self.op("MEAN", (source, axes), mean.Attrs(keep_dims))

    def concatenate(self, *sources: int, axis: int = -1) -> int:
        return self.op("CONCATENATION", sources, concatenation.Attrs(axis))

    def pad(self, source: int, value: float | None = None) -> int:
        around = np.array([[0, 0], [1, 0], [0, 2], [0, 0]], dtype=np.int32)
        inputs = (source, self.constant(around))
        if value is not None:
            inputs += (self.constant(np.array([value], dtype=np.float32)),)
        return self.op("PAD" if value is None else "PADV2", inputs)

    def unary(self, name: str, source: int) -> int:
        attrs = {"SOFTMAX": softmax.Attrs(1.0), "LEAKY_RELU": leaky_relu.Attrs(0.125)}.get(name)
        return self.op(name, (source,), attrs)

    def examples(self, count: int = 32) -> Array:
        shape = self.tensors[0].shape[1:]
        return self.random.standard_normal((count, *shape)).astype(np.float32)


def straight(seed: int = 0) -> Net:
    """Convolution, depthwise, pointwise, pool, dense, softmax."""
    net = Net(8, 8, 3, seed=seed)
    x = net.conv(0, 8, activation="RELU")
    x = net.depthwise(x, activation="RELU")
    x = net.conv(x, 12, (1, 1), activation="RELU")
    x = net.pool("AVERAGE_POOL_2D", x)
    x = net.flatten(x)
    x = net.dense(x, 16, "RELU")
    net.unary("SOFTMAX", net.dense(x, 5))
    return net


def everything(seed: int = 0, hard_swish: bool = True) -> Net:
    """Every operator that can be quantized, branches and joins among them.

    HARD_SWISH is one that has no int16 form.
    """
    net = Net(6, 6, 4, seed=seed)
    a = net.conv(0, 8, activation="RELU6", stride=(1, 1))
    b = net.conv(0, 8, (1, 1), activation="NONE")
    x = net.binary("ADD", a, b, "RELU")
    x = net.binary("MUL", x, net.constant(net.weights(8)))
    x = net.binary("ADD", x, net.constant(net.weights(1, 8)))
    x = net.binary("SUB", x, net.unary("LEAKY_RELU", b))
    gate = net.unary("LOGISTIC", net.mean(x, keep_dims=True))
    x = net.binary("MUL", x, gate)
    x = net.pad(x)
    x = net.depthwise(x, (2, 2), multiplier=2, padding="VALID")
    x = net.unary("HARD_SWISH" if hard_swish else "RELU", x)
    x = net.pad(x, -0.25)
    x = net.pool("MAX_POOL_2D", x, "SAME", "RELU")
    y = net.unary("TANH", net.conv(x, 4, dilation=(2, 2)))
    z = net.unary("RELU6", net.unary("RELU", net.conv(x, 4, (1, 1))))
    x = net.concatenate(x, y, z, net.unary("LOGISTIC", z))
    x = net.pool("AVERAGE_POOL_2D", x)
    x = net.dense(net.flatten(x), 7)
    shape = net.tensors[x].shape
    x = net.op("EXPAND_DIMS", (x, net.constant(np.array([1], dtype=np.int32))))
    x = net.op("SQUEEZE", (x,), BY_NAME["SQUEEZE"].read(None), (7,))
    x = net.op("RESHAPE", (x,), None, shape)
    net.unary("SOFTMAX", x)
    return net


def as_file(graph: Graph) -> bytes:
    """The .tflite file of a float ``graph``."""
    tensors = [tb.Tensor(t.shape, t.dtype, data=t.data, name=t.name) for t in graph.tensors]
    ops = []
    for node in graph.nodes:
        op = BY_NAME[node.op]
        options = op.write(graph, node) if op.options else None
        ops.append(tb.Op(node.op, node.inputs, node.outputs, options))
    return tb.Model(tuple(tensors), tuple(ops), graph.inputs, graph.outputs).bytes
