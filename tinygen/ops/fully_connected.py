"""FULLY_CONNECTED, int8 or int16, per-tensor or per-channel weights.

Arithmetic: TFLM ``kernels/internal/reference/integer_ops/fully_connected.h`` and
``micro/kernels/fully_connected_common.cc``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygen.graph import Array, Graph, Node
from tinygen.numerics import exact_matmul
from tinygen.ops import (
    dsp,
    dsp_int4,
    dsp_int16,
    int4,
    int16,
    mve,
    portable,
    scalar,
    sparse,
    sparse_dsp,
)
from tinygen.ops.base import Op, Shape
from tinygen.ops.common import (
    ACTIVATIONS,
    Requant,
    accumulator_bound,
    bias_of,
    code_of,
    constant_bias,
    constant_filter,
    filter_scales,
    lookup,
    requant,
)
from tinygen.ops.convolution import Convolution, variants


@dataclass(frozen=True)
class Attrs:
    activation: str = "NONE"
    keep_num_dims: bool = False
    bias_type: str = ""
    """As a convolution's."""


def read(options: Any) -> Attrs:
    """Attributes from ``tflite.FullyConnectedOptions``."""
    if options is None:
        return Attrs()
    lookup({0: "DEFAULT"}, options.WeightsFormat(), "weights format")
    return Attrs(
        activation=lookup(ACTIVATIONS, options.FusedActivationFunction(), "activation"),
        keep_num_dims=bool(options.KeepNumDims()),
        bias_type=int16.bias_type(options),
    )


def write(graph: Graph, node: Node) -> dict[str, Any]:
    """Fields of ``tflite.FullyConnectedOptions``."""
    attrs: Attrs = node.attrs
    return {
        "FusedActivationFunction": code_of(ACTIVATIONS, attrs.activation, "activation"),
        "KeepNumDims": attrs.keep_num_dims,
        **int16.bias_type_option(attrs.bias_type),
    }


def version(graph: Graph, node: Node) -> int:
    """Version 4 takes int8, 5 keeps dimensions, 6 needs no bias, 7 takes int16, 12 has scales for
    channels."""
    quant = graph.required(node, 1).quant
    if quant is not None and not quant.per_tensor:
        return 12
    if int16.reads_int16(graph, node):
        return 7
    if graph.input(node, 2) is None:
        return 6
    return 5 if node.attrs.keep_num_dims else 4


def shapes(graph: Graph, node: Node) -> tuple[Shape, ...]:
    """(rows, channels), or the input's shape with its last extent replaced.

    TFLM takes the shape that the model declares; both are met in the field whatever
    ``keep_num_dims`` says, so any shape with the channels last and as many elements will do.
    """
    source, (channels, depth) = graph.required(node, 0), graph.required(node, 1).shape
    declared = graph.output(node).shape
    rows = source.elements // depth
    if declared and declared[-1] == channels and graph.output(node).elements == rows * channels:
        return (declared,)
    return ((rows, channels),)


def reference(graph: Graph, node: Node, inputs: tuple[Array | None, ...]) -> tuple[Array, ...]:
    source, weights = inputs[0], inputs[1]
    assert source is not None and weights is not None
    channels, depth = weights.shape
    rows = source.reshape(-1, depth).astype(np.int64) - graph.required(node, 0).zero_point
    acc = exact_matmul(rows, weights.T) + bias_of(graph, node, channels)
    made = int16.outputs(graph, node, requant_of(graph, node), acc)
    return (made.reshape(graph.output(node).shape),)


def requant_of(graph: Graph, node: Node) -> Requant:
    weights = graph.required(node, 1).data
    assert weights is not None
    zero_point = graph.required(node, 0).zero_point
    bias, dtype = bias_of(graph, node, len(weights)), graph.required(node, 0).dtype
    bound = accumulator_bound(weights, zero_point, bias, dtype)
    scales = filter_scales(graph, node, len(weights))
    return requant(graph, node, scales, node.attrs.activation, bound)


def macs(graph: Graph, node: Node) -> int:
    return graph.output(node).elements * graph.required(node, 1).shape[1]


def convolution(graph: Graph, node: Node) -> Convolution:
    """The node as kernels see it: rows are pixels."""
    source, weights = graph.required(node, 0), graph.required(node, 1).data
    assert weights is not None
    channels, depth = weights.shape
    rows = source.elements // depth
    return Convolution(
        image=(1, 1, rows, depth),
        output=(1, 1, rows, channels),
        filters=weights.reshape(channels, 1, 1, depth),
        bias=bias_of(graph, node, channels),
        zero_point=source.zero_point,
        scaling=requant_of(graph, node),
        dtype=source.dtype,
    )


def geometry(graph: Graph, node: Node) -> bool:
    """weights {inputs[1].shape} do not fit input {inputs[0].shape}"""
    source, weights, bias = (graph.input(node, i) for i in range(3))
    assert source is not None and weights is not None
    return (
        len(weights.shape) == 2
        and source.elements > 0
        and source.elements % weights.shape[1] == 0
        and (bias is None or bias.elements == weights.shape[0])
    )


def bias_scale(graph: Graph, node: Node) -> bool:
    """the bias has scale {inputs[2].scale}, which is not input scale times weight scale"""
    source, weights, bias = (graph.input(node, i) for i in range(3))
    assert source is not None and weights is not None
    if bias is None or weights.quant is None or not weights.quant.per_tensor:
        return True
    if bias.quant is None or not bias.quant.per_tensor:
        return True
    product = source.scale * weights.scale
    return abs(product - bias.scale) / graph.output(node).scale <= 0.02


OP = Op(
    name="FULLY_CONNECTED",
    options="FullyConnectedOptions",
    read=read,
    write=write,
    version=version,
    inputs=(2, 3),
    restrictions=(
        int16.int8_or_int16,
        constant_filter,
        int16.unless_int16(constant_bias),
        int16.when_int16(int16.constant_bias),
        geometry,
        bias_scale,
        int16.moderate_scale(0),
    ),
    shapes=shapes,
    reference=reference,
    macs=macs,
    variants=int16.variants(
        convolution,
        ("dsp", dsp_int16.dense, dsp_int16.FEATURES),
        ("portable", int16.dense, int16.PORTABLE),
    )
    + variants(
        convolution,
        (
            ("mve", mve.dense, mve.FEATURES),
            ("dsp", dsp.dense, dsp.FEATURES),
            ("dsp", dsp.dense_row, dsp.FEATURES),
            ("dsp", dsp_int4.dense, dsp_int4.FEATURES),
            *sparse_dsp.DENSE,
            *scalar.DENSE,
            *sparse.DENSE,
            ("portable", int4.dense, int4.FEATURES),
            ("portable", portable.dense, portable.FEATURES),
        ),
    ),
)
