"""Peers get the same networks, and the figures beside theirs mean what they say."""

from __future__ import annotations

from pathlib import Path

import benches
import numpy as np
import pytest
import shared_models
import tflite_builder
from graphs import dense_chain, random_inputs

from benchmarks import peers, published, results
from benchmarks.simplified import UnsupportedError, simplified
from tinygen import boards, importers, reference
from tinygen.graph import Graph


def before_softmax(graph: Graph) -> int:
    """The tensor that a softmax at the end reads, or the output where there is none."""
    last = graph.nodes[-1]
    return last.inputs[0] if last.op == "SOFTMAX" else graph.outputs[0]


@pytest.mark.parametrize("model", ["digits_int8", "kws_ref_model", "micro_speech_quantized"])
def test_a_simplified_model_computes_the_same(model: str, tmp_path: Path) -> None:
    file = benches.file(model)
    other = tmp_path / "other.tflite"
    other.write_bytes(simplified(file.read_bytes()))
    graph, mine = importers.load(file), importers.load(other)
    inputs = random_inputs(graph)
    (found,) = reference.run(mine, inputs)
    wanted = reference.run_all(graph, inputs)[before_softmax(graph)]
    np.testing.assert_array_equal(found.reshape(-1), wanted.reshape(-1))


def test_what_the_peer_cannot_read_is_said() -> None:
    tensor = tflite_builder.Tensor((1, 4), scale=(0.5,), zero_point=(0,))
    op = tflite_builder.Op("TANH", (0,), (1,))
    with pytest.raises(UnsupportedError, match="TANH"):
        simplified(tflite_builder.Model((tensor, tensor), (op,), (0,), (1,)).bytes)


def test_every_core_that_is_measured_has_its_peers() -> None:
    assert {boards.load(board).core for board in results.BOARDS} == set(peers.SETUPS)
    assert {peer for setups in peers.SETUPS.values() for peer in setups} == set(peers.PEERS)


def test_quoted_models_are_the_reference_models() -> None:
    assert set(published.TFLM) == set(published.M55) <= set(shared_models.SUPPORTED)


def test_most_alive() -> None:
    """A layer is charged what lives before it or behind it, never both."""
    assert results.most_alive(dense_chain(8, 24, 4)) == 24
    assert results.most_alive(dense_chain(8, 4)) == 8


def test_most_alive_counts_what_a_later_layer_reads() -> None:
    chain = dense_chain(8, 24, 4)
    both = Graph(
        chain.name,
        chain.tensors,
        chain.nodes,
        chain.inputs,
        (*chain.outputs, chain.nodes[0].outputs[0]),
    )
    assert results.most_alive(both) == 24 + 4
