"""Drop operators that give out what they are given.

Limits that the values before them never reach (RELU after a layer that has it fused, RELU6 of what
is never above six), conversions between equal scales, padding by nothing, windows of one pixel.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tinygen.graph import Graph, Node
from tinygen.ops import BY_NAME, concatenation, pad
from tinygen.ops.common import activation_limits
from tinygen.passes import known
from tinygen.passes.known import Values

_COPIES = frozenset({concatenation.OP.name, *pad.NAMES})


def drop_identities(graph: Graph) -> Graph:
    """``graph`` without operators that change neither values nor what they mean."""
    if not any(_candidate(graph, node) for node in graph.nodes):
        return graph
    found = known.analyse(graph)
    for output in [node.outputs[0] for node in graph.nodes]:
        node = graph.producer(output)  # whose inputs may have been renamed
        if node and _candidate(graph, node) and _changes_nothing(graph, node, found):
            graph = _without(graph, node)
    return graph


def _candidate(graph: Graph, node: Node) -> bool:
    """Whether ``node`` is of a kind that may change nothing, its output like its input."""
    if node.op not in _COPIES | known.BYTEWISE | known.POOLS:
        return False
    source, target = graph.required(node, 0), graph.output(node)
    return (source.shape, source.dtype, source.quant) == (target.shape, target.dtype, target.quant)


def _changes_nothing(graph: Graph, node: Node, found: dict[int, Values]) -> bool:
    if node.op in _COPIES:
        return True  # of as many elements
    if node.inputs[0] not in found:
        return False
    given = found[node.inputs[0]]
    values = np.arange(given.low.min(), given.high.max() + 1).astype(np.int8)
    if node.op in known.BYTEWISE:
        (results,) = BY_NAME[node.op].reference(graph, node, (values,))
        return np.array_equal(results, values)
    limits = activation_limits(graph, node, node.attrs.activation)
    return node.attrs.kernel == (1, 1) and np.array_equal(values, np.clip(values, *limits))


def _without(graph: Graph, node: Node) -> Graph:
    """``graph`` in which what read the output of ``node`` reads its input; one that nobody else
    reads takes the output's place where that is the network's own."""
    source, target = node.inputs[0], node.outputs[0]
    nodes = tuple(n for n in graph.nodes if n is not node)
    if target not in graph.outputs:
        return replace(graph, nodes=tuple(_renamed(n, target, source) for n in nodes))
    maker = graph.producer(source)
    if maker is None or source in graph.outputs:
        return graph
    renamed = (
        replace(n, outputs=(target,)) if n is maker else _renamed(n, source, target) for n in nodes
    )
    return replace(graph, nodes=tuple(renamed))


def _renamed(node: Node, old: int, new: int) -> Node:
    return replace(node, inputs=tuple(new if i == old else i for i in node.inputs))
