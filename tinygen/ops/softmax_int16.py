"""SOFTMAX of int16: exponentials and the reciprocal of their sum from interpolated tables.

How far a value lies below its row's largest is brought to steps of 10/65535, beyond ten of which
an exponential is taken for the smallest; both tables have 513 entries, 128 steps apart.

Arithmetic: ``SoftmaxInt16`` in TFLM ``kernels/internal/reference/softmax.h``,
``micro/kernels/softmax_common.cc`` and ``LUTPopulate`` in ``kernels/internal/common.h``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt

from tinygen.graph import Array, Graph, Node
from tinygen.numerics import (
    Int64Array,
    Multiplier,
    clamp,
    quantize_multiplier,
    requantize,
)
from tinygen.ops.base import Const, Input, Kernel, Output

LOW, HIGH = -32768, 32767
MAX_DEPTH = 65535
"""Longest row whose exponentials sum to less than 2**31."""

MAX_SHIFT = 15
"""Largest shift to the left of a difference of 16 bits that fits 32."""

_STEPS = 512
_Floats = npt.NDArray[np.float32]


def _table(scale: float, zero_point: int, function: Callable[[_Floats], _Floats]) -> Array:
    """513 values of ``function`` in steps of 1/32768 over all int16 inputs (int16), each less half
    the error that a straight line to the next makes in the middle; all in single precision."""
    one = np.float32
    first, last = (one(scale) * one(end - zero_point) for end in (LOW, HIGH))
    unit = one(2) / one(65535)
    factor = one(65536) / (unit * one(HIGH) - unit * one(LOW))
    step = (last - first) / one(_STEPS)
    at = np.arange(_STEPS + 1, dtype=np.float32)
    values = function(first + at * step) * factor
    middles = _rounded(function(first + at[:-1] * step + step / one(2)) * factor)
    samples = _rounded(values)
    lines = _rounded((values[1:] + samples[:-1]) / one(2))
    samples[:-1] -= _rounded((lines - middles) / one(2))
    samples[-1] = _rounded(function(np.array([last])) * factor)[0]
    return np.clip(samples, LOW, HIGH).astype(np.int16)


def _rounded(values: _Floats) -> _Floats:
    """To the nearest whole number, halves away from zero."""
    whole = np.trunc(values)
    rounded: _Floats = whole + np.sign(values) * (np.abs(values - whole) >= 0.5)
    return rounded


def _exp(x: _Floats) -> _Floats:
    """The correctly rounded exponential."""
    return np.exp(x.astype(np.float64)).astype(np.float32)


def _one_over_one_plus(x: _Floats) -> _Floats:
    one = np.float32(1)
    values: _Floats = one / (one + x)
    return values


@cache
def exponentials() -> Array:
    """exp(x) from -10 to 0."""
    return _table(float(np.float32(10) / np.float32(65535)), HIGH, _exp)


@cache
def reciprocals() -> Array:
    """1 / (1 + x) from 0 to 1."""
    return _table(float(np.float32(1) / np.float32(65535)), LOW, _one_over_one_plus)


def _interpolated(table: Array, values: Int64Array) -> Int64Array:
    wide = table.astype(np.int64)
    index, rest = 256 + (values >> 7), values & 0x7F
    found: Int64Array = wide[index] + (((wide[index + 1] - wide[index]) * rest + 64) >> 7)
    return found


def multiplier_of(graph: Graph, node: Node) -> Multiplier:
    """From a difference of inputs to its steps of 10/65535."""
    return quantize_multiplier(_real_multiplier(graph, node))


def _real_multiplier(graph: Graph, node: Node) -> float:
    return float(graph.required(node, 0).scale * node.attrs.beta / (10.0 / 65535.0))


def reference(graph: Graph, node: Node, source: Array) -> Array:
    """int16 outputs for int16 inputs."""
    scale = multiplier_of(graph, node)
    wide = source.astype(np.int64)
    below = wide - wide.max(axis=-1, keepdims=True)
    scaled = requantize(below, scale.mantissa, scale.shift) + HIGH
    terms = _interpolated(exponentials(), clamp(scaled, LOW, HIGH))
    sums = terms.sum(axis=-1, keepdims=True)
    bits = np.frexp(sums)[1].astype(np.int64)  # 31 less the zeros above them
    shifted = ((sums << (31 - bits)) + (1 << 13)) >> 14
    factors = _interpolated(reciprocals(), clamp(shifted - 98304, LOW, HIGH))
    right = bits - 1
    outputs = (terms * factors + (np.int64(1) << (right - 1))) >> right
    return clamp(outputs, 0, HIGH).astype(np.int16)


def kernel(graph: Graph, node: Node) -> Kernel:
    """Portable kernel: three walks along a row, the output holding exponentials in between."""
    source = graph.required(node, 0)
    depth = source.shape[-1]
    scale = multiplier_of(graph, node)
    return Kernel(
        name="softmax16",
        template="softmax/portable_int16.c.j2",
        params={},
        args=(
            Input(0),
            Output(0),
            source.elements // depth,
            depth,
            scale.mantissa,
            scale.shift,
            Const("exponentials", exponentials()),
            Const("reciprocals", reciprocals()),
        ),
        helpers=("clamp", "interpolate16", "requantize"),
        overlap={0: 0},
    )


def unit_output(graph: Graph, node: Node) -> bool:
    """needs int16 input and output with zero points of 0, the output of scale 1/32768, has
    {outputs[0].dtype} and {outputs[0].quant}"""
    target = graph.output(node)
    if target.dtype != "int16" or target.quant is None or not target.quant.per_tensor:
        return False
    unit = np.float32(1 / 32768)
    apart = abs(np.float32(target.scale) - unit)
    return (
        bool(apart <= np.float32(0.001) * unit)
        and target.zero_point == 0
        and graph.required(node, 0).zero_point == 0
    )


def rows(graph: Graph, node: Node) -> bool:
    """needs rows of 1 to 65535 values, has shape {inputs[0].shape}"""
    shape = graph.required(node, 0).shape
    return bool(shape) and all(shape) and shape[-1] <= MAX_DEPTH


def moderate_beta(graph: Graph, node: Node) -> bool:
    """beta {attrs.beta} is negative or too large for input scale {inputs[0].scale}"""
    real = _real_multiplier(graph, node)
    return math.isfinite(real) and real >= 0 and quantize_multiplier(real).shift <= MAX_SHIFT
