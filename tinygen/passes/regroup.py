"""Give each convolution the operator that has the best kernels for it.

A depthwise convolution of a one-channel image is an ordinary one, and an ordinary one whose groups
are single channels is depthwise: filters change their order, no number changes.  int16 ones stay
what they are: depthwise ones sum in 64 bits whatever the bias, and their kernels gain nothing.
"""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np

from tinygen.graph import Array, Graph, Node, Quant
from tinygen.ops import conv2d, depthwise_conv2d


def regroup(graph: Graph) -> Graph:
    """``graph`` with one-channel images convolved by CONV_2D, one-channel groups by
    DEPTHWISE_CONV_2D."""
    for position, node in enumerate(graph.nodes):
        if node.op not in (conv2d.OP.name, depthwise_conv2d.OP.name):
            continue
        if graph.required(node, 0).dtype != "int8":
            continue
        depth = graph.required(node, 0).shape[3]
        filters = graph.required(node, 1).data
        assert filters is not None
        if node.op == depthwise_conv2d.OP.name and depth == 1:
            changed = _with_filters(graph, node, np.swapaxes(filters, 0, 3), 0)
        elif node.op == conv2d.OP.name and depth > 1 and filters.shape[3] == 1:
            changed = _with_filters(graph, node, np.swapaxes(filters, 0, 3), 3)
        else:
            continue
        graph, rewritten = changed
        nodes = (*graph.nodes[:position], rewritten, *graph.nodes[position + 1 :])
        graph = replace(graph, nodes=nodes)
    return graph


def _with_filters(graph: Graph, node: Node, data: Array, axis: int) -> tuple[Graph, Node]:
    """``node`` as the other operator, its ``data`` having the output channels along ``axis``."""
    filters = graph.required(node, 1)
    quant = filters.quant
    if quant is not None and not quant.per_tensor:
        quant = Quant(quant.scale, quant.zero_point, axis)
    data = np.ascontiguousarray(data)
    graph, index = graph.add_tensor(replace(filters, data=data, shape=data.shape, quant=quant))
    module = conv2d if axis == 0 else depthwise_conv2d
    shared = {f.name: getattr(node.attrs, f.name) for f in fields(conv2d.Attrs)}
    inputs = (node.inputs[0], index, *node.inputs[2:])
    return graph, replace(node, op=module.OP.name, inputs=inputs, attrs=module.Attrs(**shared))
