"""Give channels whose weights are all zero plain numbers.

Training leaves dead channels: the filter is zero, the bias near 2^30 and the scale vanishing, so
that their product is the constant output.  Such numbers would forbid every shortcut that needs
small accumulators.  The constant is all that counts: with a scale of a quarter of the output's,
four times the constant's distance from the zero point gives it exactly.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tinygen.graph import Array, Graph, Node, Quant
from tinygen.numerics import Int64Array, quantize_multiplier, requantize, wrap32
from tinygen.ops import conv2d, depthwise_conv2d
from tinygen.ops.common import bias_of, filter_scales

_AXES = {conv2d.OP.name: 0, depthwise_conv2d.OP.name: 3}


def settle_constant_channels(graph: Graph) -> Graph:
    """``graph`` in which all-zero channels of int8 convolutions have small biases, usual scales."""
    for position, node in enumerate(graph.nodes):
        if node.op not in _AXES or graph.required(node, 0).dtype != "int8":
            continue
        if len(node.inputs) == 3 and graph.input(node, 2) is not None:
            graph = _settled(graph, position, node)
    return graph


def _settled(graph: Graph, position: int, node: Node) -> Graph:
    filters, bias = graph.required(node, 1), graph.required(node, 2)
    axis = _AXES[node.op]
    quant = filters.quant
    if filters.data is None or quant is None or len(quant.scale) != filters.shape[axis]:
        return graph
    rest = tuple(i for i in range(4) if i != axis)
    dead: Array = np.asarray(~filters.data.any(axis=rest))
    channels = filters.shape[axis]
    before = bias_of(graph, node, channels)
    outputs = _scaled(filter_scales(graph, node, channels), before)
    quarter = graph.output(node).scale / graph.required(node, 0).scale / 4
    limits = np.finfo(np.float32)
    if not dead.any() or not float(limits.tiny) <= quarter <= float(limits.max):
        return graph
    quarter = float(np.float32(quarter))
    # Beyond this an output is clamped in any case.
    values = np.where(dead, 4 * np.clip(outputs, -512, 512), before)
    scales = tuple(quarter if d else s for d, s in zip(dead, quant.scale, strict=True))
    changed = replace(filters, quant=Quant(scales, quant.zero_point, quant.axis))
    graph, filter_index = graph.add_tensor(changed)
    graph, bias_index = graph.add_tensor(
        replace(bias, data=values.astype(np.int32).reshape(bias.shape), quant=None)
    )
    rewritten = replace(node, inputs=(node.inputs[0], filter_index, bias_index))
    after = _scaled(filter_scales(graph, rewritten, channels), values)
    assert np.array_equal(np.clip(outputs, -512, 512)[dead], after[dead])
    nodes = (*graph.nodes[:position], rewritten, *graph.nodes[position + 1 :])
    return replace(graph, nodes=nodes)


def _scaled(scales: tuple[float, ...], bias: Array) -> Int64Array:
    """What each channel's bias alone becomes, the zero point not yet added."""
    multipliers = [quantize_multiplier(scale) for scale in scales]
    mantissa = np.array([m.mantissa for m in multipliers], dtype=np.int64)
    shift = np.array([m.shift for m in multipliers], dtype=np.int64)
    return requantize(wrap32(bias), mantissa, shift)
