"""Random models of one operator each, for property tests: what converters emit and TFLM takes.

``CASES[operator]`` is a Hypothesis strategy of :class:`Case`.  Shapes, strides, paddings,
dilations, fused activations, quantization, versions, options that are left out and extreme values
are all drawn.  Sizes stay small: what is sought are corners, not load.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tflite_builder as tb
from hypothesis import strategies as st

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
Draw = Callable[[st.SearchStrategy[Any]], Any]

RANGES = {"int8": (-128, 127), "uint8": (0, 255), "int32": (-(1 << 31), (1 << 31) - 1)}


@dataclass(frozen=True, eq=False)
class Case:
    """A model and what goes into it."""

    model: tb.Model
    inputs: tuple[Array, ...]


# Numbers


def _float32(value: float) -> float:
    return float(np.float32(value))


def scales(low: int = -12, high: int = 2) -> st.SearchStrategy[float]:
    """Positive float32 values from ``2**low`` to ``2**high``, powers of two among them."""
    exact = st.integers(low, high).map(lambda e: 2.0**e)
    mantissas, exponents = st.integers(1 << 23, (1 << 24) - 1), st.integers(low, high - 1)
    rough = st.builds(lambda m, e: _float32(m * 2.0 ** (e - 23)), mantissas, exponents)
    return st.one_of(rough, rough, exact)


def zero_points(dtype: str = "int8") -> st.SearchStrategy[int]:
    low, high = RANGES[dtype]
    within = st.integers(low, high)
    return st.one_of(within, within, within, st.sampled_from([0, low, high]))


def multipliers(spread: float) -> st.SearchStrategy[float]:
    """Real factors from accumulators to outputs.

    Most bring accumulators that are ``spread`` from zero into the output's range, some send them
    all to zero or to the limits, by shifts to the left too.
    """
    fitting = scales(-2, 1).map(lambda factor: factor * 64 / spread)
    return st.one_of(fitting, fitting, fitting, scales(-20, 4))


@st.composite
def arrays(
    draw: Draw, shape: Shape, dtype: str = "int8", limits: tuple[int, int] | None = None
) -> Array:
    """Integers of ``shape``: random ones, or one of the patterns that reach extremes."""
    low, high = limits or RANGES[dtype]
    count = int(np.prod(shape))
    kind = draw(st.sampled_from(["random"] * 8 + ["ramp", "low", "high", "both"]))
    if kind == "random":
        seed = draw(st.integers(0, 1 << 32))
        values = np.random.default_rng(seed).integers(low, high, count, endpoint=True)
    elif kind == "ramp":
        values = low + (np.arange(count) + draw(st.integers(0, 255))) % (high - low + 1)
    else:
        values = np.where(np.arange(count) % 2, low, high)
        values = {"low": np.full(count, low), "high": np.full(count, high)}.get(kind, values)
    return values.astype(dtype).reshape(shape)


# Tensors


@dataclass(frozen=True)
class Quant:
    scale: float
    zero_point: int


def quants(low: int = -10, high: int = 0) -> st.SearchStrategy[Quant]:
    return st.builds(Quant, scales(low, high), zero_points())


def tensor(shape: Shape, quant: Quant | None = None, dtype: str = "int8") -> tb.Tensor:
    """An activation, or any tensor without data."""
    if quant is None:
        return tb.Tensor(shape, dtype)
    return tb.Tensor(shape, dtype, (quant.scale,), (quant.zero_point,))


def constant(data: Array, quant: Quant | None = None) -> tb.Tensor:
    scale = () if quant is None else (quant.scale,)
    zero_point = () if quant is None else (quant.zero_point,)
    return tb.Tensor(data.shape, str(data.dtype), scale, zero_point, data=data)


def integers(*values: int, shape: Shape | None = None) -> tb.Tensor:
    """An int32 constant: axes, a shape, amounts of padding."""
    data = np.array(values, dtype=np.int32)
    return constant(data if shape is None else data.reshape(shape))


@st.composite
def shapes(draw: Draw, low: int = 1, high: int = 4, extent: int = 6, most: int = 2000) -> Shape:
    """A shape of rank ``low`` to ``high``, at most ``most`` elements; extents of 1 come often."""
    rank = draw(st.integers(low, high))
    shape = [draw(st.sampled_from([1, *range(1, extent + 1)])) for _ in range(rank)]
    while int(np.prod(shape)) > most:
        shape[shape.index(max(shape))] //= 2
    return tuple(shape)


@st.composite
def model(
    draw: Draw,
    tensors: list[tb.Tensor],
    name: str,
    options: Mapping[str, Any] | None,
    versions: int = 3,
    inputs: tuple[int, ...] = (0,),
) -> tb.Model:
    """One operator that reads all tensors but the last and writes the last.

    Tensors without data are the model's inputs; ``inputs`` are the operator's, -1 for one left out.
    What does not matter is drawn: names, versions, unknown batch sizes, the age of the file.
    """
    last = len(tensors) - 1
    activations = tuple(i for i, t in enumerate(tensors[:last]) if t.data is None)
    if draw(st.booleans()):
        tensors = [
            tb.Tensor(**{**vars(t), "signature": (-1, *t.shape[1:]), "name": f"t/{i}:0"})
            if t.data is None and t.shape
            else t
            for i, t in enumerate(tensors)
        ]
    return tb.Model(
        tensors=tuple(tensors),
        ops=(tb.Op(name, inputs, (last,), options, draw(st.integers(1, versions))),),
        inputs=activations,
        outputs=(last,),
        old_codes=draw(st.sampled_from([False, False, True])),
    )


RATIOS = st.one_of(scales(-4, 4), scales(-4, 4), scales(-16, 12))
"""Factors from one tensor's scale to another's."""

ACTIVATIONS = st.sampled_from([tb.NONE, tb.NONE, tb.RELU, tb.RELU6, tb.RELU_N1_TO_1])


# Windows


def output_extent(extent: int, kernel: int, stride: int, dilation: int, padding: int) -> int:
    """Rows (or columns) that a window gives; 0 or less when it does not fit."""
    if padding == tb.SAME:
        return -(-extent // stride)
    return (extent - (kernel - 1) * dilation - 1) // stride + 1


@dataclass(frozen=True)
class Geometry:
    image: tuple[int, int]
    kernel: tuple[int, int]
    output: tuple[int, int]
    options: Mapping[str, int]


@st.composite
def geometries(draw: Draw, dilated: bool) -> Geometry:
    """A window over an image, with the options of both directions that say so."""
    padding = draw(st.sampled_from([tb.SAME, tb.VALID]))
    found = []
    for _ in range(2):
        kernel = draw(st.one_of(st.sampled_from([1, 3]), st.integers(1, 5)))
        dilation = draw(st.sampled_from([1, 1, 2, 3])) if dilated else 1
        least = 1 if padding == tb.SAME else (kernel - 1) * dilation + 1
        extent = draw(st.integers(least, least + 6))
        stride = draw(st.sampled_from([1, 1, 2, 3]))
        rows = output_extent(extent, kernel, stride, dilation, padding)
        found.append((extent, kernel, rows, stride, dilation))
    image, kernels, output, strides, dilations = zip(*found, strict=True)
    options = {"Padding": padding, "StrideH": strides[0], "StrideW": strides[1]}
    if dilated:
        options |= {"DilationHFactor": dilations[0], "DilationWFactor": dilations[1]}
    return Geometry(image, kernels, output, options)


@dataclass(frozen=True)
class Weights:
    """Filter and bias, and the quantization of what goes in and out."""

    source: Quant
    target: Quant
    tensors: tuple[tb.Tensor, ...]
    inputs: tuple[int, ...]


@st.composite
def weights(draw: Draw, shape: Shape, axis: int) -> Weights:
    """A filter of ``shape``, its output channels along ``axis``, quantized either way."""
    channels = shape[axis]
    per_channel = draw(st.booleans())
    source = draw(quants(-9, 0))
    scale = draw(scales(-10, -3))
    ratios = draw(st.lists(scales(-4, 0), min_size=channels - 1, max_size=channels - 1))
    filter_scales = tuple(_float32(scale * r) for r in (1.0, *ratios)) if per_channel else (scale,)
    limits = draw(st.sampled_from([(-127, 127), (-127, 127), (-128, 127), (-8, 7)]))
    data = draw(arrays(shape, limits=limits))
    if draw(st.integers(0, 3)) == 0:  # some channels dead, as training leaves them
        dead = draw(st.lists(st.integers(0, channels - 1), max_size=3))
        np.moveaxis(data, axis, 0)[dead] = 0
    filters = tb.Tensor(
        shape,
        scale=filter_scales,
        zero_point=(0,) * len(filter_scales),
        axis=axis,
        data=data,
    )
    spread = 74 * limits[1] / 2 * (int(np.prod(shape)) / channels) ** 0.5
    target_scale = _float32(source.scale * scale / draw(multipliers(spread)))
    target = Quant(target_scale, draw(zero_points()))
    bound = draw(st.sampled_from([int(spread), int(spread), int(spread), 1, 1 << 30]))
    bias = tb.Tensor(
        (channels,),
        "int32",
        tuple(_float32(source.scale * s) for s in filter_scales),
        (0,) * len(filter_scales),
        axis=draw(st.sampled_from([0, axis])),  # some converters name the filter's axis
        data=draw(arrays((channels,), "int32", (-bound, bound))),
    )
    inputs = draw(st.sampled_from([(0, 1, 2), (0, 1, 2), (0, 1, 2), (0, 1, -1), (0, 1)]))
    if axis == 3 and -1 in inputs:  # TFLM crashes on a depthwise convolution without this bias
        inputs = (0, 1)
    return Weights(source, target, (filters, bias) if 2 in inputs else (filters,), inputs)


def _options(draw: Draw, options: dict[str, Any]) -> Mapping[str, Any] | None:
    """``options``, or an empty table or none at all where that says the same."""
    if any(options.values()):
        return options
    table: Mapping[str, Any] | None = draw(st.sampled_from([options, {}, None]))
    return table


BATCHES = st.sampled_from([1, 1, 1, 2])
DEPTHS = st.one_of(st.integers(1, 9), st.sampled_from([4, 8, 12, 16]))


@st.composite
def conv2d(draw: Draw) -> Case:
    geometry = draw(geometries(dilated=True))
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    depth, channels = draw(DEPTHS), draw(DEPTHS) * groups
    batch = draw(BATCHES)
    given = draw(weights((channels, *geometry.kernel, depth), 0))
    source = (batch, *geometry.image, depth * groups)
    tensors = [
        tensor(source, given.source),
        *given.tensors,
        tensor((batch, *geometry.output, channels), given.target),
    ]
    options = {**geometry.options, "FusedActivationFunction": draw(ACTIVATIONS)}
    built = draw(model(tensors, "CONV_2D", options, 5, given.inputs))
    return Case(built, (draw(arrays(source)),))


@st.composite
def depthwise_conv2d(draw: Draw) -> Case:
    geometry = draw(geometries(dilated=True))
    depth, factor = draw(DEPTHS), draw(st.sampled_from([1, 1, 1, 2, 3, 8]))
    batch, channels = draw(BATCHES), depth * factor
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
        "FusedActivationFunction": draw(ACTIVATIONS),
    }
    built = draw(model(tensors, "DEPTHWISE_CONV_2D", options, 6, given.inputs))
    return Case(built, (draw(arrays(source)),))


@st.composite
def fully_connected(draw: Draw) -> Case:
    shape = (*draw(shapes(0, 3, extent=5)), draw(DEPTHS))
    joined = draw(st.integers(1, len(shape)))  # how many trailing axes the filter takes as one
    keep = joined == 1 and draw(st.booleans())
    depth = int(np.prod(shape[-joined:]))
    units = draw(st.one_of(st.integers(1, 9), st.sampled_from([16, 17, 32])))
    rows = int(np.prod(shape)) // depth
    given = draw(weights((units, depth), 0))
    output = (*shape[:-1], units) if keep else (rows, units)
    tensors = [tensor(shape, given.source), *given.tensors, tensor(output, given.target)]
    options = _options(draw, {"FusedActivationFunction": draw(ACTIVATIONS), "KeepNumDims": keep})
    built = draw(model(tensors, "FULLY_CONNECTED", options, 12, given.inputs))
    return Case(built, (draw(arrays(shape)),))


def pooling(name: str) -> st.SearchStrategy[Case]:
    @st.composite
    def pool(draw: Draw) -> Case:
        geometry = draw(geometries(dilated=False))
        batch, depth = draw(BATCHES), draw(DEPTHS)
        quant = draw(quants())
        source = (batch, *geometry.image, depth)
        tensors = [tensor(source, quant), tensor((batch, *geometry.output, depth), quant)]
        options = {
            **geometry.options,
            "FilterHeight": geometry.kernel[0],
            "FilterWidth": geometry.kernel[1],
            "FusedActivationFunction": draw(ACTIVATIONS),
        }
        return Case(draw(model(tensors, name, options)), (draw(arrays(source)),))

    return pool()


# Elementwise operators


@st.composite
def broadcasts(draw: Draw) -> tuple[Shape, Shape]:
    """Two shapes that go together: equal, or one repeated along some axes, or both."""
    full = draw(shapes(0, 5, extent=4, most=600))
    if draw(st.booleans()):
        return full, full

    def less() -> Shape:
        kept = [draw(st.sampled_from([n, n, 1])) for n in full]
        return tuple(kept[draw(st.integers(0, len(kept))) :])

    pair = (full, less()) if draw(st.booleans()) else (less(), less())
    return pair if draw(st.booleans()) else (pair[1], pair[0])


def binary(name: str, target_scale: Callable[[float, float, float], float]) -> Any:
    """ADD, SUB or MUL; ``target_scale`` maps both operands' scales and a factor to the output's."""

    @st.composite
    def operator(draw: Draw) -> Case:
        first, second = draw(broadcasts())
        one, two = draw(quants(-8, 0)), draw(quants(-8, 0))
        if draw(st.booleans()):
            two = Quant(one.scale, two.zero_point)
        scale = _float32(target_scale(one.scale, two.scale, draw(scales(-3, 4))))
        target = tensor(np.broadcast_shapes(first, second), Quant(scale, draw(zero_points())))
        options = _options(draw, {"FusedActivationFunction": draw(ACTIVATIONS)})
        kind = draw(st.sampled_from(["both", "both", "first", "second", "same"]))
        values: tuple[Array, ...] = draw(arrays(first)), draw(arrays(second))
        if kind == "same":
            target = tb.Tensor(first, "int8", target.scale, target.zero_point)
            built = draw(model([tensor(first, one), target], name, options, 3, (0, 0)))
            return Case(built, values[:1])
        tensors = [tensor(first, one), tensor(second, two), target]
        if kind != "both":
            fixed = 0 if kind == "first" else 1
            tensors[fixed] = constant(values[fixed], (one, two)[fixed])
            values = (values[1 - fixed],)
        return Case(draw(model(tensors, name, options, 3, (0, 1))), values)

    return operator()


def unary(
    name: str,
    options: st.SearchStrategy[Mapping[str, Any] | None],
    target: Callable[[Draw, Quant], Quant],
    source: st.SearchStrategy[Quant],
    low: int = 0,
) -> st.SearchStrategy[Case]:
    """An operator of one input whose output has its shape; ``low`` is the smallest rank."""

    @st.composite
    def operator(draw: Draw) -> Case:
        shape = draw(st.one_of(st.just((1, 256)), st.just((3, 256)), shapes(max(low, 0), 5)))
        quant = draw(source)
        tensors = [tensor(shape, quant), tensor(shape, target(draw, quant))]
        built = draw(model(tensors, name, draw(options)))
        return Case(built, (draw(arrays(shape)),))

    return operator()


def _same(draw: Draw, quant: Quant) -> Quant:
    return quant


def _nearby(draw: Draw, quant: Quant) -> Quant:
    """Another scale, not far from the input's, and any zero point; or just the input's."""
    if draw(st.booleans()):
        return quant
    return Quant(_float32(quant.scale * draw(RATIOS)), draw(zero_points()))


def _not_much_finer(draw: Draw, quant: Quant) -> Quant:
    """What TFLM's HARD_SWISH takes: an output scale above the input's over 128."""
    return Quant(_float32(quant.scale * draw(scales(-6, 10))), draw(zero_points()))


def _fixed(scale: float, zero_point: int) -> Callable[[Draw, Quant], Quant]:
    return lambda draw, quant: Quant(scale, zero_point)


NO_OPTIONS = st.none()
ALPHAS = st.one_of(st.sampled_from([0.0, 0.01, 0.1, 0.2, 0.3, 1.0, 1.5]), scales(-8, 1))
BETAS = st.sampled_from([1.0, 1.0, 1.0, 0.5, 2.0, 0.1])


# Operators that move values


@st.composite
def pad(draw: Draw, version: int) -> Case:
    shape = draw(shapes(1, 5, extent=4, most=300))
    amounts = st.integers(0, 3 if len(shape) < 5 else 1)
    pairs = [(draw(amounts), draw(amounts)) for _ in shape]
    if len(shape) == 4 and draw(st.booleans()):  # as an image is padded
        pairs[0] = pairs[3] = (0, 0)
    output = tuple(n + before + after for n, (before, after) in zip(shape, pairs, strict=True))
    quant = draw(quants())
    tensors = [tensor(shape, quant), integers(*sum(pairs, ()), shape=(len(shape), 2))]
    if version == 2:
        tensors.append(constant(draw(arrays(draw(st.sampled_from([(), (1,)])))), quant))
    tensors.append(tensor(output, quant))
    name = "PAD" if version == 1 else "PADV2"
    options = draw(st.sampled_from([{}, None]))
    built = draw(model(tensors, name, options, 2, tuple(range(len(tensors) - 1))))
    return Case(built, (draw(arrays(shape)),))


@st.composite
def reshape(draw: Draw) -> Case:
    shape = draw(shapes(0, 5))
    extents = list(draw(st.permutations(shape)))
    cut = draw(st.integers(0, len(extents)))
    joined = [int(np.prod(extents[:cut])), *extents[cut:]] if cut else extents
    output = tuple(joined)
    wanted = list(output)
    if wanted and draw(st.booleans()):
        wanted[draw(st.integers(0, len(wanted) - 1))] = -1
    quant = draw(quants())
    tensors = [tensor(shape, quant), tensor(output, quant)]
    options = {"NewShape": tuple(wanted)}
    if draw(st.booleans()):
        tensors.insert(1, integers(*wanted))
        options = draw(st.sampled_from([options, {}, None]))
    built = draw(model(tensors, "RESHAPE", options, 1, tuple(range(len(tensors) - 1))))
    return Case(built, (draw(arrays(shape)),))


@st.composite
def squeeze(draw: Draw) -> Case:
    shape = draw(shapes(0, 5))
    ones = [i for i, n in enumerate(shape) if n == 1]
    chosen = draw(st.lists(st.sampled_from(ones), unique=True)) if ones else []
    gone = set(chosen or ones)  # none named: all
    output = tuple(n for i, n in enumerate(shape) if i not in gone)
    axes = tuple(a - len(shape) if draw(st.booleans()) else a for a in chosen)
    options = {"SqueezeDims": axes}
    if not axes:
        options = draw(st.sampled_from([options, {}]))
    quant = draw(quants())
    tensors = [tensor(shape, quant), tensor(output, quant)]
    return Case(draw(model(tensors, "SQUEEZE", options, 2)), (draw(arrays(shape)),))


@st.composite
def expand_dims(draw: Draw) -> Case:
    shape = draw(shapes(0, 4))
    axis = draw(st.integers(0, len(shape)))
    output = (*shape[:axis], 1, *shape[axis:])
    if draw(st.booleans()):
        axis -= len(output)
    quant = draw(quants())
    where = integers(axis, shape=draw(st.sampled_from([(), (1,)])))
    tensors = [tensor(shape, quant), where, tensor(output, quant)]
    options = draw(st.sampled_from([{}, None]))
    built = draw(model(tensors, "EXPAND_DIMS", options, 1, (0, 1)))
    return Case(built, (draw(arrays(shape)),))


@st.composite
def concatenation(draw: Draw) -> Case:
    shape = draw(shapes(1, 5, extent=4, most=300))
    axis = draw(st.integers(0, len(shape) - 1))
    extents = draw(st.lists(st.integers(1, 5), min_size=1, max_size=5))
    quant = draw(quants())
    tensors, given = [], []
    for i, extent in enumerate(extents):
        part = (*shape[:axis], extent, *shape[axis + 1 :])
        data = draw(arrays(part))
        if i and draw(st.sampled_from([False, False, True])):
            tensors.append(constant(data, quant))
        else:
            tensors.append(tensor(part, quant))
            given.append(data)
    inputs = list(range(len(extents)))
    if draw(st.sampled_from([False, False, True])):  # one of them a second time
        again = draw(st.sampled_from(inputs))
        inputs.append(again)
        extents.append(extents[again])
    output = (*shape[:axis], sum(extents), *shape[axis + 1 :])
    tensors.append(tensor(output, quant))
    options = _options(draw, {"Axis": axis - len(shape) if draw(st.booleans()) else axis})
    built = draw(model(tensors, "CONCATENATION", options, 2, tuple(inputs)))
    return Case(built, tuple(given))


@st.composite
def mean(draw: Draw) -> Case:
    shape = draw(shapes(1, 5, extent=7))
    axes = draw(st.lists(st.integers(-len(shape), len(shape) - 1), min_size=1, max_size=4))
    if len(shape) == 4 and draw(st.booleans()):  # what global average pooling becomes
        axes = [1, 2]
    gone = {axis % len(shape) for axis in axes}
    keep = draw(st.booleans())
    output = tuple(1 if i in gone else n for i, n in enumerate(shape) if keep or i not in gone)
    quant = draw(quants())
    scalar = len(axes) == 1 and draw(st.booleans())
    tensors = [
        tensor(shape, quant),
        integers(*axes, shape=() if scalar else None),
        tensor(output, _nearby(draw, quant)),
    ]
    options = _options(draw, {"KeepDims": keep})
    return Case(draw(model(tensors, "MEAN", options, 3, (0, 1))), (draw(arrays(shape)),))


# Changes of type


@st.composite
def quantize(draw: Draw) -> Case:
    shape = draw(st.one_of(st.just((1, 256)), shapes(0, 5)))
    source = draw(st.sampled_from(["float32", "float32", "int8", "uint8"]))
    dtype = "int8" if source != "int8" else draw(st.sampled_from(["int8", "int8", "uint8"]))
    target = Quant(draw(scales(-10, 2)), draw(zero_points(dtype)))
    options = draw(st.sampled_from([{}, None]))
    if source == "float32":
        tensors = [tensor(shape, dtype="float32"), tensor(shape, target, dtype)]
        values = draw(floats_around(shape, target))
    else:
        near = Quant(_float32(target.scale * draw(RATIOS)), draw(zero_points(source)))
        tensors = [tensor(shape, near, source), tensor(shape, target, dtype)]
        values = draw(arrays(shape, source))
    return Case(draw(model(tensors, "QUANTIZE", options, 2)), (values,))


@st.composite
def floats_around(draw: Draw, shape: Shape, quant: Quant) -> Array:
    """float32 values in and a little out of range: any, steps of the scale, halves between them."""
    count = int(np.prod(shape))
    random = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    kind = draw(st.sampled_from(["any", "steps", "halves", "large", "small"]))
    steps = random.integers(-300, 300, count)
    values = {
        "any": random.uniform(-300, 300, count) * quant.scale,
        "steps": steps * quant.scale,
        "halves": (steps + 0.5) * quant.scale,
        "large": random.uniform(-1e6, 1e6, count) * quant.scale,
        "small": random.uniform(-1, 1, count) * quant.scale * 1e-6,
    }[kind]
    return values.astype(np.float32).reshape(shape)


@st.composite
def dequantize(draw: Draw) -> Case:
    shape = draw(st.one_of(st.just((1, 256)), shapes(0, 5)))
    dtype = draw(st.sampled_from(["int8", "int8", "uint8"]))
    quant = Quant(draw(scales()), draw(zero_points(dtype)))
    tensors = [tensor(shape, quant, dtype), tensor(shape, dtype="float32")]
    options = draw(st.sampled_from([{}, None]))
    built = draw(model(tensors, "DEQUANTIZE", options, 2))
    return Case(built, (draw(arrays(shape, dtype)),))


WIDE_QUANTS = st.one_of(quants(-8, 0), quants(-8, 0), quants(-16, 6))

CASES: Mapping[str, st.SearchStrategy[Case]] = {
    "CONV_2D": conv2d(),
    "DEPTHWISE_CONV_2D": depthwise_conv2d(),
    "FULLY_CONNECTED": fully_connected(),
    "AVERAGE_POOL_2D": pooling("AVERAGE_POOL_2D"),
    "MAX_POOL_2D": pooling("MAX_POOL_2D"),
    "ADD": binary("ADD", lambda one, two, factor: max(one, two) * factor),
    "SUB": binary("SUB", lambda one, two, factor: max(one, two) * factor),
    "MUL": binary("MUL", lambda one, two, factor: one * two * 16 * factor),
    "PAD": pad(1),
    "PADV2": pad(2),
    "RESHAPE": reshape(),
    "SQUEEZE": squeeze(),
    "EXPAND_DIMS": expand_dims(),
    "SOFTMAX": unary(
        "SOFTMAX",
        BETAS.map(lambda beta: {"Beta": beta}),
        _fixed(1 / 256, -128),
        WIDE_QUANTS,
        low=1,
    ),
    "LOGISTIC": unary("LOGISTIC", NO_OPTIONS, _fixed(1 / 256, -128), WIDE_QUANTS),
    "TANH": unary("TANH", NO_OPTIONS, _fixed(1 / 128, 0), WIDE_QUANTS),
    "RELU": unary("RELU", NO_OPTIONS, _nearby, quants()),
    "RELU6": unary("RELU6", NO_OPTIONS, _same, quants(-8, 0)),
    "LEAKY_RELU": unary(
        "LEAKY_RELU", ALPHAS.map(lambda alpha: {"Alpha": alpha}), _nearby, quants()
    ),
    "HARD_SWISH": unary("HARD_SWISH", st.sampled_from([{}, None]), _not_much_finer, WIDE_QUANTS),
    "MEAN": mean(),
    "CONCATENATION": concatenation(),
    "QUANTIZE": quantize(),
    "DEQUANTIZE": dequantize(),
}
