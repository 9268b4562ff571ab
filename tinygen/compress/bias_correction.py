"""Empirical bias correction: what quantization adds to a channel's mean comes off its bias.

Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction (ICCV 2019),
section 4.2 and appendix D: layer by layer, in execution order, the mean output before activation
of the quantized network, whose earlier layers are corrected already, is compared with the float
network's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from tinygen.compress import float_graph
from tinygen.compress.activations import Quants, rounded
from tinygen.compress.weights import Quantized
from tinygen.graph import ABSENT, Array, Graph, Node

EXAMPLES = 512
"""Most examples that are looked at: means settle early."""

MEMORY_BYTES = 1 << 28
"""What the values of all examples, of both networks, may take while a layer needs them."""


def correct(
    graph: Graph,
    inputs: Array,
    weights: Mapping[int, Quantized],
    biases: Mapping[int, Array | None],
    activations: Quants,
    bits: int,
) -> dict[int, Array | None]:
    """Corrected ``biases`` (float64, channels) by position of the layer's node.

    ``graph`` is the float network, ``inputs`` examples of which as many are used as fit in memory;
    ``weights`` are the quantized ones, ``activations`` (of ``bits`` bits) the quantization of all
    that the network computes.
    """
    count = int(np.clip(MEMORY_BYTES // (8 * float_graph.elements_of(graph)), 1, EXAMPLES))
    given = float_graph.as_input(graph, inputs[:count])
    real = float_graph.constants(graph) | {graph.inputs[0]: given}
    made = dict(real)
    for index in activations:
        if index in made:
            made[index] = rounded(made[index], activations[index], bits)
    corrected = dict(biases)
    last_use = {i: place for place, node in enumerate(graph.nodes) for i in node.inputs}
    for place, node in enumerate(graph.nodes):
        output = node.outputs[0]
        if place in weights:
            made_weights = weights[place].real[None]
            wanted, got = (
                _sums(graph, node, values, filters)
                for values, filters in ((real, real[node.inputs[1]]), (made, made_weights))
            )
            bias = biases[place]
            before = np.zeros(wanted.shape[-1]) if bias is None else bias
            channels = tuple(range(wanted.ndim - 1))
            shift = wanted.mean(axis=channels, dtype=np.float64) - got.mean(
                axis=channels, dtype=np.float64
            )
            corrected[place] = before + shift
            real[output] = float_graph.activate(wanted + before.astype(np.float32), node)
            made[output] = float_graph.activate(got + (before + shift).astype(np.float32), node)
        else:
            real[output] = float_graph.forward(graph, node, real)
            made[output] = float_graph.forward(graph, node, made)
        made[output] = rounded(made[output], activations[output], bits)
        for index in node.inputs:
            if last_use[index] == place and index not in graph.outputs and index != ABSENT:
                real.pop(index, None)
                made.pop(index, None)
    return corrected


def _sums(graph: Graph, node: Node, values: Mapping[int, Array], filters: Array) -> Array:
    """The layer's products without bias and activation."""
    bare = replace(node, inputs=node.inputs[:2], attrs=replace(node.attrs, activation="NONE"))
    return float_graph.forward(graph, bare, {**values, node.inputs[1]: filters})
