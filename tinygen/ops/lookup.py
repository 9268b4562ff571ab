"""Operators that turn each byte into another byte on its own: a table of 256 bytes computes them.

The operator's exact arithmetic runs at generation time, over all 256 inputs.  When the table only
adds a constant and limits the sum, as RELU between equal scales does, two comparisons an element
do the same and 256 bytes of flash are saved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tinygen.graph import Array, Graph, Node, Tensor
from tinygen.numerics import LIMITS, Int64Array, clamp, quantize_multiplier
from tinygen.ops import int16
from tinygen.ops.base import Const, Input, Kernel, Op, Output, Restriction, Shape, Variant
from tinygen.ops.common import int8_in_and_out, pointwise

Function = Callable[[Graph, Node, Int64Array], Int64Array]
"""Quantized outputs for quantized inputs of any shape."""


def shapes(graph: Graph, node: Node) -> tuple[Shape, ...]:
    return (graph.required(node, 0).shape,)


def values_of(tensor: Tensor) -> Int64Array:
    """All 256 values of a one-byte ``tensor``, in the order of their bit patterns."""
    return np.arange(256, dtype=np.uint8).view(tensor.dtype).astype(np.int64)


def kernel(graph: Graph, node: Node, function: Function) -> Kernel:
    """The kernel that maps bytes by ``function``; input and output are int8 or uint8."""
    source, target = graph.required(node, 0), graph.output(node)
    given = values_of(source)
    results = function(graph, node, given)
    shift = shift_of(given, results)
    if shift is not None:
        return Kernel(
            name="limits",
            template="lookup/limits.c.j2",
            params={"source": source.dtype, "target": target.dtype},
            args=(
                Input(0),
                Output(0),
                target.elements,
                shift,
                int(results.min()),
                int(results.max()),
            ),
            helpers=("clamp",),
            overlap={0: 0},
        )
    table = results.astype(target.dtype).view(np.uint8)
    return Kernel(
        name="lookup",
        template="lookup/portable.c.j2",
        params={},
        args=(Input(0), Output(0), target.elements, Const("table", table)),
        overlap={0: 0},
    )


def shift_of(given: Int64Array, results: Int64Array) -> int | None:
    """``k`` such that ``results`` are ``given + k`` limited to their own range, if there is one."""
    low, high = int(results.min()), int(results.max())
    for shift in np.unique(results - given):
        if np.array_equal(clamp(given + shift, low, high), results):
            return int(shift)
    return None


def reference(
    function: Function,
) -> Callable[[Graph, Node, tuple[Array | None, ...]], tuple[Array, ...]]:
    """The reference of an operator that applies ``function`` to its one input."""

    def apply(graph: Graph, node: Node, inputs: tuple[Array | None, ...]) -> tuple[Array, ...]:
        (source,) = inputs
        assert source is not None
        results = function(graph, node, source.astype(np.int64))
        return (results.astype(graph.output(node).dtype),)

    return apply


def unary(
    name: str,
    function: Function,
    restrictions: tuple[Restriction, ...] = (),
    options: str = "",
    read: Callable[[Any], Any] = lambda options: None,
    write: Callable[[Graph, Node], Mapping[str, Any]] = lambda graph, node: {},
    version: int = 2,
    int16_kernel: Callable[[Graph, Node], Kernel] | None = None,
) -> Op:
    """The operator ``name`` that maps int8 to int8 by ``function``.

    With an ``int16_kernel``, ``function`` also maps int16 to int16.
    """

    def lower(graph: Graph, node: Node) -> Kernel:
        if int16_kernel is not None and int16.reads_int16(graph, node):
            return int16_kernel(graph, node)
        return kernel(graph, node, function)

    def version_of(graph: Graph, node: Node) -> int:
        return version + int16.reads_int16(graph, node)

    known_types = int8_in_and_out if int16_kernel is None else int16.int8_or_int16
    return Op(
        name=name,
        options=options,
        read=read,
        write=write,
        version=version_of,
        restrictions=(known_types, *restrictions),
        shapes=shapes,
        reference=reference(function),
        rows=pointwise,
        variants=(Variant("portable", lower),),
    )


def fits_32_bits(real: float) -> bool:
    """Whether TFLM's fixed-point multiplier for ``real`` shifts left by no more than 30 bits."""
    return bool(np.isfinite(real)) and quantize_multiplier(abs(real)).shift <= 30


def limited(values: Int64Array, dtype: str) -> Int64Array:
    """``values`` limited to what ``dtype`` holds."""
    return clamp(values, *LIMITS[dtype])
