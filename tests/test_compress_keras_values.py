"""Keras models whose weights share values or lie on a grid."""

from __future__ import annotations

from typing import Any

import keras_nets as nets
import numpy as np
import pytest

from tinygen.compress import cluster, forms, prune, qat, quantize, rewire, train, weights
from tinygen.compress.base import Context
from tinygen.errors import InputError

pytestmark = pytest.mark.xdist_group("keras")

RNG = np.random.default_rng


def kernel_rows(model: Any, name: str) -> Any:
    layer = model.get_layer(name)
    return rewire.rows(layer, np.asarray(rewire.kernel(layer)))


def integers(rows: Any, bits: int = 8) -> Any:
    """Rows as int8 kernels have them, quantized by the largest of each channel."""
    return weights.quantize(rows, 0, bits).values


@pytest.mark.parametrize("start", ["linear", "density", "kmeans++"])
@pytest.mark.parametrize("k", [2, 3, 5, 16])
def test_int8_weights_have_as_many_values_as_entries(start: Any, k: int) -> None:
    rows = RNG(k).normal(size=(12, 90)) * RNG(1).uniform(0.01, 3, (12, 1))
    rows[4] = 0
    book = cluster.cluster(rows, k, start, RNG(0), "x")
    assert book.entries[0] == -1 and book.entries[-1] == 1
    found = integers(book.rows.astype(np.float32))
    assert len(np.unique(np.delete(found, 4, axis=0))) == k
    error = np.square(book.rows - rows).sum() / np.square(rows).sum()
    assert error < {2: 0.45, 3: 0.25, 5: 0.12, 16: 0.02}[k]
    assert not book.rows[4].any()


def test_zeros_stay_zeros_and_only_they() -> None:
    rows = RNG(0).normal(size=(8, 64))
    rows[RNG(1).random(rows.shape) < 0.7] = 0
    book = cluster.cluster(rows, 5, "kmeans++", RNG(0), "x")
    assert not book.rows[rows == 0].any()
    assert len(np.unique(integers(book.rows.astype(np.float32)))) == 5
    with pytest.raises(InputError, match="has zeros to keep"):
        cluster.cluster(rows, 2, "linear", RNG(0), "x")


def test_a_codebook_is_found_again() -> None:
    rows = RNG(0).normal(size=(8, 64))
    assert forms.found(rows) is None
    book = cluster.cluster(rows, 8, "density", RNG(0), "x")
    again = forms.found(book.rows.astype(np.float32))
    assert again is not None
    assert np.allclose(again.entries, book.entries, atol=1e-4)
    assert np.array_equal(again.index, book.index)
    assert np.allclose(again.rows, book.rows, atol=1e-5)
    few = np.zeros((8, 64))
    few[0, :5] = RNG(0).normal(size=5)
    assert forms.found(few) is None


def test_shared_values_get_the_sum_of_gradients() -> None:
    import tensorflow as tf
    from keras import layers

    for layer, shape in ((layers.Conv2D(4, 3), (None, 5, 5, 3)), (layers.Dense(4), (None, 12))):
        layer.build(shape)
        rows = rewire.rows(layer, np.asarray(layer.kernel, dtype=np.float64))
        book = cluster.cluster(rows, 4, "density", RNG(0), "x")
        form = forms.Shared(layer, book)
        weight = RNG(0).normal(size=tuple(layer.kernel.shape)).astype(np.float32)
        with tf.GradientTape() as tape:
            value = form.value()
            loss = tf.reduce_sum(value * weight)
        assert np.allclose(rewire.rows(layer, value.numpy()), book.rows, atol=1e-6)
        found = tape.gradient(loss, form.entries.value).numpy()
        each = rewire.rows(layer, weight) * book.scales[:, None]
        sums = [each[book.index == i].sum() for i in range(4)]
        assert np.allclose(found[1:3], sums[1:3], rtol=1e-4)
        assert found[0] == found[3] == 0


def test_clustered_models_train_with_their_values_held() -> None:
    model, (data, test) = nets.trained(), nets.digits()
    context = Context(train=data)
    sparse = prune.apply(model, prune.PruneSettings(sparsity=0.5, epochs=0, first=True), context)
    settings = cluster.ClusterSettings(entries=6, layers={"four": 3}, epochs=3, learning_rate=2e-3)
    result = cluster.apply(sparse, settings, context)
    at_once = cluster.apply(sparse, settings.model_copy(update={"epochs": 0}), Context())
    for name, entries in {"one": 6, "two": 6, "three": 6, "four": 3}.items():
        rows = kernel_rows(result, name)
        assert len(np.unique(integers(rows))) == entries
        assert not rows[kernel_rows(sparse, name) == 0].any()
    assert train.score(result, test) > max(0.85, train.score(at_once, test))
    again = train.task(result, data, "test")
    train.fit(result, again, train.Training(epochs=1), context, "test")
    assert len(np.unique(integers(kernel_rows(result, "two")))) == 6


def test_channels_may_have_values_of_their_own() -> None:
    model = nets.residual()
    settings = cluster.ClusterSettings(
        entries=4, scope="channel", depthwise=True, skip=("stem",), epochs=0
    )
    result = cluster.apply(model, settings, Context())
    for name in ("deep", "left", "answer"):
        rows = integers(kernel_rows(result, name))
        assert all(len(np.unique(row)) <= 4 for row in rows)
    assert len(np.unique(kernel_rows(result, "left"))) > 4
    assert np.unique(kernel_rows(result, "stem")).size > 100


@pytest.mark.parametrize(("ranges", "bits"), [("average", 8), ("lsq", 4)])
def test_training_with_rounding_leaves_weights_on_their_grid(ranges: Any, bits: Any) -> None:
    model = nets.residual()
    stem = model.get_layer("left").kernel
    stem.assign(np.where(RNG(0).random(stem.shape) < 0.5, 0, np.asarray(stem)))
    context = Context(train=nets.noise((8, 8, 3)))
    settings = qat.QatSettings(
        bits=bits, layers={"stem": 8}, ranges=ranges, epochs=2, learning_rate=3e-3
    )
    result = qat.apply(model, settings, context)
    for layer in rewire.weighed(result):
        width = result.tinygen_bits[layer.name]
        assert width == (8 if layer.name == "stem" else bits)
        rows = rewire.rows(layer, np.asarray(rewire.kernel(layer)))
        made = weights.quantize(rows, 0, width)
        assert np.abs(made.real - rows).max() <= 1e-5 * np.abs(rows).max()
        assert (np.abs(made.values).max(axis=1) == (1 << (width - 1)) - 1).all()
    zero = rewire.rows(model.get_layer("left"), np.asarray(stem)) == 0
    assert not kernel_rows(result, "left")[zero].any()
    names = set(result.tinygen_ranges)
    assert {"image", "stem", "stem_relu", "deep_relu", "point", "sum", "sum_relu"} <= names
    assert not {"softmax", "pool", "right", "both", "flat"} & names
    assert result.tinygen_ranges["stem"] == result.tinygen_ranges["stem_relu"]
    assert result.tinygen_ranges["stem"][0] == 0 < result.tinygen_ranges["stem"][1] < 7
    for low, high in result.tinygen_ranges.values():
        zero = -low / (high - low) * 255
        assert low <= 0 <= high and abs(zero - round(zero)) < 1e-3
    assert not [x for x in result.layers if rewire.kind(x) in ("BatchNormalization", "Observer")]


def test_learnt_steps_have_the_gradients_of_the_paper() -> None:
    import tensorflow as tf

    layer = qat._observer()(0.9, True)
    layer.build((None, 4))
    layer.begin(0.0, 255 * 0.1)
    x = tf.constant([[0.23, 1.04, 30.0, -1.0]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
        loss = tf.reduce_sum(y)
    assert np.allclose(y, [[0.2, 1.0, 25.5, 0.0]], atol=1e-5)
    by_input, by_log = tape.gradient(loss, [x, layer.log.value])
    assert np.array_equal(by_input, [[1, 1, 0, 0]])
    by_scale = (2 - 2.3) + (10 - 10.4) + 255 + 0
    assert np.allclose(by_log, by_scale * 0.1, atol=1e-4)


def test_ranges_follow_values_and_shared_values_stay_shared() -> None:
    model, (data, _) = nets.trained(), nets.digits()
    context = Context(train=data)
    shared = cluster.apply(model, cluster.ClusterSettings(entries=8, epochs=0), context)
    result = qat.apply(shared, qat.QatSettings(epochs=2), context)
    for name in ("two", "three"):
        assert len(np.unique(integers(kernel_rows(result, name)))) == 8
    assert result.tinygen_ranges[result.layers[0].name] == (0, 1)
    assert "four" not in result.tinygen_ranges
    low, high = result.tinygen_ranges["one"]
    import keras

    first = keras.Model(result.input, result.get_layer("one").output)(data.inputs)
    assert low == 0 and high == pytest.approx(float(np.max(first)), rel=0.15)


def test_zeros_and_shared_values_survive_into_int8() -> None:
    context = Context(train=nets.digits()[0])
    few = prune.PruneSettings(sparsity=0.75, pattern="1x4", layers={"one": 0.5}, epochs=0)
    sparse = prune.apply(nets.trained(), few, context)
    shared = cluster.apply(sparse, cluster.ClusterSettings(entries=8, epochs=1), context)
    result = qat.apply(shared, qat.QatSettings(ranges="lsq", epochs=1), context)
    graph = quantize.quantize(result, quantize.Settings(), context)
    layers = quantize.layers(graph)
    assert [layer.name for layer in layers] == ["one", "two", "three", "four"]
    for layer in layers:
        made = graph.at(graph.nodes[layer.position].inputs[1]).data
        rows = made.reshape(len(made), -1)
        assert len(np.unique(rows)) <= 8
        was = kernel_rows(sparse, layer.name)
        assert (was == 0).mean() >= 0.48
        assert not rows[was == 0].any()


def test_four_bits_are_better_when_trained_for() -> None:
    from tinygen import reference

    model, (data, test) = nets.trained(), nets.digits()
    context = Context(train=data)
    settings = quantize.Settings(bits=4)
    learnt = qat.apply(
        model, qat.QatSettings(bits=4, ranges="lsq", epochs=6, learning_rate=1e-3), context
    )
    right = {}
    for name, network in (("before", model), ("after", learnt)):
        graph = quantize.quantize(network, settings, context)
        quant = graph.at(graph.inputs[0]).quant
        steps = np.rint(test.inputs / quant.scale[0]) + quant.zero_point[0]
        inputs = np.clip(steps, -128, 127).astype(np.int8)
        told = [reference.run(graph, [x[None]])[0].argmax() for x in inputs]
        right[name] = np.mean(told == test.labels)
    assert right["after"] >= right["before"] + 0.005
    assert right["after"] > 0.94
