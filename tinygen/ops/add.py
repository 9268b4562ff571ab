"""ADD, int8 or int16, operands that broadcast.

Arithmetic: TFLM ``kernels/internal/reference/integer_ops/add.h`` and
``micro/kernels/add_common.cc``.
"""

from __future__ import annotations

from tinygen.graph import Array, Graph, Node
from tinygen.ops import elementwise, mve_elementwise
from tinygen.ops.base import Kernel, Op, Variant
from tinygen.ops.common import pointwise, version_by_type


def scaling(graph: Graph, node: Node) -> elementwise.Sum:
    return elementwise.weighted_sum(graph, node, 1)


def reference(graph: Graph, node: Node, inputs: tuple[Array | None, ...]) -> tuple[Array, ...]:
    first, second = inputs
    assert first is not None and second is not None
    return (scaling(graph, node).apply(first, second),)


def line(graph: Graph, node: Node) -> Kernel | None:
    return elementwise.line_kernel(graph, node, scaling(graph, node))


def lower(graph: Graph, node: Node) -> Kernel:
    return elementwise.sum_kernel(graph, node, scaling(graph, node))


def lower_mve(graph: Graph, node: Node) -> Kernel | None:
    return mve_elementwise.sum_kernel(graph, node, scaling(graph, node))


OP = Op(
    name="ADD",
    options="AddOptions",
    read=elementwise.read,
    write=elementwise.write,
    version=version_by_type,
    inputs=(2, 2),
    restrictions=elementwise.SUM_RESTRICTIONS,
    shapes=elementwise.shapes,
    reference=reference,
    rows=pointwise,
    variants=(
        Variant("mve", lower_mve, mve_elementwise.FEATURES),
        Variant("portable", line),
        Variant("portable", lower),
    ),
)
