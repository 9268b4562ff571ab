"""Random models of one operator each with int16 activations and int8 weights, for property tests.

As :mod:`strategies`, whose pieces it uses: ``CASES[operator]`` draws what converters emit and TFLM
takes of 16x8 quantization.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import strategies as s
import tflite_builder as tb
from hypothesis import strategies as st

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
Draw = Callable[[st.SearchStrategy[Any]], Any]

RANGES = {"int16": (-32768, 32767), "int64": (-(1 << 40), 1 << 40)}
INT32_TYPE = tb.DTYPES["int32"]


@st.composite
def arrays(
    draw: Draw, shape: Shape, dtype: str = "int16", limits: tuple[int, int] | None = None
) -> Array:
    """As :func:`strategies.arrays`; int16 values near zero too, which a few bits hold."""
    low, high = limits or RANGES.get(dtype) or s.RANGES[dtype]
    if limits is None and dtype == "int16":
        low, high = draw(st.sampled_from([(low, high), (low, high), (-300, 300)]))
    values: Array = draw(s.arrays(shape, "int64", (low, high)))
    return values.astype(dtype)


def quants(low: int = -16, high: int = -6) -> st.SearchStrategy[s.Quant]:
    return s.scales(low, high).map(lambda scale: s.Quant(scale, 0))


def tensor(shape: Shape, quant: s.Quant, dtype: str = "int16") -> tb.Tensor:
    return s.tensor(shape, quant, dtype)


@st.composite
def weights(draw: Draw, shape: Shape, axis: int) -> s.Weights:
    """A filter of ``shape``, its output channels along ``axis``, with an int64 bias, or, but for
    depthwise convolutions, an int32 one; biases that need more than 32 bits among them."""
    channels = shape[axis]
    per_channel = draw(st.booleans())
    source = draw(quants())
    scale = draw(s.scales(-10, -3))
    ratios = draw(st.lists(s.scales(-4, 0), min_size=channels - 1, max_size=channels - 1))
    filter_scales = (
        tuple(s._float32(scale * r) for r in (1.0, *ratios)) if per_channel else (scale,)
    )
    limits = draw(st.sampled_from([(-127, 127), (-127, 127), (-128, 127), (-8, 7)]))
    data = draw(s.arrays(shape, limits=limits))
    filters = tb.Tensor(
        shape, scale=filter_scales, zero_point=(0,) * len(filter_scales), axis=axis, data=data
    )
    spread = 19000 * limits[1] / 2 * (int(np.prod(shape)) / channels) ** 0.5
    # Outputs have 16 bits, not the 8 that these multipliers are for; below 2^7 TFLM takes them.
    factor = min(256 * draw(s.multipliers(spread)), 100.0)
    target = s.Quant(s._float32(source.scale * scale / factor), 0)
    wide = axis == 3 or draw(st.sampled_from([True, True, False]))
    bound = draw(st.sampled_from([int(spread), int(spread), int(spread), 1, 1 << 30]))
    if wide and draw(st.integers(0, 5)) == 0:
        bound = 1 << 45
    dtype = "int64" if wide else "int32"
    bias = tb.Tensor(
        (channels,),
        dtype,
        tuple(s._float32(source.scale * f) for f in filter_scales),
        (0,) * len(filter_scales),
        data=draw(arrays((channels,), dtype, (-bound, bound))),
    )
    inputs = draw(st.sampled_from([(0, 1, 2), (0, 1, 2), (0, 1, 2), (0, 1, -1), (0, 1)]))
    if axis == 3 and -1 in inputs:
        inputs = (0, 1)
    return s.Weights(source, target, (filters, bias) if 2 in inputs else (filters,), inputs)


def _sums(draw: Draw, given: s.Weights) -> Mapping[str, int]:
    """Without a bias, an option says how wide sums are."""
    if 2 in given.inputs:
        return {}
    return draw(st.sampled_from([{}, {}, {"QuantizedBiasType": INT32_TYPE}]))


@st.composite
def conv2d(draw: Draw) -> s.Case:
    geometry = draw(s.geometries(dilated=True))
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    depth, channels = draw(s.DEPTHS), draw(s.DEPTHS) * groups
    batch = draw(s.BATCHES)
    given = draw(weights((channels, *geometry.kernel, depth), 0))
    source = (batch, *geometry.image, depth * groups)
    tensors = [
        tensor(source, given.source),
        *given.tensors,
        tensor((batch, *geometry.output, channels), given.target),
    ]
    options = {
        **geometry.options,
        **_sums(draw, given),
        "FusedActivationFunction": draw(s.ACTIVATIONS),
    }
    built = draw(s.model(tensors, "CONV_2D", options, 5, given.inputs))
    return s.Case(built, (draw(arrays(source)),))


@st.composite
def depthwise_conv2d(draw: Draw) -> s.Case:
    geometry = draw(s.geometries(dilated=True))
    depth, factor = draw(s.DEPTHS), draw(st.sampled_from([1, 1, 1, 2, 3, 8]))
    batch, channels = draw(s.BATCHES), depth * factor
    given = draw(weights((1, *geometry.kernel, channels), 3))
    source = (batch, *geometry.image, depth)
    tensors = [
        tensor(source, given.source),
        *given.tensors,
        tensor((batch, *geometry.output, channels), given.target),
    ]
    options = {
        **geometry.options,
        "DepthMultiplier": factor,
        "FusedActivationFunction": draw(s.ACTIVATIONS),
    }
    built = draw(s.model(tensors, "DEPTHWISE_CONV_2D", options, 6, given.inputs))
    return s.Case(built, (draw(arrays(source)),))


@st.composite
def fully_connected(draw: Draw) -> s.Case:
    shape = (*draw(s.shapes(0, 3, extent=5)), draw(s.DEPTHS))
    joined = draw(st.integers(1, len(shape)))
    keep = joined == 1 and draw(st.booleans())
    depth = int(np.prod(shape[-joined:]))
    units = draw(st.one_of(st.integers(1, 9), st.sampled_from([16, 17, 32])))
    rows = int(np.prod(shape)) // depth
    given = draw(weights((units, depth), 0))
    output = (*shape[:-1], units) if keep else (rows, units)
    tensors = [tensor(shape, given.source), *given.tensors, tensor(output, given.target)]
    options = {
        "FusedActivationFunction": draw(s.ACTIVATIONS),
        "KeepNumDims": keep,
        **_sums(draw, given),
    }
    built = draw(s.model(tensors, "FULLY_CONNECTED", s._options(draw, options), 12, given.inputs))
    return s.Case(built, (draw(arrays(shape)),))


CASES: Mapping[str, st.SearchStrategy[s.Case]] = {
    "CONV_2D": conv2d(),
    "DEPTHWISE_CONV_2D": depthwise_conv2d(),
    "FULLY_CONNECTED": fully_connected(),
}
