"""Layers as matrices: what compression on int8 graphs is built on, and rounding and clustering."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import digits
import graphs
import numpy as np
import oracle
import pytest
import strategies_int16
from hypothesis import Phase, given, settings
from networks import networks
from strategies import CASES, Case
from test_exporters import assert_same
from test_operators import REPEATABLE

from tinygen import reference
from tinygen.compress import METHODS, cluster_weights, correction, layers, parse, round_weights
from tinygen.compress.base import Context
from tinygen.compress.cluster_weights import ClusterSettings
from tinygen.compress.layers import LayerSettings, Moments, Solution
from tinygen.compress.round_weights import RoundSettings
from tinygen.datasets import Data
from tinygen.errors import InputError
from tinygen.exporters import tflite as exporter
from tinygen.graph import ABSENT, Graph, Node
from tinygen.importers import tflite as importer
from tinygen.numerics import wrap32
from tinygen.ops import softmax

EXAMPLES = 96
ACCURACY = 394 / 400
"""Of the digits network as it is."""
QUICKLY = settings(REPEATABLE, phases=[Phase.generate])
WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def context() -> Context:
    return Context(train=digits.data()[0].first(EXAMPLES))


def errors(graph: Graph) -> float:
    """Mean squared error of the digits network's outputs against the original's."""
    difference = layers.outputs(graph, digits.data()[1]) - _wanted()
    return float(np.square(difference).mean())


@functools.cache
def _wanted() -> Any:
    return layers.outputs(digits.graph(), digits.data()[1])


def assert_runs_in_tflm(graph: Graph) -> None:
    """The file loads as the graph, and TFLM computes what the reference does."""
    data = exporter.dump(graph)
    assert_same(importer.load(data), graph)
    for image in layers.quantized(graph, digits.data()[1].first(5)):
        (wanted,) = oracle.shared().run(data, [image])
        (found,) = reference.run(graph, [image])
        np.testing.assert_array_equal(found, wanted, strict=True)


def check_matrix(case: Case) -> None:
    """Patches times matrix plus bias are the accumulators."""
    graph = importer.load(case.model.bytes)
    (node,) = graph.nodes
    layer = layers.layer_at(graph, 0)
    convolution = layers.CONVOLUTIONS[node.op](graph, node)
    products = layers.patches(convolution, case.inputs[0]) @ layer.grouped.transpose(0, 2, 1)
    acc = np.moveaxis(products, 0, 1).reshape(-1, len(layer.bias)).astype(np.int64) + layer.bias
    outputs = convolution.scaling.apply(wrap32(acc)).reshape(graph.output(node).shape)
    (wanted,) = reference.run(graph, case.inputs)
    np.testing.assert_array_equal(outputs, wanted, strict=True)
    same = layers.with_layer(graph, layer, Solution(layer.weights, layer.scales, layer.bias))
    (found,) = reference.run(layers.checked(same), case.inputs)
    np.testing.assert_array_equal(found, wanted, strict=True)


@pytest.mark.parametrize("name", WEIGHTED)
def test_a_layer_is_a_matrix(name: str) -> None:
    settings(QUICKLY, max_examples=25)(given(CASES[name])(check_matrix))()


def check_examples(case: Case) -> None:
    """Many examples at once give what each gives alone, whatever the network does to axes."""
    graph = importer.load(case.model.bytes)
    if len(graph.inputs) != 1:
        return
    random = np.random.default_rng(0)
    (given_input,) = case.inputs
    inputs = np.stack([random.permutation(given_input.reshape(-1)) for _ in range(5)])
    inputs = inputs.reshape(5, *given_input.shape)
    examples = layers.Examples(graph, inputs)
    examples.batch = min(examples.batch, 2)
    for position in range(len(graph.nodes)):
        examples.run(graph, position)
    for row, example in enumerate(inputs):
        values = reference.run_all(graph, [example])
        for node in graph.nodes:
            wanted = values[node.outputs[0]]
            np.testing.assert_array_equal(examples.values[node.outputs[0]][row], wanted)


def test_examples_run_in_batches_exactly() -> None:
    settings(QUICKLY, max_examples=40)(given(networks())(check_examples))()


def test_the_digits_network_runs_in_batches() -> None:
    graph = digits.graph()
    assert layers.batchable(graph, layers.quantized(graph, digits.data()[1]))
    assert layers.accuracy(graph, digits.data()[1]) == ACCURACY


def test_a_softmax_over_the_first_axis_is_not_batched() -> None:
    scores = graphs.activation("scores", 4, scale=0.5)
    shares = graphs.activation("shares", 4, scale=1 / 256, zero_point=-128)
    node = Node("SOFTMAX", (0,), (1,), softmax.Attrs(1.0), 0)
    graph = Graph("softmax", (scores, shares), (node,), (0,), (1,))
    graph.check()
    inputs = np.arange(0, 80, 10, dtype=np.int8).reshape(2, 4)
    assert not layers.batchable(graph, inputs)
    examples = layers.Examples(graph, inputs)
    examples.run(graph, 0)
    np.testing.assert_array_equal(examples.values[1][1], reference.run(graph, [inputs[1]])[0])


def test_moments_are_those_of_the_patches() -> None:
    graph = digits.graph()
    inputs = layers.quantized(graph, digits.data()[0].first(40))
    originals, now = layers.Examples(graph, inputs), layers.Examples(graph, inputs)
    layer = layers.layers_of(graph)[0]
    moments = layers.moments_of(layer, graph, graph, originals, now, 0)
    convolution = layers.CONVOLUTIONS[layer.op](
        layers.batched(graph, 40), graph.nodes[layer.position]
    )
    rows = layers.patches(convolution, inputs)
    np.testing.assert_allclose(moments.gram, rows.transpose(0, 2, 1) @ rows / rows.shape[1])
    centred = moments.about_means()
    np.testing.assert_allclose(centred.gram[0], np.cov(rows[0].T, bias=True), atol=1e-6)


def test_later_layers_make_up_for_what_inputs_have_lost() -> None:
    """With half the inputs gone, the target repeats the outputs better than the weights do."""
    graph = digits.graph()
    inputs = layers.quantized(graph, digits.data()[0].first(60))
    layer = layers.layers_of(graph)[-1]
    broken = graph
    for each in layers.layers_of(graph)[:-1]:
        coarse = np.rint(each.weights / 40) * 40
        solution = Solution(np.clip(coarse, -120, 120).astype(np.int64), each.scales, each.bias)
        broken = layers.with_layer(broken, each, solution)
    originals, now = layers.Examples(graph, inputs), layers.Examples(broken, inputs)
    for position in range(layer.position):
        originals.run(graph, position)
        now.run(broken, position)
    moments = layers.moments_of(layer, graph, broken, originals, now, 0)
    target = correction.target_of(layer, moments)
    before = correction.relative_error(layer, moments, layer.grouped)
    assert correction.relative_error(layer, moments, target) < 0.5 * before


def _moments(random: np.random.Generator, groups: int, taps: int) -> Moments:
    mixed = random.normal(size=(groups, taps, taps))
    rows = random.normal(size=(groups, 200, taps)) @ mixed
    gram = rows.transpose(0, 2, 1) @ rows / 200
    zero = np.zeros((groups, taps))
    return Moments(gram, gram, gram, zero, zero)


@pytest.mark.parametrize("limit", [1, 3, 7])
def test_correction_errs_less_than_rounding_alone(limit: int) -> None:
    random = np.random.default_rng(limit)
    target = random.normal(size=(3, 4, 12)) * limit / 2
    gram, snap = _moments(random, 3, 12).gram, correction.nearest_integers(limit)

    def error(weights: Any) -> float:
        return float(correction.quadratic(weights - target, gram).sum())

    plain = snap(target)
    turned = correction.round_in_turn(target, gram, snap)
    improved = correction.descend(turned, target, gram, snap)
    assert set(np.unique(improved)) <= set(range(-limit, limit + 1))
    assert error(improved) <= error(turned) < error(plain)
    assert error(correction.descend(plain, target, gram, snap)) < error(plain)


def test_masked_weights_stay_zero() -> None:
    random = np.random.default_rng(0)
    target, gram = random.normal(size=(1, 5, 9)) * 9, _moments(random, 1, 9).gram
    mask = random.random(target.shape) < 0.5
    snap = correction.nearest_integers(7)
    turned = correction.round_in_turn(target, gram, snap, mask)
    assert not turned[~mask].any()
    assert not correction.descend(turned, target, gram, snap, mask)[~mask].any()


def test_new_scales_move_the_bias_and_its_scale() -> None:
    graph = digits.graph()
    layer = layers.layers_of(graph)[0]
    scales = np.float32(layer.scales * 2).astype(np.float64)
    bias = layers.bias_for(layer, Moments.unknown(1, 9), layer.weights, scales)
    changed = layers.with_layer(graph, layer, Solution(layer.weights, scales, bias))
    node = changed.nodes[layer.position]
    filters, moved = changed.required(node, 1), changed.required(node, 2)
    assert filters.quant is not None and filters.quant.scale == tuple(scales)
    np.testing.assert_array_equal(moved.data, np.rint(layer.bias * layer.scales / scales))
    product = np.float32(np.float64(changed.required(node, 0).scale) * scales)
    assert moved.quant is not None and moved.quant.scale == tuple(map(float, product))
    assert_runs_in_tflm(layers.checked(changed))


def test_weights_that_another_layer_reads_stay() -> None:
    graph = graphs.dense_chain(8, 8, 8)
    first, second = graph.nodes
    shared = replace(graph, nodes=(first, replace(second, inputs=(2, 1, ABSENT))))
    before = shared.at(1).data
    layer = layers.layers_of(shared)[1]
    weights = np.zeros_like(layer.weights)
    bias = np.arange(8)
    changed = layers.checked(
        layers.with_layer(shared, layer, Solution(weights, layer.scales, bias))
    )
    np.testing.assert_array_equal(changed.at(1).data, before)
    assert not changed.required(changed.nodes[1], 1).data.any()  # type: ignore[union-attr]
    np.testing.assert_array_equal(changed.required(changed.nodes[1], 2).data, bias)


def test_a_layer_whose_accumulators_could_overflow_is_left_alone() -> None:
    graph = graphs.dense_chain(8, 8)
    (layer,) = layers.layers_of(graph)
    huge = Solution(layer.weights, layer.scales, np.full(8, (1 << 31) - 5))
    assert not layers.fits(layer, huge)
    done = layers.rewrite(graph, [layer], lambda *_: huge, Context(), LayerSettings(), "nothing")
    assert done.nodes == graph.nodes


def test_layers_are_chosen_by_name_and_size() -> None:
    graph = digits.graph()
    every = layers.chosen(graph, LayerSettings(min_weights=1))
    assert [layer.weights.size for layer in every] == [144, 144, 512, 288, 1280]
    large = layers.chosen(graph, LayerSettings(largest=2))
    assert [layer.weights.size for layer in large] == [512, 1280]
    assert len(layers.chosen(graph, LayerSettings(layers=(every[3].name,)))) == 1
    pattern = LayerSettings(layers=("*/depthwise*",), min_weights=1)
    assert [layer.op for layer in layers.chosen(graph, pattern)] == 2 * ["DEPTHWISE_CONV_2D"]
    with pytest.raises(InputError, match="no layer is called 'conv7'"):
        layers.chosen(graph, LayerSettings(layers=("conv7",)))


def test_layers_too_wide_for_moments_are_left_alone() -> None:
    wide = graphs.dense_chain(layers.MAX_TAPS + 1, 2)
    assert layers.chosen(wide, LayerSettings()) == ()
    done = cluster_weights.apply(wide, ClusterSettings(entries=2), Context())
    assert done.nodes == wide.nodes


def test_examples_are_no_more_than_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    train = digits.data()[0]
    assert len(layers.calibration(digits.graph(), train, LayerSettings())) == 1024
    monkeypatch.setattr(layers, "MEMORY_BYTES", 10 * 8 * 8 * 32)
    assert len(layers.calibration(digits.graph(), train, LayerSettings())) == 10


def test_examples_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match=r"examples of shape \(7, 7, 1\)"):
        layers.quantized(digits.graph(), Data(np.zeros((2, 7, 7, 1), np.float32)))


@pytest.mark.parametrize("bits", [2, 4, 7])
def test_rounded_weights_fit_their_bits(bits: int) -> None:
    graph = round_weights.apply(digits.graph(), RoundSettings(bits=bits), context())
    for layer in layers.layers_of(graph):
        assert np.abs(layer.weights).max() <= (1 << (bits - 1)) - 1
    assert_runs_in_tflm(graph)


def test_rounding_with_correction_beats_rounding_alone() -> None:
    plain = round_weights.apply(
        digits.graph(), RoundSettings(bits=3, correct=False, correct_bias=False), context()
    )
    corrected = round_weights.apply(digits.graph(), RoundSettings(bits=3), context())
    assert errors(corrected) < errors(plain) / 2


def test_four_bits_keep_the_accuracy() -> None:
    graph = round_weights.apply(digits.graph(), RoundSettings(), context())
    test = digits.data()[1]
    assert layers.accuracy(graph, test) >= ACCURACY - 0.01


def test_correcting_biases_takes_out_mean_errors() -> None:
    """Of the classifier's scores, before the softmax; what is left is rounding of the bias."""
    first, last = digits.graph(), layers.layers_of(digits.graph())[-1]
    first = replace(first, outputs=first.nodes[last.position].outputs)
    train = digits.data()[0].first(EXAMPLES)
    wanted = layers.outputs(first, train)
    found = []
    for correct in (False, True):
        chosen = RoundSettings(bits=2, correct=False, correct_bias=correct, layers=(last.name,))
        graph = round_weights.apply(first, chosen, context())
        found.append(np.abs((layers.outputs(graph, train) - wanted).mean(axis=0)).max())
    assert found[1] < 0.2 * found[0]
    assert found[1] < first.at(first.outputs[0]).scale


def test_layers_over_the_error_limit_stay_int8() -> None:
    graph = digits.graph()
    first, second = (
        round_weights.apply(graph, RoundSettings(bits=2, error_limit=limit), context())
        for limit in (1e-9, 0.05)
    )
    assert_same(first, graph)
    small = [np.abs(layer.weights).max() <= 1 for layer in layers.layers_of(second)]
    assert any(small) and not all(small)


def test_one_scale_for_all_channels_keeps_their_ratios() -> None:
    graph = round_weights.apply(digits.graph(), RoundSettings(granularity="tensor"), context())
    for before, after in zip(
        layers.layers_of(digits.graph()), layers.layers_of(graph), strict=True
    ):
        np.testing.assert_allclose(np.ptp(after.scales / before.scales), 0, atol=1e-5)


@pytest.mark.parametrize("entries", [2, 16])
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_clustered_weights_are_few(entries: int, granularity: Any) -> None:
    chosen = ClusterSettings(entries=entries, granularity=granularity, examples=32)
    graph = cluster_weights.apply(digits.graph(), chosen, context())
    for layer in layers.layers_of(graph):
        rows = layer.weights if granularity == "channel" else layer.weights.reshape(1, -1)
        assert max(len(np.unique(row)) for row in rows) <= entries
    assert_runs_in_tflm(graph)


def test_clustering_with_correction_beats_k_means() -> None:
    plain = cluster_weights.apply(digits.graph(), ClusterSettings(entries=4), Context())
    corrected = cluster_weights.apply(digits.graph(), ClusterSettings(entries=4), context())
    assert errors(corrected) < errors(plain) / 4
    test = digits.data()[1]
    assert layers.accuracy(corrected, test) >= ACCURACY - 0.03


def test_sixteen_entries_keep_the_accuracy() -> None:
    graph = cluster_weights.apply(digits.graph(), ClusterSettings(), context())
    test = digits.data()[1]
    assert layers.accuracy(graph, test) >= ACCURACY - 0.005


@pytest.mark.parametrize("start", ["kmeans++", "density", "linear"])
def test_every_start_works_without_data(start: Any) -> None:
    chosen = ClusterSettings(entries=8, start=start)
    graph = cluster_weights.apply(digits.graph(), chosen, Context())
    assert all(len(np.unique(layer.weights)) <= 8 for layer in layers.layers_of(graph))
    assert layers.accuracy(graph, digits.data()[1]) > 0.9


def _pruned(graph: Graph) -> Graph:
    """The digits network with three of five weights zero."""
    for layer in layers.layers_of(graph):
        cut = np.quantile(np.abs(layer.weights), 0.6)
        weights = np.where(np.abs(layer.weights) > cut, layer.weights, 0)
        graph = layers.with_layer(graph, layer, Solution(weights, layer.scales, layer.bias))
    return graph


@pytest.mark.parametrize("with_data", [False, True])
def test_zeros_of_a_pruned_network_stay(with_data: bool) -> None:
    pruned = _pruned(digits.graph())
    given_context = context() if with_data else Context()
    for graph in (
        cluster_weights.apply(pruned, ClusterSettings(entries=4), given_context),
        round_weights.apply(pruned, RoundSettings(bits=3), given_context),
    ):
        for before, after in zip(layers.layers_of(pruned), layers.layers_of(graph), strict=True):
            assert not after.weights[before.weights == 0].any()
            assert len(np.unique(after.weights)) <= 7


def test_layers_that_are_as_asked_for_stay() -> None:
    clustered = cluster_weights.apply(digits.graph(), ClusterSettings(entries=8), Context())
    rounded = round_weights.apply(digits.graph(), RoundSettings(), Context())
    again = cluster_weights.apply(clustered, ClusterSettings(), context())
    assert_same(again, clustered)
    assert_same(round_weights.apply(rounded, RoundSettings(bits=5), context()), rounded)


def test_a_codebook_is_found_exactly() -> None:
    random = np.random.default_rng(3)
    values = random.choice([-90.0, -7.0, 0.0, 31.0], 500)
    book = cluster_weights.codebook(values, np.ones(500), 4, "kmeans++", random)
    np.testing.assert_array_equal(book, [-90, -7, 0, 31])


def test_methods_without_training_repeat() -> None:
    for method, chosen in (
        (cluster_weights, ClusterSettings(entries=4, examples=32)),
        (round_weights, RoundSettings(bits=3, examples=32)),
    ):
        one, two = (method.apply(digits.graph(), chosen, context()) for _ in range(2))
        assert_same(one, two)


def test_methods_are_listed() -> None:
    (step,) = parse([{"method": "cluster_weights", "entries": 8}], METHODS)
    assert step.settings == ClusterSettings(entries=8)
    with pytest.raises(InputError):
        parse([{"method": "round_weights", "bits": 9}], METHODS)


def check_any_layer(case: Case) -> None:
    """Both methods take every layer that TFLM takes, and give one that it takes."""
    graph = importer.load(case.model.bytes)
    for changed in (
        cluster_weights.apply(graph, ClusterSettings(entries=4, min_weights=1), Context()),
        round_weights.apply(graph, RoundSettings(min_weights=1), Context()),
    ):
        (wanted,) = oracle.shared().run(exporter.dump(changed), case.inputs)
        (found,) = reference.run(changed, case.inputs)
        np.testing.assert_array_equal(found, wanted, strict=True)


@pytest.mark.parametrize("name", WEIGHTED)
def test_any_int16_layer_can_be_compressed(name: str) -> None:
    cases = strategies_int16.CASES[name]
    settings(QUICKLY, max_examples=8)(given(cases)(check_any_layer))()


@pytest.mark.parametrize("name", WEIGHTED)
def test_any_layer_can_be_compressed(name: str) -> None:
    settings(QUICKLY, max_examples=12)(given(CASES[name])(check_any_layer))()
