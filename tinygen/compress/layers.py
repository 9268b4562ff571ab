"""What methods on int8 graphs share: weighted layers as matrices, and what goes into them.

:func:`rewrite` goes through a network in order, the original and the compressed one side by side on
the same examples.  Each layer chosen is solved for the original's outputs given the inputs that it
has in the network as compressed so far, so that later layers make up for what earlier ones lose.
The examples run in batches through the exact numpy reference.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from tinygen.compress.base import Context, Settings
from tinygen.datasets import Data
from tinygen.errors import InputError
from tinygen.graph import ABSENT, Array, Graph, Node, Quant, Tensor, printable
from tinygen.numerics import INT32_MAX, LIMITS, Int64Array
from tinygen.ops import BY_NAME, check, conv2d, depthwise_conv2d, fully_connected, int16
from tinygen.ops.common import accumulator_bound, pad_image, windows
from tinygen.ops.convolution import Convolution
from tinygen.reference import run_all

Floats = npt.NDArray[np.float64]
Granularity = Literal["tensor", "channel"]

CONVOLUTIONS: dict[str, Callable[[Graph, Node], Convolution]] = {
    conv2d.OP.name: conv2d.convolution,
    depthwise_conv2d.OP.name: depthwise_conv2d.convolution,
    fully_connected.OP.name: fully_connected.convolution,
}
"""The operators that have weights, and how each is read."""

BATCH, VALUES = 256, 1 << 20
"""Most examples that run through the reference at a time, and values of a tensor in these."""

MEMORY_BYTES = 1 << 28
"""Most bytes of all examples' values of a tensor."""

PATCHES = 30_000
"""Most input patches of a layer that are taken into account; a part drawn at random beyond."""

MAX_TAPS = 4096
"""Most weights of an output channel: second moments are as many squared."""

LIMIT = 127
"""Largest magnitude of a weight: symmetric, as converters have it."""


SPARSE = 0.3
"""Share of zeros from which on a layer is taken to be pruned, and keeps its zeros."""


WIDE_SUM = (1 << 47) - 1
"""Largest accumulator of int16 layers, whose sums and biases are 64 bits wide."""


class LayerSettings(Settings):
    """What methods that go layer by layer have in common."""

    layers: tuple[str, ...] = ()
    """Names of the layers' outputs to compress, or patterns such as "conv*"; empty for all."""
    largest: int | None = Field(default=None, ge=1)
    """Only so many layers, those with the most weights."""
    min_weights: int = Field(default=64, ge=1)
    """Layers with fewer weights are left as they are."""
    examples: int = Field(default=1024, ge=1, le=100_000)
    """Most examples to calibrate on."""
    correct: bool = True
    """Whether weights make up for each other's errors; else each is taken by itself."""
    correct_bias: bool = True
    """Whether the mean error of each output channel goes into its bias."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A weighted layer as a matrix.

    ``weights`` are int64 (channels, taps), ``scales`` float64 (channels), ``bias`` int64
    (channels).  Channels come in ``groups`` of equal size that read the same inputs: one of a dense
    layer, as many as there are input channels of a depthwise one.
    """

    position: int
    name: str
    op: str
    weights: Int64Array
    scales: Floats
    bias: Int64Array
    zero_point: int
    dtype: str
    """The inputs'."""
    groups: int
    per_channel: bool
    window: tuple[int, int, int]
    """Taps as rows, columns and input channels of the kernel."""

    @property
    def grouped(self) -> Floats:
        """The weights as (groups, channels of a group, taps), in floating point."""
        return self.weights.reshape(self.groups, -1, self.weights.shape[1]).astype(np.float64)

    @property
    def moderate(self) -> bool:
        """Whether second moments of all groups are no more than those of one with most taps."""
        return self.groups * int(self.weights.shape[1]) ** 2 <= MAX_TAPS**2

    @property
    def zeros(self) -> float:
        """Share of the weights that are 0."""
        return float((self.weights == 0).mean())

    @property
    def importance(self) -> Floats:
        """What squared errors of each output weigh: (groups, channels of a group, 1)."""
        weight: Floats = np.square(self.scales / self.scales.max()).reshape(self.groups, -1, 1)
        return weight


@dataclass(frozen=True, eq=False)
class Moments:
    """Second moments of a layer's inputs over all examples and window positions, by group.

    ``gram`` is E[x x'] of the inputs x in the compressed network, ``cross`` E[x0 x'] and
    ``original`` E[x0 x0'] with the inputs x0 in the original one, each (groups, taps, taps);
    ``mean`` and ``original_mean`` are (groups, taps).  Inputs are counted from their zero point.
    With ``centred``, the moments are about the means: what the bias can make up for is no error.
    """

    gram: Floats
    cross: Floats
    original: Floats
    mean: Floats
    original_mean: Floats
    centred: bool = False

    @staticmethod
    def unknown(groups: int, taps: int) -> Moments:
        """Without examples: all inputs alike and independent."""
        unit = np.broadcast_to(np.eye(taps), (groups, taps, taps))
        zero = np.zeros((groups, taps))
        return Moments(unit, unit, unit, zero, zero)

    def about_means(self) -> Moments:
        def less(matrix: Floats, left: Floats, right: Floats) -> Floats:
            return matrix - left[:, :, None] * right[:, None, :]

        first, mean = self.original_mean, self.mean
        return Moments(
            less(self.gram, mean, mean),
            less(self.cross, first, mean),
            less(self.original, first, first),
            mean,
            first,
            True,
        )


@dataclass(frozen=True, eq=False)
class Solution:
    """New numbers for a layer: weights (channels, taps), scales and bias (channels)."""

    weights: Int64Array
    scales: Floats
    bias: Int64Array


Solve = Callable[[Layer, Moments], Solution | None]
"""New weights for a layer, or None to leave it as it is."""


def layers_of(graph: Graph) -> tuple[Layer, ...]:
    """The weighted layers of ``graph`` in order, but those that sum int16 inputs in 32 bits."""
    return tuple(
        layer_at(graph, position)
        for position, node in enumerate(graph.nodes)
        if node.op in CONVOLUTIONS
        and (not int16.reads_int16(graph, node) or not int16.sums_in_32_bits(graph, node))
    )


def layer_at(graph: Graph, position: int) -> Layer:
    """The layer that node ``position`` of ``graph`` is."""
    node = graph.nodes[position]
    convolution = CONVOLUTIONS[node.op](graph, node)
    quant = graph.required(node, 1).quant
    assert quant is not None
    channels = len(convolution.taps)
    _, rows, columns, depth = convolution.filters.shape
    return Layer(
        position=position,
        name=graph.output(node).name,
        op=node.op,
        weights=convolution.taps.astype(np.int64),
        scales=np.broadcast_to(np.array(quant.scale), (channels,)),
        bias=convolution.bias,
        zero_point=convolution.zero_point,
        dtype=convolution.dtype,
        groups=convolution.groups,
        per_channel=not quant.per_tensor,
        window=(rows, columns, depth),
    )


def chosen(graph: Graph, settings: LayerSettings) -> tuple[Layer, ...]:
    """The layers that ``settings`` name, but those that are not :attr:`Layer.moderate`.

    Raises :class:`InputError` for a name there is not.
    """
    layers = layers_of(graph)
    for pattern in settings.layers:
        if not any(fnmatch.fnmatchcase(layer.name, pattern) for layer in layers):
            known = ", ".join(sorted(printable(layer.name) for layer in layers))
            raise InputError(f"no layer is called {printable(pattern)!r}", f"layers are {known}")
    patterns = settings.layers or ("*",)
    found = [
        layer
        for layer in layers
        if any(fnmatch.fnmatchcase(layer.name, pattern) for pattern in patterns)
        and layer.weights.size >= settings.min_weights
        and layer.moderate
    ]
    if settings.largest is not None:
        by_size = sorted(found, key=lambda layer: -layer.weights.size)[: settings.largest]
        found = [layer for layer in found if layer in by_size]
    return tuple(found)


def quantized(graph: Graph, data: Data) -> Array:
    """The examples as values of the network's input: (n, *shape of the input).

    Raises :class:`InputError` when the network has several inputs or the examples do not fit.
    """
    if len(graph.inputs) != 1:
        raise InputError(f"{graph.source}: {len(graph.inputs)} inputs; calibration needs one")
    tensor = graph.at(graph.inputs[0])
    if data.inputs[0].size != tensor.elements:
        raise InputError(
            f"{graph.source}: examples of shape {data.inputs.shape[1:]} for input {tensor.shape}"
        )
    values = data.inputs.reshape(len(data), *tensor.shape)
    if tensor.dtype == "float32":
        return values.astype(np.float32)
    low, high = LIMITS[tensor.dtype]
    steps = np.clip(np.rint(values / tensor.scale) + tensor.zero_point, low, high)
    whole: Array = steps.astype(tensor.dtype)
    return whole


def calibration(graph: Graph, data: Data, settings: LayerSettings) -> Array:
    """The examples to calibrate on, as :func:`quantized`; fewer where they would fill memory."""
    largest = max(t.bytes for t in graph.tensors if not t.constant)
    count = min(settings.examples, max(1, MEMORY_BYTES // max(largest, 1)))
    return quantized(graph, data.first(count))


def batched(graph: Graph, count: int) -> Graph:
    """``graph`` for ``count`` examples one after another along every first axis."""

    def larger(tensor: Tensor) -> Tensor:
        if tensor.constant or not tensor.shape:
            return tensor
        return replace(tensor, shape=(count * tensor.shape[0], *tensor.shape[1:]))

    return replace(graph, tensors=tuple(map(larger, graph.tensors)))


def batchable(graph: Graph, examples: Array) -> bool:
    """Whether the reference gives for two examples at once what it gives for each alone."""
    pair = [examples[i % len(examples)] for i in (0, -1)]
    try:
        together = run_all(batched(graph, 2), [np.concatenate(pair)])
    except (AssertionError, ValueError, IndexError, InputError):
        return False
    alone = [run_all(graph, [example]) for example in pair]
    return all(
        np.array_equal(together[i], np.concatenate([values[i] for values in alone]))
        for node in graph.nodes
        for i in node.outputs
        if graph.at(i).shape
    ) and all(graph.at(i).shape for node in graph.nodes for i in node.outputs)


class Examples:
    """All examples' values of the tensors that are still to be read, in one network."""

    def __init__(self, graph: Graph, inputs: Array) -> None:
        self.values: dict[int, Array] = {graph.inputs[0]: inputs}
        self.count = len(inputs)
        largest = max(t.elements for t in graph.tensors if not t.constant)
        self.batch = min(BATCH, max(1, VALUES // max(largest, 1)))
        if self.batch > 1 and not batchable(graph, inputs):
            self.batch = 1
        self._last = {i: n for n, node in enumerate(graph.nodes) for i in node.inputs}

    def parts(self) -> Iterator[slice]:
        """Examples that run together."""
        for start in range(0, self.count, self.batch):
            yield slice(start, min(start + self.batch, self.count))

    def given(self, graph: Graph, node: Node, position: int, part: slice) -> Array | None:
        """The node's input ``position`` for some examples, one after another."""
        index = node.inputs[position]
        if index == ABSENT:
            return None
        tensor = graph.at(index)
        if tensor.data is not None:
            return tensor.data
        values = self.values[index][part]
        return values.reshape(-1, *tensor.shape[1:]) if tensor.shape else values.reshape(())

    def run(self, graph: Graph, position: int) -> None:
        """Compute what node ``position`` gives for every example, and forget what is done with."""
        node = graph.nodes[position]
        found = []
        for part in self.parts():
            large = batched(graph, part.stop - part.start)
            inputs = tuple(self.given(graph, node, i, part) for i in range(len(node.inputs)))
            (result,) = BY_NAME[node.op].reference(large, node, inputs)
            found.append(result.reshape(part.stop - part.start, *graph.output(node).shape))
        self.values[node.outputs[0]] = np.concatenate(found)

    def forget(self, graph: Graph, position: int) -> None:
        """Drop the values that no node after ``position`` reads."""
        keep = set(graph.outputs)
        for index in graph.nodes[position].inputs:
            if self._last.get(index) == position and index not in keep:
                self.values.pop(index, None)


def patches(convolution: Convolution, values: Array) -> Floats:
    """What each output of a layer reads, as (groups, window positions, taps).

    ``values`` are the layer's int8 inputs; what is given counts from the zero point, and padding
    is 0.
    """
    image = values.reshape(convolution.image).astype(np.float64) - convolution.zero_point
    view = windows(pad_image(image, convolution.pads, 0), convolution.window)
    split = view.reshape(*view.shape[:5], convolution.groups, -1)
    grouped = np.moveaxis(split, 5, 0)
    return grouped.reshape(convolution.groups, convolution.pixels, -1)


def moments_of(
    layer: Layer, first: Graph, graph: Graph, originals: Examples, now: Examples, seed: int
) -> Moments:
    """Moments of a layer's inputs in the original network ``first`` and in ``graph``."""
    node = first.nodes[layer.position]
    taps = layer.weights.shape[1]
    pixels = CONVOLUTIONS[node.op](first, node).pixels
    share = min(1.0, PATCHES / (pixels * originals.count))
    same = originals.values[node.inputs[0]] is now.values[node.inputs[0]]
    random = np.random.default_rng((seed, layer.position))
    sums = [np.zeros((layer.groups, taps, taps)) for _ in range(3)]
    means = [np.zeros((layer.groups, taps)) for _ in range(2)]
    count = 0
    for part in originals.parts():
        size = part.stop - part.start
        convolution = CONVOLUTIONS[node.op](batched(first, size), node)
        kept = np.arange(convolution.pixels)
        if share < 1:
            most = max(1, round(share * len(kept)))
            kept = np.sort(random.choice(len(kept), most, replace=False))
        before = patches(convolution, _values(originals, first, node, part))[:, kept]
        after = before if same else patches(convolution, _values(now, graph, node, part))[:, kept]
        sums[0] += after.transpose(0, 2, 1) @ after
        means[0] += after.sum(axis=1)
        if not same:
            sums[1] += before.transpose(0, 2, 1) @ after
            sums[2] += before.transpose(0, 2, 1) @ before
            means[1] += before.sum(axis=1)
        count += len(kept)
    if same:
        sums, means = [sums[0]] * 3, [means[0]] * 2
    gram, cross, original = (matrix / count for matrix in sums)
    return Moments(gram, cross, original, means[0] / count, means[1] / count)


def _values(examples: Examples, graph: Graph, node: Node, part: slice) -> Array:
    values = examples.given(graph, node, 0, part)
    assert values is not None
    return values


def rewrite(
    graph: Graph,
    layers: Collection[Layer],
    solve: Solve,
    context: Context,
    settings: LayerSettings,
    what: str,
    start: Graph | None = None,
) -> Graph:
    """``graph`` with new weights in ``layers``, which :func:`solve` finds one after the other.

    ``start``, of the same nodes, is where to start from, with other weights already.

    With ``context.train``, :func:`solve` gets moments over these examples, else those of
    :meth:`Moments.unknown`.  A layer that could then overflow keeps its weights.
    """
    wanted = {layer.position for layer in layers}
    with context.progress(what, len(wanted)) as step:
        if context.train is None:
            for layer in layers:
                unknown = Moments.unknown(layer.groups, layer.weights.shape[1])
                graph = _settled(graph, layer, solve(layer, unknown))
                step()
            return checked(graph)
        inputs = calibration(graph, context.train, settings)
        first, graph = graph, start or graph
        originals, now = Examples(first, inputs), Examples(first, inputs)
        last = max(wanted, default=-1)
        for position, node in enumerate(first.nodes[: last + 1]):
            same = all(
                i == ABSENT or originals.values.get(i) is now.values.get(i) for i in node.inputs
            )
            if position in wanted:
                layer = layer_at(first, position)
                moments = moments_of(layer, first, graph, originals, now, context.seed)
                moments = moments.about_means() if settings.correct_bias else moments
                graph = _settled(graph, layer, solve(layer, moments))
                step()
            if position < last:
                originals.run(first, position)
                (output,) = node.outputs
                if same and graph.nodes[position] is node:
                    now.values[output] = originals.values[output]
                else:
                    now.run(graph, position)
            originals.forget(first, position)
            now.forget(graph, position)
    return checked(graph)


def survey(
    graph: Graph, layers: Collection[Layer], context: Context, settings: LayerSettings, what: str
) -> dict[int, Moments]:
    """Moments of the inputs of ``layers`` in ``graph``, by position."""
    inputs = calibration(graph, context.data(what), settings)
    examples = Examples(graph, inputs)
    wanted = {layer.position: layer for layer in layers}
    found = {}
    for position in range(max(wanted, default=-1) + 1):
        if position in wanted:
            layer = wanted[position]
            moments = moments_of(layer, graph, graph, examples, examples, context.seed)
            found[position] = moments.about_means() if settings.correct_bias else moments
        examples.run(graph, position)
        examples.forget(graph, position)
    return found


def _settled(graph: Graph, layer: Layer, solution: Solution | None) -> Graph:
    if solution is None or not fits(layer, solution):
        return graph
    changed = with_layer(graph, layer, solution)
    node = changed.nodes[layer.position]
    try:
        check(BY_NAME[node.op], changed, node)
        CONVOLUTIONS[node.op](changed, node)
    except InputError:  # scales that the operator does not take
        return graph
    return changed


def zeros_kept(layer: Layer) -> Array | None:
    """Where a pruned layer's weights may differ from 0, (groups, channels, taps), else None."""
    return layer.grouped != 0 if layer.zeros >= SPARSE else None


def solution_of(layer: Layer, moments: Moments, weights: Floats, ratio: Floats) -> Solution:
    """The layer with ``weights`` (groups, channels, taps) on its scales times ``ratio``.

    ``ratio`` is (groups, channels, 1), above 0.
    """
    whole = np.rint(weights).astype(np.int64).reshape(layer.weights.shape)
    scales = (layer.scales * ratio.reshape(-1)).astype(np.float32).astype(np.float64)
    return Solution(whole, scales, bias_for(layer, moments, whole, scales))


def fits(layer: Layer, solution: Solution) -> bool:
    """Whether weights are int8 and no accumulator, bias included, can overflow."""
    if np.abs(solution.weights).max(initial=0) > 128 or solution.weights.max(initial=0) > 127:
        return False
    most = INT32_MAX if layer.dtype == "int8" else WIDE_SUM
    if np.abs(solution.bias).max(initial=0) > most:
        return False
    bound = accumulator_bound(solution.weights, layer.zero_point, solution.bias, layer.dtype)
    return bound <= most and bool(np.isfinite(solution.scales).all())


def bias_for(layer: Layer, moments: Moments, weights: Int64Array, scales: Floats) -> Int64Array:
    """The bias on the new scales; of moments about the means, with the mean error taken out."""
    real = layer.bias * layer.scales
    if moments.centred:
        before = _products(layer, layer.weights, moments.original_mean) * layer.scales
        real = real + before - _products(layer, weights, moments.mean) * scales
    return np.rint(real / scales).astype(np.int64)


def _products(layer: Layer, weights: Int64Array, means: Floats) -> Floats:
    grouped = weights.reshape(layer.groups, -1, weights.shape[1])
    products: Floats = (grouped @ means[:, :, None]).reshape(-1)
    return products


def with_layer(graph: Graph, layer: Layer, solution: Solution) -> Graph:
    """``graph`` with a layer's numbers replaced; what other nodes read stays as it is.

    A bias is added to a layer without one if it needs one.
    """
    node = graph.nodes[layer.position]
    before = graph.required(node, 1)
    filters = solution.weights.astype(np.int8).reshape(-1, *layer.window)
    if node.op == depthwise_conv2d.OP.name:
        filters = filters.transpose(3, 1, 2, 0)
    quant = before.quant
    if not np.array_equal(solution.scales, layer.scales):
        each = tuple(float(np.float32(scale)) for scale in solution.scales)
        if len(each) == 1 or (not layer.per_channel and len(set(each)) == 1):
            quant = Quant(each[:1], (0,))
        else:
            axis = 3 if node.op == depthwise_conv2d.OP.name else 0
            quant = Quant(each, (0,) * len(each), axis)
    data = np.ascontiguousarray(filters.reshape(before.shape))
    graph, filter_index = _placed(graph, node, 1, replace(before, data=data, quant=quant))
    inputs = [node.inputs[0], filter_index]
    old = graph.input(node, 2)
    if old is not None or solution.bias.any():
        assert quant is not None
        scale = bias_quant(graph.required(node, 0), replace(before, quant=quant))
        usual = "int32" if layer.dtype == "int8" else "int64"
        dtype = old.dtype if old is not None else usual
        values = solution.bias.astype(dtype)
        name = old.name if old is not None else f"{before.name}/bias"
        shape = old.shape if old is not None else values.shape
        bias = Tensor(name, shape, dtype, scale, values.reshape(shape))
        graph, bias_index = _placed(graph, node, 2, bias)
        inputs.append(bias_index)
    changed = replace(node, inputs=tuple(inputs))
    nodes = (*graph.nodes[: layer.position], changed, *graph.nodes[layer.position + 1 :])
    return replace(graph, nodes=nodes)


def _placed(graph: Graph, node: Node, position: int, tensor: Tensor) -> tuple[Graph, int]:
    """``tensor`` as the node's input: in the old one's place if no other node reads that."""
    index = node.inputs[position] if position < len(node.inputs) else ABSENT
    readers = sum(n.inputs.count(index) for n in graph.nodes)
    if index == ABSENT or readers > 1 or index in graph.outputs:
        return graph.add_tensor(tensor)
    return graph.with_tensor(index, data=tensor.data, quant=tensor.quant), index


def compact(graph: Graph) -> Graph:
    """``graph`` without tensors that nothing uses, and every bias on the scale of its products."""
    used = {*graph.inputs, *graph.outputs}
    for node in graph.nodes:
        used |= {*node.inputs, *node.outputs} - {ABSENT}
    order = sorted(used)
    place = {old: new for new, old in enumerate(order)} | {ABSENT: ABSENT}

    def moved(indices: Collection[int]) -> tuple[int, ...]:
        return tuple(place[i] for i in indices)

    tensors = list(graph.tensors)
    for node in graph.nodes:
        bias = graph.input(node, 2) if node.op in CONVOLUTIONS else None
        if bias is not None and bias.quant is None:
            quant = bias_quant(graph.required(node, 0), graph.required(node, 1))
            tensors[node.inputs[2]] = replace(bias, quant=quant)
    nodes = tuple(
        replace(node, inputs=moved(node.inputs), outputs=moved(node.outputs), index=position)
        for position, node in enumerate(graph.nodes)
    )
    return replace(
        graph,
        tensors=tuple(tensors[old] for old in order),
        nodes=nodes,
        inputs=moved(graph.inputs),
        outputs=moved(graph.outputs),
    )


def bias_quant(source: Tensor, filters: Tensor) -> Quant:
    """A bias's quantization: the product of the input's scale and the filter's."""
    assert filters.quant is not None
    products = tuple(float(np.float32(source.scale * s)) for s in filters.quant.scale)
    return Quant(products, (0,) * len(products), 0 if len(products) > 1 else None)


def checked(graph: Graph) -> Graph:
    """``graph``, after all checks that a model file would have to pass."""
    graph.check()
    for node in graph.nodes:
        check(BY_NAME[node.op], graph, node)
    return graph


def outputs(graph: Graph, data: Data) -> Array:
    """The network's first output for every example, real values: (n, *shape)."""
    examples = Examples(graph, quantized(graph, data))
    for position in range(len(graph.nodes)):
        examples.run(graph, position)
        examples.forget(graph, position)
    tensor = graph.at(graph.outputs[0])
    values = examples.values[graph.outputs[0]].astype(np.float64)
    if tensor.quant is None:
        return values
    return (values - tensor.zero_point) * tensor.scale


def accuracy(graph: Graph, data: Data) -> float:
    """Share of examples whose largest output is at their label."""
    assert data.labels is not None
    scores = outputs(graph, data).reshape(len(data), -1)
    return float((scores.argmax(axis=1) == data.labels.reshape(-1)).mean())
