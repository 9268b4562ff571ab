"""Quantisation-aware training: the model learns with the rounding that int8 will bring.

Batch norms are folded first.  Kernels are rounded to a grid for each output channel, activations to
one of 255 steps for each tensor, in the forward pass alone (Jacob et al., "Quantization and
Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2018).  Ranges follow
the values by a moving average or are learnt by gradient (LSQ: Esser et al., "Learned Step Size
Quantization", 2020; its scale is trained as a logarithm here, so that steps are relative).  Zeros
stay zeros and shared values shared.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from pydantic import Field

from tinygen.compress import forms, rewire, train, weights
from tinygen.compress.base import Context, Method
from tinygen.graph import Array

WHAT = "qat"
STEPS = 255
EXAMPLES = 256
"""Examples that the first ranges are taken from."""

MOVING = {
    *("MaxPooling1D", "MaxPooling2D", "AveragePooling1D", "AveragePooling2D"),
    *("GlobalMaxPooling1D", "GlobalMaxPooling2D", "Flatten", "Reshape", "Permute", "Concatenate"),
    *("Dropout", "SpatialDropout1D", "SpatialDropout2D", "GaussianNoise", "GaussianDropout"),
    *("ZeroPadding1D", "ZeroPadding2D", "Cropping1D", "Cropping2D", "UpSampling1D", "UpSampling2D"),
}
"""Layers whose int8 output has the scale of their input."""

FIXED = ("softmax", "sigmoid", "tanh")
"""Activations whose int8 output has a scale of its own that nobody chooses."""


class QatSettings(train.Training):
    """To how many bits, and how ranges are found."""

    bits: Literal[4, 8] = Field(default=8, description="bits of a weight")
    layers: dict[str, Literal[4, 8]] = Field(
        default={}, description="bits of single layers, by name"
    )
    ranges: Literal["average", "lsq"] = Field(
        default="average", description="ranges follow the values, or are learnt"
    )
    momentum: float = Field(default=0.99, ge=0, lt=1, description="of the moving average of ranges")
    epochs: int = Field(
        default=5, ge=0, le=100_000, description="passes over the data; 0: no training"
    )
    learning_rate: float = Field(
        default=2e-4, gt=0, le=10, description="at the start, falling along a cosine to nothing"
    )


def apply(model: Any, settings: QatSettings, context: Context) -> Any:
    """A copy of ``model`` without batch norms whose kernels lie on their grids.

    A kernel is integer * scale for each output channel, the largest integer being 127 or 7: int8
    weights quantized by the largest weight are these integers.  The result has two attributes,
    which the next method has to read, for they are no part of a saved model:
    ``tinygen_ranges``, ``dict[layer name, (low, high)]``: the range of the layer's output after
    the activation that is fused into it, zero being one of its 256 values; and ``tinygen_bits``,
    ``dict[layer name, bits]``, of the kernels.  Quantize next: other methods leave the grid.
    """
    model = rewire.fold_batch_norms(rewire.plain(model, WHAT))
    data = context.data(WHAT)
    task = train.task(model, data, WHAT)
    rewire.known(rewire.weighed(model), settings.layers, WHAT)
    start = model.inputs[0]._keras_history.operation.name
    steps = _Steps.of(float(data.inputs.min()), float(data.inputs.max()))
    task = replace(task, inputs=steps.rounded(task.inputs))
    points = _points(model)
    trained = _observed(model, points, settings)
    _calibrate(trained, task.inputs[:EXAMPLES])
    bits = {x.name: settings.layers.get(x.name, settings.bits) for x in rewire.weighed(trained)}
    made = {
        rewire.kernel(layer).path: _form(layer, bits[layer.name], settings)
        for layer in rewire.weighed(trained)
    }
    train.fit(trained, task, settings, context, WHAT, train.Hooks(made))
    for layer in model.layers:
        layer.set_weights(trained.get_layer(layer.name).get_weights())
    ranges = {start: (steps.low, steps.high)}
    for point in points:
        for name in point.names:
            ranges[name] = _learnt(trained.get_layer(point.observer))
    model.tinygen_ranges = ranges
    model.tinygen_bits = bits
    return model


@dataclass(frozen=True)
class _Steps:
    """256 values from ``low`` to ``high``, of which one is zero."""

    scale: float
    zero: int

    @classmethod
    def of(cls, low: float, high: float) -> _Steps:
        low, high = min(low, 0.0), max(high, 0.0)
        scale = (high - low) / STEPS or 1 / STEPS
        return cls(scale, round(-low / scale))

    @property
    def low(self) -> float:
        return -self.zero * self.scale

    @property
    def high(self) -> float:
        return (STEPS - self.zero) * self.scale

    def rounded(self, values: Array) -> Array:
        steps = np.clip(np.rint(values / self.scale) + self.zero, 0, STEPS) - self.zero
        return np.asarray(steps * self.scale, dtype=np.float32)


@dataclass(frozen=True)
class _Point:
    """Where an activation is rounded: after ``layer``, or ``inside`` it before its activation.

    ``names`` are the layers whose outputs have the range, none for one that lies inside.
    """

    layer: str
    names: tuple[str, ...]
    inside: bool

    @property
    def observer(self) -> str:
        return f"{self.layer}_rounded"


def _points(model: Any) -> tuple[_Point, ...]:
    """Where int8 inference rounds: after layers that compute, with what is fused into them."""
    import keras

    read = rewire.readers(model)
    found: dict[str, _Point] = {}
    fused: dict[str, str] = {}  # an activation's name, and the layer before it
    for node in rewire.nodes(model):
        layer = node.operation
        if not isinstance(layer, keras.Layer) or rewire.kind(layer) in MOVING:
            continue
        activation = getattr(getattr(layer, "activation", None), "__name__", "linear")
        if rewire.kind(layer) == "Softmax" or (
            rewire.kind(layer) == "Activation" and activation in FIXED
        ):
            continue
        if activation in FIXED:
            found[layer.name] = _Point(layer.name, (), inside=True)
            continue
        after = read.get(id(node.outputs[0]), [])
        if len(after) == 1 and after[0] is not None and rewire.linear(layer):
            follower = after[0].operation
            if _is_relu(follower) and not _is_relu(layer):
                fused[follower.name] = layer.name
                continue
        names = (layer.name, fused[layer.name]) if layer.name in fused else (layer.name,)
        found[layer.name] = _Point(layer.name, names, inside=False)
    return tuple(found.values())


def _is_relu(layer: Any) -> bool:
    """Whether it is an activation that int8 kernels compute as they store."""
    if rewire.kind(layer) == "ReLU":
        return layer.max_value in (None, 6) and not layer.negative_slope and not layer.threshold
    name = getattr(getattr(layer, "activation", None), "__name__", "")
    return rewire.kind(layer) == "Activation" and name in ("relu", "relu6")


def _observed(model: Any, points: Sequence[_Point], settings: QatSettings) -> Any:
    """A copy of ``model`` that rounds at the points."""
    import keras

    at = {point.layer: point for point in points}

    def make(layer: Any) -> Sequence[rewire.Part] | None:
        if layer.name not in at:
            return None
        point = at[layer.name]
        learnt = settings.ranges == "lsq"
        observer = rewire.Part(_observer()(settings.momentum, learnt, name=point.observer))
        if not point.inside:
            return (rewire.copy(layer), observer)
        bare = rewire.Part(rewire.like(layer, activation="linear"), layer.get_weights())
        end = keras.layers.Activation(layer.activation, name=f"{layer.name}_activation")
        return (bare, observer, rewire.Part(end))

    return rewire.rebuild(model, make)


@functools.cache
def _observer() -> Any:
    """The layer that rounds activations in passing; Keras is imported when it is made."""
    import keras
    import tensorflow as tf

    class Observer(keras.Layer):  # type: ignore[misc]
        """Rounds to 256 values between bounds; identity while it is not ``active``.

        Learnt are the logarithm of the scale and where zero lies, 0 at the low end, 1 at the
        high; otherwise ``low`` and ``high`` follow the values by a moving average.
        """

        def __init__(self, momentum: float, learnt: bool, **other: Any) -> None:
            super().__init__(**other)
            self.momentum, self.learnt = momentum, learnt
            self.active, self.signed = False, True

        def build(self, shape: Any) -> None:
            del shape
            names = ("log", "place") if self.learnt else ("low", "high")
            for name in names:
                setattr(self, name, self.add_weight(shape=(), name=name, trainable=self.learnt))

        def begin(self, low: float, high: float) -> None:
            """Start with a range."""
            self.active, self.signed = True, low < 0
            steps = _Steps.of(low, high)
            if self.learnt:
                self.log.assign(np.log(steps.scale))
                self.place.assign(steps.zero / STEPS)
            else:
                self.low.assign(steps.low)
                self.high.assign(steps.high)

        def steps(self) -> Any:
            """Scale and zero, tensors."""
            if self.learnt:
                place = self.place.value * (float(STEPS) if self.signed else 0.0)
                zero = forms.rounded(tf.clip_by_value(place, 0.0, float(STEPS)))
                return tf.exp(self.log.value), zero
            scale = tf.maximum((self.high.value - self.low.value) / STEPS, 1e-9)
            return scale, tf.round(-self.low.value / scale)

        def call(self, x: Any, training: bool | None = None) -> Any:
            if not self.active:
                return x
            if training and not self.learnt:
                low = tf.minimum(tf.reduce_min(x), 0.0)
                high = tf.maximum(tf.reduce_max(x), 0.0)
                for bound, seen in ((self.low, low), (self.high, high)):
                    bound.assign(bound.value * self.momentum + seen * (1 - self.momentum))
            scale, zero = self.steps()
            steps = tf.clip_by_value(forms.rounded(x / scale) + zero, 0.0, float(STEPS))
            return (steps - zero) * scale

    return Observer


def _observers(model: Any) -> Iterator[Any]:
    return (layer for layer in model.layers if rewire.kind(layer) == "Observer")


def _calibrate(model: Any, inputs: Array) -> None:
    """Start each observer with the range that its input has on the examples."""
    import keras

    observers = list(_observers(model))
    seen = {n.operation.name: n.input_tensors[0] for n in rewire.nodes(model)}
    if not observers:
        return
    watch = keras.Model(model.input, [seen[x.name] for x in observers])
    values = keras.tree.flatten(watch(inputs, training=False))
    for observer, value in zip(observers, values, strict=True):
        found = np.asarray(value)
        observer.begin(float(found.min()), float(found.max()))


def _learnt(observer: Any) -> tuple[float, float]:
    scale, zero = (float(x) for x in observer.steps())
    return -zero * scale, (STEPS - zero) * scale


class OnGrid:
    """The kernel of ``layer`` rounded to integers of ``bits`` bits times a scale for each output.

    The scale is the largest weight's over the largest integer; with ``learnt`` it may be smaller
    and is trained.  Zeros of the kernel stay zeros.
    """

    def __init__(self, layer: Any, bits: int, learnt: bool) -> None:
        import keras

        self.kernel = rewire.kernel(layer)
        self.largest = float((1 << (bits - 1)) - 1)
        values = np.asarray(self.kernel)
        self.mask = (values != 0).astype(np.float32)
        over = -2 if rewire.kind(layer) in rewire.DEPTHWISE else -1
        self.axes = tuple(range(values.ndim + over))
        self.log: Any = None
        if learnt:
            rows = rewire.rows(layer, values).astype(np.float64)
            tops = np.maximum(np.abs(rows).max(axis=1) / self.largest, 1e-9)
            scales = tops * weights.best_shrink(rows, tops, int(self.largest))
            shape = [1] * len(self.axes) + list(values.shape[over:])
            self.log = keras.Variable(np.log(scales).reshape(shape).astype(np.float32))

    @property
    def variables(self) -> Sequence[Any]:
        return (self.kernel,) if self.log is None else (self.kernel, self.log)

    def value(self) -> Any:
        import tensorflow as tf

        values = self.kernel.value * self.mask
        tops = tf.reduce_max(tf.abs(values), axis=self.axes, keepdims=True)
        scale = tf.stop_gradient(tf.maximum(tops / self.largest, 1e-12))
        if self.log is not None:
            scale = tf.minimum(tf.exp(self.log.value), scale)
        steps = tf.clip_by_value(values / scale, -self.largest, self.largest)
        return forms.rounded(steps) * scale


def _form(layer: Any, bits: int, settings: QatSettings) -> forms.Form:
    book = forms.found(rewire.rows(layer, np.asarray(rewire.kernel(layer))))
    if book is not None:
        return forms.Shared(layer, book, (1 << (bits - 1)) - 1)
    return OnGrid(layer, bits, learnt=bits < 8 or settings.ranges == "lsq")


METHOD = Method(
    name="qat",
    stage="float",
    summary="train with the rounding of int8 or int4 weights and int8 activations",
    source="Jacob et al., Quantization and Training of Neural Networks, 2018; Esser et al., "
    "Learned Step Size Quantization, 2020",
    settings=QatSettings,
    apply=apply,
)
