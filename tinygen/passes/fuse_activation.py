"""Let an operator clamp its own output instead of running RELU and its kin after it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tinygen.errors import InputError
from tinygen.graph import Graph, Node
from tinygen.ops import BY_NAME
from tinygen.ops.common import activation_limits, is_int8

_ACTIVATIONS = {"RELU": "RELU", "RELU6": "RELU6"}


def fuse_activation(graph: Graph) -> Graph:
    """``graph`` in which activations move into the operator before them, where that is exact.

    Exact means: over all 256 input values the activation's reference gives what the clamp of the
    operator would give.
    """
    for node in graph.nodes:
        if node.op not in _ACTIVATIONS:
            continue
        source = graph.producer(node.inputs[0])
        if source is None or getattr(source.attrs, "activation", None) != "NONE":
            continue
        if len(graph.consumers(node.inputs[0])) != 1 or node.inputs[0] in graph.outputs:
            continue
        fused = replace(
            source,
            outputs=node.outputs,
            attrs=replace(source.attrs, activation=_ACTIVATIONS[node.op]),
        )
        if not _same(graph, node, fused):
            continue
        nodes = tuple(fused if n is source else n for n in graph.nodes if n is not node)
        graph = replace(graph, nodes=nodes)
    return graph


def _same(graph: Graph, node: Node, fused: Node) -> bool:
    """Whether the clamp of ``fused`` does to its unclamped output what ``node`` does."""
    before, after = graph.required(node, 0), graph.output(node)
    if not is_int8(before) or not is_int8(after) or before.quant != after.quant:
        return False
    try:
        low, high = activation_limits(graph, fused, fused.attrs.activation)
    except InputError:
        return False
    values = np.arange(-128, 128, dtype=np.int8)
    (result,) = BY_NAME[node.op].reference(graph, node, (values,))
    return bool(np.array_equal(result, np.clip(values, low, high)))
