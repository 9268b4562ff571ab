"""Drop nodes whose outputs nothing reads."""

from __future__ import annotations

from dataclasses import replace

from tinygen.graph import Graph


def drop_dead(graph: Graph) -> Graph:
    """``graph`` without nodes that no output depends on."""
    needed = set(graph.outputs)
    kept = []
    for node in reversed(graph.nodes):
        if needed & set(node.outputs):
            kept.append(node)
            needed.update(node.inputs)
    return replace(graph, nodes=tuple(reversed(kept)))
