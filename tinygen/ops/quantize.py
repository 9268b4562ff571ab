"""QUANTIZE: float32 to int8 or int16, and from one integer type, scale and zero point to another.

Arithmetic: TFLM ``kernels/internal/reference/quantize.h``, ``reference/requantize.h`` and
``micro/kernels/quantize_common.cc``.

TFLM leaves floats undefined whose quotient by the scale fits no int32, infinities and NaN among
them.  Here they become -2**31, as on the processors its own Python runtime runs on, and as there
the zero point is then added modulo 2**32.
"""

from __future__ import annotations

import numpy as np

from tinygen.graph import Array, Graph, Node, Tensor
from tinygen.numerics import INT32_MIN, Int64Array, clamp, wrap32
from tinygen.ops import lookup
from tinygen.ops.base import Const, Input, Kernel, Op, Output, Shape, Variant
from tinygen.ops.common import Requant, pointwise, requant

CONVERSIONS = {
    "float32": ("int8", "int16"),
    "int8": ("int8", "uint8", "int16", "int32"),
    "uint8": ("int8",),
    "int16": ("int8", "int16", "int32"),
    "int32": ("int8", "int16"),
}


def shapes(graph: Graph, node: Node) -> tuple[Shape, ...]:
    return (graph.required(node, 0).shape,)


def version(graph: Graph, node: Node) -> int:
    """Version 2 gives int16."""
    return 2 if graph.output(node).dtype == "int16" else 1


def from_float(target: Tensor, values: Array) -> Array:
    """Quantized float32 ``values``."""
    low, high = np.iinfo(target.dtype).min, np.iinfo(target.dtype).max
    with np.errstate(all="ignore"):
        quotients = (values / np.float32(target.scale)).astype(np.float64)
        fits = (quotients >= INT32_MIN) & (quotients < -INT32_MIN)
        whole = np.trunc(np.where(fits, quotients, INT32_MIN))
        away = np.where(fits & (np.abs(quotients - whole) >= 0.5), np.sign(quotients), 0)
    rounded = (whole + away).astype(np.int64)
    return clamp(wrap32(rounded + target.zero_point), low, high).astype(target.dtype)


def scaling(graph: Graph, node: Node) -> Requant:
    """Requantization from one integer type to another."""
    source, target = graph.required(node, 0), graph.output(node)
    limits = np.iinfo(source.dtype)
    bound = max(abs(int(end) - source.zero_point) for end in (limits.min, limits.max))
    return requant(graph, node, (source.scale / target.scale,), "NONE", bound)


def requantized(graph: Graph, node: Node, values: Int64Array) -> Int64Array:
    """Outputs for integer inputs."""
    shifted = wrap32(values - graph.required(node, 0).zero_point)
    dtype = graph.output(node).dtype
    return scaling(graph, node).apply(shifted, dtype).astype(np.int64)


def reference(graph: Graph, node: Node, inputs: tuple[Array | None, ...]) -> tuple[Array, ...]:
    (source,) = inputs
    assert source is not None
    if source.dtype == np.float32:
        return (from_float(graph.output(node), source),)
    return lookup.reference(requantized)(graph, node, inputs)


def lower(graph: Graph, node: Node) -> Kernel:
    """Portable kernel: a table between types of one byte, arithmetic otherwise."""
    source, target = graph.required(node, 0), graph.output(node)
    if source.dtype == "float32":
        return _float_kernel(target)
    if {source.dtype, target.dtype} <= {"int8", "uint8"}:
        return lookup.kernel(graph, node, requantized)
    requantization = scaling(graph, node)
    return Kernel(
        name=f"requantize_{source.dtype}_to_{target.dtype}",
        template="requantize/portable.c.j2",
        params={"source": source.dtype, "target": target.dtype, **requantization.params},
        args=(Input(0), Output(0), target.elements, source.zero_point, *requantization.args),
        helpers=(requantization.helper, "clamp"),
        overlap={0: 0} if target.dtype in ("int8", source.dtype) else {},
    )


def _float_kernel(target: Tensor) -> Kernel:
    return Kernel(
        name=f"quantize_{target.dtype}",
        template="quantize/portable.c.j2",
        params={"target": target.dtype},
        args=(
            Input(0),
            Output(0),
            target.elements,
            Const("scale", np.array([target.scale], dtype=np.float32)),
            target.zero_point,
            int(np.iinfo(target.dtype).min),
            int(np.iinfo(target.dtype).max),
        ),
        helpers=("clamp",),
        # Four bytes are read for each byte written, so the output stays behind.
        overlap={0: 0} if target.dtype == "int8" else {},
    )


def has_scale(tensor: Tensor) -> bool:
    """Whether ``tensor`` has one scale, and a zero point of its own type."""
    if tensor.quant is None or not tensor.quant.per_tensor:
        return False
    limits = np.iinfo(tensor.dtype)
    return int(limits.min) <= tensor.zero_point <= int(limits.max)


def known_types(graph: Graph, node: Node) -> bool:
    """cannot turn {inputs[0].dtype} into {outputs[0].dtype}"""
    return graph.output(node).dtype in CONVERSIONS.get(graph.required(node, 0).dtype, ())


def one_scale(graph: Graph, node: Node) -> bool:
    """needs one scale and a zero point for its {outputs[0].dtype} output and for an input that is
    not float32"""
    source = graph.required(node, 0)
    return has_scale(graph.output(node)) and (source.dtype == "float32" or has_scale(source))


def comparable_scales(graph: Graph, node: Node) -> bool:
    """input scale {inputs[0].scale} is too large for output scale {outputs[0].scale}"""
    source, target = graph.required(node, 0), graph.output(node)
    return source.dtype == "float32" or lookup.fits_32_bits(source.scale / target.scale)


OP = Op(
    name="QUANTIZE",
    options="QuantizeOptions",
    version=version,
    restrictions=(known_types, one_scale, comparable_scales),
    shapes=shapes,
    reference=reference,
    rows=pointwise,
    variants=(Variant("portable", lower),),
)
