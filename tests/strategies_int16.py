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


def pooling(name: str) -> st.SearchStrategy[s.Case]:
    @st.composite
    def pool(draw: Draw) -> s.Case:
        geometry = draw(s.geometries(dilated=False))
        batch, depth = draw(s.BATCHES), draw(s.DEPTHS)
        quant = draw(quants())
        source = (batch, *geometry.image, depth)
        tensors = [tensor(source, quant), tensor((batch, *geometry.output, depth), quant)]
        options = {
            **geometry.options,
            "FilterHeight": geometry.kernel[0],
            "FilterWidth": geometry.kernel[1],
            "FusedActivationFunction": draw(s.ACTIVATIONS),
        }
        return s.Case(draw(s.model(tensors, name, options)), (draw(arrays(source)),))

    return pool()


def binary(name: str, target_scale: Callable[[float, float, float], float]) -> Any:
    """ADD, SUB or MUL; ``target_scale`` maps both operands' scales and a factor to the output's."""

    @st.composite
    def operator(draw: Draw) -> s.Case:
        first, second = draw(s.broadcasts())
        one, two = draw(quants(-14, -8)), draw(quants(-14, -8))
        if draw(st.booleans()):
            two = one
        scale = s._float32(target_scale(one.scale, two.scale, draw(s.scales(-3, 4))))
        target = tensor(np.broadcast_shapes(first, second), s.Quant(scale, 0))
        options = s._options(draw, {"FusedActivationFunction": draw(s.ACTIVATIONS)})
        values: tuple[Array, ...] = draw(arrays(first)), draw(arrays(second))
        tensors = [tensor(first, one), tensor(second, two), target]
        kind = draw(st.sampled_from(["both", "both", "first", "second"]))
        if kind != "both":
            fixed = 0 if kind == "first" else 1
            tensors[fixed] = s.constant(values[fixed], (one, two)[fixed])
            values = (values[1 - fixed],)
        return s.Case(draw(s.model(tensors, name, options, 3, (0, 1))), values)

    return operator()


def unary(
    name: str,
    options: st.SearchStrategy[Mapping[str, Any] | None],
    target: Callable[[Draw, s.Quant], s.Quant],
    source: st.SearchStrategy[s.Quant],
    low: int = 0,
) -> st.SearchStrategy[s.Case]:
    """An operator of one input whose output has its shape; ``low`` is the smallest rank."""

    @st.composite
    def operator(draw: Draw) -> s.Case:
        shape = draw(st.one_of(st.just((1, 300)), s.shapes(max(low, 0), 5)))
        quant = draw(source)
        tensors = [tensor(shape, quant), tensor(shape, target(draw, quant))]
        built = draw(s.model(tensors, name, draw(options)))
        return s.Case(built, (draw(arrays(shape)),))

    return operator()


def _same(draw: Draw, quant: s.Quant) -> s.Quant:
    return quant


def _nearby(draw: Draw, quant: s.Quant) -> s.Quant:
    return quant if draw(st.booleans()) else s.Quant(s._float32(quant.scale * draw(s.RATIOS)), 0)


@st.composite
def pad(draw: Draw, version: int) -> s.Case:
    shape = draw(s.shapes(1, 5, extent=4, most=300))
    amounts = st.integers(0, 3 if len(shape) < 5 else 1)
    pairs = [(draw(amounts), draw(amounts)) for _ in shape]
    output = tuple(n + before + after for n, (before, after) in zip(shape, pairs, strict=True))
    quant = draw(quants())
    tensors = [tensor(shape, quant), s.integers(*sum(pairs, ()), shape=(len(shape), 2))]
    if version == 2:
        tensors.append(s.constant(draw(arrays((1,))), quant))
    tensors.append(tensor(output, quant))
    name = "PAD" if version == 1 else "PADV2"
    built = draw(s.model(tensors, name, {}, 2, tuple(range(len(tensors) - 1))))
    return s.Case(built, (draw(arrays(shape)),))


@st.composite
def view(draw: Draw, name: str) -> s.Case:
    """RESHAPE, SQUEEZE or EXPAND_DIMS of an image of one row."""
    columns, depth = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    shapes = {
        "RESHAPE": ((1, columns, depth), (columns * depth,)),
        "SQUEEZE": ((1, columns, depth), (columns, depth)),
        "EXPAND_DIMS": ((columns, depth), (1, columns, depth)),
    }[name]
    quant = draw(quants(-12, -8))
    tensors = [tensor(shape, quant) for shape in shapes]
    options = {
        "RESHAPE": {"NewShape": shapes[1]},
        "SQUEEZE": {"SqueezeDims": (0,)},
        "EXPAND_DIMS": {},
    }[name]
    inputs: tuple[int, ...] = (0,)
    if name == "EXPAND_DIMS":
        tensors.insert(1, s.integers(0))
        inputs = (0, 1)
    return s.Case(draw(s.model(tensors, name, options, 1, inputs)), (draw(arrays(shapes[0])),))


@st.composite
def concatenation(draw: Draw) -> s.Case:
    shape = draw(s.shapes(1, 5, extent=4, most=300))
    axis = draw(st.integers(0, len(shape) - 1))
    extents = draw(st.lists(st.integers(1, 5), min_size=1, max_size=5))
    parts = [(*shape[:axis], extent, *shape[axis + 1 :]) for extent in extents]
    tensors = [tensor(part, draw(quants())) for part in parts]  # TFLM copies whatever their scales
    tensors.append(tensor((*shape[:axis], sum(extents), *shape[axis + 1 :]), draw(quants())))
    inputs = tuple(range(len(parts)))
    built = draw(s.model(tensors, "CONCATENATION", {"Axis": axis}, 2, inputs))
    return s.Case(built, tuple(draw(arrays(part)) for part in parts))


@st.composite
def mean(draw: Draw) -> s.Case:
    shape = draw(s.shapes(1, 5, extent=7))
    axes = draw(st.lists(st.integers(-len(shape), len(shape) - 1), min_size=1, max_size=4))
    if len(shape) == 4 and draw(st.booleans()):
        axes = [1, 2]
    gone = {axis % len(shape) for axis in axes}
    keep = draw(st.booleans())
    output = tuple(1 if i in gone else n for i, n in enumerate(shape) if keep or i not in gone)
    quant = draw(quants())
    tensors = [tensor(shape, quant), s.integers(*axes), tensor(output, _nearby(draw, quant))]
    options = s._options(draw, {"KeepDims": keep})
    return s.Case(draw(s.model(tensors, "MEAN", options, 3, (0, 1))), (draw(arrays(shape)),))


@st.composite
def quantize(draw: Draw) -> s.Case:
    """To and from int16, whose zero point may be anything here."""
    shape = draw(st.one_of(st.just((1, 256)), s.shapes(0, 5)))
    source, dtype = draw(
        st.sampled_from(
            [("float32", "int16"), ("int16", "int8"), ("int8", "int16"), ("int16", "int16")]
        )
    )
    points = st.one_of(st.just(0), s.zero_points())
    target = s.Quant(draw(s.scales(-14, -4)), draw(points))
    values: Array
    if source == "float32":
        tensors = [s.tensor(shape, dtype="float32"), tensor(shape, target, dtype)]
        values = draw(s.floats_around(shape, target)) * np.float32(draw(st.sampled_from([1, 110])))
    else:
        near = s.Quant(s._float32(target.scale * draw(s.RATIOS)), draw(points))
        tensors = [tensor(shape, near, source), tensor(shape, target, dtype)]
        values = draw(arrays(shape, source))
    return s.Case(draw(s.model(tensors, "QUANTIZE", {}, 2)), (values,))


@st.composite
def dequantize(draw: Draw) -> s.Case:
    shape = draw(st.one_of(st.just((1, 256)), s.shapes(0, 5)))
    quant = s.Quant(draw(s.scales()), draw(st.one_of(st.just(0), st.integers(*RANGES["int16"]))))
    tensors = [tensor(shape, quant), s.tensor(shape, dtype="float32")]
    return s.Case(draw(s.model(tensors, "DEQUANTIZE", {}, 2)), (draw(arrays(shape)),))


def _fixed(draw: Draw, quant: s.Quant) -> s.Quant:
    """1/32768, or about that."""
    return s.Quant(2.0**-15 * draw(st.sampled_from([1.0, 1.0, 1.0003])), 0)


SQUASHED = st.one_of(
    quants(-16, 1),
    st.sampled_from([2.0**-12, 2.0**-11, 1.0003 * 2.0**-12]).map(
        lambda scale: s.Quant(s._float32(scale), 0)
    ),
)

CASES: Mapping[str, st.SearchStrategy[s.Case]] = {
    "CONV_2D": conv2d(),
    "DEPTHWISE_CONV_2D": depthwise_conv2d(),
    "FULLY_CONNECTED": fully_connected(),
    "AVERAGE_POOL_2D": pooling("AVERAGE_POOL_2D"),
    "MAX_POOL_2D": pooling("MAX_POOL_2D"),
    "ADD": binary("ADD", lambda one, two, factor: max(one, two) * factor),
    "SUB": binary("SUB", lambda one, two, factor: max(one, two) * factor),
    "MUL": binary("MUL", lambda one, two, factor: one * two * 4096 * factor),
    "PAD": pad(1),
    "PADV2": pad(2),
    "RESHAPE": view("RESHAPE"),
    "SQUEEZE": view("SQUEEZE"),
    "EXPAND_DIMS": view("EXPAND_DIMS"),
    "RELU": unary("RELU", s.NO_OPTIONS, _nearby, quants()),
    "RELU6": unary("RELU6", s.NO_OPTIONS, _same, quants()),
    "LEAKY_RELU": unary(
        "LEAKY_RELU", s.ALPHAS.map(lambda alpha: {"Alpha": alpha}), _nearby, quants()
    ),
    "SOFTMAX": unary(
        "SOFTMAX", s.BETAS.map(lambda beta: {"Beta": beta}), _fixed, quants(-18, -1), low=1
    ),
    "LOGISTIC": unary("LOGISTIC", s.NO_OPTIONS, _fixed, SQUASHED),
    "TANH": unary("TANH", s.NO_OPTIONS, _fixed, SQUASHED),
    "MEAN": mean(),
    "CONCATENATION": concatenation(),
    "QUANTIZE": quantize(),
    "DEQUANTIZE": dequantize(),
}
