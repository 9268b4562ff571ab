"""Whole models: the numpy reference against TFLM's golden outputs, every layer of them."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import oracle
import pytest
import shared_models
from host_c import HostModels

from tinygen import importers, passes, plan, reference, resources
from tinygen.importers import tflite

DIGITS = resources.folder("examples") / "digits"


@shared_models.needed
@pytest.mark.parametrize("model", shared_models.SUPPORTED)
def test_reference_gives_the_goldens(model: str) -> None:
    graph = importers.load(shared_models.path(model))
    for golden in shared_models.goldens(model):
        values = reference.run_all(graph, [golden.input])
        layers = [values[i] for node in graph.nodes for i in node.outputs]
        assert tuple(zlib.crc32(v.tobytes()) for v in layers) == golden.layer_crc32, golden.name
        (output,) = graph.outputs
        np.testing.assert_array_equal(values[output], golden.output, strict=True)


@shared_models.needed
def test_compiled_c_gives_the_goldens(tmp_path: Path) -> None:
    """All models in one program; layers are those that the exact passes leave."""
    graphs = {m: passes.run(importers.load(shared_models.path(m))) for m in shared_models.SUPPORTED}
    with HostModels(graphs, tmp_path) as models:
        for model, graph in graphs.items():
            for golden in shared_models.goldens(model):
                (output,), layers = models.run(model, [golden.input])
                np.testing.assert_array_equal(output, golden.output, strict=True)
                values = reference.run_all(graph, [golden.input])
                steps = [step.node.outputs[0] for step in plan.make(graph).steps]
                assert layers == [zlib.crc32(values[i].tobytes()) for i in steps]


@shared_models.needed
def test_a_golden_with_one_other_byte_is_noticed() -> None:
    golden = shared_models.goldens("kws_ref_model")[0]
    graph = importers.load(shared_models.path("kws_ref_model"))
    values = reference.run_all(graph, [golden.input ^ (np.arange(490) == 7).reshape(1, 49, 10, 1)])
    layers = [values[i] for node in graph.nodes for i in node.outputs]
    assert zlib.crc32(layers[0].tobytes()) != golden.layer_crc32[0]


def test_digits_are_read_and_every_layer_equals_tflm() -> None:
    data = (DIGITS / "digits_int8.tflite").read_bytes()
    graph = tflite.load(data, "digits_int8.tflite")
    samples = np.load(DIGITS / "digits_test.npz")
    inputs, labels = samples["inputs"], samples["labels"]
    assert inputs.shape == (100, 8, 8, 1)
    assert inputs.dtype == np.int8
    computed = [i for node in graph.nodes for i in node.outputs]
    right = 0
    for image, label in zip(inputs, labels, strict=True):
        given = [image[np.newaxis]]
        values = reference.run_all(graph, given)
        for index, wanted in oracle.shared().tensors(data, given, computed).items():
            np.testing.assert_array_equal(values[index], wanted, strict=True)
        right += int(values[graph.outputs[0]].argmax() == label)
    assert right == 98
