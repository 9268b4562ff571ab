"""RESHAPE: no code runs.

The output's own shape counts, as in TFLM's ``micro/kernels/reshape_common.cc``, which reads
neither the options nor the shape tensor: converters leave -1 or a stale batch size in both.
"""

from __future__ import annotations

from typing import Any

from tinygen.graph import Graph, Node
from tinygen.ops import views
from tinygen.ops.base import Op, Shape


def shapes(graph: Graph, node: Node) -> tuple[Shape, ...]:
    return (graph.output(node).shape,)


def write(graph: Graph, node: Node) -> dict[str, Any]:
    """Fields of ``tflite.ReshapeOptions``, which TensorFlow Lite reads when no tensor says it."""
    return {"NewShape": graph.output(node).shape}


def same_elements(graph: Graph, node: Node) -> bool:
    """cannot reshape {inputs[0].shape} to {outputs[0].shape}: the numbers of elements differ"""
    return graph.required(node, 0).elements == graph.output(node).elements


OP = Op(
    name="RESHAPE",
    options="ReshapeOptions",
    write=write,
    inputs=(1, 2),
    restrictions=(views.same_type, same_elements),
    shapes=shapes,
    reference=views.reference,
    view=True,
)
