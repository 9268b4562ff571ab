"""MUL, int8 or int16, operands that broadcast.

Arithmetic: TFLM ``kernels/internal/reference/integer_ops/mul.h`` and
``micro/kernels/mul_common.cc``.
"""

from __future__ import annotations

import numpy as np

from tinygen.graph import Array, Graph, Node
from tinygen.numerics import LIMITS
from tinygen.ops import elementwise, int16
from tinygen.ops.base import Kernel, Op, Variant
from tinygen.ops.common import Requant, pointwise, requant


def requant_of(graph: Graph, node: Node) -> Requant:
    first, second = (graph.required(node, i) for i in (0, 1))
    scale = first.scale * second.scale / graph.output(node).scale
    bounds = [
        max(high - t.zero_point, t.zero_point - low)
        for t, (low, high) in ((t, LIMITS[t.dtype]) for t in (first, second))
    ]
    return requant(graph, node, (scale,), node.attrs.activation, bounds[0] * bounds[1])


def reference(graph: Graph, node: Node, inputs: tuple[Array | None, ...]) -> tuple[Array, ...]:
    first, second = inputs
    assert first is not None and second is not None
    product = (first.astype(np.int64) - graph.required(node, 0).zero_point) * (
        second.astype(np.int64) - graph.required(node, 1).zero_point
    )
    return (requant_of(graph, node).apply(product, graph.output(node).dtype),)


def version(graph: Graph, node: Node) -> int:
    """Version 2 takes int8, version 3 multiplies by one or more."""
    first, second = (graph.required(node, i).scale for i in (0, 1))
    return 3 if first * second / graph.output(node).scale >= 1 else 2


def lower(graph: Graph, node: Node) -> Kernel:
    """Portable kernel; of two operands in one row, one value alone is taken as the second."""
    params, args = elementwise.walk(graph, node, (0, 1))
    order = (0, 1)
    if params["first_step"] == 0:
        order = (1, 0)
        params, args = elementwise.walk(graph, node, order)
    scaling, dtype = requant_of(graph, node), graph.output(node).dtype
    params |= {"element": f"{dtype}_t", "activate": int16.activate(dtype)}
    name = "mul16" if dtype == "int16" else "mul"
    return Kernel(
        name=f"{name}_broadcast" if params["outer"] else name,
        template="elementwise/product.c.j2",
        params=params | scaling.params,
        args=(*args, *(graph.required(node, i).zero_point for i in order), *scaling.args),
        helpers=(scaling.helper, int16.activate(dtype)),
        overlap=elementwise.overlap(graph, node),
    )


OP = Op(
    name="MUL",
    options="MulOptions",
    read=elementwise.read,
    write=elementwise.write,
    version=version,
    inputs=(2, 2),
    restrictions=(elementwise.one_type, elementwise.broadcastable),
    shapes=elementwise.shapes,
    reference=reference,
    macs=lambda graph, node: graph.output(node).elements,
    rows=pointwise,
    variants=(Variant("portable", lower),),
)
