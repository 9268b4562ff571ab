"""Float networks become int8 graphs: by TFLite's rules, exact in TFLM, close to the floats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import oracle
import pytest
import tflite_builder as tb
from float_nets import Net, as_file, everything, straight

from tinygen import reference
from tinygen.compress import METHODS, Context, calibration, float_graph, parse, quantize
from tinygen.compress import weights as weight_scales
from tinygen.compress.activations import FIXED, SAME_SCALE, affine
from tinygen.compress.equalize import CHANNEL_AXIS, equalize, pairs
from tinygen.compress.quantize import Settings
from tinygen.compress.weights import WeightRange
from tinygen.datasets import Data
from tinygen.errors import InputError
from tinygen.exporters import tflite as exporter
from tinygen.graph import Array, Graph, Node, Tensor
from tinygen.importers import tflite as importer
from tinygen.ops import BY_NAME


def quantized(net: Net, examples: Array, **settings: object) -> Graph:
    return quantize.quantize(
        net.graph(), Settings.model_validate(settings), Context(Data(examples))
    )


def as_int(graph: Graph, example: Array) -> Array:
    tensor = graph.at(graph.inputs[0])
    limits = np.iinfo(tensor.dtype)
    integers = np.rint(example / tensor.scale) + tensor.zero_point
    return np.clip(integers, limits.min, limits.max).astype(tensor.dtype).reshape(tensor.shape)


def outputs_of(graph: Graph, examples: Array) -> Array:
    """Real outputs (n, ...) of the int8 graph."""
    tensor = graph.at(graph.outputs[0])
    made = [reference.run(graph, [as_int(graph, example)])[0][0] for example in examples]
    return (np.stack(made).astype(np.float64) - tensor.zero_point) * tensor.scale


def error(net: Net, graph: Graph, examples: Array) -> float:
    """Mean squared error of the outputs over their variance."""
    wanted = float_graph.run(net.graph(), examples)[0]
    got = outputs_of(graph, examples)
    return float(np.square(got - wanted).mean() / wanted.var())


OPTIONS = [
    {},
    {"calibration": "mse", "weight_range": "mse"},
    {"calibration": "percentile", "percentile": 99.0, "weights": "per_tensor"},
    {"bits": 4, "weight_range": "mse", "bias_correction": True},
    {"equalize": True, "bits": {"default": 5, "first": 8, "last": 6}},
    {"step": "power_of_two", "bias_correction": True},
]


@pytest.mark.parametrize("settings", OPTIONS, ids=str)
@pytest.mark.parametrize("make", [straight, everything])
def test_quantized_networks_run_in_tflm_byte_for_byte(
    make: Callable[[], Net], settings: dict[str, object]
) -> None:
    net = make()
    examples = net.examples()
    graph = quantized(net, examples, **settings)
    data = exporter.dump(graph)
    loaded = importer.load(data, "net.tflite")
    for example in examples[:3] * 3:
        given = as_int(graph, example)
        (wanted,) = oracle.shared().run(data, [given])
        assert np.array_equal(reference.run(loaded, [given])[0], wanted)


@pytest.mark.parametrize(
    "settings",
    [{}, {"bits": 6, "weights": "per_tensor"}, {"calibration": "mse", "bias_correction": True}],
    ids=str,
)
@pytest.mark.parametrize("make", [straight, lambda: everything(hard_swish=False)])
def test_networks_of_16_bit_activations_run_in_tflm_byte_for_byte(
    make: Callable[[], Net], settings: dict[str, object]
) -> None:
    net = make()
    examples = net.examples()
    graph = quantized(net, examples, activations=16, **settings)
    assert {graph.output(node).dtype for node in graph.nodes} == {"int16"}
    biases = {graph.required(n, 2).dtype for n in graph.nodes if n.op in CHANNEL_AXIS}
    assert biases == {"int64"}
    data = exporter.dump(graph)
    loaded = importer.load(data, "net.tflite")
    for example in examples[:3] * 3:
        given = as_int(graph, example)
        (wanted,) = oracle.shared().run(data, [given])
        assert np.array_equal(reference.run(loaded, [given])[0], wanted)
    if not settings:
        assert error(net, graph, examples) < 0.1 * error(net, quantized(net, examples), examples)


@pytest.mark.parametrize("make", [straight, everything])
def test_quantized_networks_are_close_to_their_floats(make: Callable[[], Net]) -> None:
    net = make()
    examples = net.examples(64)
    assert error(net, quantized(net, examples), examples) < 0.02


def test_float_files_load_without_the_rules_of_int8() -> None:
    net = everything()
    data = as_file(net.graph())
    with pytest.raises(InputError, match="int8"):
        importer.load(data)
    graph = float_graph.load(data, "net.tflite")
    examples = net.examples()
    assert np.array_equal(
        float_graph.run(graph, examples)[0], float_graph.run(net.graph(), examples)[0]
    )


def test_four_bit_weights_are_read_as_tflm_reads_them() -> None:
    net = straight()
    examples = net.examples()
    # TFLM's dense layers of four bits have one scale.
    graph = quantized(net, examples, bits=4, weights="per_tensor")
    given = as_int(graph, examples[0])
    packed = with_int4_weights(graph)
    loaded = importer.load(packed, "net.tflite")
    weights = [loaded.required(node, 1) for node in loaded.nodes if node.op in CHANNEL_AXIS]
    originals = [graph.required(node, 1) for node in graph.nodes if node.op in CHANNEL_AXIS]
    for tensor, original in zip(weights, originals, strict=True):
        assert tensor.dtype == "int8"
        assert np.array_equal(tensor.data, original.data)
    (wanted,) = oracle.shared().run(packed, [given])
    assert np.array_equal(reference.run(loaded, [given])[0], wanted)
    assert np.array_equal(reference.run(graph, [given])[0], wanted)


def with_int4_weights(graph: Graph) -> bytes:
    """The file of ``graph`` with its weights, all in -8..7, packed in halves of bytes."""
    weights = {node.inputs[1] for node in graph.nodes if node.op in CHANNEL_AXIS}
    tensors = []
    for index, t in enumerate(graph.tensors):
        quant = (t.quant.scale, t.quant.zero_point, t.quant.axis or 0) if t.quant else ()
        if index in weights:
            flat = np.append(t.data, np.zeros(t.elements % 2, np.int8)).astype(np.uint8) & 15
            data = (flat[::2] | flat[1::2] << 4).astype(np.uint8)
            tensors.append(tb.Tensor(t.shape, "int4", *quant, data=data))
        else:
            tensors.append(tb.Tensor(t.shape, t.dtype, *quant, data=t.data))
    ops = tuple(
        tb.Op(n.op, n.inputs, n.outputs, BY_NAME[n.op].write(graph, n))
        if BY_NAME[n.op].options
        else tb.Op(n.op, n.inputs, n.outputs)
        for n in graph.nodes
    )
    return tb.Model(tuple(tensors), ops, graph.inputs, graph.outputs).bytes


# ---- the specification -------------------------------------------------------------------------


def test_the_graph_follows_the_specification() -> None:
    net = everything()
    graph = quantized(net, net.examples())
    for node in graph.nodes:
        target = graph.output(node)
        assert target.dtype == "int8"
        if node.op in CHANNEL_AXIS:
            check_layer(graph, node)
        elif node.op in SAME_SCALE:
            sources = node.inputs if node.op == "CONCATENATION" else node.inputs[:1]
            assert {graph.at(i).quant for i in sources} == {target.quant}
        elif node.op in FIXED[8]:
            assert target.quant == FIXED[8][node.op]
    free = {(t.scale, t.zero_point) for n in graph.nodes if n.op == "MEAN" for t in ends(graph, n)}
    assert len(free) == 2
    assert all(graph.at(i).dtype == "int8" for i in (*graph.inputs, *graph.outputs))


def ends(graph: Graph, node: Node) -> tuple[Tensor, Tensor]:
    return graph.required(node, 0), graph.output(node)


def check_layer(graph: Graph, node: Node) -> None:
    source, weights, bias = (graph.required(node, i) for i in range(3))
    assert weights.quant is not None and bias.quant is not None and weights.data is not None
    axis = CHANNEL_AXIS[node.op]
    assert weights.dtype == "int8" and bias.dtype == "int32"
    assert weights.quant.axis == axis
    assert set(weights.quant.zero_point) == {0}
    others = tuple(i for i in range(weights.data.ndim) if i != axis)
    assert (np.abs(weights.data.astype(int)).max(axis=others) == 127).all()
    wanted = [float(np.float32(source.scale * s)) for s in weights.quant.scale]
    assert np.allclose(bias.quant.scale, wanted, rtol=1e-6)


def test_ranges_hold_zero_exactly() -> None:
    for low, high in ((-1.3, 2.6), (0.0, 6.0), (-4.0, 0.0), (0.0, 0.0), (-1e-30, 1e-30)):
        quant = affine(low, high, 8)
        reals = (np.array([-128, 127]) - quant.zero_point[0]) * quant.scale[0]
        assert -128 <= quant.zero_point[0] <= 127
        slack = 0.501 * quant.scale[0]
        assert reals[0] <= low + slack and reals[1] >= high - slack


# ---- weights -----------------------------------------------------------------------------------


def random_weights(*shape: int) -> Array:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("weight_range", ["max", "mse"])
@pytest.mark.parametrize(("bits", "largest"), [(4, 7), (8, 127), (8, 7), (6, 1), (7, 31)])
def test_weights_on_their_channels_grid_come_out_as_its_integers(
    bits: int, largest: int, weight_range: WeightRange
) -> None:
    wanted = np.random.default_rng(0).integers(-largest, largest + 1, (6, 3, 3, 5))
    wanted[:, 0, 0, 0] = largest
    tops = np.geomspace(0.01, 3, 6).astype(np.float32)
    weights = (tops[:, None, None, None] * (wanted / largest)).astype(np.float32)
    made = weight_scales.quantize(weights, 0, bits, weight_range=weight_range)
    assert np.array_equal(made.values, wanted)
    assert np.allclose(made.real, weights, rtol=1e-6)


@pytest.mark.parametrize("weight_range", ["max", "mse"])
def test_clustered_weights_have_few_integers(weight_range: WeightRange) -> None:
    random = np.random.default_rng(0)
    codebook = np.array([-1, -0.61, -0.3, -0.11, 0, 0.13, 0.37, 0.8], dtype=np.float32)
    chosen = random.integers(1, 8, (24, 3, 3, 16))
    chosen[:, 0, 0, 0] = 0
    tops = random.uniform(0.1, 4, (24, 1, 1, 1)).astype(np.float32)
    weights = (codebook[chosen] * tops).astype(np.float32)
    for bits, largest in ((8, 127), (5, 15)):
        made = weight_scales.quantize(weights, 0, bits, weight_range=weight_range)
        assert set(np.unique(made.values)) == set(np.rint(codebook * largest).astype(int))


@pytest.mark.parametrize("settings", OPTIONS, ids=str)
def test_zero_weights_stay_zero(settings: dict[str, object]) -> None:
    net = straight()
    for index, tensor in enumerate(net.tensors):
        if tensor.data is not None and tensor.name.endswith("weights"):
            kept = tensor.data * (net.random.random(tensor.shape) < 0.3)
            net.tensors[index] = replace(tensor, data=kept.astype(np.float32))
    graph = quantized(net, net.examples(), **settings)
    for node, original in zip(graph.nodes, net.nodes, strict=True):
        if node.op in CHANNEL_AXIS:
            data, real = graph.required(node, 1).data, net.tensors[original.inputs[1]].data
            assert data is not None and not data[real == 0].any() and data.any()


def test_a_step_is_one_scale_for_all_weights() -> None:
    weights = random_weights(4, 9)
    made = weight_scales.quantize(weights, 0, step=0.0625)
    assert made.scale.tolist() == [0.0625]
    assert np.array_equal(made.values, np.clip(np.rint(weights / 0.0625), -127, 127))
    coarse = weight_scales.quantize(weights, 0, bits=4, step="power_of_two")
    (scale,) = coarse.scale
    assert np.log2(scale) == np.rint(np.log2(scale))
    assert 3.5 < np.abs(weights).max() / scale <= 7


@pytest.mark.parametrize("taps", [200, 100_000])
def test_the_search_for_the_least_error_finds_it(taps: int) -> None:
    weights = random_weights(3, taps)
    weights[0, 0] = 12.0
    for bits in (4, 6, 8):
        plain, best = (
            weight_scales.quantize(weights, 0, bits, weight_range=kind) for kind in ("max", "mse")
        )
        errors = [np.square(made.real - weights).sum(axis=1) for made in (plain, best)]
        assert (errors[1] <= errors[0]).all()
        assert bits > 4 or errors[1].sum() < 0.95 * errors[0].sum()


def test_channels_without_weights_and_large_biases_keep_their_bias() -> None:
    net = straight()
    index = next(i for i, t in enumerate(net.tensors) if t.name == "layer0/weights")
    data = net.tensors[index].data
    assert data is not None
    data = data.copy()
    data[2] = 0
    data[3] *= 1e-9
    net.tensors[index] = replace(net.tensors[index], data=data)
    bias = net.tensors[index + 1].data
    assert bias is not None
    net.tensors[index + 1] = replace(net.tensors[index + 1], data=np.abs(bias) + np.float32(0.25))
    examples = net.examples()
    graph = quantized(net, examples)
    made = graph.required(graph.nodes[0], 2)
    assert made.data is not None and made.quant is not None
    real = made.data * np.array(made.quant.scale)
    assert np.allclose(real, np.abs(bias) + 0.25, rtol=0.02)
    assert error(net, graph, examples) < 0.02


def test_layers_without_weights_keep_their_bias() -> None:
    net = straight()
    index = next(i for i, t in enumerate(net.tensors) if t.name == "layer2/weights")
    net.tensors[index] = replace(
        net.tensors[index], data=np.zeros(net.tensors[index].shape, np.float32)
    )
    examples = net.examples(8)
    graph = quantized(net, examples)
    bias, made = net.tensors[index + 1].data, graph.required(graph.nodes[2], 2)
    assert bias is not None and made.data is not None and made.quant is not None
    assert np.allclose(made.data * np.array(made.quant.scale), bias, atol=1e-4)
    assert (
        np.abs(outputs_of(graph, examples) - float_graph.run(net.graph(), examples)[0]).max() < 0.02
    )


def test_outputs_much_finer_than_inputs_are_taken() -> None:
    net = Net(4, 4, 2)
    x = net.conv(0, 3)
    for index, value in ((1, 1e-6), (2, -2.9999)):
        net.tensors[index] = replace(
            net.tensors[index], data=np.full(net.tensors[index].shape, value, np.float32)
        )
    x = net.unary("HARD_SWISH", x)
    nearly = net.binary("MUL", x, net.constant(np.array([1 - 1e-7], np.float32)))
    net.binary("SUB", x, nearly)
    examples = net.examples(8)
    assert np.abs(outputs_of(quantized(net, examples), examples)).max() < 1e-3


# ---- calibration -------------------------------------------------------------------------------


def histogram(values: Array) -> calibration.Histogram:
    ends = (min(float(values.min()), 0.0), max(float(values.max()), 0.0))
    nonzero = values[values != 0]
    counts = np.histogram(nonzero, calibration.BINS, ends)[0]
    return calibration.Histogram(*ends, counts, int((values == 0).sum()))


def test_percentiles_are_those_of_the_values() -> None:
    values = np.random.default_rng(0).standard_normal(50_000)
    found = calibration.percentile_range(histogram(values), 99.0)
    assert np.allclose(found, np.percentile(values, [1, 99]), atol=2 * np.ptp(values) / 2048)
    whole = calibration.percentile_range(histogram(values), 100)
    assert np.allclose(whole, (values.min(), values.max()))
    assert calibration.percentile_range(histogram(np.abs(values)), 99.0)[0] == 0


@pytest.mark.parametrize("positive", [True, False])
def test_the_range_of_least_squared_error_is_found(positive: bool) -> None:
    values = np.random.default_rng(0).standard_t(3, 20_000)
    values = np.maximum(values, 0) if positive else values

    def squared(low: float, high: float, steps: int) -> float:
        scale = (high - low) / steps
        return float(np.square(np.clip(np.rint(values / scale) * scale, low, high) - values).sum())

    low, high = calibration.mse_range(histogram(values), 15)
    assert high < 0.7 * values.max()
    best = min(
        squared(low * a, high * b, 15) for a in (0.6, 0.8, 1.25, 1.6) for b in (0.6, 0.8, 1.25, 1.6)
    )
    assert squared(low, high, 15) < best
    assert squared(low, high, 15) < 0.5 * squared(min(values.min(), 0), values.max(), 15)


@pytest.mark.parametrize("kind", ["minmax", "percentile", "mse"])
def test_ranges_do_not_depend_on_batches(
    kind: calibration.Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, examples = straight().graph(), straight().examples(23)
    # The order of a matrix product's sums may change with its size.
    whole = calibration.ranges(graph, examples, kind, 99.0)
    monkeypatch.setattr(float_graph, "BATCH_BYTES", 4 * 5 * float_graph.elements_of(graph))
    assert calibration.batches_of(graph, examples, kind) == (5 if kind == "minmax" else 10)
    parts = calibration.ranges(graph, examples, kind, 99.0)
    assert whole.keys() == parts.keys()
    assert all(np.allclose(whole[i], parts[i], rtol=0.01, atol=1e-3) for i in whole)


# ---- equalization and bias correction ----------------------------------------------------------


def unbalanced(seed: int = 0) -> Net:
    """The straight network, channels of its first layers apart by a factor of a thousand."""
    net = straight(seed)
    spread = np.geomspace(0.03, 30, 8).astype(np.float32)
    first, second, third = (node.inputs for node in net.nodes[:3])
    for index, factors in (
        (first[1], spread[:, None, None, None]),
        (first[2], spread),
        (second[1], spread[::-1] / spread),
        (second[2], spread[::-1]),
        (third[1], 1 / spread[::-1]),
    ):
        data = net.tensors[index].data
        assert data is not None
        net.tensors[index] = replace(net.tensors[index], data=data * factors)
    return net


def test_equalization_leaves_the_float_network_as_it_is() -> None:
    net = unbalanced()
    graph, examples = net.graph(), net.examples(64)
    made = equalize(graph)
    before, after = (float_graph.run_all(g, examples) for g in (graph, made))
    logits = graph.nodes[-1].inputs[0]
    largest = np.abs(before[logits]).max()
    assert np.abs(before[logits] - after[logits]).max() < 1e-5 * largest
    first, second = (g.at(g.nodes[0].inputs[1]).data for g in (graph, made))
    assert first is not None and second is not None
    spreads = [np.abs(w).reshape(8, -1).max(axis=1) for w in (first, second)]
    assert np.ptp(np.log(spreads[1])) < 0.7 * np.ptp(np.log(spreads[0]))


def test_equalized_pairs_have_equal_ranges() -> None:
    made = equalize(unbalanced().graph())
    found = tuple(pairs(made))
    assert [(p.first, p.second, p.repeats) for p in found] == [
        (0, 1, 1),
        (1, 2, 1),
        (2, 5, 16),
        (5, 6, 1),
    ]
    for pair in found:
        first, second = (made.nodes[i] for i in (pair.first, pair.second))
        before, after = made.at(first.inputs[1]).data, made.at(second.inputs[1]).data
        assert before is not None and after is not None
        before = np.moveaxis(before, CHANNEL_AXIS[first.op], -1)
        channels = before.shape[-1]
        tops = [np.abs(w).reshape(-1, channels).max(axis=0) for w in (before, after)]
        assert np.allclose(*tops, rtol=0.02)


def test_layers_that_cannot_be_equalized_are_left() -> None:
    net = Net(4, 4, 2)
    x = net.conv(0, 4, activation="RELU6")
    x = net.conv(x, 4)
    y = net.conv(x, 4, activation="RELU")
    net.binary("ADD", x, net.conv(y, 4))
    assert [(p.first, p.second) for p in pairs(net.graph())] == [(2, 3)]


def test_equalization_saves_weights_of_one_scale() -> None:
    net = unbalanced()
    examples = net.examples(64)
    plain, equal = (
        error(net, quantized(net, examples, weights="per_tensor", equalize=on), examples)
        for on in (False, True)
    )
    assert equal < 0.3 * plain


def test_bias_correction_brings_means_back() -> None:
    net = straight(3)
    examples = net.examples(200)
    wanted = float_graph.run(before_softmax(net.graph()), examples)[0]
    errors, shifts = [], []
    for on in (False, True):
        graph = quantized(net, examples, bits=4, bias_correction=on)
        got = outputs_of(before_softmax(graph), examples)
        errors.append(np.square(got - wanted).mean())
        shifts.append(np.abs((got - wanted).mean(axis=0)).max())
    assert shifts[1] < 0.2 * shifts[0]
    assert errors[1] < errors[0]


def before_softmax(graph: Graph) -> Graph:
    return replace(graph, nodes=graph.nodes[:-1], outputs=graph.nodes[-1].inputs)


# ---- widths ------------------------------------------------------------------------------------


def test_widths_by_layer() -> None:
    graph = straight().graph()
    names = [layer.name for layer in quantize.layers(graph)]
    assert names == ["layer0", "layer1", "layer2", "layer5", "layer6"]
    assert quantize.bits_of(graph, 6) == (6,) * 5
    assert quantize.bits_of(graph, {"default": 4, "first": 8, "last": 7}) == (8, 4, 4, 4, 7)
    assert quantize.bits_of(graph, {"layer1": 5, "layer[15]": 4}) == (8, 5, 8, 4, 8)
    assert quantize.bits_of(graph, {"first": 8, "layer0": 4}) == (4, 8, 8, 8, 8)
    with pytest.raises(InputError, match="no layer is called 'conv'"):
        quantize.bits_of(graph, {"conv": 4})


def test_values_keep_to_their_widths() -> None:
    net = straight()
    graph = quantized(net, net.examples(), bits={"default": 4, "layer1": 6, "last": 8})
    tops = [
        int(np.abs(graph.required(node, 1).data.astype(int)).max())  # type: ignore[union-attr]
        for node in graph.nodes
        if node.op in CHANNEL_AXIS
    ]
    assert tops == [7, 31, 7, 7, 127]


def test_sensitivity_orders_layers() -> None:
    net = straight()
    examples = net.examples(64)
    on_grid = weight_scales.quantize(net.tensors[1].data, 0, 4).real  # type: ignore[arg-type]
    net.tensors[1] = replace(net.tensors[1], data=on_grid)
    found = quantize.sensitivity(net.graph(), examples)
    assert list(found) == ["layer0", "layer1", "layer2", "layer5", "layer6"]
    assert found["layer0"] < 1e-9 < min(list(found.values())[1:])
    assert max(found.values()) < 1
    assert found == quantize.sensitivity(net.graph(), examples)
    finer = quantize.sensitivity(net.graph(), examples, bits=6)
    assert all(finer[name] < found[name] for name in list(found)[1:])


# ---- refusals ----------------------------------------------------------------------------------


def test_what_cannot_be_quantized_is_refused() -> None:
    net = straight()
    graph, examples = net.graph(), net.examples()
    with pytest.raises(InputError, match="has 2 inputs; only networks of one"):
        float_graph.check(replace(graph, inputs=(0, 0)))
    with pytest.raises(InputError, match="quantize: needs data"):
        quantize.quantize(graph, Settings(), Context())
    with pytest.raises(InputError, match="do not fit input"):
        quantized(net, examples[:, :5])
    with pytest.raises(InputError, match="is int8, not float32"):
        float_graph.check(quantized(net, examples))
    data = net.tensors[1].data
    assert data is not None
    broken = graph.with_tensor(1, data=np.where(data > 0, np.float32("inf"), data))
    with pytest.raises(InputError, match="no numbers"):
        float_graph.check(broken)
    huge = graph.with_tensor(1, data=np.full_like(data, 3e38))
    with pytest.raises(InputError, match="no numbers"), np.errstate(all="ignore"):
        quantize.quantize(huge, Settings(), Context(Data(examples)))


def test_settings_are_those_of_a_recipe() -> None:
    table = {"method": "quantize", "bits": {"default": 4, "last": 8}, "step": "power_of_two"}
    (step,) = parse([table], METHODS)
    assert step.method is quantize.METHOD
    for wrong in ({"bits": 3}, {"percentile": 20}, {"step": 0}, {"activations": 12}):
        with pytest.raises(InputError, match="step 1 quantize"):
            parse([{"method": "quantize", **wrong}], METHODS)


def test_damaged_float_files_are_refused_or_run() -> None:
    data = as_file(everything().graph())
    examples = everything().examples(1)
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        bad = bytearray(data)
        for at in random.integers(0, 4000, random.integers(1, 5)):
            bad[at] = random.integers(0, 256)
        try:
            graph = float_graph.load(bytes(bad))
            with np.errstate(all="ignore"):
                float_graph.run(graph, examples)
        except InputError:
            refused += 1
    assert 20 < refused < 200
