"""Post-training quantization: a float network in, an int8 graph out.

The rules are TensorFlow Lite's 8-bit quantization specification (and that of 16-bit activations
with 8-bit weights): weights symmetric, one scale a channel; biases int32 of the input's scale times
the weights'; activations of one scale and zero point each, shared where an operator only moves
values; fixed outputs of SOFTMAX, LOGISTIC and TANH.  Which ranges and how many bits is chosen here:
see :class:`Settings`.  Methods follow Nagel et al., A White Paper on Neural Network Quantization
(2021).
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from tinygen.compress import bias_correction, calibration, float_graph, keras_graph
from tinygen.compress import weights as weight_scales
from tinygen.compress.activations import Quants, activation_quants, follow, separate_fixed_outputs
from tinygen.compress.base import Context, Method
from tinygen.compress.base import Settings as BaseSettings
from tinygen.compress.calibration import Calibration, Range
from tinygen.compress.equalize import CHANNEL_AXIS, equalize
from tinygen.compress.weights import BIAS_LIMIT, Grouping, Quantized, WeightRange
from tinygen.errors import InputError
from tinygen.graph import ABSENT, Array, Graph, Node, Quant, Tensor
from tinygen.numerics import INT32_MAX
from tinygen.ops import BY_NAME
from tinygen.ops import check as check_operator
from tinygen.passes.drop_dead import drop_dead

Bits = Annotated[int, Field(ge=4, le=8)]


class Settings(BaseSettings):
    """How to quantize.

    ``calibration`` chooses ranges of activations over the first ``examples`` of the data:
    ``minmax``; ``percentile``, which leaves out ``100 - percentile`` percent of the values on each
    side; ``mse``, the range of the smallest squared error.  With ``learned_ranges`` a Keras model's
    own count more where it carries some (``tinygen_ranges``, by layer), unless ``equalize`` changes
    what they are about.

    ``weights`` is one scale a channel or one a tensor, ``weight_range`` the largest weight or the
    range of the smallest squared error.  ``step`` is instead one scale for all weights of a tensor:
    a number, or the smallest power of two that reaches the largest weight.

    ``bits`` is the width of weights, or a table of widths by layer: a layer's name or a pattern of
    names (``"conv*"``), then ``first`` and ``last``, then ``default`` (8 when missing).

    ``equalize`` is cross-layer equalization, ``bias_correction`` its empirical kind.
    ``activations`` of 16 bits are symmetric.
    """

    calibration: Calibration = Field(
        default="minmax", description="how ranges of activations are found"
    )
    percentile: float = Field(
        default=99.99, gt=50, le=100, description="per cent of values below a range's end"
    )
    examples: int = Field(default=1000, ge=1, description="examples to find ranges with")
    weights: Grouping = Field(default="per_channel", description="scales of a layer's weights")
    weight_range: WeightRange = Field(default="max", description="how ranges of weights are found")
    step: Annotated[float, Field(gt=0, allow_inf_nan=False)] | Literal["power_of_two"] | None = (
        Field(default=None, description="one scale for all weights of a layer")
    )
    bits: Bits | dict[str, Bits] = Field(default=8, description="bits of a weight, 4 to 8")
    equalize: bool = Field(default=False, description="cross-layer equalization")
    bias_correction: bool = Field(default=False, description="bring channels' means back")
    activations: Literal[8, 16] = Field(default=8, description="bits of an activation")
    learned_ranges: bool = Field(default=True, description="take ranges that training learned")


@dataclass(frozen=True)
class Layer:
    """An operator with weights: its unique ``name`` and ``position`` among the graph's nodes."""

    name: str
    position: int


def layers(graph: Graph) -> tuple[Layer, ...]:
    """The layers of ``graph`` that have weights, named as ``bits`` and reports name them.

    The name is that of the weights without its last part: ``conv1`` for ``conv1/convolution``.
    """
    found: list[Layer] = []
    for position, node in enumerate(graph.nodes):
        if node.op in CHANNEL_AXIS:
            name = graph.at(node.inputs[1]).name.rpartition(";")[2]
            name = name.rpartition("/")[0] or name or f"layer{position}"
            taken = {layer.name for layer in found}
            unique, number = name, 1
            while unique in taken:
                number += 1
                unique = f"{name}#{number}"
            found.append(Layer(unique, position))
    return tuple(found)


def float_form(network: Any) -> Graph:
    """``network``, a Keras model or a float graph, as a float graph that has been checked."""
    graph = network if isinstance(network, Graph) else keras_graph.convert(network)
    float_graph.check(graph)
    return graph


def quantize(network: Any, settings: Settings, context: Context) -> Graph:
    """The int8 graph of ``network``, a Keras model or a float32 graph with one input.

    Raises :class:`InputError` when it has several inputs or operators that have no int8 form, and
    when ``context`` has no examples.
    """
    examples = context.data("quantize").first(settings.examples).inputs
    source = float_form(network)
    widths = bits_of(source, settings.bits)
    graph = equalize(source) if settings.equalize else source
    graph = separate_fixed_outputs(graph)
    ranges = _ranges(graph, examples, settings, context)
    if settings.learned_ranges and not settings.equalize and not isinstance(network, Graph):
        ranges |= follow(graph, keras_graph.learned_ranges(network, source, examples[:4]))
    activations = activation_quants(graph, ranges, settings.activations)
    biases = {layer.position: _bias(graph, layer.position) for layer in layers(graph)}
    weights = {
        layer.position: quantize_weights(
            graph, layer.position, settings, width, activations, biases[layer.position]
        )
        for layer, width in zip(layers(graph), widths, strict=True)
    }
    if settings.bias_correction:
        biases = bias_correction.correct(
            graph, examples, weights, biases, activations, settings.activations
        )
    made = _build(graph, activations, weights, biases, settings.activations)
    _check(made)
    return made


def _ranges(
    graph: Graph, examples: Array, settings: Settings, context: Context
) -> dict[int, Range]:
    kind = settings.calibration
    total = calibration.batches_of(graph, examples, kind)
    steps = 255 if settings.activations == 8 else 65534
    with context.progress("calibrate", total) as step:
        return calibration.ranges(graph, examples, kind, settings.percentile, steps, step)


def bits_of(graph: Graph, bits: int | Mapping[str, int]) -> tuple[int, ...]:
    """The width of each layer's weights, in the order of :func:`layers`.

    Raises :class:`InputError` for a name that no layer has.
    """
    names = [layer.name for layer in layers(graph)]
    if isinstance(bits, int):
        return (bits,) * len(names)
    special = {"default", "first", "last"} - set(names)
    patterns = [key for key in bits if key not in special]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern) and pattern not in names:
            raise InputError(
                f"{graph.source}: no layer is called {pattern!r}", f"layers are {', '.join(names)}"
            )

    def width(index: int, name: str) -> int:
        if name in patterns:
            return bits[name]
        matching = (p for p in patterns if fnmatch.fnmatchcase(name, p))
        ends = (("first", 0), ("last", len(names) - 1))
        at_end = (key for key, place in ends if place == index and key in bits and key in special)
        key = next(matching, None) or next(at_end, "default")
        return bits.get(key, 8)

    return tuple(width(i, name) for i, name in enumerate(names))


def _bias(graph: Graph, position: int) -> Array | None:
    """The layer's bias, float64 (channels,), None when it has none."""
    node = graph.nodes[position]
    bias = graph.input(node, 2)
    return None if bias is None or bias.data is None else bias.data.reshape(-1).astype(np.float64)


def quantize_weights(
    graph: Graph,
    position: int,
    settings: Settings,
    bits: int,
    activations: Quants | None = None,
    bias: Array | None = None,
) -> Quantized:
    """The layer's weights as integers; with ``activations`` so that its ``bias`` fits 32 bits."""
    node = graph.nodes[position]
    data = graph.at(node.inputs[1]).data
    assert data is not None
    least: Array | float = 0.0
    if bias is not None and activations is not None:
        least = np.abs(bias) / (activations[node.inputs[0]].scale[0] * BIAS_LIMIT)
    return weight_scales.quantize(
        data,
        CHANNEL_AXIS[node.op],
        bits,
        settings.weights,
        settings.weight_range,
        settings.step,
        least,
    )


def _build(
    graph: Graph,
    activations: Quants,
    weights: Mapping[int, Quantized],
    biases: Mapping[int, Array | None],
    width: int,
) -> Graph:
    """The quantized graph; constants that no operator reads are left out."""
    dtype = f"int{width}"
    tensors = [
        replace(t, dtype=dtype, quant=activations[i]) if i in activations and not t.constant else t
        for i, t in enumerate(graph.tensors)
    ]
    made: dict[int, int] = {}  # constant operands, by their index in the float graph
    nodes: list[Node] = []
    for position, node in enumerate(graph.nodes):
        if position in weights:
            inputs = [node.inputs[0], len(tensors)]
            tensors.append(_weight_tensor(graph.at(node.inputs[1]), weights[position]))
            bias = biases[position]
            if bias is not None:
                inputs.append(len(tensors))
                scale = weights[position].scale * activations[node.inputs[0]].scale[0]
                tensors.append(_bias_tensor(graph, node, bias, scale, width))
            else:
                inputs.append(ABSENT)
            nodes.append(replace(node, inputs=tuple(inputs)))
            continue
        inputs = list(node.inputs)
        for place, index in enumerate(node.inputs):
            if index == ABSENT or not graph.at(index).constant or index not in activations:
                continue
            if index not in made:
                made[index] = len(tensors)
                tensors.append(_constant(graph.at(index), activations[index], dtype))
            inputs[place] = made[index]
        nodes.append(replace(node, inputs=tuple(inputs)))
    return _compact(drop_dead(replace(graph, tensors=tuple(tensors), nodes=tuple(nodes))))


def _weight_tensor(source: Tensor, made: Quantized) -> Tensor:
    scale = tuple(map(float, made.scale))
    quant = Quant(scale, (0,) * len(scale), made.axis if len(scale) > 1 else None)
    return Tensor(source.name, source.shape, "int8", quant, made.values)


def _bias_tensor(graph: Graph, node: Node, bias: Array, scale: Array, width: int) -> Tensor:
    source = graph.input(node, 2)
    weights = graph.required(node, 1).name
    name = source.name if source is not None else f"{weights.rpartition('/')[0] or weights}/bias"
    limit = INT32_MAX if width == 8 else 1 << 39
    integers = np.clip(np.rint(bias / scale), -limit, limit)
    dtype = "int32" if width == 8 else "int64"
    scales = tuple(float(np.float32(s)) for s in scale)
    quant = Quant(scales, (0,) * len(scales), 0 if len(scales) > 1 else None)
    return Tensor(name, bias.shape, dtype, quant, integers.astype(dtype))


def _constant(source: Tensor, quant: Quant, dtype: str) -> Tensor:
    assert source.data is not None
    limits = np.iinfo(dtype)
    real = source.data.astype(np.float64) / quant.scale[0]
    integers = np.clip(np.rint(real) + quant.zero_point[0], limits.min, limits.max)
    return Tensor(source.name, source.shape, dtype, quant, integers.astype(dtype))


def _compact(graph: Graph) -> Graph:
    """``graph`` without tensors that nothing reads or writes."""
    used = {*graph.inputs, *graph.outputs}
    for node in graph.nodes:
        used.update(node.inputs, node.outputs)
    used.discard(ABSENT)
    place = {old: new for new, old in enumerate(sorted(used))} | {ABSENT: ABSENT}

    def moved(indices: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(place[i] for i in indices)

    return replace(
        graph,
        tensors=tuple(graph.at(i) for i in sorted(used)),
        nodes=tuple(
            replace(n, inputs=moved(n.inputs), outputs=moved(n.outputs), index=i)
            for i, n in enumerate(graph.nodes)
        ),
        inputs=moved(graph.inputs),
        outputs=moved(graph.outputs),
    )


def _check(graph: Graph) -> None:
    graph.check()
    for node in graph.nodes:
        check_operator(BY_NAME[node.op], graph, node)


def sensitivity(
    network: Any, inputs: Array, settings: Settings | None = None, bits: int = 4
) -> dict[str, float]:
    """By layer, the error that the network's outputs have when that layer alone has ``bits`` bits.

    The error is the mean squared difference to the float network's outputs over their variance; it
    is 0 for weights that lie on the grid, and about 1 when outputs say nothing any more.  It is
    taken behind a final softmax, for large changes of what goes into one may leave the class as it
    is, and small ones not.  ``inputs`` are examples, float32 (n, *shape of an input).  Names are
    those of :func:`layers`.  Equal arguments give equal results.
    """
    graph, chosen = float_form(network), settings or Settings()
    graph = equalize(graph) if chosen.equalize else graph
    found = layers(graph)
    weights = [quantize_weights(graph, layer.position, chosen, bits).real for layer in found]
    errors = np.zeros(len(found))
    moments: list[Array] = []
    for batch in float_graph.batches(graph, inputs):
        values = float_graph.run_all(graph, batch)
        moments.append(np.stack([_moments(values[i]) for i in graph.outputs]).sum(axis=0))
        for index, layer in enumerate(found):
            changed = _rerun(graph, layer.position, weights[index], values)
            errors[index] += sum(
                float(np.square(changed[i] - values[i]).sum()) for i in graph.outputs
            )
    count, total, square = np.sum(moments, axis=0)
    spread = square - total**2 / max(count, 1) or 1.0
    return {layer.name: float(error / spread) for layer, error in zip(found, errors, strict=True)}


def _moments(values: Array) -> Array:
    wide = values.astype(np.float64)
    return np.array([wide.size, wide.sum(), np.square(wide).sum()])


def _rerun(
    graph: Graph, position: int, weights: Array, values: float_graph.Values
) -> float_graph.Values:
    """``values`` computed again from the layer at ``position`` on, which has other ``weights``."""
    node = graph.nodes[position]
    changed = dict(values)
    changed[node.outputs[0]] = float_graph.forward(
        graph, node, values | {node.inputs[1]: weights[None]}
    )
    stale = {node.outputs[0]}
    for later in graph.nodes[position + 1 :]:
        if stale & set(later.inputs):
            changed[later.outputs[0]] = float_graph.forward(graph, later, changed)
            stale.add(later.outputs[0])
    return changed


METHOD = Method(
    name="quantize",
    stage="quantize",
    summary="int8 weights and activations, ranges from examples; int4 and mixed widths",
    source="Nagel et al. 2021, A White Paper on Neural Network Quantization",
    settings=Settings,
    apply=quantize,
)
