"""Distillation: a small student learns what the model, its teacher, says.

Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network" (2015): the student learns
the teacher's softened classes beside the labels.  Romero et al., "FitNets" (2015): it may learn an
inner result of the teacher's too, through a 1x1 regressor that is thrown away.  The student is read
from a file, or is the teacher itself made narrower and shallower, with fresh weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from tinygen.compress import filters, rewire, train
from tinygen.compress.base import Context, Method
from tinygen.datasets import Data
from tinygen.errors import InputError

WHAT = "distill"


class DistillSettings(train.Training):
    """Who the student is, and what it listens to."""

    student: Path | None = Field(
        default=None, description="a .keras file; otherwise drawn from the model"
    )
    width: float = Field(default=0.5, gt=0, le=1, description="part of the teacher's filters")
    depth: float = Field(default=1.0, gt=0, le=1, description="part of the blocks that repeat")
    multiple: int = Field(
        default=4, ge=1, le=64, description="numbers of channels are multiples of this"
    )
    temperature: float = Field(
        default=4.0, gt=0, le=100, description="by which logits are softened"
    )
    alpha: float = Field(
        default=0.7,
        ge=0,
        le=1,
        description="part of the loss that is the teacher's, the rest the labels'",
    )
    features: float = Field(
        default=0.0, ge=0, le=1000, description="weight of the inner result's loss"
    )
    hint: tuple[str, str] | None = Field(
        default=None,
        description="teacher's and student's layer of the inner result; else the last image",
    )
    epochs: int = Field(default=30, ge=0, le=100_000, description="passes over the data")
    learning_rate: float = Field(
        default=3e-3, gt=0, le=10, description="at the start, falling along a cosine to nothing"
    )


def apply(model: Any, settings: DistillSettings, context: Context) -> Any:
    """The student, trained; ``model`` is the teacher.

    Without labels the teacher alone is learnt from.  Raises :class:`InputError` for a student that
    cannot be read or drawn, or that does not fit the teacher's input and output.
    """
    import keras

    teacher = rewire.plain(model, WHAT)
    data = context.data(WHAT)
    keras.utils.set_random_seed(context.seed % 2**32)
    student = _read(settings.student) if settings.student else draw(teacher, settings, context)
    if student.input_shape[1:] != teacher.input_shape[1:] or (
        student.output_shape[1:] != teacher.output_shape[1:]
    ):
        raise InputError(
            f"{WHAT}: the student maps {student.input_shape[1:]} to {student.output_shape[1:]}, "
            f"the teacher {teacher.input_shape[1:]} to {teacher.output_shape[1:]}"
        )
    _learn(teacher, student, data, settings, context)
    return student


def _learn(
    teacher: Any, student: Any, data: Data, settings: DistillSettings, context: Context
) -> None:
    """Train ``student`` in place."""
    import keras
    import tensorflow as tf

    told = data.labels is not None and settings.alpha < 1
    labels = train.task(student, data, WHAT) if told else None
    end = train.squashed(student)
    logits = end == "softmax" or data.classes is not None
    if end is None and train.hides_softmax(student):
        logits = False
    wisdom = tf.constant(train.outputs(teacher, data.inputs, logits))
    truth = tf.constant(labels.targets) if labels else None
    taught = _soft_loss(end, logits, settings.temperature)
    hint = _hint(teacher, student, settings) if settings.features else None

    def loss(x: Any, rows: Any, out: Any) -> Any:
        said = out[0] if hint else out
        total = taught(tf.gather(wisdom, rows), said)
        if labels is not None:
            hard = labels.loss(tf.gather(truth, rows), said)
            total = settings.alpha * total + (1 - settings.alpha) * hard
        return total + settings.features * hint.loss(x, out[1]) if hint else total

    hooks = train.Hooks(loss=loss, extra=hint.variables if hint else ())
    rows = train.Task(data.inputs, np.arange(len(data), dtype=np.int32), _unused, logits=False)
    with train.outputs_for(student, logits) as bare:
        both = keras.Model(bare.input, [bare.output, hint.tensor]) if hint else bare
        train.fit(both, rows, settings, context, WHAT, hooks)


def _unused(targets: Any, out: Any) -> Any:
    raise NotImplementedError("the hooks' loss stands for it")


def _soft_loss(end: str | None, logits: bool, temperature: float) -> Callable[[Any, Any], Any]:
    """Loss of logits against the teacher's; of other outputs the mean squared error.

    The softened divergence is times the squared temperature, as its gradients are smaller by that
    (Hinton et al., section 2).  It is computed from logarithms of softmax, which do not overflow.
    """
    import tensorflow as tf

    def divergence(teacher: Any, student: Any) -> Any:
        goal = tf.nn.log_softmax(teacher / temperature)
        said = tf.nn.log_softmax(student / temperature)
        return temperature**2 * tf.reduce_mean(tf.reduce_sum(tf.exp(goal) * (goal - said), axis=-1))

    def binary(teacher: Any, student: Any) -> Any:
        goal = tf.sigmoid(teacher / temperature)
        said = tf.nn.sigmoid_cross_entropy_with_logits(goal, student / temperature)
        return temperature**2 * tf.reduce_mean(said)

    def squares(teacher: Any, student: Any) -> Any:
        return tf.reduce_mean(tf.math.squared_difference(teacher, student))

    if not logits:
        return squares
    return binary if end == "sigmoid" else divergence


@dataclass(frozen=True, eq=False)
class Hint:
    """What the student's ``tensor`` should be once a 1x1 regressor has made it as deep.

    ``loss`` is the mean squared error over the teacher's mean square.
    """

    tensor: Any
    variables: Sequence[Any]
    loss: Callable[[Any, Any], Any]


def _hint(teacher: Any, student: Any, settings: DistillSettings) -> Hint:
    import keras
    import tensorflow as tf

    names = settings.hint or (None, None)
    goal, tensor = (
        _inner(m, name, who)
        for m, name, who in zip((teacher, student), names, ("teacher", "student"), strict=True)
    )
    if goal.shape[1:-1] != tensor.shape[1:-1]:
        raise InputError(
            f"{WHAT}: inner results have shapes {goal.shape[1:]} and {tensor.shape[1:]}",
            "name two layers of equal height and width with hint",
        )
    knows = keras.Model(teacher.input, goal)
    start = keras.initializers.GlorotUniform()((tensor.shape[-1], goal.shape[-1]))
    regressor = keras.Variable(start)

    def loss(x: Any, feature: Any) -> Any:
        wanted = tf.stop_gradient(knows(x, training=False))
        made = tf.tensordot(feature, regressor.value, 1)
        error = tf.reduce_mean(tf.math.squared_difference(made, wanted))
        return error / (tf.reduce_mean(tf.square(wanted)) + 1e-9)

    return Hint(tensor, (regressor,), loss)


def _inner(model: Any, name: str | None, who: str) -> Any:
    """The output of the layer ``name``, or the last result that has a height or width."""
    found = {n.operation.name: n.outputs[0] for n in rewire.nodes(model)}
    if name is not None:
        if name not in found:
            raise InputError(f"{WHAT}: no layer of the {who} is called '{name}'")
        return found[name]
    images = [t for t in found.values() if len(t.shape) > 2 and math.prod(t.shape[1:-1]) > 1]
    if not images:
        raise InputError(f"{WHAT}: the {who} has no inner image to match", "name layers with hint")
    return images[-1]


def _read(path: Path) -> Any:
    """A Keras model from a file, which may not bring code of its own."""
    import keras

    try:
        model = keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # whatever the zip, the JSON or a layer's configuration raise
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{WHAT}: {path}: no Keras model: {first[:200]}") from error
    return rewire.plain(model, WHAT)


def draw(teacher: Any, settings: DistillSettings, context: Context) -> Any:
    """A student like ``teacher``, narrower and shallower, with weights drawn anew.

    Dropout is left out: it keeps large models from learning by heart, and small ones from learning.
    """
    model = shallow(teacher, settings.depth) if settings.depth < 1 else teacher
    if settings.width < 1:
        narrow = filters.FilterSettings(
            amount=1 - settings.width, multiple=settings.multiple, epochs=0
        )
        model = filters.apply(model, narrow, context)
    return rewire.rebuild(
        model,
        lambda x: () if "Dropout" in rewire.kind(x) else (rewire.Part(rewire.like(x)),),
    )


@dataclass(frozen=True, eq=False)
class _Stretch:
    """Calls between two tensors that all paths pass; equal ``looks`` compute alike."""

    looks: str
    weighed: bool
    end: Any


def shallow(model: Any, depth: float) -> Any:
    """``model`` with ``depth`` of the blocks where equal ones follow each other, one at least.

    Of each such row the last blocks go.  Raises :class:`InputError` where none repeats.
    """
    stretches = _stretches(model)
    bypass: dict[int, Any] = {}
    at = 0
    while at < len(stretches):
        period, times = _repeats(stretches, at)
        keep = max(1, math.ceil(depth * times - 1e-9))
        if keep < times:
            last, kept = at + period * times - 1, at + period * keep - 1
            bypass[id(stretches[last].end)] = stretches[kept].end
        at += period * times
    if not bypass:
        raise InputError(
            f"{WHAT}: the model '{model.name}' repeats no block that could go", "leave depth at 1"
        )
    return rewire.rebuild(model, bypass=bypass)


def _repeats(stretches: Sequence[_Stretch], at: int) -> tuple[int, int]:
    """Length and number of equal blocks from ``at`` on; 1 and 1 where none repeats."""
    looks = [s.looks for s in stretches[at:]]
    for period in range(1, len(looks) // 2 + 1):
        times = 1
        while looks[times * period : (times + 1) * period] == looks[:period]:
            times += 1
        if times > 1 and any(s.weighed for s in stretches[at : at + period]):
            return period, times
    return 1, 1


def _stretches(model: Any) -> list[_Stretch]:
    """The model cut wherever one tensor alone is still to be read."""
    read = rewire.readers(model)
    left = {id(model.inputs[0]): len(read[id(model.inputs[0])])}
    found: list[_Stretch] = []
    looks, weighed = [], False
    places = {id(model.inputs[0]): 0}
    for node in rewire.nodes(model):
        for tensor in node.input_tensors:
            left[id(tensor)] -= 1
        for tensor in node.outputs:
            left[id(tensor)] = len(read.get(id(tensor), []))
        looks.append(_looks(node, places))
        places |= {id(t): len(places) for t in node.outputs}
        weighed |= rewire.kind(node.operation) in rewire.WEIGHED
        if [key for key, count in left.items() if count] == [id(node.outputs[0])]:
            found.append(_Stretch("; ".join(looks), weighed, node.outputs[0]))
            looks, weighed, places = [], False, {id(node.outputs[0]): 0}
    return found


def _looks(node: Any, places: dict[int, int]) -> str:
    """The call in words without names: what it reads, its settings, its shapes."""
    config = {k: v for k, v in node.operation.get_config().items() if k != "name"}
    read = [(places[id(t)], tuple(t.shape[1:])) for t in node.input_tensors]
    return f"{rewire.kind(node.operation)} {read} {config}"


@dataclass(frozen=True)
class Comparison:
    """Scores (:func:`~tinygen.compress.train.score`) of one student, taught and by labels alone."""

    seed: int
    teacher: float
    alone: float
    taught: float


def compare(
    model: Any, train_data: Data, test: Data, settings: DistillSettings, seeds: Sequence[int]
) -> tuple[Comparison, ...]:
    """For each seed the same student, equal weights at first, trained with and without ``model``.

    Both are trained as long, on the same examples in the same order.
    """
    alone = settings.model_copy(update={"alpha": 0.0, "features": 0.0})
    found = []
    for seed in seeds:
        context = Context(train=train_data, seed=seed)
        scores = [train.score(apply(model, s, context), test) for s in (alone, settings)]
        found.append(Comparison(seed, train.score(model, test), *scores))
    return tuple(found)


METHOD = Method(
    name="distill",
    stage="float",
    summary="train a smaller model to say what this one says",
    source="Hinton, Vinyals & Dean, Distilling the Knowledge in a Neural Network, 2015; Romero et "
    "al., FitNets, 2015",
    settings=DistillSettings,
    apply=apply,
)
