"""DEQUANTIZE: int8, uint8 or int16 to float32.

Arithmetic: TFLM ``kernels/internal/reference/dequantize.h``.  It multiplies in double precision
and rounds to single.  A float32 scale times a difference of at most 17 bits is exact in double
precision, so one rounded product in single precision is the same.
"""

from __future__ import annotations

import numpy as np

from tinygen.graph import Array, Graph, Node
from tinygen.ops.base import Const, Input, Kernel, Op, Output, Shape, Variant
from tinygen.ops.common import version_by_type
from tinygen.ops.quantize import has_scale


def shapes(graph: Graph, node: Node) -> tuple[Shape, ...]:
    return (graph.required(node, 0).shape,)


def reference(graph: Graph, node: Node, inputs: tuple[Array | None, ...]) -> tuple[Array, ...]:
    (values,) = inputs
    assert values is not None
    source = graph.required(node, 0)
    with np.errstate(all="ignore"):
        products = source.scale * (values.astype(np.int64) - source.zero_point).astype(np.float64)
        return (products.astype(np.float32),)


def lower(graph: Graph, node: Node) -> Kernel:
    source = graph.required(node, 0)
    return Kernel(
        name=f"dequantize_{source.dtype}",
        template="dequantize/portable.c.j2",
        params={"source": source.dtype},
        args=(
            Input(0),
            Output(0),
            source.elements,
            Const("scale", np.array([source.scale], dtype=np.float32)),
            source.zero_point,
        ),
    )


def integer_input(graph: Graph, node: Node) -> bool:
    """needs int8, uint8 or int16 input with one scale and float32 output, has {inputs[0].dtype}
    and {outputs[0].dtype}"""
    source = graph.required(node, 0)
    return (
        source.dtype in ("int8", "uint8", "int16")
        and has_scale(source)
        and graph.output(node).dtype == "float32"
    )


OP = Op(
    name="DEQUANTIZE",
    options="DequantizeOptions",
    version=version_by_type,
    restrictions=(integer_input,),
    shapes=shapes,
    reference=reference,
    variants=(Variant("portable", lower),),
)
