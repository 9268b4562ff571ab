"""The operators TinyGen knows, one file each; adding one is a line here."""

from __future__ import annotations

from tinygen.graph import Graph
from tinygen.ops import (
    add,
    average_pool,
    concatenation,
    conv2d,
    depthwise_conv2d,
    dequantize,
    expand_dims,
    fully_connected,
    hard_swish,
    leaky_relu,
    logistic,
    max_pool,
    mean,
    mul,
    pad,
    quantize,
    relu,
    relu6,
    reshape,
    softmax,
    squeeze,
    sub,
    tanh,
)
from tinygen.ops.base import Op, check

OPS: tuple[Op, ...] = (
    conv2d.OP,
    depthwise_conv2d.OP,
    fully_connected.OP,
    add.OP,
    sub.OP,
    mul.OP,
    average_pool.OP,
    max_pool.OP,
    mean.OP,
    concatenation.OP,
    pad.OP,
    pad.OP_V2,
    reshape.OP,
    squeeze.OP,
    expand_dims.OP,
    softmax.OP,
    logistic.OP,
    tanh.OP,
    relu.OP,
    relu6.OP,
    leaky_relu.OP,
    hard_swish.OP,
    quantize.OP,
    dequantize.OP,
)

BY_NAME = {op.name: op for op in OPS}


def macs(graph: Graph) -> int:
    """Multiply-accumulates of one inference, counted as the operators define them."""
    return sum(BY_NAME[node.op].macs(graph, node) for node in graph.nodes)


__all__ = ["BY_NAME", "OPS", "Op", "check", "macs"]
