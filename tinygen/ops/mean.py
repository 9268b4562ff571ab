"""MEAN, int8 or int16, over any axes.

Arithmetic: TFLM ``kernels/internal/reference/reduce.h`` (``QuantizedMeanOrSum``) and
``micro/kernels/reduce_common.cc``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygen.graph import Array, Graph, Node
from tinygen.numerics import LIMITS, Multiplier, quantize_multiplier
from tinygen.ops import int16
from tinygen.ops.base import Input, Kernel, Op, Output, Shape, Variant
from tinygen.ops.common import Requant, requant_by, version_by_type

MAX_COUNT = {"int8": 1 << 23, "int16": (1 << 16) - 1}
"""Most values averaged into one: their sum fits 32 bits."""


@dataclass(frozen=True)
class Attrs:
    keep_dims: bool = False


def read(options: Any) -> Attrs:
    """Attributes from ``tflite.ReducerOptions``."""
    return Attrs(options is not None and bool(options.KeepDims()))


def write(graph: Graph, node: Node) -> dict[str, Any]:
    """Fields of ``tflite.ReducerOptions``."""
    return {"KeepDims": node.attrs.keep_dims}


def axes_of(graph: Graph, node: Node) -> tuple[int, ...]:
    """The axes averaged over, in order, each once and none negative."""
    axes, rank = graph.required(node, 1).data, len(graph.required(node, 0).shape)
    assert axes is not None
    return tuple(sorted({int(axis) % rank for axis in axes.reshape(-1)})) if rank else ()


def shapes(graph: Graph, node: Node) -> tuple[Shape, ...]:
    axes, shape = axes_of(graph, node), graph.required(node, 0).shape
    if node.attrs.keep_dims:
        return (tuple(1 if i in axes else extent for i, extent in enumerate(shape)),)
    return (tuple(extent for i, extent in enumerate(shape) if i not in axes),)


def count_of(graph: Graph, node: Node) -> int:
    """How many values each output averages."""
    shape = graph.required(node, 0).shape
    return math.prod(shape[axis] for axis in axes_of(graph, node))


def requant_of(graph: Graph, node: Node) -> Requant:
    """Requantization of sums: the scales' ratio over the count, which TFLM rounds towards zero."""
    source, count = graph.required(node, 0), count_of(graph, node)
    ratio = quantize_multiplier(source.scale / graph.output(node).scale)
    places = min(count.bit_length() - 1, 32, 31 + ratio.shift)
    multiplier = Multiplier((ratio.mantissa << places) // count, ratio.shift - places)
    low, high = LIMITS[source.dtype]
    bound = count * max(high - source.zero_point, source.zero_point - low)
    return requant_by(graph, node, (multiplier,), "NONE", bound)


def reference(graph: Graph, node: Node, inputs: tuple[Array | None, ...]) -> tuple[Array, ...]:
    source = inputs[0]
    assert source is not None
    offset = graph.required(node, 0).zero_point * count_of(graph, node)
    sums = source.astype(np.int64).sum(axis=axes_of(graph, node), keepdims=node.attrs.keep_dims)
    return (requant_of(graph, node).apply(sums - offset, source.dtype.name),)


@dataclass(frozen=True)
class Run:
    """Neighbouring axes of one kind as a single loop over ``count`` values ``stride`` apart."""

    count: int
    stride: int
    summed: bool


def runs(shape: Shape, axes: tuple[int, ...]) -> tuple[Run, ...]:
    """The fewest nested loops, outermost first, that visit every value of ``shape``."""
    found: list[Run] = []
    stride = 1
    for axis, extent in reversed(list(enumerate(shape))):
        summed = axis in axes
        if found and found[-1].summed == summed:
            inner = found.pop()
            found.append(Run(extent * inner.count, inner.stride, summed))
        elif extent > 1:
            found.append(Run(extent, stride, summed))
        stride *= extent
    return tuple(reversed(found))


def lower(graph: Graph, node: Node) -> Kernel:
    """Portable kernel: four neighbouring outputs at a time, so that memory is read in rows."""
    source, count = graph.required(node, 0), count_of(graph, node)
    nest = runs(source.shape, axes_of(graph, node))
    kept = [run for run in nest if not run.summed]
    channels = kept.pop().count if kept and not nest[-1].summed else 1
    scaling = requant_of(graph, node)
    params = {"kept": kept, "summed": [run for run in nest if run.summed], "channels": channels}
    params |= {"element": f"{source.dtype}_t", "activate": int16.activate(source.dtype)}
    start = "mean16" if source.dtype == "int16" else "mean"
    return Kernel(
        name="_".join([start, *(f"{'over' if r.summed else 'keep'}{r.count}" for r in nest)]),
        template="mean/portable.c.j2",
        params=params | scaling.params,
        args=(
            Input(0),
            Output(0),
            -source.zero_point * count,
            *scaling.args,
        ),
        helpers=(scaling.helper, int16.activate(source.dtype)),
    )


def constant_axes(graph: Graph, node: Node) -> bool:
    """needs constant int32 axes within the input's rank of shape {inputs[0].shape}"""
    axes, rank = graph.input(node, 1), len(graph.required(node, 0).shape)
    return (
        axes is not None
        and axes.data is not None
        and axes.dtype == "int32"
        and (rank == 0 or all(-rank <= int(axis) < rank for axis in axes.data.reshape(-1)))
    )


def countable(graph: Graph, node: Node) -> bool:
    """needs an input that is neither empty nor huge, has {inputs[0].shape}"""
    source = graph.required(node, 0)
    return source.elements > 0 and count_of(graph, node) <= MAX_COUNT[source.dtype]


OP = Op(
    name="MEAN",
    options="ReducerOptions",
    read=read,
    write=write,
    version=version_by_type,
    inputs=(2, 2),
    restrictions=(int16.int8_or_int16, constant_axes, countable),
    shapes=shapes,
    reference=reference,
    variants=(Variant("portable", lower),),
)
