"""Move what known channels contribute into biases.

A channel whose values are the same whatever the input (see ``known.py``) adds the same to each
accumulator of a layer that reads it, unless the window's taps in the padding, which add nothing,
make a difference at the border.  Where they make none, the sum of tap times value goes into the
bias and the taps become zero; where they do, the taps stay.  An output channel that is itself known
and even needs no taps at all.

The graph keeps its shapes; ``drop_channels`` removes what nothing reads any more.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tinygen.graph import Array, Graph, Node, Tensor
from tinygen.numerics import Int64Array, exact_matmul, wrap32
from tinygen.ops import conv2d, depthwise_conv2d
from tinygen.passes import known, narrow
from tinygen.passes.known import Mask, Taps, Values


def fold_channels(graph: Graph) -> Graph:
    """``graph`` in which layers read as few known channels as they can."""
    if not any(node.op in narrow.MODULES for node in graph.nodes):
        return graph
    found = known.analyse(graph)
    for position, node in enumerate(graph.nodes):
        if node.op in narrow.MODULES and node.inputs[0] in found:
            graph = _folded(graph, position, node, found)
    return graph


def _folded(graph: Graph, position: int, node: Node, found: dict[int, Values]) -> Graph:
    taps = known.taps_of(graph, node)
    if taps is None:
        return graph
    given = known.layer_input(graph, node, found[node.inputs[0]])
    weights, bias = taps.weights.copy(), taps.bias.copy()
    if node.op != depthwise_conv2d.OP.name:
        _fold_inputs(taps, given, weights, bias)
    _settle_outputs(taps, found[node.outputs[0]], weights, bias)
    if np.array_equal(weights, taps.weights):
        return graph
    filters = graph.required(node, 1)
    graph, filter_index = graph.add_tensor(
        replace(filters, data=_as_filters(node, filters, weights))
    )
    graph, bias_index = graph.add_tensor(_as_bias(graph, node, filters, bias))
    rewritten = replace(node, inputs=(node.inputs[0], filter_index, bias_index))
    nodes = (*graph.nodes[:position], rewritten, *graph.nodes[position + 1 :])
    return replace(graph, nodes=nodes)


def _fold_inputs(taps: Taps, given: Values, weights: Int64Array, bias: Int64Array) -> None:
    """Fold even known inputs into ``bias``, zeroing their ``weights``, where no window differs."""
    (even,) = np.nonzero(given.even & weights.any(axis=(0, 1)))
    if not even.size:
        return
    products = weights[:, :, even] * (given.low[even] - taps.zero_point)
    sums = exact_matmul(taps.seen, products.reshape(len(products), -1))
    sums = sums.reshape(-1, *products.shape[1:])  # windows, outputs, inputs
    same: Mask = (sums == sums[:1]).all(axis=0)
    bias += np.where(same, sums[0], 0).sum(axis=1)
    weights[:, :, even] = np.where(same, 0, weights[:, :, even])


def _settle_outputs(taps: Taps, result: Values, weights: Int64Array, bias: Int64Array) -> None:
    """Make even outputs from the bias alone."""
    even = result.even & weights.any(axis=(0, 2))
    if even.any():
        accumulators = known.accumulators_for(taps.scaling, result.low)
        even &= taps.scaling.apply(accumulators) == result.low
        weights[:, even] = 0
        bias[even] = accumulators[even]


def _as_filters(node: Node, filters: Tensor, weights: Int64Array) -> Array:
    """Weights (taps, outputs, inputs) in the layout of ``filters``."""
    if node.op == conv2d.OP.name:
        rows, columns = filters.shape[1:3]
        weights = weights.reshape(rows, columns, *weights.shape[1:]).transpose(2, 0, 1, 3)
    return np.ascontiguousarray(weights.reshape(filters.shape).astype(np.int8))


def _as_bias(graph: Graph, node: Node, filters: Tensor, bias: Int64Array) -> Tensor:
    before = graph.input(node, 2)
    name = before.name if before is not None else f"{filters.name}/bias"
    return Tensor(name, bias.shape, "int32", None, wrap32(bias).astype(np.int32))
