"""CONCATENATION along any axis; values are copied as they are.

Meaning: TFLM ``kernels/internal/reference/concatenation.h`` and
``micro/kernels/concatenation.cc``, which asks for equal quantization of int8 tensors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygen.graph import Array, Graph, Node, Tensor
from tinygen.ops.base import Input, Kernel, Op, Output, Shape, Variant
from tinygen.ops.common import ACTIVATIONS, lookup, parameters, version_by_type

MAX_INPUTS = 32


@dataclass(frozen=True)
class Attrs:
    axis: int


def read(options: Any) -> Attrs:
    """Attributes from ``tflite.ConcatenationOptions``."""
    if options is None:
        return Attrs(0)
    lookup({0: ACTIVATIONS[0]}, options.FusedActivationFunction(), "activation")
    return Attrs(options.Axis())


def write(graph: Graph, node: Node) -> dict[str, Any]:
    """Fields of ``tflite.ConcatenationOptions``."""
    return {"Axis": node.attrs.axis}


def sources_of(graph: Graph, node: Node) -> tuple[Tensor, ...]:
    return tuple(graph.required(node, i) for i in range(len(node.inputs)))


def axis_of(graph: Graph, node: Node) -> int:
    """The axis, counted from the front."""
    axis: int = node.attrs.axis
    return axis % len(graph.required(node, 0).shape)


def shapes(graph: Graph, node: Node) -> tuple[Shape, ...]:
    axis, sources = axis_of(graph, node), sources_of(graph, node)
    shape = sources[0].shape
    return ((*shape[:axis], sum(s.shape[axis] for s in sources), *shape[axis + 1 :]),)


def reference(graph: Graph, node: Node, inputs: tuple[Array | None, ...]) -> tuple[Array, ...]:
    given = [array for array in inputs if array is not None]
    assert len(given) == len(inputs)
    return (np.concatenate(given, axis=axis_of(graph, node)),)


def lower(graph: Graph, node: Node) -> Kernel:
    """Portable kernel: for each index before the axis, one block of bytes an input."""
    sources = sources_of(graph, node)
    outer = math.prod(sources[0].shape[: axis_of(graph, node)])
    sizes = [s.bytes // outer for s in sources]
    return Kernel(
        name=f"concatenation_{outer}x" + "_".join(map(str, sizes)),
        template="concatenation/portable.c.j2",
        params={"outer": outer, "sizes": sizes},
        args=(*(Input(i) for i in range(len(sources))), Output(0)),
    )


def plain_values(graph: Graph, node: Node) -> bool:
    """needs inputs of its output's element type {outputs[0].dtype} and quantization, int16 ones
    zero points of 0"""
    target = graph.output(node)
    every = (*sources_of(graph, node), target)
    if target.dtype == "int16" and any(parameters(t)[1] for t in every):
        return False
    return all(
        t.dtype == target.dtype and (t.dtype != "int8" or parameters(t) == parameters(target))
        for t in every
    )


def geometry(graph: Graph, node: Node) -> bool:
    """inputs cannot be joined along axis {attrs.axis}; the first has shape {inputs[0].shape}"""
    sources = sources_of(graph, node)
    rank = len(sources[0].shape)
    if not -rank <= node.attrs.axis < rank:
        return False
    axis = axis_of(graph, node)
    others = {(len(s.shape), s.shape[:axis], s.shape[axis + 1 :]) for s in sources}
    return len(others) == 1 and all(s.elements for s in sources)


OP = Op(
    name="CONCATENATION",
    options="ConcatenationOptions",
    read=read,
    write=write,
    version=version_by_type,
    inputs=(1, MAX_INPUTS),
    restrictions=(plain_values, geometry),
    shapes=shapes,
    reference=reference,
    variants=(Variant("portable", lower),),
)
