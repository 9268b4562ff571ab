"""Keras models taken apart, trained and pruned."""

from __future__ import annotations

from typing import Any

import keras_nets as nets
import numpy as np
import pytest

from tinygen.compress import METHODS, prune, rewire, train
from tinygen.compress.base import Context, Method
from tinygen.datasets import Data
from tinygen.errors import InputError

pytestmark = pytest.mark.xdist_group("keras")


def run(model: Any, inputs: Any) -> Any:
    return train.outputs(model, inputs, logits=False)


def test_a_plain_copy_computes_the_same_and_shares_nothing() -> None:
    import keras
    from keras import layers

    inner = keras.Sequential([keras.Input((4, 4, 6)), layers.Conv2D(4, 1, name="stem")])
    start = keras.Input((4, 4, 3), batch_size=1)
    x = layers.SeparableConv2D(6, 3, padding="same", activation="relu", name="stem")(start)
    x = inner(x) + inner(x)
    model = nets.stir(keras.Model(start, layers.GlobalAveragePooling2D()(x)))
    flat = rewire.plain(model, "test")
    assert [layer.name for layer in rewire.weighed(flat)] == [
        "stem_depthwise",
        "stem",
        f"{inner.name}_stem",
    ]
    inputs = nets.noise((4, 4, 3), count=1).inputs
    assert np.allclose(run(flat, inputs), run(model, inputs), atol=1e-6)
    assert not {id(v) for v in flat.variables} & {id(v) for v in model.variables}


def test_rows_are_outputs_with_their_inputs_running_fastest() -> None:
    from keras import layers

    layer = layers.Conv2D(5, (2, 3))
    layer.build((None, 8, 8, 4))
    values = np.asarray(layer.kernel)
    rows = rewire.rows(layer, values)
    assert rows.shape == (5, 24)
    assert rows[3, 1 * 12 + 2 * 4 + 1] == values[1, 2, 1, 3]
    assert np.array_equal(rewire.from_rows(layer, rows), values)
    layer = layers.DepthwiseConv2D(3, depth_multiplier=2)
    layer.build((None, 8, 8, 4))
    values = np.asarray(layer.kernel)
    assert rewire.rows(layer, values)[2 * 2 + 1, 5] == values[1, 2, 2, 1]
    assert np.array_equal(rewire.from_rows(layer, rewire.rows(layer, values)), values)


def test_folding_norms_changes_no_output() -> None:
    model = nets.residual()
    folded = rewire.fold_batch_norms(rewire.plain(model, "test"))
    assert not [n for n in rewire.nodes(folded) if rewire.kind(n.operation).startswith("Batch")]
    inputs = nets.noise((8, 8, 3)).inputs
    assert np.abs(run(folded, inputs) - run(model, inputs)).max() < 1e-5


def test_norms_that_others_bypass_are_not_folded() -> None:
    import keras
    from keras import layers

    start = keras.Input((4, 4, 3))
    x = layers.Conv2D(3, 1)(start)
    model = nets.stir(keras.Model(start, layers.Add()([x, layers.BatchNormalization()(x)])))
    assert len(rewire.fold_batch_norms(rewire.plain(model, "test")).layers) == 4


def test_models_of_no_known_structure_are_refused() -> None:
    import keras

    class Own(keras.Model):
        def call(self, x: Any) -> Any:
            return x

    with pytest.raises(InputError, match="cannot be told"):
        rewire.plain(Own(), "prune")
    with pytest.raises(InputError, match="cannot be told"):
        rewire.plain(keras.Sequential([keras.Input((4,)), Own()]), "prune")
    pool = keras.layers.MaxPooling2D(data_format="channels_first", name="pool")
    with pytest.raises(InputError, match="'pool' has its channels first"):
        rewire.plain(keras.Sequential([keras.Input((4, 4, 4)), pool]), "prune")
    one, two = keras.Input((3,)), keras.Input((3,))
    with pytest.raises(InputError, match="2 inputs"):
        rewire.plain(keras.Model([one, two], keras.layers.Add()([one, two])), "prune")


def test_training_repeats_and_learns() -> None:
    _, test = nets.digits()
    assert train.score(nets.trained(), test) > 0.93
    twice = []
    for _ in range(2):
        model = nets.residual()
        context = Context(train=nets.noise((8, 8, 3)), seed=5)
        task = train.task(model, context.data("test"), "test")
        train.fit(model, task, train.Training(epochs=2), context, "test")
        twice.append(model)
    assert nets.equal(*twice)
    assert not nets.equal(twice[0], nets.residual())


def test_the_task_is_what_output_and_labels_ask_for() -> None:
    import keras
    from keras import layers

    model = nets.small()
    assert train.task(model, nets.digits()[0], "test").logits
    images = nets.digits()[0].inputs[:9]
    own = train.task(model, Data(images), "test")
    assert np.allclose(own.targets, run(model, images))
    copying = keras.Sequential([keras.Input((6,)), layers.Dense(6)])
    inputs = nets.noise((6,)).inputs
    assert np.array_equal(train.task(copying, Data(inputs), "test").targets, inputs)
    yes = keras.Sequential([keras.Input((6,)), layers.Dense(1, activation="sigmoid")])
    assert train.task(yes, Data(inputs, np.arange(64) % 2), "test").targets.shape == (64, 1)
    with pytest.raises(InputError, match="output has shape"):
        train.task(copying, Data(inputs, np.arange(64)), "test")
    with pytest.raises(InputError, match="the model takes"):
        train.task(copying, Data(images), "test")


def test_pruning_trains_around_the_zeros() -> None:
    model, (data, test) = nets.trained(), nets.digits()
    settings = prune.PruneSettings(sparsity=0.8, epochs=8, learning_rate=3e-3, first=True)
    result = prune.apply(model, settings, Context(train=data))
    for layer in rewire.weighed(result):
        kernel = np.asarray(rewire.kernel(layer))
        zeros = np.count_nonzero(kernel == 0)
        assert 0.8 * kernel.size - 1 <= zeros <= 0.8 * kernel.size
    at_once = prune.apply(model, settings.model_copy(update={"epochs": 0}), Context())
    assert train.score(result, test) > max(0.9, train.score(at_once, test) + 0.02)
    assert all((np.asarray(v) != 0).all() for v in model.trainable_variables if v.ndim > 1)
    again = train.Training(epochs=1)
    before = [np.asarray(rewire.kernel(x)) == 0 for x in rewire.weighed(result)]
    train.fit(result, train.task(result, data, "test"), again, Context(train=data), "test")
    after = [np.asarray(rewire.kernel(x)) == 0 for x in rewire.weighed(result)]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def pruned(model: Any, **settings: Any) -> dict[str, Any]:
    """Rows of each layer's kernel after pruning without training."""
    result = prune.apply(model, prune.PruneSettings(epochs=0, **settings), Context())
    return {x.name: rewire.rows(x, np.asarray(rewire.kernel(x))) for x in rewire.weighed(result)}


def test_pruning_takes_the_smallest_and_leaves_first_and_depthwise() -> None:
    model = nets.residual()
    found = pruned(model, sparsity=0.5)
    assert found["stem"].all() and found["deep"].all()
    old = rewire.rows(model.get_layer("left"), np.asarray(model.get_layer("left").kernel))
    gone = found["left"] == 0
    assert gone.sum() == gone.size // 2
    assert np.abs(old[gone]).max() <= np.abs(old[~gone]).min()
    assert np.array_equal(old[~gone], found["left"][~gone])
    found = pruned(model, first=True, depthwise=True, skip=("mix",), layers={"left": 0.25})
    assert (found["deep"] == 0).sum() == found["deep"].size * 3 // 4
    assert found["mix"].all()
    assert (found["left"] == 0).sum() == found["left"].size // 4


@pytest.mark.parametrize("high", [1, 2])
def test_blocks_go_as_a_whole(high: int) -> None:
    model = nets.residual()
    found = pruned(model, pattern=f"{high}x4", sparsity=0.5)["left"]
    blocks = (found == 0).reshape(len(found) // high, high, -1, 4).sum(axis=(1, 3))
    assert set(np.unique(blocks)) == {0, 4 * high}
    assert (blocks == 0).sum() * 2 == blocks.size
    odd = pruned(nets.small(), pattern="2x4", sparsity=0.5)["two"]
    assert (odd == 0).sum() == odd.size // 2


def test_n_of_m_keeps_n_in_every_group() -> None:
    found = pruned(nets.residual(), pattern="2:4")["left"]
    assert ((found.reshape(-1, 4) != 0).sum(axis=1) == 2).all()


def test_the_global_scope_ranks_over_layers() -> None:
    model = nets.residual()
    layer = model.get_layer("left")
    layer.kernel.assign(np.asarray(layer.kernel) / 100)
    found = pruned(model, scope="global", sparsity=0.5, most=0.9)
    zeros, total = 0, 0
    for name, rows in found.items():
        if name not in ("stem", "deep"):
            zeros, total = zeros + int((rows == 0).sum()), total + rows.size
    assert (found["left"] == 0).mean() == pytest.approx(0.9, abs=0.01)
    assert zeros / total == pytest.approx(0.5, abs=0.01)
    assert (found["mix"] == 0).mean() < 0.3


def test_pruning_refuses_what_it_cannot_do() -> None:
    model = nets.small()
    with pytest.raises(InputError, match="no layer with weights is called 'flat'"):
        prune.apply(model, prune.PruneSettings(skip=("flat",)), Context())
    with pytest.raises(InputError, match="keeps all weights"):
        prune.apply(model, prune.PruneSettings(pattern="4:4", epochs=0), Context())
    with pytest.raises(InputError, match="needs data"):
        prune.apply(model, prune.PruneSettings(), Context())


@pytest.mark.wide
@pytest.mark.parametrize("method", [m for m in METHODS if m.stage == "float"], ids=lambda m: m.name)
def test_methods_repeat_by_their_seed_and_change_no_model(method: Method) -> None:
    model, untouched = nets.residual(), nets.residual()
    few: dict[str, Any] = {"low_rank": {"energy": 0.5}, "distill": {"features": 1.0}}
    settings = method.settings.model_validate({"epochs": 2, **few.get(method.name, {})})
    one, two, other = (
        method.apply(model, settings, Context(train=nets.noise((8, 8, 3)), seed=seed))
        for seed in (1, 1, 2)
    )
    assert nets.equal(one, two)
    assert not nets.equal(one, other)
    assert nets.equal(model, untouched)
    assert one.output_shape == model.output_shape
