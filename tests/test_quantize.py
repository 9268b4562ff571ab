"""Float networks become int8 graphs: by TFLite's rules, exact in TFLM, close to the floats."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import tflite_builder as tb
from float_nets import Net, as_file, everything, straight

from tinygen import reference
from tinygen.compress import Context, float_graph, quantize
from tinygen.compress.equalize import CHANNEL_AXIS
from tinygen.compress.quantize import Settings
from tinygen.datasets import Data
from tinygen.errors import InputError
from tinygen.exporters import tflite as exporter
from tinygen.graph import Array, Graph
from tinygen.importers import tflite as importer
from tinygen.ops import BY_NAME


def quantized(net: Net, examples: Array, **settings: object) -> Graph:
    return quantize.quantize(
        net.graph(), Settings.model_validate(settings), Context(Data(examples))
    )


def as_int(graph: Graph, example: Array) -> Array:
    tensor = graph.at(graph.inputs[0])
    limits = np.iinfo(tensor.dtype)
    integers = np.rint(example / tensor.scale) + tensor.zero_point
    return np.clip(integers, limits.min, limits.max).astype(tensor.dtype).reshape(tensor.shape)


def outputs_of(graph: Graph, examples: Array) -> Array:
    """Real outputs (n, ...) of the int8 graph."""
    tensor = graph.at(graph.outputs[0])
    made = [reference.run(graph, [as_int(graph, example)])[0] for example in examples]
    return (np.stack(made).astype(np.float64) - tensor.zero_point) * tensor.scale


def error(net: Net, graph: Graph, examples: Array) -> float:
    """Mean squared error of the outputs over their variance."""
    wanted = float_graph.run(net.graph(), examples)[0]
    got = outputs_of(graph, examples)
    return float(np.square(got - wanted).mean() / wanted.var())


OPTIONS = [
    {},
    {"calibration": "mse", "weight_range": "mse"},
    {"calibration": "percentile", "percentile": 99.0, "weights": "per_tensor"},
    {"bits": 4, "weight_range": "mse", "bias_correction": True},
    {"equalize": True, "bits": {"default": 5, "first": 8, "last": 6}},
    {"step": "power_of_two", "bias_correction": True},
]


@pytest.mark.parametrize("settings", OPTIONS, ids=str)
@pytest.mark.parametrize("make", [straight, everything])
def test_quantized_networks_run_in_tflm_byte_for_byte(make: object, settings: object) -> None:
    net = make()  # type: ignore[operator]
    examples = net.examples()
    graph = quantized(net, examples, **settings)  # type: ignore[arg-type]
    data = exporter.dump(graph)
    loaded = importer.load(data, "net.tflite")
    for example in examples[:3] * 3:
        given = as_int(graph, example)
        (wanted,) = oracle.shared().run(data, [given])
        assert np.array_equal(reference.run(loaded, [given])[0], wanted)


@pytest.mark.parametrize("make", [straight, everything])
def test_quantized_networks_are_close_to_their_floats(make: object) -> None:
    net = make()  # type: ignore[operator]
    examples = net.examples(64)
    assert error(net, quantized(net, examples), examples) < 0.02


def test_float_files_load_without_the_rules_of_int8() -> None:
    net = everything()
    data = as_file(net.graph())
    with pytest.raises(InputError, match="int8"):
        importer.load(data)
    graph = float_graph.load(data, "net.tflite")
    examples = net.examples()
    assert np.array_equal(
        float_graph.run(graph, examples)[0], float_graph.run(net.graph(), examples)[0]
    )


def test_four_bit_weights_are_read_as_tflm_reads_them() -> None:
    net = straight()
    examples = net.examples()
    # TFLM's dense layers of four bits have one scale.
    graph = quantized(net, examples, bits=4, weights="per_tensor")
    given = as_int(graph, examples[0])
    packed = with_int4_weights(graph)
    loaded = importer.load(packed, "net.tflite")
    weights = [loaded.required(node, 1) for node in loaded.nodes if node.op in CHANNEL_AXIS]
    originals = [graph.required(node, 1) for node in graph.nodes if node.op in CHANNEL_AXIS]
    for tensor, original in zip(weights, originals, strict=True):
        assert tensor.dtype == "int8"
        assert np.array_equal(tensor.data, original.data)
    (wanted,) = oracle.shared().run(packed, [given])
    assert np.array_equal(reference.run(loaded, [given])[0], wanted)
    assert np.array_equal(reference.run(graph, [given])[0], wanted)


def with_int4_weights(graph: Graph) -> bytes:
    """The file of ``graph`` with its weights, all in -8..7, packed in halves of bytes."""
    weights = {node.inputs[1] for node in graph.nodes if node.op in CHANNEL_AXIS}
    tensors = []
    for index, t in enumerate(graph.tensors):
        quant = (t.quant.scale, t.quant.zero_point, t.quant.axis or 0) if t.quant else ()
        if index in weights:
            flat = np.append(t.data, np.zeros(t.elements % 2, np.int8)).astype(np.uint8) & 15
            data = (flat[::2] | flat[1::2] << 4).astype(np.uint8)
            tensors.append(tb.Tensor(t.shape, "int4", *quant, data=data))
        else:
            tensors.append(tb.Tensor(t.shape, t.dtype, *quant, data=t.data))
    ops = tuple(
        tb.Op(n.op, n.inputs, n.outputs, BY_NAME[n.op].write(graph, n))
        if BY_NAME[n.op].options
        else tb.Op(n.op, n.inputs, n.outputs)
        for n in graph.nodes
    )
    return tb.Model(tuple(tensors), ops, graph.inputs, graph.outputs).bytes
