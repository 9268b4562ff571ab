"""The loop in which every method that trains does so.

A method may say what weights are made of (:mod:`tinygen.compress.forms`): a masked kernel, shared
values, values on a grid.  The loop trains that and leaves its value in the model.  Zeros in kernels
stay zeros and shared values shared whatever is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from pydantic import Field

from tinygen.compress import forms, rewire
from tinygen.compress.base import Context, Settings
from tinygen.datasets import Data
from tinygen.errors import InputError
from tinygen.graph import Array

CHUNK = 64
"""Steps that run between two calls of progress."""


class Training(Settings):
    """How a model is trained."""

    epochs: int = Field(
        default=10, ge=0, le=100_000, description="passes over the data; 0: no training"
    )
    batch: int = Field(default=32, ge=1, le=65_536, description="examples a step")
    learning_rate: float = Field(
        default=1e-3, gt=0, le=10, description="at the start, falling along a cosine to nothing"
    )
    optimizer: Literal["adam", "sgd"] = Field(default="adam", description="sgd has momentum 0.9")


Loss = Callable[[Any, Any], Any]
"""Mean loss of a batch from targets and outputs."""


@dataclass(frozen=True, eq=False)
class Task:
    """What is to be learnt: targets, one for each input, and the loss of outputs against them.

    With ``logits`` the loss reads what goes into the softmax or sigmoid at the model's end.
    """

    inputs: Array
    targets: Array
    loss: Loss
    logits: bool


@dataclass(frozen=True, eq=False)
class Hooks:
    """What a method does to the training.

    ``forms`` are by the paths of the model's variables.  ``before`` is called with the number of
    the step and of all steps, every ``every`` steps.  ``loss`` gives a step's loss from inputs,
    targets and outputs where the task's does not do; the variables ``extra`` are trained too.
    """

    forms: Mapping[str, forms.Form] = field(default_factory=dict)
    before: Callable[[int, int], None] = lambda step, steps: None
    every: int = CHUNK
    loss: Callable[[Any, Any, Any], Any] | None = None
    extra: Sequence[Any] = ()


def fit(
    model: Any,
    task: Task,
    settings: Training,
    context: Context,
    what: str,
    hooks: Hooks = Hooks(),
) -> None:
    """Train ``model``, of type keras.Model, in place.

    Raises :class:`InputError`, beginning with ``what``, when weights grow beyond all bounds.
    """
    import keras

    keras.utils.set_random_seed(context.seed % 2**32)
    for number, layer in enumerate(model.layers):  # dropout draws from a state of its own
        if hasattr(layer, "seed_generator"):
            layer.seed_generator.state.assign([context.seed % 2**31, number])
    made = {**forms.held(model, hooks.forms), **hooks.forms}
    batch = min(settings.batch, len(task.inputs))
    order = _order(len(task.inputs), batch, settings.epochs, context.seed)
    with outputs_for(model, task.logits) as trained:
        run = _runner(trained, task, settings, replace(hooks, forms=made), order.shape)
        with context.progress(f"{what}: training", len(order)) as advance:
            for start in range(0, len(order), hooks.every):
                hooks.before(start, len(order))
                for part in _chunks(order[start : start + hooks.every]):
                    run(part)
                    for _ in part:
                        advance()
    forms.settle(model, made)
    if not all(np.isfinite(w).all() for w in model.get_weights()):
        raise InputError(f"{what}: the training diverged", "lower learning_rate")


def _order(count: int, batch: int, epochs: int, seed: int) -> Array:
    """The examples of each step, int32 (steps, batch); what fills no batch waits for its turn."""
    rng = np.random.default_rng(seed)
    steps = count // batch
    drawn = [rng.permutation(count)[: steps * batch] for _ in range(epochs)]
    return np.array(drawn, dtype=np.int32).reshape(epochs * steps, batch)


def _chunks(order: Array) -> list[Array]:
    return [order[i : i + CHUNK] for i in range(0, len(order), CHUNK)]


def _runner(
    model: Any, task: Task, settings: Training, hooks: Hooks, shape: tuple[int, ...]
) -> Callable[[Array], None]:
    """A function that trains on the examples int32 (steps, batch), compiled."""
    import tensorflow as tf

    trainable, fixed = model.trainable_variables, model.non_trainable_variables
    learnt = _unique([*_variables(trainable, hooks.forms), *hooks.extra])
    if not learnt or not shape[0]:
        return lambda order: None
    tf.config.experimental.enable_op_determinism()
    optimizer = _Optimizer(settings, learnt, shape[0])
    inputs, targets = tf.constant(task.inputs), tf.constant(task.targets)

    def step(rows: Any) -> None:
        x, y = tf.gather(inputs, rows), tf.gather(targets, rows)
        with tf.GradientTape() as tape:
            weights, others = _values(trainable, hooks.forms), _values(fixed, hooks.forms)
            out, state = model.stateless_call(weights, others, x, training=True)
            loss = hooks.loss(x, y, out) if hooks.loss else task.loss(y, out)
        optimizer.apply(tape.gradient(loss, [v.value for v in learnt]))
        for variable, value in zip(fixed, state, strict=True):
            if variable.path not in hooks.forms:
                variable.assign(value)

    def body(i: Any, order: Any) -> tuple[Any, Any]:
        step(order[i])
        return i + 1, order

    @tf.function(input_signature=[tf.TensorSpec((None, shape[1]), tf.int32)])  # type: ignore[untyped-decorator]
    def run(order: Any) -> None:
        tf.while_loop(lambda i, _: i < tf.shape(order)[0], body, (0, order), parallel_iterations=1)

    return lambda order: run(tf.constant(order))


def _variables(trainable: Sequence[Any], made: Mapping[str, forms.Form]) -> list[Any]:
    found: list[Any] = []
    for variable in trainable:
        found += made[variable.path].variables if variable.path in made else (variable,)
    return found


def _unique(variables: Sequence[Any]) -> list[Any]:
    return list({id(v): v for v in variables}.values())


def _values(variables: Sequence[Any], made: Mapping[str, forms.Form]) -> list[Any]:
    return [made[v.path].value() if v.path in made else v.value for v in variables]


class _Optimizer:
    """Adam (Kingma & Ba 2015) or momentum, over all variables as one vector.

    That is the arithmetic of Keras's, in a graph of a tenth of the size: what small models spend
    their time on.  The rate falls along half a cosine (Loshchilov & Hutter 2017).
    """

    def __init__(self, settings: Training, variables: Sequence[Any], steps: int) -> None:
        import tensorflow as tf

        self.settings, self.variables, self.steps = settings, variables, steps
        self.sizes = [int(np.prod(v.shape, dtype=np.int64)) for v in variables]
        self.done = tf.Variable(0.0, trainable=False)
        self.mean = tf.Variable(tf.zeros(sum(self.sizes)), trainable=False)
        self.square = tf.Variable(tf.zeros(sum(self.sizes)), trainable=False)

    def apply(self, gradients: Sequence[Any]) -> None:
        import tensorflow as tf

        pairs = zip(gradients, self.sizes, strict=True)
        flat = tf.concat(
            [tf.zeros(n) if g is None else tf.reshape(g, (n,)) for g, n in pairs], axis=0
        )
        turn = np.pi * self.done / self.steps
        rate = self.settings.learning_rate * 0.5 * (1 + tf.cos(turn))
        done = self.done.assign_add(1.0)
        if self.settings.optimizer == "sgd":
            change = rate * self.mean.assign(0.9 * self.mean + flat)
        else:
            mean = self.mean.assign(0.9 * self.mean + 0.1 * flat)
            square = self.square.assign(0.999 * self.square + 0.001 * flat * flat)
            rate = rate * tf.sqrt(1 - 0.999**done) / (1 - 0.9**done)
            change = rate * mean / (tf.sqrt(square) + 1e-7)
        for variable, part in zip(self.variables, tf.split(change, self.sizes), strict=True):
            variable.value.assign_sub(tf.reshape(part, variable.shape))


class outputs_for:  # noqa: N801, used like a function
    """The model, for the time of a with statement, with its last softmax or sigmoid left out.

    Variables are the model's own.  ``logits`` False gives the model as it is.
    """

    def __init__(self, model: Any, logits: bool) -> None:
        self.model, self.last = model, final(model)
        self.name = squashed(model) if logits else None
        self.activation = getattr(self.last, "activation", None)

    def __enter__(self) -> Any:
        import keras

        if self.name is None:
            return self.model
        if rewire.kind(self.last) in ("Softmax", "Activation"):
            return keras.Model(self.model.input, self.last.input, name=self.model.name)
        self.last.activation = keras.activations.linear
        return self.model

    def __exit__(self, *_: object) -> None:
        if self.activation is not None:
            self.last.activation = self.activation


def final(model: Any) -> Any:
    """The layer whose result is the model's output."""
    return model.outputs[0]._keras_history.operation


def squashed(model: Any) -> Literal["softmax", "sigmoid"] | None:
    """What the model ends in, told by its last layer, where that can be left out."""
    last = final(model)
    if rewire.calls(model).get(id(last)) != 1:
        return None
    if rewire.kind(last) == "Softmax" and last.axis == -1:
        return "softmax"
    if rewire.kind(last) not in ("Activation", *rewire.WEIGHED):
        return None
    name = getattr(last.activation, "__name__", "")
    return name if name in ("softmax", "sigmoid") else None  # type: ignore[return-value]


def task(model: Any, data: Data, what: str) -> Task:
    """What the output and the labels ask for.

    Classes: cross-entropy, from the logits where the model ends in a softmax or sigmoid.  Targets,
    float32 of the output's shape: mean squared error, or cross-entropy where a softmax ends the
    model.  No labels: the inputs, for a model whose output has the input's shape, and otherwise the
    outputs that ``model`` has now.  Raises :class:`InputError` for labels that fit none of these.
    """
    check_inputs(model, data, what)
    shape, end = tuple(model.output_shape[1:]), squashed(model)
    if data.labels is None:
        itself = shape == data.inputs.shape[1:]
        labels = data.inputs if itself else outputs(model, data.inputs, logits=False)
        return task(model, replace(data, labels=labels), what)
    if data.classes is None:
        if data.labels.shape[1:] != shape:
            raise InputError(
                f"{what}: targets have shape {data.labels.shape[1:]}, the model's output {shape}"
            )
        loss = _soft if end == "softmax" else _squares
        return Task(data.inputs, data.labels.astype(np.float32), loss, end == "softmax")
    if end == "sigmoid" and shape == (1,) and data.classes <= 2:
        targets = data.labels.astype(np.float32).reshape(-1, 1)
        return Task(data.inputs, targets, _binary, True)
    if len(shape) != 1 or shape[0] < data.classes:
        raise InputError(
            f"{what}: labels are {data.classes} classes, the model's output has shape {shape}",
            "give labels that the model's output answers",
        )
    loss = _probabilities if end is None and hides_softmax(model) else _classes
    return Task(data.inputs, data.labels.astype(np.int32), loss, end == "softmax")


def check_inputs(model: Any, data: Data, what: str) -> None:
    wanted = tuple(model.input_shape[1:])
    if len(wanted) != data.inputs.ndim - 1 or any(
        w is not None and w != h for w, h in zip(wanted, data.inputs.shape[1:], strict=True)
    ):
        raise InputError(
            f"{what}: inputs have shape {data.inputs.shape[1:]}, the model takes {wanted}"
        )


def hides_softmax(model: Any) -> bool:
    """Whether a softmax lies before layers that only move values."""
    node_of = {id(t): node for node in rewire.nodes(model) for t in node.outputs}
    node = node_of.get(id(model.outputs[0]))
    while node is not None and rewire.kind(node.operation) in ("Reshape", "Flatten", "Permute"):
        node = node_of.get(id(node.input_tensors[0]))
    if node is None:
        return False
    name = getattr(getattr(node.operation, "activation", None), "__name__", "")
    return rewire.kind(node.operation) == "Softmax" or name == "softmax"


def _classes(targets: Any, out: Any) -> Any:
    import tensorflow as tf

    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(targets, out))


def _probabilities(targets: Any, out: Any) -> Any:
    import tensorflow as tf

    there = tf.gather(out, targets, batch_dims=1)
    return -tf.reduce_mean(tf.math.log(tf.maximum(there, 1e-7)))


def _soft(targets: Any, out: Any) -> Any:
    import tensorflow as tf

    return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(targets, out))


def _binary(targets: Any, out: Any) -> Any:
    import tensorflow as tf

    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(targets, out))


def _squares(targets: Any, out: Any) -> Any:
    import tensorflow as tf

    return tf.reduce_mean(tf.math.squared_difference(targets, out))


def outputs(model: Any, inputs: Array, logits: bool, batch: int = 256) -> Array:
    """The model's outputs, float32 (n, ...), without the softmax at its end if ``logits``."""
    import tensorflow as tf

    with outputs_for(model, logits) as run:
        step = tf.function(lambda x: run(x, training=False), reduce_retracing=True)
        parts = [step(tf.constant(inputs[i : i + batch])) for i in range(0, len(inputs), batch)]
    return np.concatenate([np.asarray(part) for part in parts])


def score(model: Any, data: Data) -> float:
    """Part of the examples of which the class is right, or minus the mean squared error."""
    out = outputs(model, data.inputs, logits=False)
    if data.classes is None:
        targets = data.inputs if data.labels is None else data.labels
        return -float(np.mean((out - targets) ** 2))
    assert data.labels is not None
    told = (out[:, 0] > 0.5) if out.shape[1:] == (1,) else out.argmax(axis=1)
    return float(np.mean(told == data.labels))
