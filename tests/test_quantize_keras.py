"""Keras models become float graphs that compute the same, and int8 ones like TensorFlow's own.

TensorFlow is imported here; TFLM's runtime, which must not share a process with it, is not.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
from float_nets import as_file, everything, straight

from tinygen import reference
from tinygen.compress import Context, float_graph, keras_graph, quantize
from tinygen.compress.equalize import CHANNEL_AXIS
from tinygen.compress.quantize import Settings
from tinygen.datasets import Data
from tinygen.errors import InputError
from tinygen.exporters import tflite as exporter
from tinygen.graph import Array, Graph, Tensor
from tinygen.importers import tflite as importer

pytestmark = pytest.mark.xdist_group("tensorflow")


@functools.cache
def libraries() -> tuple[Any, Any]:
    import keras
    import tensorflow as tf

    return keras, tf


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    keras, _ = libraries()
    keras.utils.set_random_seed(0)
    yield
    keras.backend.clear_session()


def residual() -> Any:
    """Normalizations to fold, a branch, activations fused and not, a depthwise convolution."""
    keras, _ = libraries()
    layers = keras.layers
    source = keras.Input((8, 8, 3), name="picture")
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(source)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.ReLU(name="rectified")(x)
    y = layers.DepthwiseConv2D(3, padding="same", activation="relu6", name="deep")(x)
    y = layers.Conv2D(8, 1, name="point")(y)
    x = layers.Add(name="sum")([x, y])
    x = layers.ReLU(name="after")(x)
    x = layers.MaxPooling2D(2, name="pool")(x)
    x = layers.LeakyReLU(0.1, name="leaky")(x)
    x = layers.Flatten(name="flat")(x)
    x = layers.Dropout(0.4)(x)
    x = layers.Dense(12, activation="sigmoid", name="gate")(x)
    return randomized(
        keras.Model(source, layers.Dense(5, activation="softmax", name="top")(x), name="a net")
    )


def signals() -> Any:
    keras, _ = libraries()
    layers = keras.layers
    return randomized(
        keras.Sequential(
            [
                keras.Input((40, 1)),
                layers.Conv1D(8, 5, strides=2, activation="relu"),
                layers.Conv1D(12, 3, activation="relu"),
                layers.GlobalAveragePooling1D(),
                layers.Dense(6, activation="relu"),
                layers.Dense(3),
            ]
        )
    )


def randomized(model: Any) -> Any:
    """``model`` with random biases and statistics, which are 0 and 1 before training."""
    random = np.random.default_rng(0)
    for weight in model.weights:
        if len(weight.shape) == 1:
            spread = random.uniform(0.5, 1.5, weight.shape)
            weight.assign(spread if "variance" in weight.path else spread - 0.8)
    return model


def examples_for(model: Any, count: int = 64) -> Array:
    random = np.random.default_rng(1)
    return random.standard_normal((count, *model.inputs[0].shape[1:])).astype(np.float32)


@pytest.mark.parametrize("make", [residual, signals])
def test_the_float_graph_computes_what_keras_does(make: Any, tmp_path: Path) -> None:
    keras, _ = libraries()
    model = make()
    examples = examples_for(model)
    wanted = np.asarray(model.call(examples, training=False))
    found = float_graph.run(keras_graph.convert(model), examples)[0]
    assert np.abs(found - wanted).max() < 1e-5 * max(1, np.abs(wanted).max())
    model.save(tmp_path / "model.keras")
    read = keras.models.load_model(tmp_path / "model.keras")
    assert np.array_equal(float_graph.run(keras_graph.convert(read), examples)[0], found)


def test_layers_have_keras_names() -> None:
    graph = keras_graph.convert(residual())
    names = [layer.name for layer in quantize.layers(graph)]
    assert names == ["stem", "deep", "point", "gate", "top"]
    numbered = [layer.name for layer in quantize.layers(keras_graph.convert(signals()))]
    assert len(set(numbered)) == 4
    assert [name.startswith(("conv1d", "dense")) for name in numbered] == [True] * 4


@pytest.mark.parametrize("make", [straight, everything])
def test_the_float_pass_computes_what_tensorflow_does(make: Any) -> None:
    _, tf = libraries()
    net = make()
    graph, examples = net.graph(), net.examples(4)
    interpreter = tf.lite.Interpreter(
        model_content=as_file(graph), experimental_preserve_all_tensors=True
    )
    interpreter.allocate_tensors()
    for example in examples:
        values = float_graph.run_all(graph, example[None])
        interpreter.set_tensor(0, example[None])
        interpreter.invoke()
        for node in graph.nodes:
            wanted, found = interpreter.get_tensor(node.outputs[0]), values[node.outputs[0]][0]
            assert np.abs(found - wanted).max() < 1e-5 * max(1, np.abs(wanted).max()), node


def converted(model: Any, examples: Array) -> bytes:
    """The int8 .tflite that TensorFlow's converter makes."""
    _, tf = libraries()

    def call(x: Any) -> Any:
        return model.call(x, training=False)

    spec = tf.TensorSpec((1, *examples.shape[1:]), tf.float32)
    function = tf.function(call, autograph=False).get_concrete_function(spec)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], tf.Module())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([example[None]] for example in examples)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return bytes(converter.convert())


@pytest.mark.parametrize("make", [residual, signals])
@pytest.mark.filterwarnings("ignore:Statistics for quantized inputs")
def test_plain_quantization_is_tensorflows(make: Any) -> None:
    model = make()
    examples = examples_for(model)
    theirs = importer.load(converted(model, examples))
    ours = quantize.quantize(model, Settings(), Context(Data(examples)))
    assert [n.op for n in ours.nodes] == [n.op for n in theirs.nodes]
    compared = 0
    for mine, other in zip(ours.nodes, theirs.nodes, strict=True):
        if mine.op != "ADD" and not any(n.op == "ADD" for n in ours.consumers(mine.outputs[0])):
            compare(ours.output(mine), theirs.output(other))
            compared += 1
        for a, b in zip(mine.inputs[1:], other.inputs[1:], strict=True):
            if mine.op in CHANNEL_AXIS and a >= 0:
                compare(ours.at(a), theirs.at(b))
                compared += 1
    assert compared >= len(ours.nodes)


def compare(mine: Tensor, other: Tensor) -> None:
    """Equal up to the rounding of floats.

    Outputs that an ADD reads are left out: TensorFlow's calibration looks at them when the ADD has
    written its own output over them.
    """
    assert mine.quant is not None and other.quant is not None
    assert (mine.dtype, mine.shape) == (other.dtype, other.shape)
    assert np.allclose(mine.quant.scale, other.quant.scale, rtol=1e-4), mine.name
    assert np.abs(np.subtract(mine.quant.zero_point, other.quant.zero_point)).max() <= 1
    if mine.data is not None and other.data is not None:
        apart = np.abs(mine.data.astype(np.int64) - other.data)
        assert apart.max() <= max(1, 1e-4 * np.abs(other.data.astype(np.int64)).max()), mine.name
        assert mine.dtype != "int8" or (apart > 0).mean() < 0.02


def test_learned_ranges_are_taken_where_layers_have_them() -> None:
    model = residual()
    examples = examples_for(model)
    model.tinygen_ranges = {
        "picture": (-2.0, 2.0),
        "stem": (0.0, 3.5),  # merged into the layers after it, up to the activation
        "point": (-1.25, 1.5),
        "after": [0.5, 4.0],
    }
    graph = quantize.quantize(model, Settings(), Context(Data(examples)))
    wanted = {"CONV_2D 0": 3.5, "CONV_2D 1": 2.75, "ADD 0": 4.0, "MAX_POOL_2D 0": 4.0}
    spans, count = {}, dict.fromkeys((n.op for n in graph.nodes), 0)
    for node in graph.nodes:
        spans[f"{node.op} {count[node.op]}"] = graph.output(node).scale * 255
        count[node.op] += 1
    assert all(np.isclose(spans[name], span) for name, span in wanted.items()), spans
    assert np.isclose(graph.at(0).scale * 255, 4.0)
    without = quantize.quantize(model, Settings(learned_ranges=False), Context(Data(examples)))
    assert not np.isclose(without.output(without.nodes[0]).scale * 255, 3.5)
    model.tinygen_ranges = {"nobody": (0.0, 1.0)}
    with pytest.raises(InputError, match="none of its layers"):
        quantize.quantize(model, Settings(), Context(Data(examples)))


def test_models_that_cannot_be_converted_are_refused() -> None:
    keras, _ = libraries()
    layers = keras.layers
    two = [keras.Input((4,)), keras.Input((4,))]
    with pytest.raises(InputError, match="has 2 inputs; only networks of one"):
        keras_graph.convert(keras.Model(two, layers.Add()(two)))
    with pytest.raises(InputError, match="unknown extent"):
        source = keras.Input((None, 4))
        keras_graph.convert(keras.Model(source, layers.Dense(2)(source)))
    with pytest.raises(InputError, match="has 0 inputs"):
        keras_graph.convert(keras.Sequential([layers.Dense(2)]))
    with pytest.raises(InputError, match="not supported"):
        source = keras.Input((6, 4))
        keras_graph.convert(keras.Model(source, layers.LSTM(3)(source)))


# ---- trained networks --------------------------------------------------------------------------


def digits() -> tuple[Any, Data, Data]:
    """The network of examples/digits, trained for less long."""
    from sklearn.datasets import load_digits

    from examples.digits import train as example

    found = load_digits()
    images = (found.images / 16.0).astype(np.float32)[..., None]
    order = np.random.default_rng(0).permutation(len(images))
    data = Data(images[order], found.target[order].astype(np.int64))
    model = example.build_network()
    return fitted(model, data, 1200, epochs=25)


def waves() -> tuple[Any, Data, Data]:
    """Ten shapes of 40 samples, moved, scaled, bent and noisy, as MNIST-1D has them."""
    keras, _ = libraries()
    layers = keras.layers
    random = np.random.default_rng(5)
    count, length = 4000, 40
    templates = random.standard_normal((10, 12)).cumsum(axis=1)
    labels = random.integers(0, 10, count)
    at = np.linspace(0, 11, 24)
    signals = np.zeros((count, length), dtype=np.float32)
    for row, label in zip(signals, labels, strict=True):
        start = random.integers(0, length - 24)
        shape = np.interp(at, np.arange(12), templates[label]) * random.uniform(0.6, 1.4)
        row[start : start + 24] = shape + random.normal() * np.linspace(-1, 1, 24)
        row += 0.25 * random.standard_normal(length)
    model = keras.Sequential(
        [
            keras.Input((length, 1), batch_size=1),
            layers.Conv1D(16, 5, strides=2, activation="relu"),
            layers.Conv1D(16, 3, strides=2, activation="relu"),
            layers.Conv1D(16, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    return fitted(model, Data(signals[..., None], labels), 3000, epochs=20)


def fitted(model: Any, data: Data, train: int, epochs: int) -> tuple[Any, Data, Data]:
    keras, _ = libraries()
    parts = data.take(np.arange(train)), data.take(np.arange(train, len(data)))
    model = keras.models.clone_model(model)
    steps = epochs * -(-train // 32)
    model.compile(
        optimizer=keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(5e-3, steps)),
        loss="sparse_categorical_crossentropy",
    )
    model.fit(parts[0].inputs, parts[0].labels, batch_size=32, epochs=epochs, verbose=0)
    return model, *parts


def accuracy(graph: Graph, data: Data) -> float:
    """Per cent of right classes, in the exact arithmetic."""
    source = graph.at(graph.inputs[0])
    integers = np.clip(np.rint(data.inputs / source.scale) + source.zero_point, -128, 127)
    right = [
        reference.run(graph, [x.reshape(source.shape)])[0].argmax() == label
        for x, label in zip(integers.astype(np.int8), data.labels, strict=True)
    ]
    return 100 * float(np.mean(right))


WAYS: dict[str, dict[str, Any]] = {
    "minmax": {},
    "percentile 99.9": {"calibration": "percentile", "percentile": 99.9},
    "mse": {"calibration": "mse"},
    "bias correction": {"bias_correction": True},
    "equalized": {"equalize": True},
    "one scale": {"weights": "per_tensor"},
    "one scale, equalized": {"weights": "per_tensor", "equalize": True},
    "power of two": {"step": "power_of_two"},
    "4 bits": {"bits": 4},
    "4 bits, mse": {"bits": 4, "weight_range": "mse"},
    "4 bits, bias correction": {"bits": 4, "bias_correction": True},
    "4 bits, mse, bias correction": {"bits": 4, "weight_range": "mse", "bias_correction": True},
    "4 bits, first and last 8": {"bits": {"default": 4, "first": 8, "last": 8}},
}


@pytest.mark.wide
@pytest.mark.parametrize("make", [digits, waves])
def test_accuracy_is_that_of_tensorflows_quantizer(make: Any) -> None:
    """Prints a table with ``-s``."""
    model, train, test = make()
    real = float_graph.run(keras_graph.convert(model), test.inputs)[0]
    theirs = accuracy(importer.load(converted(model, train.inputs[:500])), test)
    context = Context(train)
    found = {
        name: accuracy(quantize.quantize(model, Settings(examples=500, **way), context), test)
        for name, way in WAYS.items()
    }
    table = {
        "float": 100 * float((real.argmax(axis=1) == test.labels).mean()),
        "TensorFlow": theirs,
    }
    for name, value in (table | found).items():
        print(f"{make.__name__:8} {name:30} {value:6.2f}")
    assert all(found[name] >= theirs - 0.5 for name in ("minmax", "percentile 99.9", "mse"))
    assert found["4 bits, mse, bias correction"] >= theirs - 4


# ---- what layers of Keras become ---------------------------------------------------------------


def architecture(name: str) -> Any:
    """Networks of layers that converters turn into something of their own."""
    keras, _ = libraries()
    layers = keras.layers
    if name == "squeeze and excite":
        source = keras.Input((8, 8, 4))
        x = layers.Conv2D(8, 3, padding="same", activation="swish")(source)
        s = layers.Dense(4, activation="relu")(layers.GlobalAveragePooling2D()(x))
        s = layers.Reshape((1, 1, 8))(layers.Dense(8, activation="sigmoid")(s))
        return keras.Model(source, layers.Dense(3)(layers.Flatten()(layers.Multiply()([x, s]))))
    if name == "two outputs":
        source = keras.Input((8, 8, 4))
        x = layers.Flatten()(layers.Conv2D(8, 3, activation="relu")(source))
        first = layers.Dense(3, activation="softmax")(x)
        return keras.Model(source, [first, layers.Dense(2)(x)])
    if name == "inception":
        source = keras.Input((9, 9, 3))
        parts = [
            layers.Conv2D(4, 1, activation="relu")(source),
            layers.Conv2D(4, 3, padding="same", activation="sigmoid")(source),
            layers.MaxPooling2D(3, 1, padding="same")(source),
            layers.AveragePooling2D(3, 1, padding="same")(source),
        ]
        x = layers.BatchNormalization()(layers.Concatenate()(parts))
        x = layers.ZeroPadding2D(1)(layers.Activation("relu")(x))
        x = layers.ReLU(6.0)(layers.BatchNormalization()(layers.SeparableConv2D(6, 3)(x)))
        return keras.Model(source, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))
    if name == "inverted residuals":
        return inverted_residuals()
    chains = {
        "scaled input": [
            keras.Input((8, 8, 1)),
            layers.Rescaling(1 / 127.5, -1),
            layers.Conv2D(4, 3),
            layers.LeakyReLU(),
            layers.Conv2D(4, 3, dilation_rate=2, groups=2, padding="same"),
            layers.BatchNormalization(),
            layers.Activation("tanh"),
            layers.Flatten(),
            layers.Dense(3),
        ],
        "dense along time": [
            keras.Input((12, 6)),
            layers.Dense(8, activation="relu"),
            layers.Dense(5),
            layers.Conv1D(4, 3, padding="causal", activation="relu"),
            layers.MaxPooling1D(2),
            layers.DepthwiseConv1D(3, depth_multiplier=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(4, activation="softmax"),
        ],
        "autoencoder": [
            keras.Input((64,)),
            layers.Dense(32),
            layers.BatchNormalization(),
            layers.Activation("relu"),
            layers.Dense(8, activation="relu"),
            layers.Dense(64),
        ],
    }
    return keras.Sequential(chains[name])


def inverted_residuals() -> Any:
    keras, _ = libraries()
    layers = keras.layers

    def normal(x: Any, active: bool = True) -> Any:
        x = layers.BatchNormalization()(x)
        return layers.ReLU(6)(x) if active else x

    source = keras.Input((16, 16, 3))
    x = normal(layers.Conv2D(8, 3, 2, padding="same", use_bias=False)(source))
    for channels, stride in ((8, 1), (12, 2), (12, 1)):
        y = normal(layers.Conv2D(24, 1, use_bias=False)(x))
        y = normal(layers.DepthwiseConv2D(3, stride, padding="same", use_bias=False)(y))
        y = normal(layers.Conv2D(channels, 1, use_bias=False)(y), active=False)
        x = layers.Add()([x, y]) if stride == 1 else y
    return keras.Model(source, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))


ARCHITECTURES = (
    *("squeeze and excite", "two outputs", "inception", "inverted residuals"),
    *("scaled input", "dense along time", "autoencoder"),
)


@pytest.mark.wide
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures_run_in_tflm_byte_for_byte(name: str) -> None:
    model = randomized(architecture(name))
    examples = examples_for(model)
    graph = keras_graph.convert(model)
    wanted = model.call(examples, training=False)
    every = wanted if isinstance(wanted, list | tuple) else [wanted]
    for found, output in zip(float_graph.run(graph, examples), every, strict=True):
        flat = np.asarray(output).reshape(found.shape)
        assert np.abs(found - flat).max() < 1e-5 * max(1, np.abs(flat).max())
    names = [layer.name for layer in quantize.layers(graph)]
    known = {layer.name for layer in model.layers}
    assert {part.partition("#")[0] for part in names} <= known
    for settings in ({}, {"bits": 4, "equalize": True, "bias_correction": True}):
        run_in_tflm(quantize.quantize(model, Settings(**settings), Context(Data(examples))), 4)
    run_in_tflm(quantize.quantize(model, Settings(activations=16), Context(Data(examples))), 4)


def run_in_tflm(graph: Graph, runs: int) -> None:
    """Hold random inputs' outputs to those of TFLM, which runs in a process of its own."""
    data = exporter.dump(graph)
    loaded, random = importer.load(data), np.random.default_rng(0)
    source = loaded.at(loaded.inputs[0])
    limits = np.iinfo(source.dtype)
    for _ in range(runs):
        given = random.integers(limits.min, limits.max, source.shape).astype(source.dtype)
        wanted = oracle.shared().run(data, [given])
        for found, output in zip(reference.run(loaded, [given]), wanted, strict=True):
            assert np.array_equal(found, output)
