"""The Python reference: runs a graph operator by operator in numpy, exactly as TFLM would."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinygen.errors import InputError
from tinygen.graph import ABSENT, Array, Graph, printable
from tinygen.ops import BY_NAME


def run(graph: Graph, inputs: Sequence[Array]) -> list[Array]:
    """Outputs for ``inputs``, which have the shapes and dtypes of ``graph.inputs``.

    Raises :class:`InputError` when an input does not match.
    """
    values = run_all(graph, inputs)
    return [values[i] for i in graph.outputs]


def run_all(graph: Graph, inputs: Sequence[Array]) -> dict[int, Array]:
    """Every tensor's value by tensor index: inputs, constants and all that is computed."""
    values = {i: t.data for i, t in enumerate(graph.tensors) if t.data is not None}
    values |= _checked(graph, inputs)
    for node in graph.nodes:
        given = tuple(None if i == ABSENT else values[i] for i in node.inputs)
        results = BY_NAME[node.op].reference(graph, node, given)
        for index, result in zip(node.outputs, results, strict=True):
            tensor = graph.at(index)
            assert result.shape == tensor.shape and result.dtype == np.dtype(tensor.dtype)
            values[index] = result
    return values


def _checked(graph: Graph, inputs: Sequence[Array]) -> dict[int, Array]:
    if len(inputs) != len(graph.inputs):
        raise InputError(
            f"{graph.source}: {len(inputs)} inputs given, the model has {len(graph.inputs)}"
        )
    for index, array in zip(graph.inputs, inputs, strict=True):
        tensor = graph.at(index)
        if array.shape != tensor.shape or array.dtype != np.dtype(tensor.dtype):
            raise InputError(
                f"{graph.source}: input {printable(tensor.name)!r} is {array.dtype}{array.shape}, "
                f"not {tensor.dtype}{tensor.shape}"
            )
    return dict(zip(graph.inputs, inputs, strict=True))
