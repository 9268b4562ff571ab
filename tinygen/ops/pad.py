"""PAD and PADV2: a constant around a tensor of up to five axes.

Meaning: TFLM ``kernels/internal/reference/pad.h`` and ``micro/kernels/pad_common.cc``.  TFLM has
one kernel for both: the value is the third input, or the output's zero point when that is absent.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tinygen.graph import Array, Graph, Node
from tinygen.ops.base import Const, Input, Kernel, Op, Output, Shape, Variant
from tinygen.ops.common import parameters, version_by_type

NAMES = ("PAD", "PADV2")
MAX_RANK = 5
MAX_AMOUNT = 1 << 25


def amounts(graph: Graph, node: Node) -> tuple[tuple[int, int], ...]:
    """How many elements come before and after each axis."""
    paddings = graph.required(node, 1).data
    assert paddings is not None
    return tuple((int(before), int(after)) for before, after in paddings.reshape(-1, 2))


def fill(graph: Graph, node: Node) -> Array:
    """The value around the input, as an array of one element of the output's type."""
    value, target = graph.input(node, 2), graph.output(node)
    if value is not None and value.data is not None:
        return value.data.reshape(1)
    return np.array([parameters(target)[1] if target.dtype == "int8" else 0], dtype=target.dtype)


def fill_value(graph: Graph, node: Node) -> float:
    """The value around the input as a number: an integer unless the output is float32."""
    return fill(graph, node)[0].item()  # type: ignore[no-any-return]


def shapes(graph: Graph, node: Node) -> tuple[Shape, ...]:
    shape = graph.required(node, 0).shape
    pairs = zip(shape, amounts(graph, node), strict=True)
    return (tuple(before + extent + after for extent, (before, after) in pairs),)


def reference(graph: Graph, node: Node, inputs: tuple[Array | None, ...]) -> tuple[Array, ...]:
    source = inputs[0]
    assert source is not None
    return (np.pad(source, amounts(graph, node), constant_values=fill(graph, node)[0]),)


@dataclass(frozen=True)
class Level:
    """A loop of ``count`` rounds with ``before`` and ``after`` bytes of padding around it."""

    count: int
    before: int
    after: int


def levels(shape: Shape, pairs: tuple[tuple[int, int], ...], width: int) -> tuple[Level, ...]:
    """The fewest nested loops, outermost first, over elements of ``width`` bytes.

    A round of the innermost loop is one byte, so that it is a copy of ``count`` bytes.  An axis
    without padding joins the one outside it.
    """
    found = [Level(width, 0, 0)]
    size = width  # bytes of the output that one index of the axis takes
    for extent, (before, after) in reversed(list(zip(shape, pairs, strict=True))):
        inner = found[-1]
        around = (before * size, after * size)
        if (inner.before, inner.after) == (0, 0):
            found[-1] = Level(extent * inner.count, *around)
        elif extent > 1 or around != (0, 0):
            found.append(Level(extent, *around))
        size *= before + extent + after
    return tuple(reversed(found))


def lower(graph: Graph, node: Node) -> Kernel:
    """Portable kernel: memory is set and copied in the longest runs there are.

    A value whose bytes differ cannot be set; it is copied from an array as long as the longest run
    of padding.
    """
    source, value = graph.required(node, 0), fill(graph, node)
    nest = levels(source.shape, amounts(graph, node), value.itemsize)
    longest = max(max(level.before, level.after) for level in nest)
    same = len(set(value.tobytes())) == 1
    around = (
        value.tobytes()[0] if same else Const("padding", value.repeat(longest // value.itemsize))
    )
    return Kernel(
        name="pad_" + "x".join(map(str, source.shape)),
        template="pad/portable.c.j2",
        params={"outer": nest[:-1], "row": nest[-1], "set": same, "padded": longest > 0},
        args=(Input(0), Output(0), *((around,) if longest else ())),
    )


def same_type(graph: Graph, node: Node) -> bool:
    """cannot pad {inputs[0].dtype} of shape {inputs[0].shape} into {outputs[0].dtype}"""
    source, target = graph.required(node, 0), graph.output(node)
    return (
        source.dtype == target.dtype
        and source.dtype in ("int8", "int16", "int32", "float32")
        and 1 <= len(source.shape) <= MAX_RANK
        and source.elements > 0
    )


def constant_amounts(graph: Graph, node: Node) -> bool:
    """needs two constant int32 or int64 amounts of padding for each axis, none negative"""
    paddings, rank = graph.input(node, 1), len(graph.required(node, 0).shape)
    return (
        paddings is not None
        and paddings.data is not None
        and paddings.dtype in ("int32", "int64")
        and paddings.elements == 2 * rank
        and all(0 <= int(amount) <= MAX_AMOUNT for amount in paddings.data.reshape(-1))
    )


def constant_value(graph: Graph, node: Node) -> bool:
    """needs one constant value of its output's element type {outputs[0].dtype} and quantization"""
    value, target = graph.input(node, 2), graph.output(node)
    if value is None:
        return target.dtype != "int8" or -128 <= parameters(target)[1] <= 127
    return (
        value.constant
        and value.dtype == target.dtype
        and value.elements == 1
        and (target.dtype != "int8" or parameters(value) == parameters(target))
    )


OP = Op(
    name="PAD",
    version=version_by_type,
    inputs=(2, 3),
    restrictions=(same_type, constant_amounts, constant_value),
    shapes=shapes,
    reference=reference,
    variants=(Variant("portable", lower),),
)

OP_V2 = replace(OP, name="PADV2")
