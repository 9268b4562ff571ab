"""EXPAND_DIMS: one more axis, of extent 1, at a constant place; no code runs.

Meaning: TFLM ``micro/kernels/expand_dims.cc``.
"""

from __future__ import annotations

from tinygen.graph import Graph, Node
from tinygen.ops import views
from tinygen.ops.base import Op, Shape


def axis_of(graph: Graph, node: Node) -> int:
    """Where the new axis stands in the output; not yet checked against the rank."""
    data = graph.required(node, 1).data
    assert data is not None
    axis = int(data.reshape(-1)[0])
    return axis if axis >= 0 else axis + len(graph.required(node, 0).shape) + 1


def shapes(graph: Graph, node: Node) -> tuple[Shape, ...]:
    shape, axis = graph.required(node, 0).shape, axis_of(graph, node)
    return ((*shape[:axis], 1, *shape[axis:]),)


def constant_axis(graph: Graph, node: Node) -> bool:
    """needs a constant axis within the rank of its input {inputs[0].shape}"""
    axis = graph.input(node, 1)
    return (
        axis is not None
        and axis.constant
        and axis.dtype in ("int32", "int64")
        and axis.elements == 1
        and 0 <= axis_of(graph, node) <= len(graph.required(node, 0).shape)
    )


OP = Op(
    name="EXPAND_DIMS",
    options="ExpandDimsOptions",
    inputs=(2, 2),
    restrictions=(views.same_type, constant_axis),
    shapes=shapes,
    reference=views.reference,
    view=True,
)
