"""LOGISTIC and TANH of int16: one table of the logistic function, interpolated.

Inputs are brought to steps of 1/12288 by a multiplier of 15 bits, or three times a power of two
where their scale is one.  The table has sigmoid(i / 24) in 16 fraction bits.

Arithmetic: the int16 parts of TFLM ``kernels/internal/reference/integer_ops/logistic.h`` and
``tanh.h``, ``micro/kernels/logistic_common.cc`` and ``tanh.cc``, ``CheckedLog2`` in
``kernels/internal/quantization_util.cc``.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from tinygen.graph import Array, Graph, Node
from tinygen.numerics import Int64Array
from tinygen.ops.base import Const, Input, Kernel, Output

STEPS = 4096 * 3
"""Steps of a scaled input for 1."""

MAX_MULTIPLIER = 32767
FRACTION_BITS = 15
"""Of the output."""

_ENTRIES = 256
_LAST = _ENTRIES - 1


@cache
def table() -> Array:
    """sigmoid(i / 24) in 16 fraction bits, i from 0 to 255 (uint16).

    Each entry lies half the error that a straight line makes in the middle of its interval below
    the function; the last is where the function saturates.
    """
    x = np.arange(_ENTRIES + 1) / 24
    left, middle = _sigmoid(x), _sigmoid(x + 0.5 / 24)
    error = (left[:-1] + left[1:]) / 2 - middle[:-1]
    found = np.floor(left[:-1] - error / 2 + 0.5).astype(np.uint16)
    found[-1] = 0xFFFF
    return found


def _sigmoid(x: Array) -> Array:
    values: Array = 65536 / (1 + np.exp(-x))
    return values


def log2_of(scale: float) -> tuple[int, bool]:
    """The nearest integer to log2(scale), and whether TFLM takes the scale for that power."""
    exact = np.log(np.float32(scale)) * (np.float32(1) / np.log(np.float32(2)))
    nearest = math.floor(abs(exact) + np.float32(0.5)) * (1 if exact > 0 else -1)
    return nearest, bool(abs(np.float32(exact) - np.float32(nearest)) < np.float32(1e-3))


def multiplier(scale: float, powers: tuple[int, ...]) -> tuple[int, int]:
    """Factor and shift to the right that bring inputs of ``scale`` to steps of 1/12288.

    ``powers`` are the shifts to the left, of 1/4096, at which a scale is a plain power of two.
    """
    exponent, plain = log2_of(scale)
    left = 12 + exponent
    if plain and left in powers:
        return 3 << left, 0
    real, right = scale * STEPS, 0
    while real <= MAX_MULTIPLIER / 2 and right <= 30:
        real, right = real * 2, right + 1
    return int(real), right


def _scaled(graph: Graph, node: Node, values: Int64Array) -> Int64Array:
    factor, right = multiplier(graph.required(node, 0).scale, POWERS[node.op])
    half = 1 << (right - 1) if right else 0
    return (values * factor + half) >> right


POWERS = {"LOGISTIC": (0,), "TANH": (0, 1)}
"""What each operator takes for powers of two."""

INDEX_BITS = {"LOGISTIC": 9, "TANH": 8}
"""Bits of a scaled input between two entries of the table."""


def _interpolated(node: Node, steps: Int64Array) -> Int64Array:
    """The table at ``steps`` from zero, with :data:`INDEX_BITS` more fraction bits."""
    bits = INDEX_BITS[node.op]
    entries = table().astype(np.int64)
    index, rest = steps >> bits, steps & ((1 << bits) - 1)
    inside = np.minimum(index, _LAST - 1)
    line = (entries[inside] << bits) + rest * (entries[inside + 1] - entries[inside])
    largest = 0x7FFF << 10 if node.op == "LOGISTIC" else 0xFFFF << 8
    return np.where(index >= _LAST, largest, line)


def logistic(graph: Graph, node: Node, values: Int64Array) -> Int64Array:
    """int16 outputs of LOGISTIC."""
    scaled = _scaled(graph, node, values)
    found = _interpolated(node, np.abs(scaled))
    return np.where(scaled >= 0, found + (1 << 9), (1 << 25) - found + (1 << 9) - 1) >> 10


def tanh(graph: Graph, node: Node, values: Int64Array) -> Int64Array:
    """int16 outputs of TANH: twice the logistic function of twice the input, less one."""
    scaled = _scaled(graph, node, values)
    found = _interpolated(node, np.abs(scaled))
    middle, half = 1 << 23, 1 << 7
    return np.where(scaled >= 0, found - middle + half, middle - found + half - 1) >> 8


def kernel(graph: Graph, node: Node) -> Kernel:
    """Portable kernel of either operator."""
    factor, right = multiplier(graph.required(node, 0).scale, POWERS[node.op])
    name = node.op.lower()
    return Kernel(
        name=f"{name}16",
        template="lookup/sigmoid_int16.c.j2",
        params={"tanh": node.op == "TANH", "bits": INDEX_BITS[node.op]},
        args=(
            Input(0),
            Output(0),
            graph.output(node).elements,
            factor,
            1 << (right - 1) if right else 0,
            right,
            Const("table", table()),
        ),
        overlap={0: 0},
    )


def usual_scale(graph: Graph, node: Node) -> bool:
    """input scale {inputs[0].scale} is out of all proportion"""
    factor, _ = multiplier(graph.required(node, 0).scale, POWERS[node.op])
    return factor <= MAX_MULTIPLIER


def unit_output(graph: Graph, node: Node) -> bool:
    """needs an int16 output of scale 1/32768, has {outputs[0].scale}"""
    return log2_of(graph.output(node).scale) == (-FRACTION_BITS, True)
