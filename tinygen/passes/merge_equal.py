"""Compute only once what two operators compute alike."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

from tinygen.graph import ABSENT, Graph, Node


def merge_equal(graph: Graph) -> Graph:
    """``graph`` without operators that do what an earlier one did to the same tensors."""
    same: dict[int, int] = {}
    seen: dict[Hashable, int] = {}
    nodes = []
    for original in graph.nodes:
        node = replace(original, inputs=tuple(same.get(i, i) for i in original.inputs))
        (output,) = node.outputs
        first = seen.setdefault(_key(graph, node), output)
        if first != output and output not in graph.outputs:
            same[output] = first
        else:
            nodes.append(node)
    return replace(graph, nodes=tuple(nodes)) if same else graph


def _key(graph: Graph, node: Node) -> Hashable:
    """All that a node's result depends on."""
    target = graph.output(node)
    inputs = tuple(_content(graph, index) for index in node.inputs)
    return node.op, node.attrs, inputs, target.shape, target.dtype, target.quant


def _content(graph: Graph, index: int) -> Hashable:
    """An activation's index, or what a constant holds."""
    tensor = graph.at(index) if index != ABSENT else None
    if tensor is None or tensor.data is None:
        return index
    return tensor.shape, tensor.dtype, tensor.quant, tensor.data.tobytes()
