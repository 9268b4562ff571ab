"""What RESHAPE, SQUEEZE and EXPAND_DIMS share: the same memory under another shape."""

from __future__ import annotations

from tinygen.graph import Array, Graph, Node


def reference(graph: Graph, node: Node, inputs: tuple[Array | None, ...]) -> tuple[Array, ...]:
    source = inputs[0]
    assert source is not None
    return (source.reshape(graph.output(node).shape),)


def same_type(graph: Graph, node: Node) -> bool:
    """turns {inputs[0].dtype} into {outputs[0].dtype}, which a change of shape cannot"""
    return graph.required(node, 0).dtype == graph.output(node).dtype
