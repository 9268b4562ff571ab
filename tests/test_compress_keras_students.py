"""Students drawn from a teacher, and what they learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras_nets as nets
import numpy as np
import pytest

from tinygen.compress import distill, rewire, train
from tinygen.compress.base import Context
from tinygen.datasets import Data
from tinygen.errors import InputError

pytestmark = pytest.mark.xdist_group("keras")


def deep() -> Any:
    """Three equal depthwise-separable blocks, two residual ones."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(2)
    start = keras.Input((8, 8, 1))
    x = layers.Conv2D(16, 3, padding="same", activation="relu", name="stem")(start)
    for i in range(3):
        x = layers.DepthwiseConv2D(3, padding="same", name=f"deep{i}")(x)
        x = layers.BatchNormalization(name=f"norm{i}")(x)
        x = layers.Conv2D(16, 1, name=f"point{i}")(x)
        x = layers.ReLU(name=f"relu{i}")(x)
    x = layers.Conv2D(32, 3, strides=2, name="down")(x)
    for i in range(2):
        y = layers.Conv2D(32, 3, padding="same", activation="relu", name=f"one{i}")(x)
        y = layers.Conv2D(32, 3, padding="same", name=f"two{i}")(y)
        x = layers.ReLU(name=f"out{i}")(layers.Add(name=f"sum{i}")([x, y]))
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(start, layers.Dense(10, activation="softmax", name="answer")(x))


def names(model: Any) -> list[str]:
    return [layer.name for layer in rewire.weighed(model)]


def test_repeated_blocks_go_from_the_end_of_their_row() -> None:
    teacher = rewire.plain(deep(), "test")
    result = distill.shallow(teacher, 0.5)
    blocks = ["deep0", "point0", "deep1", "point1"]
    assert names(result) == ["stem", *blocks, "down", "one0", "two0", "answer"]
    assert names(distill.shallow(teacher, 0.1)) == [
        *("stem", "deep0", "point0", "down", "one0", "two0", "answer")
    ]
    with pytest.raises(InputError, match="repeats no block"):
        distill.shallow(rewire.plain(nets.residual(), "test"), 0.5)


def test_students_are_narrower_with_fresh_weights() -> None:
    teacher = rewire.plain(deep(), "test")
    settings = distill.DistillSettings(width=0.3, depth=0.5)
    student = distill.draw(teacher, settings, Context())
    widths = {x.name: x.output.shape[-1] for x in rewire.weighed(student)}
    assert widths == {
        **dict.fromkeys(["stem", "deep0", "point0", "deep1", "point1"], 8),
        **dict.fromkeys(["down", "one0", "two0"], 12),
        "answer": 10,
    }
    assert student.count_params() < 0.15 * teacher.count_params()
    whole = distill.draw(teacher, distill.DistillSettings(width=1), Context())
    assert whole.count_params() == teacher.count_params()
    assert not np.array_equal(whole.get_weights()[0], teacher.get_weights()[0])


def test_soft_losses_are_those_of_the_paper_and_do_not_overflow() -> None:
    rng = np.random.default_rng(0)
    goal, said = (rng.normal(0, 3, (5, 4)).astype(np.float32) for _ in range(2))
    for temperature in (1.0, 4.0):
        p, q = (np.exp(v / temperature) for v in (goal.astype(float), said.astype(float)))
        p, q = (v / v.sum(axis=1, keepdims=True) for v in (p, q))
        wanted = temperature**2 * np.mean(np.sum(p * np.log(p / q), axis=1))
        found = distill._soft_loss("softmax", True, temperature)(goal, said)
        assert np.allclose(found, wanted, rtol=1e-4)
    high = distill._soft_loss("softmax", True, 1.0)(goal * 1e4, said * 1e4)
    assert np.isfinite(high)
    one = distill._soft_loss("sigmoid", True, 2.0)
    assert np.isfinite(one(goal * 1e4, said * 1e4))
    assert np.allclose(
        distill._soft_loss(None, False, 2.0)(goal, said), ((goal - said) ** 2).mean()
    )


def test_a_student_listens_to_labels_teacher_and_features() -> None:
    import tensorflow as tf

    data, test = nets.digits()
    settings = distill.DistillSettings(width=0.5, features=0.5, epochs=8, learning_rate=5e-3)
    context = Context(train=data, seed=3)
    teacher = nets.trained()
    student = distill.apply(teacher, settings, context)
    assert student.count_params() < 0.4 * teacher.count_params()
    assert train.score(student, test) > 0.85
    assert np.allclose(train.outputs(student, test.inputs, False).sum(axis=1), 1, atol=1e-5)
    untaught = distill.draw(rewire.plain(teacher, "test"), settings, context)
    short = settings.model_copy(update={"hint": ("two", "two")})
    hint = distill._hint(rewire.plain(teacher, "test"), untaught, short)
    inner = tf.zeros((2, *hint.tensor.shape[1:]))
    assert float(hint.loss(test.inputs[:2], inner)) == pytest.approx(1, abs=1e-3)


def test_a_student_without_labels_learns_from_the_teacher() -> None:
    data, test = nets.digits()
    settings = distill.DistillSettings(width=0.5, epochs=8, learning_rate=5e-3)
    student = distill.apply(nets.trained(), settings, Context(train=Data(data.inputs)))
    assert train.score(student, test) > 0.85


def test_students_come_from_files_and_must_fit(tmp_path: Path) -> None:
    import keras
    from keras import layers

    flat = [layers.Flatten(), layers.Dense(12, activation="relu")]
    model = keras.Sequential([keras.Input((8, 8, 1)), *flat, layers.Dense(10)])
    model.save(tmp_path / "good.keras")
    context = Context(train=nets.digits()[0].first(64))
    settings = distill.DistillSettings(student=tmp_path / "good.keras", epochs=1)
    result = distill.apply(nets.trained(), settings, context)
    assert names(result) == names(model) and not nets.equal(result, model)
    keras.Sequential([keras.Input((8, 8, 1)), *flat]).save(tmp_path / "wrong.keras")
    (tmp_path / "broken.keras").write_bytes(b"PK no model")
    for name, message in (
        ("wrong", "the teacher .* to .10,."),
        ("broken", "no Keras model"),
        ("missing", "no Keras model"),
    ):
        bad = settings.model_copy(update={"student": tmp_path / f"{name}.keras"})
        with pytest.raises(InputError, match=message):
            distill.apply(nets.trained(), bad, context)
    settings = distill.DistillSettings(features=1.0, hint=("one", "two"))
    with pytest.raises(InputError, match="inner results have shapes"):
        distill.apply(nets.trained(), settings, context)
    with pytest.raises(InputError, match="no layer of the student is called 'x'"):
        other = settings.model_copy(update={"hint": ("one", "x")})
        distill.apply(nets.trained(), other, context)


@pytest.mark.wide
def test_taught_students_are_better_than_those_alone() -> None:
    data, test = nets.digits()
    teacher = nets.trained()
    lessons = distill.DistillSettings(width=0.25, epochs=100, learning_rate=5e-3)
    found = distill.compare(teacher, data.first(300), test, lessons, range(3))
    assert np.mean([c.taught for c in found]) > np.mean([c.alone for c in found]) + 0.01
