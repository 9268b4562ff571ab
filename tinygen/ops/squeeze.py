"""SQUEEZE: drops axes of extent 1, the given ones or all; no code runs.

Meaning: TFLM ``micro/kernels/squeeze.cc``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tinygen.errors import InputError
from tinygen.graph import MAX_RANK, Graph, Node
from tinygen.ops import views
from tinygen.ops.base import Op, Shape


@dataclass(frozen=True)
class Attrs:
    """``axes`` may be negative, and are all of extent 1 when empty."""

    axes: tuple[int, ...] = ()


def read(options: Any) -> Attrs:
    """Attributes from ``tflite.SqueezeOptions``."""
    if options is None:
        return Attrs()
    count = options.SqueezeDimsLength()
    if not 0 <= count <= MAX_RANK:
        raise InputError(f"cannot squeeze {count} axes")
    return Attrs(tuple(options.SqueezeDims(i) for i in range(count)))


def write(graph: Graph, node: Node) -> dict[str, Any]:
    """Fields of ``tflite.SqueezeOptions``."""
    return {"SqueezeDims": node.attrs.axes}


def shapes(graph: Graph, node: Node) -> tuple[Shape, ...]:
    shape, attrs = graph.required(node, 0).shape, node.attrs
    dropped = {axis % len(shape) for axis in attrs.axes}
    if not attrs.axes:
        dropped = {axis for axis, extent in enumerate(shape) if extent == 1}
    return (tuple(extent for axis, extent in enumerate(shape) if axis not in dropped),)


def axes_of_one(graph: Graph, node: Node) -> bool:
    """cannot squeeze axes {attrs.axes} of {inputs[0].shape}: they are not of extent 1"""
    shape = graph.required(node, 0).shape
    axes = node.attrs.axes
    return all(-len(shape) <= axis < len(shape) and shape[axis] == 1 for axis in axes)


OP = Op(
    name="SQUEEZE",
    options="SqueezeOptions",
    read=read,
    write=write,
    restrictions=(views.same_type, axes_of_one),
    shapes=shapes,
    reference=views.reference,
    view=True,
)
