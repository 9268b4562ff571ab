"""Keras models that lose filters, or whose kernels become products."""

from __future__ import annotations

from typing import Any

import keras_nets as nets
import numpy as np
import pytest

from tinygen.compress import filters, low_rank, rewire, train
from tinygen.compress.base import Context
from tinygen.errors import InputError

pytestmark = pytest.mark.xdist_group("keras")


def run(model: Any, inputs: Any) -> Any:
    return train.outputs(model, inputs, logits=False)


def fewer(model: Any, **settings: Any) -> Any:
    return filters.apply(model, filters.FilterSettings(epochs=0, **settings), Context())


def silence(model: Any, names: tuple[str, ...], lost: list[int]) -> None:
    """Make filters of layers, and norms after them, give nothing but zeros."""
    for layer in model.layers:
        if layer.name in names:
            for variable in layer.weights[-1:] if layer.name == "twice" else layer.weights:
                value = np.asarray(variable).copy()
                value[..., lost] = 1 if "variance" in variable.path else 0
                variable.assign(value)


def widths(model: Any) -> dict[str, int]:
    return {x.name: x.output.shape[-1] for x in rewire.weighed(model)}


def test_filters_that_give_nothing_go_without_a_trace() -> None:
    model = nets.residual()
    silence(model, ("stem", "stem_norm", "deep_norm", "point", "point_norm"), [1, 2, 5, 6])
    silence(model, ("left",), list(range(0, 16, 2)))
    silence(model, ("mix",), list(range(4, 12)))
    silence(model, ("hidden",), list(range(8)))
    result = fewer(model)
    assert widths(result) == {
        "stem": 4,
        "deep": 4,
        "point": 4,
        "left": 8,
        "mix": 8,
        "hidden": 8,
        "answer": 4,
    }
    inputs = nets.noise((8, 8, 3)).inputs
    assert np.abs(run(result, inputs) - run(model, inputs)).max() < 1e-5
    plain = rewire.plain(model, "test")
    assert rewire.macs(result) < 0.35 * rewire.macs(plain)
    assert result.count_params() < 0.35 * model.count_params()


def test_channels_that_a_sum_ties_go_together() -> None:
    model = nets.residual()
    channels = filters.trace(rewire.plain(model, "test"))
    tied = [o for o in channels.owners if len({*channels.owners[o]}) == 1]
    assert len({channels.root(c) for c in tied}) == 8 + 16 + 16 + 16 + 4
    silence(model, ("stem",), [0, 1, 2, 3])
    result = fewer(model, multiple=1, skip=("left", "mix", "hidden"))
    assert widths(result)["stem"] == widths(result)["point"] == 4
    kept = np.asarray(result.get_layer("point").kernel)
    assert kept.shape == (1, 1, 4, 4)
    only = fewer(model, layers={"left": 0.75}, amount=0.0)
    assert widths(only) == {**widths(rewire.plain(model, "test")), "left": 4}


def test_every_kind_of_join_and_view_is_followed() -> None:
    import keras
    from keras import layers

    start = keras.Input((6, 6, 2))
    one = layers.Conv2D(8, 1, name="one")(start)
    x = layers.PReLU()(one)
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(4, 1, activation="relu", name="squeeze")(gate)
    gate = layers.Conv2D(8, 1, activation="sigmoid", name="gate")(gate)
    x = layers.Multiply()([x, gate])
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, name="twice")(x)
    x = layers.ZeroPadding2D(1)(x)
    x = layers.Reshape((36, 16))(x)
    x = layers.Conv1D(8, 3, strides=2, name="line")(x)
    x = layers.UpSampling1D(2)(x) + 1.0
    x = layers.Concatenate(axis=1)([x, layers.MaxPooling1D(2)(x)])
    x = layers.Reshape((-1,))(x)
    x = layers.Dense(12, name="wide")(x)
    x = layers.Dense(3, activation="softmax", name="last")(x)
    model = nets.stir(keras.Model(start, x))
    for name in ("one", "gate"):
        silence(model, (name,), [0, 3, 4, 7])
    silence(model, ("squeeze",), [1, 2])
    silence(model, ("twice",), [0, 1, 6, 7, 8, 9, 14, 15])
    bias = model.get_layer("line").bias
    model.get_layer("line").kernel.assign(np.asarray(model.get_layer("line").kernel) * ([1, 0] * 4))
    bias.assign(np.asarray(bias) * ([1, 0] * 4) - np.array([0, 1] * 4))
    silence(model, ("wide",), list(range(6)))
    result = fewer(model, multiple=2)
    assert widths(result) == {
        "one": 4,
        "squeeze": 2,
        "gate": 4,
        "twice": 8,
        "line": 4,
        "wide": 6,
        "last": 3,
    }
    inputs = nets.noise((6, 6, 2)).inputs
    assert np.abs(run(result, inputs) - run(model, inputs)).max() < 1e-5


def test_what_channels_cannot_be_followed_through_stays() -> None:
    import keras
    from keras import layers

    start = keras.Input((4, 4, 3))
    x = layers.Conv2D(8, 1, name="one")(start)
    x = layers.LayerNormalization()(x)
    x = layers.Conv2D(8, 1, groups=2, name="two")(x)
    x = layers.Permute((3, 1, 2))(x)
    x = layers.Conv2D(8, 1, name="three")(x)
    model = keras.Model(start, layers.Conv2D(4, 1, name="four")(x))
    assert widths(fewer(model)) == {"one": 8, "two": 8, "three": 4, "four": 4}
    with pytest.raises(InputError, match="no filter that could go"):
        fewer(model, skip=("three",))
    with pytest.raises(InputError, match="'five'"):
        fewer(model, skip=("five",))


def test_a_goal_of_macs_is_met_closely() -> None:
    model = rewire.plain(nets.residual(channels=16), "test")
    for scope in ("layer", "global"):
        result = fewer(model, macs=0.5, scope=scope, multiple=1)
        assert 0.4 < rewire.macs(result) / rewire.macs(model) <= 0.5
    channels = filters.trace(model)
    assert filters.macs_without(model, channels, set()) == rewire.macs(model)
    with pytest.raises(InputError, match="cannot be reached"):
        fewer(model, macs=0.01)


def test_filter_pruning_trains_in_rounds() -> None:
    model, (data, test) = nets.trained(), nets.digits()
    settings = filters.FilterSettings(amount=0.5, epochs=5, learning_rate=5e-3, rounds=2)
    result = filters.apply(model, settings, Context(train=data))
    assert widths(result) == {"one": 4, "two": 8, "three": 16, "four": 10}
    assert train.score(result, test) > max(0.88, train.score(fewer(model), test))


SPLITS = {"svd": low_rank.svd, "tucker": low_rank.tucker, "spatial": low_rank.spatial}


@pytest.mark.parametrize("name", SPLITS)
def test_a_split_of_full_rank_computes_the_same(name: str) -> None:
    import keras
    from keras import layers

    for strides, dilation, padding in ((2, 1, "same"), (1, 2, "valid"), (3, 1, "valid")):
        start = keras.Input((9, 11, 5))
        x = layers.Conv2D(
            *(6, (3, 5), strides, padding), dilation_rate=dilation, activation="relu", name="x"
        )(start)
        model = nets.stir(keras.Model(start, x))
        layer = model.get_layer("x")
        split = SPLITS[name](np.asarray(layer.kernel, dtype=np.float64), 1.0, 1)
        parts = low_rank._parts(layer, split)
        result = rewire.rebuild(model, lambda _, parts=parts: parts)
        assert result.layers[-1].name == "x"
        inputs = nets.noise((9, 11, 5)).inputs
        assert np.abs(run(result, inputs) - run(model, inputs)).max() < 1e-4
        shapes = (model.input_shape, model.output_shape)
        assert low_rank._macs(split, *shapes) == rewire.macs(result)


@pytest.mark.parametrize("name", SPLITS)
def test_the_energy_wanted_is_kept(name: str) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(3, 3, 16, 24)) * np.geomspace(1, 0.01, 24)
    for energy in (0.5, 0.9, 0.99):
        split = SPLITS[name](values, energy, 1)
        if name == "svd":
            again = np.einsum("hwir,ro->hwio", split.kernels[0], split.kernels[1][0, 0])
        elif name == "spatial":
            again = np.einsum("hir,wro->hwio", split.kernels[0][:, 0], split.kernels[1][0])
        else:
            left, core, right = split.kernels
            again = np.einsum("ir,hwrs,so->hwio", left[0, 0], core, right[0, 0])
        kept = 1 - np.sum((values - again) ** 2) / np.sum(values**2)
        assert energy - 1e-9 <= kept < energy + 0.2


def test_low_rank_splits_where_it_saves() -> None:
    import keras
    from keras import layers

    rng = np.random.default_rng(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 16)),
            layers.Conv2D(32, 3, padding="same", activation="relu", name="conv"),
            layers.DepthwiseConv2D(3, name="deep"),
            layers.Conv2D(16, 1, name="full"),
            layers.Flatten(),
            layers.Dense(32, activation="relu", name="dense"),
            layers.Dense(4, name="answer"),
        ]
    )
    nets.stir(model)
    for name in ("conv", "dense"):
        kernel = model.get_layer(name).kernel
        flat = rng.normal(size=(kernel.shape[-2], 4)) @ rng.normal(size=(4, kernel.shape[-1]))
        window = rng.normal(size=(*kernel.shape[:-2], 1, 1))
        kernel.assign((flat * window / 9).astype(np.float32))
    settings = low_rank.LowRankSettings(energy=0.999, epochs=0)
    result = low_rank.apply(model, settings, Context())
    names = [layer.name for layer in rewire.weighed(result)]
    assert names == ["conv_in", "conv_core", "conv", "deep", "full", "dense_in", "dense", "answer"]
    inputs = nets.noise((8, 8, 16)).inputs
    assert np.allclose(run(result, inputs), run(model, inputs), atol=1e-3)
    assert result.count_params() < 0.4 * model.count_params()
    assert rewire.macs(result) < 0.4 * rewire.macs(rewire.plain(model, "test"))
    with pytest.raises(InputError, match="no layer"):
        low_rank.apply(model, settings.model_copy(update={"skip": ("conv", "dense")}), Context())


def test_low_rank_keeps_to_a_budget_and_trains() -> None:
    model, (data, test) = nets.trained(), nets.digits()
    settings = low_rank.LowRankSettings(parameters=0.6, epochs=5, learning_rate=3e-3)
    result = low_rank.apply(model, settings, Context(train=data))
    assert 0.3 * model.count_params() < result.count_params() <= 0.6 * model.count_params()
    assert train.score(result, test) > 0.9
    macs = low_rank.LowRankSettings(macs=0.7, epochs=0)
    assert rewire.macs(low_rank.apply(model, macs, Context())) <= 0.7 * rewire.macs(model)
    with pytest.raises(InputError, match="budget"):
        low_rank.apply(model, low_rank.LowRankSettings(parameters=0.01, epochs=0), Context())
