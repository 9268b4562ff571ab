"""Compute at generation time what depends on constants alone."""

from __future__ import annotations

from dataclasses import replace

from tinygen.graph import ABSENT, Graph
from tinygen.ops import BY_NAME


def fold_constants(graph: Graph) -> Graph:
    """``graph`` in which nodes with only constant inputs are replaced by their results.

    Results come from the reference, so they are exact by definition.
    """
    for node in graph.nodes:
        given = tuple(None if i == ABSENT else graph.at(i).data for i in node.inputs)
        if any(v is None for v, i in zip(given, node.inputs, strict=True) if i != ABSENT):
            continue
        for index, value in zip(
            node.outputs, BY_NAME[node.op].reference(graph, node, given), strict=True
        ):
            graph = graph.with_tensor(index, data=value)
        graph = replace(graph, nodes=tuple(n for n in graph.nodes if n is not node))
    return graph
