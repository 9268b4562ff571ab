"""LEAKY_RELU, int8 or int16; alpha may be negative or above 1.

Arithmetic: TFLM ``kernels/internal/reference/leaky_relu.h`` and
``micro/kernels/leaky_relu_common.cc``.  Old releases of TFLM divide the scales in single precision,
which can move an output by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygen.graph import Graph, Node
from tinygen.numerics import Int64Array, quantize_multiplier, requantize, wrap32
from tinygen.ops import lookup
from tinygen.ops.base import Input, Kernel, Output
from tinygen.ops.relu import real_multiplier


@dataclass(frozen=True)
class Attrs:
    alpha: float = 0.0


def read(options: Any) -> Attrs:
    """Attributes from ``tflite.LeakyReluOptions``."""
    return Attrs() if options is None else Attrs(float(options.Alpha()))


def write(graph: Graph, node: Node) -> dict[str, Any]:
    """Fields of ``tflite.LeakyReluOptions``."""
    return {"Alpha": node.attrs.alpha}


def slope(graph: Graph, node: Node) -> float:
    """What multiplies values below zero."""
    attrs: Attrs = node.attrs
    return graph.required(node, 0).scale * attrs.alpha / graph.output(node).scale


def function(graph: Graph, node: Node, values: Int64Array) -> Int64Array:
    x = values - graph.required(node, 0).zero_point
    alpha = slope(graph, node)
    above, below = map(quantize_multiplier, (real_multiplier(graph, node), abs(alpha)))
    # TFLM multiplies by the magnitude of alpha and negates the product.
    product = requantize(x, below.mantissa, below.shift)
    negative = -product if alpha < 0 else product
    scaled = np.where(x >= 0, requantize(x, above.mantissa, above.shift), negative)
    target = graph.output(node)
    return lookup.limited(wrap32(scaled + target.zero_point), target.dtype)


def int16_kernel(graph: Graph, node: Node) -> Kernel:
    """Portable kernel for int16: one multiplier for each side of zero."""
    alpha = slope(graph, node)
    above, below = map(quantize_multiplier, (real_multiplier(graph, node), abs(alpha)))
    return Kernel(
        name="leaky_relu16",
        template="leaky_relu/portable_int16.c.j2",
        params={"negated": alpha < 0},
        args=(
            Input(0),
            Output(0),
            graph.output(node).elements,
            above.mantissa,
            above.shift,
            below.mantissa,
            below.shift,
        ),
        helpers=("clamp", "requantize"),
        overlap={0: 0},
    )


def comparable_scales(graph: Graph, node: Node) -> bool:
    """input scale {inputs[0].scale} with alpha {attrs.alpha} is too large for output scale
    {outputs[0].scale}"""
    return all(map(lookup.fits_32_bits, (slope(graph, node), real_multiplier(graph, node))))


OP = lookup.unary(
    "LEAKY_RELU",
    function,
    (comparable_scales,),
    "LeakyReluOptions",
    read,
    write,
    int16_kernel=int16_kernel,
)
