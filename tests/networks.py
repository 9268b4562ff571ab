"""Random networks of several operators, for what single operators cannot show.

Branches and joins, padding before convolutions, activations after them, results that nothing
reads, constants computed from constants, views of views, several outputs, outputs that are read
again: what the exact passes rewrite and the memory planner must keep apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import tflite_builder as tb
from hypothesis import strategies as st
from strategies import (
    ACTIVATIONS,
    DEPTHS,
    Case,
    Quant,
    Shape,
    arrays,
    constant,
    integers,
    output_extent,
    quants,
    scales,
    tensor,
    zero_points,
)

Array = np.ndarray[Any, Any]
Draw = Callable[[st.SearchStrategy[Any]], Any]

MOST_ELEMENTS = 600


class Net:
    """A network as it grows.

    ``live`` are the int8 tensors that an operator may read, ``given`` those that depend on what
    goes into the network.
    """

    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        self.tensors: list[tb.Tensor] = []
        self.ops: list[tb.Op] = []
        self.live: list[int] = []
        self.given: set[int] = set()

    def add(self, new: tb.Tensor) -> int:
        self.tensors.append(new)
        return len(self.tensors) - 1

    def op(
        self,
        name: str,
        inputs: tuple[int, ...],
        output: tb.Tensor,
        options: dict[str, Any] | None = None,
    ) -> int:
        """Append an operator; its output is live."""
        index = self.add(output)
        self.ops.append(tb.Op(name, inputs, (index,), options))
        if self.given & set(inputs):
            self.given.add(index)
        self.live.append(index)
        return index

    def shape(self, index: int) -> Shape:
        shape = self.tensors[index].shape
        assert shape is not None
        return shape

    def quant(self, index: int) -> Quant:
        return Quant(self.tensors[index].scale[0], self.tensors[index].zero_point[0])

    def fitting(self, scale: float) -> Quant:
        """Quantization of a result whose values are about as large as ``scale`` times 64."""
        return Quant(float(np.float32(scale * self.draw(scales(-1, 1)))), self.draw(zero_points()))

    def pick(self) -> int:
        """A tensor to read: the newest or, at times, any."""
        if self.draw(st.integers(0, 2)):
            return self.live[-1]
        return int(self.draw(st.sampled_from(self.live)))


def _filter(net: Net, source: int, shape: Shape, axis: int) -> tuple[tuple[int, ...], Quant]:
    """Adds filter and bias; gives the operator's inputs and its output's quantization."""
    draw, given = net.draw, net.quant(source)
    channels = shape[axis]
    count = channels if draw(st.booleans()) else 1
    filter_scales = tuple(draw(scales(-8, -5)) for _ in range(count))
    taps = int(np.prod(shape)) // channels
    data = draw(arrays(shape, limits=(-127, 127)))
    dead = _kill(draw, np.moveaxis(data, axis, 0))
    filters = net.add(tb.Tensor(shape, "int8", filter_scales, (0,) * count, axis=axis, data=data))
    products = tuple(float(np.float32(given.scale * s)) for s in filter_scales)
    bound = int(74 * 64 * taps**0.5)
    data = draw(arrays((channels,), "int32", (-bound, bound)))
    data[dead] = np.where(draw(st.booleans()), 0, data[dead])
    bias = net.add(tb.Tensor((channels,), "int32", products, (0,) * count, data=data))
    target = net.fitting(max(products) * 74 * 64 * taps**0.5 / 64)
    return (source, filters, bias), target


def _kill(draw: Draw, filters: Array) -> Array:
    """Zero filters (outputs, ...) of some outputs and inputs, as pruning and training leave them.

    Returns the outputs.
    """
    dead = np.zeros(len(filters), dtype=bool)
    if draw(st.booleans()):
        for mask in (dead, np.zeros(filters.shape[-1], dtype=bool)):
            some = np.random.default_rng(draw(st.integers(0, 1 << 32)))
            mask[:] = some.random(mask.size) < draw(st.sampled_from([0.0, 0.3, 0.6, 1.0]))
            (filters if mask is dead else filters.T)[mask] = 0
    return dead


def _windows(net: Net, source: int) -> tuple[tuple[int, int], tuple[int, int], dict[str, int]]:
    """A window that fits the image ``source``: its extents, the output's, the options."""
    draw = net.draw
    padding = draw(st.sampled_from([tb.SAME, tb.VALID]))
    kernel, output, strides = [], [], []
    for extent in net.shape(source)[1:3]:
        kernel.append(draw(st.integers(1, min(3, extent))))
        strides.append(draw(st.integers(1, 2)))
        output.append(output_extent(extent, kernel[-1], strides[-1], 1, padding))
    options = {"Padding": padding, "StrideH": strides[0], "StrideW": strides[1]}
    return (kernel[0], kernel[1]), (output[0], output[1]), options


def convolution(net: Net, source: int) -> None:
    kernel, output, options = _windows(net, source)
    batch, *_, depth = net.shape(source)
    options["FusedActivationFunction"] = net.draw(ACTIVATIONS)
    if net.draw(st.booleans()):
        options["DepthMultiplier"] = net.draw(st.sampled_from([1, 1, 1, 2, 3]))
        channels = depth * options["DepthMultiplier"]
        inputs, target = _filter(net, source, (1, *kernel, channels), 3)
        net.op("DEPTHWISE_CONV_2D", inputs, tensor((batch, *output, channels), target), options)
        return
    channels = net.draw(DEPTHS)
    inputs, target = _filter(net, source, (channels, *kernel, depth), 0)
    net.op("CONV_2D", inputs, tensor((batch, *output, channels), target), options)


def padded_convolution(net: Net, source: int) -> None:
    """Rows and columns around an image, then a window over it."""
    batch, height, width, depth = net.shape(source)
    around = [net.draw(st.integers(0, 2)) for _ in range(4)]
    output = (batch, height + around[0] + around[1], width + around[2] + around[3], depth)
    inputs = [source, net.add(integers(0, 0, *around, 0, 0, shape=(4, 2)))]
    if net.draw(st.integers(0, 3)) == 0:
        value = net.draw(arrays((1,)))
        inputs.append(net.add(constant(value, net.quant(source))))
    name = "PAD" if len(inputs) == 2 else "PADV2"
    index = net.op(name, tuple(inputs), tensor(output, net.quant(source)), {})
    convolution(net, index)


def pool(net: Net, source: int) -> None:
    kernel, output, options = _windows(net, source)
    options |= {"FilterHeight": kernel[0], "FilterWidth": kernel[1]}
    options["FusedActivationFunction"] = net.draw(ACTIVATIONS)
    batch, *_, depth = net.shape(source)
    name = net.draw(st.sampled_from(["AVERAGE_POOL_2D", "MAX_POOL_2D"]))
    net.op(name, (source,), tensor((batch, *output, depth), net.quant(source)), options)


def dense(net: Net, source: int) -> None:
    shape, units = net.shape(source), net.draw(DEPTHS)
    inputs, target = _filter(net, source, (units, shape[-1]), 0)
    rows = int(np.prod(shape[:-1]))
    options = {"FusedActivationFunction": net.draw(ACTIVATIONS)}
    net.op("FULLY_CONNECTED", inputs, tensor((rows, units), target), options)


def join(net: Net, source: int) -> None:
    """A sum, difference or product with another tensor, a constant or itself."""
    shape, one = net.shape(source), net.quant(source)
    others = [i for i in net.live if net.shape(i) == shape]
    kind = net.draw(st.integers(0, 2))
    if kind == 0:
        part = tuple(net.draw(st.sampled_from([n, 1])) for n in shape)
        other = net.add(constant(net.draw(arrays(part)), net.draw(quants(-6, -2))))
    else:
        other = net.draw(st.sampled_from(others))
    two = net.quant(other)
    name = net.draw(st.sampled_from(["ADD", "ADD", "SUB", "MUL"]))
    scale = one.scale * two.scale * 64 if name == "MUL" else 2 * max(one.scale, two.scale)
    inputs = (source, other) if net.draw(st.booleans()) else (other, source)
    options = {"FusedActivationFunction": net.draw(ACTIVATIONS)}
    net.op(name, inputs, tensor(shape, net.fitting(scale)), options)


def activate(net: Net, source: int) -> None:
    shape, quant = net.shape(source), net.quant(source)
    name = net.draw(
        st.sampled_from(
            ["RELU", "RELU", "RELU6", "RELU6", "LEAKY_RELU", "HARD_SWISH", "LOGISTIC", "TANH"]
        )
    )
    target = {"LOGISTIC": Quant(1 / 256, -128), "TANH": Quant(1 / 128, 0)}.get(name, quant)
    if name in ("RELU", "LEAKY_RELU", "HARD_SWISH") and net.draw(st.booleans()):
        target = net.fitting(quant.scale)
    options = {"LEAKY_RELU": {"Alpha": 0.1}, "HARD_SWISH": {}}.get(name)
    net.op(name, (source,), tensor(shape, target), options)


def then_activate(net: Net, source: int) -> None:
    """A layer that clamps nothing, and an activation that alone reads it."""
    layers = (join, dense, convolution) if len(net.shape(source)) == 4 else (join, dense)
    before = len(net.ops)
    net.draw(st.sampled_from(layers))(net, source)
    if len(net.ops) != before + 1 or "FusedActivationFunction" not in (net.ops[-1].options or {}):
        return
    last = net.ops[-1]
    net.ops[-1] = replace(last, options={**(last.options or {}), "FusedActivationFunction": 0})
    index = net.live.pop()
    name = net.draw(st.sampled_from(["RELU", "RELU6"]))
    net.op(name, (index,), tensor(net.shape(index), net.quant(index)))


def view(net: Net, source: int) -> None:
    """The same values in another shape: joined axes, or an axis of 1 more or less."""
    shape, quant = net.shape(source), net.quant(source)
    kind = net.draw(st.sampled_from(["RESHAPE", "SQUEEZE", "EXPAND_DIMS"]))
    if kind == "EXPAND_DIMS" and len(shape) < 5:
        axis = net.draw(st.integers(0, len(shape)))
        where = net.add(integers(axis))
        net.op(kind, (source, where), tensor((*shape[:axis], 1, *shape[axis:]), quant), {})
    elif kind == "SQUEEZE" and 1 in shape:
        axis = shape.index(1)
        options = {"SqueezeDims": (axis,)}
        net.op(kind, (source,), tensor((*shape[:axis], *shape[axis + 1 :]), quant), options)
    else:
        cut = net.draw(st.integers(0, len(shape)))
        output = (int(np.prod(shape[:cut])), *shape[cut:])
        where = net.add(integers(*output))
        net.op("RESHAPE", (source, where), tensor(output, quant), {})


def image(net: Net, source: int) -> None:
    """The same values as an image again."""
    count = int(np.prod(net.shape(source)))
    width = next(n for n in (4, 3, 2, 1) if count % n == 0)
    output = (1, count // width, width, 1)
    where = net.add(integers(*output))
    net.op("RESHAPE", (source, where), tensor(output, net.quant(source)), {})


def concatenate(net: Net, source: int) -> None:
    shape, quant = net.shape(source), net.quant(source)
    axis = net.draw(st.integers(0, len(shape) - 1))
    inputs, total = [source], shape[axis]
    for other in net.live:
        theirs = net.shape(other)
        same = (*theirs[:axis], *theirs[axis + 1 :]) == (*shape[:axis], *shape[axis + 1 :])
        if len(inputs) == 4 or len(theirs) != len(shape) or not same or net.draw(st.booleans()):
            continue
        index = other
        if net.quant(other) != quant:
            index = net.op("QUANTIZE", (other,), tensor(theirs, quant), {})
        inputs.append(index)
        total += theirs[axis]
    output = (*shape[:axis], total, *shape[axis + 1 :])
    if int(np.prod(output)) <= MOST_ELEMENTS:
        net.op("CONCATENATION", tuple(inputs), tensor(output, quant), {"Axis": axis})


def average(net: Net, source: int) -> None:
    shape, keep = net.shape(source), net.draw(st.booleans())
    axes = (1, 2) if len(shape) == 4 else (net.draw(st.integers(0, len(shape) - 1)),)
    output = tuple(1 if i in axes else n for i, n in enumerate(shape) if keep or i not in axes)
    where = net.add(integers(*axes))
    target = net.fitting(net.quant(source).scale)
    net.op("MEAN", (source, where), tensor(output, target), {"KeepDims": keep})


def softmax(net: Net, source: int) -> None:
    target = tensor(net.shape(source), Quant(1 / 256, -128))
    net.op("SOFTMAX", (source,), target, {"Beta": 1.0})


def requantize(net: Net, source: int) -> None:
    target = net.fitting(net.quant(source).scale)
    if net.draw(st.integers(0, 2)) == 0:
        target = net.quant(source)
    net.op("QUANTIZE", (source,), tensor(net.shape(source), target), {})


def again(net: Net, source: int) -> None:
    """What was computed already, a second time."""
    same = [op for op in net.ops if op.outputs == (source,)]
    for op in same:
        net.op(op.name, op.inputs, net.tensors[source], op.options)


def constants(net: Net, source: int) -> None:
    """A sum with what is itself computed from constants alone."""
    shape = net.shape(source)
    data = net.add(constant(net.draw(arrays(shape)), net.draw(quants(-6, -2))))
    other = net.op("QUANTIZE", (data,), tensor(shape, net.draw(quants(-6, -2))), {})
    scale = 2 * max(net.quant(source).scale, net.quant(other).scale)
    net.op("ADD", (source, other), tensor(shape, net.fitting(scale)), {})


LAYERS = (
    *(convolution, padded_convolution, pool, dense, join, activate, then_activate),
    *(view, image, concatenate, average, softmax, requantize, again, constants),
)
OF_IMAGES = {convolution, padded_convolution, pool}


def _grow(net: Net) -> None:
    """One layer more, of a kind that the tensor drawn can have."""
    source = net.pick()
    shape = net.shape(source)
    fits = [layer for layer in LAYERS if len(shape) == 4 or layer not in OF_IMAGES]
    if len(shape) == 4:
        fits += [convolution, padded_convolution, pool, then_activate]
    if not shape:
        fits = [activate, requantize, image]
    net.draw(st.sampled_from(fits))(net, source)


@st.composite
def networks(draw: Draw) -> Case:
    """A network of a few layers on one or two images, and inputs for it."""
    net = Net(draw)
    inputs: tuple[int, ...] = ()
    given = []
    for _ in range(draw(st.sampled_from([1, 1, 2]))):
        shape = (
            1,
            draw(st.integers(1, 7)),
            draw(st.integers(1, 7)),
            draw(st.one_of(DEPTHS, DEPTHS, st.just(1))),
        )
        quant = draw(quants(-7, -2))
        if draw(st.integers(0, 3)):
            inputs += (net.add(tensor(shape, quant)),)
            net.given.add(inputs[-1])
            net.live.append(inputs[-1])
            given.append(draw(arrays(shape)))
        else:  # as a converter does it when the model is to have float inputs
            inputs += (net.add(tensor(shape, dtype="float32")),)
            net.given.add(inputs[-1])
            net.op("QUANTIZE", (inputs[-1],), tensor(shape, quant), {})
            values = draw(arrays(shape)).astype(np.float32) - np.float32(quant.zero_point)
            given.append(values * np.float32(quant.scale))
    for _ in range(draw(st.integers(1, 8))):
        _grow(net)
    computed = [op.outputs[0] for op in net.ops if op.outputs[0] in net.given]
    outputs = computed[-1:] or [net.op("QUANTIZE", inputs[:1], net.tensors[inputs[0]], {})]
    outputs += [i for i in computed[:-1] if not draw(st.integers(0, 7))]
    if draw(st.integers(0, 3)) == 0:
        outputs[0] = net.op("DEQUANTIZE", (outputs[0],), _as_float(net, outputs[0]), {})
    model = tb.Model(tuple(net.tensors), tuple(net.ops), inputs, tuple(outputs))
    return Case(model, tuple(given))


def _as_float(net: Net, index: int) -> tb.Tensor:
    return tensor(net.shape(index), dtype="float32")
