"""Layers with some of their channels: filters, biases and scales cut to them."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import numpy as np
import numpy.typing as npt

from tinygen.graph import Graph, Node, Quant, Tensor
from tinygen.ops import conv2d, depthwise_conv2d, fully_connected

Mask = npt.NDArray[np.bool_]

MODULES: dict[str, ModuleType] = {
    module.OP.name: module for module in (conv2d, depthwise_conv2d, fully_connected)
}

OUTPUT_AXIS = {conv2d.OP.name: 0, depthwise_conv2d.OP.name: 3, fully_connected.OP.name: 0}
"""The filter's axis along which its output channels lie."""


def layer(
    graph: Graph, node: Node, inputs: Mask, outputs: Mask, exact: Mask | None = None
) -> tuple[Graph, Node]:
    """``node`` with constants for the input channels ``inputs`` (of a dense layer: taps) and the
    output channels ``outputs`` alone.  The activations' shapes are the caller's.

    With ``exact``, the filters of other output channels become zero.
    """
    axis = OUTPUT_AXIS[node.op]
    filters = cut(graph.required(node, 1), axis, outputs)
    if exact is not None:
        assert filters.data is not None
        shape = [-1 if i == axis else 1 for i in range(len(filters.shape))]
        chosen = np.where(exact[outputs].reshape(shape), filters.data, np.int8(0))
        filters = replace(filters, data=chosen)
    quant = filters.quant
    if quant is not None and not quant.per_tensor:
        scale = tuple(s for s, kept in zip(quant.scale, outputs, strict=True) if kept)
        filters = replace(filters, quant=Quant(scale, (0,) * len(scale), axis))
    if node.op != depthwise_conv2d.OP.name:
        filters = cut(filters, len(filters.shape) - 1, inputs)
    graph, filter_index = graph.add_tensor(filters)
    rest = node.inputs[2:]
    bias = graph.input(node, 2)
    if bias is not None:
        assert bias.data is not None
        data = bias.data.reshape(-1)[outputs]
        graph, bias_index = graph.add_tensor(replace(bias, data=data, shape=data.shape, quant=None))
        rest = (bias_index,)
    return graph, replace(node, inputs=(node.inputs[0], filter_index, *rest))


def cut(tensor: Tensor, axis: int, kept: Mask) -> Tensor:
    """A constant with the slices ``kept`` along ``axis``."""
    assert tensor.data is not None
    data = np.compress(kept, tensor.data, axis=axis)
    return replace(tensor, data=data, shape=data.shape)
