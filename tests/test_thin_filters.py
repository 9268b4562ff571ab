"""Filter pruning by reconstruction: which channels go, and that they go for real."""

from __future__ import annotations

from typing import Any

import digits
import numpy as np
import oracle
import pytest
import shared_models
from hypothesis import Phase, given, settings
from networks import networks
from strategies import Case
from test_compress_layers import ACCURACY, assert_runs_in_tflm, context, errors
from test_exporters import assert_same
from test_operators import REPEATABLE

from tinygen import importers, ops, passes, plan, reference
from tinygen.compress import layers, recover, thin_filters
from tinygen.compress.base import Context
from tinygen.compress.layers import Moments, Solution
from tinygen.compress.thin_filters import Group, ThinSettings
from tinygen.datasets import Data
from tinygen.errors import InputError
from tinygen.exporters import tflite as exporter
from tinygen.graph import Graph
from tinygen.importers import tflite as importer


def thinned(**fields: Any) -> Graph:
    return thin_filters.apply(digits.graph(), ThinSettings(**fields), context())


def test_channels_are_grouped_with_those_they_are_tied_to() -> None:
    assert thin_filters.groups_of(digits.graph()) == (
        Group(16, producers=(0,), followers=(1,), consumers=(2,)),
        Group(32, producers=(2,), followers=(4,), consumers=(6,)),
    )


@shared_models.needed
def test_sums_tie_the_channels_of_their_operands() -> None:
    graph = importers.load(shared_models.path("pretrainedResnet_quant"))
    adds = [i for i, node in enumerate(graph.nodes) if node.op == "ADD"]
    groups = thin_filters.groups_of(graph)
    for add in adds:
        makers = [
            p for p, n in enumerate(graph.nodes) if set(n.outputs) & set(graph.nodes[add].inputs)
        ]
        joined = [g for g in groups if set(makers) & set(g.producers)]
        assert len(joined) == 1
        assert len(joined[0].producers) >= 2
    assert sum(len(g.producers) == 1 for g in groups) == len(adds)


def test_costs_are_those_of_least_squares() -> None:
    random = np.random.default_rng(0)
    layer = layers.layers_of(digits.graph())[4]
    mixed = random.normal(size=(128, 128))
    gram = (mixed @ mixed.T)[None]
    zero = np.zeros((1, 128))
    reader = thin_filters._reader(layer, Moments(gram, gram, gram, zero, zero), 32)
    safe = thin_filters.correction.damped(gram)[0]
    weights = (layer.grouped * np.sqrt(layer.importance))[0]
    size = ((weights @ safe) * weights).sum()

    def error(gone: list[int]) -> float:
        mask = np.broadcast_to(~np.isin(np.arange(128) % 32, gone), weights.shape)
        left = recover.least_squares(weights[None], gram, mask[None])[0] - weights
        return float(((left @ safe) * left).sum() / size)

    costs = reader.costs()
    for channel in (0, 9, 31):
        np.testing.assert_allclose(costs[channel], error([channel]), rtol=1e-6)
    reader.remove(9)
    more = reader.costs()[np.flatnonzero(reader.left == 20)[0]]
    np.testing.assert_allclose(costs[9] + more, error([9, 20]), rtol=1e-6)


def test_half_of_the_filters_go_for_real() -> None:
    before, after = digits.graph(), thinned(amount=0.5)
    assert [layer.weights.shape for layer in layers.layers_of(after)] == [
        (8, 9),
        (8, 9),
        (16, 8),
        (16, 9),
        (10, 64),
    ]
    assert ops.macs(after) < ops.macs(before) / 2.5
    plans = [plan.make(passes.run(graph)) for graph in (before, after)]
    assert plans[1].arena_bytes < plans[0].arena_bytes
    assert len(exporter.dump(after)) < len(exporter.dump(before))
    test = digits.data()[1]
    assert layers.accuracy(after, test) >= ACCURACY - 0.01
    assert_runs_in_tflm(after)


def _smallest_dropped() -> Graph:
    """As many filters of each group gone, those of the smallest weights, nothing made up for."""
    graph = digits.graph()
    every = {layer.position: layer for layer in layers.layers_of(graph)}
    for group in thin_filters.groups_of(graph):
        (producer,), (consumer,) = group.producers, group.consumers
        sizes = np.abs(every[producer].weights * every[producer].scales[:, None]).sum(axis=1)
        gone = np.argsort(sizes)[: group.channels // 2]
        layer = every[consumer]
        weights = layer.weights.copy()
        weights[:, np.isin(np.arange(weights.shape[1]) % group.channels, gone)] = 0
        graph = layers.with_layer(graph, layer, Solution(weights, layer.scales, layer.bias))
    return graph


def test_reconstruction_beats_dropping_the_smallest() -> None:
    naive = _smallest_dropped()
    assert errors(thinned(amount=0.5)) < errors(naive) / 4
    test = digits.data()[1]
    assert layers.accuracy(naive, test) < 0.95


def test_multiply_accumulates_can_be_asked_for() -> None:
    graph = thinned(macs=0.6, amount=0.9, multiple=1)
    share = ops.macs(graph) / ops.macs(digits.graph())
    assert 0.5 < share <= 0.6


def test_the_error_limit_keeps_filters() -> None:
    counts = [
        sum(layer.weights.size for layer in layers.layers_of(thinned(amount=0.9, error_limit=e)))
        for e in (1e-7, 1e-3, 3e-2)
    ]
    assert counts[0] > counts[1] > counts[2]


def test_layers_that_are_not_named_keep_their_filters() -> None:
    first = layers.layers_of(digits.graph())[0].name
    graph = thinned(layers=(first,), amount=0.5)
    assert [layer.weights.shape[0] for layer in layers.layers_of(graph)] == [8, 8, 32, 32, 10]


def test_thinning_repeats_and_needs_examples() -> None:
    assert_same(thinned(amount=0.3), thinned(amount=0.3))
    with pytest.raises(InputError, match="needs data"):
        thin_filters.apply(digits.graph(), ThinSettings(), Context())


def check_any_network(case: Case) -> None:
    """What is left of a network is sound, has the same inputs and outputs, and runs in TFLM."""
    graph = importer.load(case.model.bytes)
    if len(graph.inputs) != 1 or graph.at(graph.inputs[0]).dtype != "int8":
        return
    source = graph.at(graph.inputs[0])
    random = np.random.default_rng(0)
    steps = random.integers(-128, 128, (6, *source.shape[1:])) - source.zero_point
    data = Data((steps * source.scale).astype(np.float32))
    chosen = ThinSettings(amount=0.5, multiple=1, min_weights=1)
    after = thin_filters.apply(graph, chosen, Context(train=data))
    assert ops.macs(after) <= ops.macs(graph)
    wanted = oracle.shared().run(exporter.dump(after), case.inputs)
    for found, other in zip(reference.run(after, case.inputs), wanted, strict=True):
        np.testing.assert_array_equal(found, other, strict=True)


def test_any_network_can_be_thinned() -> None:
    settings(REPEATABLE, max_examples=100, phases=[Phase.generate])(
        given(networks())(check_any_network)
    )()
