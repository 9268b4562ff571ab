"""Sparse recovery: which weights stay, and that it beats magnitude pruning without retraining."""

from __future__ import annotations

import itertools
from typing import Any

import digits
import numpy as np
import pytest
from test_compress_layers import assert_runs_in_tflm, context
from test_exporters import assert_same

from tinygen.compress import correction, layers, recover
from tinygen.compress.base import Context
from tinygen.compress.recover import Pattern, RecoverSettings
from tinygen.errors import InputError

SOLVERS = ("elimination", "omp", "lasso", "magnitude")


def _gram(seed: int, taps: int, mixed: float = 1.0) -> Any:
    """Second moments of inputs, each the sum of one of its own and ``mixed`` parts of others."""
    random = np.random.default_rng(seed)
    mixture = np.eye(taps) + mixed * random.normal(size=(taps, taps))
    rows = random.normal(size=(1, 300, taps)) @ mixture
    return rows.transpose(0, 2, 1) @ rows / 300


def _zeros(graph: Any) -> list[float]:
    """Share of zeros of each layer that is no depthwise one."""
    every = layers.layers_of(graph)
    return [layer.zeros for layer in every if layer.op != "DEPTHWISE_CONV_2D"]


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_sparse_truth_is_found(solver: Any) -> None:
    random = np.random.default_rng(1)
    truth = np.zeros((1, 6, 16))
    for row in truth[0]:
        row[random.choice(16, 3, replace=False)] = random.choice([-1, 1], 3) * [40, 60, 90]
    mask = recover.choose(truth, _gram(0, 16, 0.1), np.ones((1, 6, 1)), 13 / 16, solver, Pattern())
    np.testing.assert_array_equal(mask, truth != 0)


def test_least_squares_leave_an_error_that_no_kept_input_explains() -> None:
    random = np.random.default_rng(2)
    target, gram = random.normal(size=(1, 4, 10)), _gram(3, 10)
    mask = random.random(target.shape) < 0.5
    found = recover.least_squares(target, gram, mask)
    assert not found[~mask].any()
    slope = (found - target) @ correction.damped(gram)
    np.testing.assert_allclose(slope[mask], 0, atol=1e-9)


def test_elimination_takes_what_costs_least() -> None:
    """The first weight to go is the one whose removal, made up for, errs least: tried for all."""
    random = np.random.default_rng(4)
    target, gram = random.normal(size=(1, 1, 8)), _gram(5, 8)
    errors = []
    for tap in range(8):
        mask = np.arange(8)[None, None] != tap
        left = recover.least_squares(target, gram, mask) - target
        errors.append(float(correction.quadratic(left, correction.damped(gram))[0, 0, 0]))
    mask = recover.choose(target, gram, np.ones((1, 1, 1)), 7 / 8, "elimination", Pattern())
    one = recover.choose(target, gram, np.ones((1, 1, 1)), 1 / 8, "elimination", Pattern())
    assert mask.sum() == 1
    assert np.flatnonzero(~one[0, 0]).tolist() == [int(np.argmin(errors))]
    saliency = recover._saliency(target, np.linalg.inv(correction.damped(gram)), Pattern())
    np.testing.assert_allclose(saliency[0, 0], errors)


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_sparsity_asked_for_is_met(solver: Any) -> None:
    chosen = RecoverSettings(sparsity=0.75, solver=solver, examples=48)
    graph = recover.apply(digits.graph(), chosen, context())
    assert all(0.74 <= share <= 0.78 for share in _zeros(graph))
    for before, after in zip(
        layers.layers_of(digits.graph()), layers.layers_of(graph), strict=True
    ):
        if before.op == "DEPTHWISE_CONV_2D":
            np.testing.assert_array_equal(before.weights, after.weights)
    assert_runs_in_tflm(graph)


@pytest.mark.parametrize("solver", SOLVERS)
def test_patterns_are_kept(solver: Any) -> None:
    blocks = RecoverSettings(sparsity=0.5, solver=solver, pattern="1x4", examples=48)
    graph = recover.apply(digits.graph(), blocks, context())
    for layer in layers.layers_of(graph)[2::2]:  # whose taps are a multiple of four
        held = layer.weights.reshape(-1, 4).any(axis=1)
        assert held.mean() <= 0.5
    some = RecoverSettings(solver=solver, pattern="1:3", examples=48)
    graph = recover.apply(digits.graph(), some, context())
    for layer in layers.layers_of(graph)[::2]:
        whole = layer.weights.shape[1] // 3 * 3
        assert (np.count_nonzero(layer.weights[:, :whole].reshape(-1, 3), axis=1) <= 1).all()


def test_recovery_beats_magnitude_pruning_at_equal_sparsity() -> None:
    test = digits.data()[1]
    points = recover.curve(digits.graph(), (0.5, 0.8), context(), test, SOLVERS)
    by_solver = {
        solver: [p for p in points if p.solver == solver] for solver in ("magnitude", *SOLVERS)
    }
    for solver in ("elimination", "omp", "lasso"):
        for plain, found in zip(by_solver["magnitude"], by_solver[solver], strict=True):
            assert plain.sparsity == found.sparsity
            assert found.error < plain.error / 4
            assert found.accuracy > plain.accuracy
    assert by_solver["elimination"][0].accuracy >= 0.975
    assert by_solver["magnitude"][1].accuracy < 0.9 < by_solver["elimination"][1].accuracy


def test_the_error_limit_decides_how_sparse_layers_become() -> None:
    found = []
    for limit in (1e-3, 1e-2):
        chosen = RecoverSettings(sparsity=0.95, error_limit=limit, examples=48)
        found.append(_zeros(recover.apply(digits.graph(), chosen, context())))
    assert all(low <= high for low, high in zip(*found, strict=True))
    assert sum(found[0]) < sum(found[1])
    assert max(found[1]) < 0.95


def test_only_magnitudes_need_no_examples() -> None:
    plain = RecoverSettings(solver="magnitude")
    assert all(share >= 0.49 for share in _zeros(recover.apply(digits.graph(), plain, Context())))
    with pytest.raises(InputError, match="recover: needs data"):
        recover.apply(digits.graph(), RecoverSettings(), Context())


def test_recovery_repeats() -> None:
    one, two = (
        recover.apply(digits.graph(), RecoverSettings(examples=32), context()) for _ in range(2)
    )
    assert_same(one, two)


def test_patterns_are_read() -> None:
    texts = ("any", "1x4", "2:4")
    patterns = (Pattern(), Pattern(block=4), Pattern(keep=2, of=4))
    assert tuple(map(Pattern.parse, texts)) == patterns
    for pattern, text in itertools.product(patterns, texts):
        assert (Pattern.parse(text) == pattern) == (texts.index(text) == patterns.index(pattern))
