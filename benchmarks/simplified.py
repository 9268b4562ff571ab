"""Models as a stricter importer takes them: the same layers, written anew.

BakeNN reads a subset of what converters write.  What is changed, and nothing else: shape signatures
with an unknown batch go, a softmax at the end goes, reshape options name the shape, biases are
quantized along their only axis, dense layers get inputs of two dimensions, and operators have the
versions that BakeNN knows.
"""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tflite

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))  # its writer of models
import tflite_builder

VERSIONS = {
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "FULLY_CONNECTED": 4,
    "ADD": 2,
    "AVERAGE_POOL_2D": 2,
    "MAX_POOL_2D": 2,
    "RESHAPE": 1,
    "PAD": 2,
}
"""Operators that BakeNN 1.0 reads, and the one version of each."""

OPTIONS = {
    "CONV_2D": (
        *("Padding", "StrideH", "StrideW", "DilationHFactor", "DilationWFactor"),
        "FusedActivationFunction",
    ),
    "DEPTHWISE_CONV_2D": (
        *("Padding", "StrideH", "StrideW", "DilationHFactor", "DilationWFactor"),
        *("DepthMultiplier", "FusedActivationFunction"),
    ),
    "FULLY_CONNECTED": ("FusedActivationFunction",),
    "ADD": ("FusedActivationFunction",),
    "AVERAGE_POOL_2D": (
        *("Padding", "StrideH", "StrideW", "FilterHeight", "FilterWidth"),
        "FusedActivationFunction",
    ),
    "MAX_POOL_2D": (
        *("Padding", "StrideH", "StrideW", "FilterHeight", "FilterWidth"),
        "FusedActivationFunction",
    ),
    "PAD": (),
}
"""Fields of each operator's options that are kept."""

_NAMES = {v: k for k, v in vars(tflite.BuiltinOperator).items() if isinstance(v, int)}
_DTYPES = {number: name for name, number in tflite_builder.DTYPES.items()}


class UnsupportedError(Exception):
    """The model has what the peer has no operator for; the message names it."""


def simplified(data: bytes) -> bytes:
    """The .tflite file ``data``, rewritten; raises :class:`UnsupportedError`."""
    model = tflite.Model.GetRootAsModel(data, 0)
    if model.SubgraphsLength() != 1:
        raise UnsupportedError(f"{model.SubgraphsLength()} subgraphs")
    graph = model.Subgraphs(0)
    operators = [graph.Operators(i) for i in range(graph.OperatorsLength())]
    outputs = _integers(graph.OutputsAsNumpy())
    if _name(model, operators[-1]) == "SOFTMAX":
        outputs = (int(operators.pop().Inputs(0)),)
    tensors = [_tensor(model, graph.Tensors(i)) for i in range(graph.TensorsLength())]
    ops: list[tflite_builder.Op] = []
    for operator in operators:
        op = _operator(model, graph, operator)
        if op.name == "FULLY_CONNECTED" and len(tensors[op.inputs[0]].shape) != 2:
            op, flatten = _flattened(op, tensors)
            ops.append(flatten)
        ops.append(op)
    inputs = _integers(graph.InputsAsNumpy())
    written: bytes = tflite_builder.Model(tuple(tensors), tuple(ops), inputs, outputs).bytes
    return written


def _flattened(
    op: tflite_builder.Op, tensors: list[tflite_builder.Tensor]
) -> tuple[tflite_builder.Op, tflite_builder.Op]:
    """``op`` reading a view of two dimensions, added to ``tensors``, and what makes the view."""
    source = tensors[op.inputs[0]]
    shape = (1, math.prod(source.shape))
    tensors.append(replace(source, shape=shape, name=f"{source.name}_flat"))
    made = (len(tensors) - 1,)
    flatten = tflite_builder.Op("RESHAPE", op.inputs[:1], made, {"NewShape": shape}, 1)
    return replace(op, inputs=(*made, *op.inputs[1:])), flatten


def _integers(values: Any) -> tuple[int, ...]:
    """A vector of the file; flatbuffers gives 0 for one that is absent."""
    return () if isinstance(values, int) else tuple(int(v) for v in values)


def _name(model: Any, operator: Any) -> str:
    code = model.OperatorCodes(operator.OpcodeIndex())
    name: str = _NAMES[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
    return name


def _tensor(model: Any, tensor: Any) -> tflite_builder.Tensor:
    shape = _integers(tensor.ShapeAsNumpy())
    raw = model.Buffers(tensor.Buffer()).DataAsNumpy()
    quant = tensor.Quantization()
    scale = () if quant is None else quant.ScaleAsNumpy()
    axis = 0 if quant is None or len(shape) == 1 else quant.QuantizedDimension()
    return tflite_builder.Tensor(
        shape=shape,
        dtype=_DTYPES[tensor.Type()],
        scale=() if isinstance(scale, int) else tuple(float(s) for s in scale),
        zero_point=() if quant is None else _integers(quant.ZeroPointAsNumpy()),
        axis=axis,
        data=None if isinstance(raw, int) else np.array(raw, dtype=np.uint8),
        name=(tensor.Name() or b"").decode(errors="replace"),
    )


def _operator(model: Any, graph: Any, operator: Any) -> tflite_builder.Op:
    name = _name(model, operator)
    if name not in VERSIONS:
        raise UnsupportedError(name)
    inputs, outputs = _integers(operator.InputsAsNumpy()), _integers(operator.OutputsAsNumpy())
    options: dict[str, Any] = {}
    if name == "RESHAPE":
        inputs = inputs[:1]
        options["NewShape"] = _integers(graph.Tensors(outputs[0]).ShapeAsNumpy())
    elif OPTIONS[name]:
        table, kept = operator.BuiltinOptions(), getattr(tflite, tflite_builder.OPTIONS[name])()
        kept.Init(table.Bytes, table.Pos)
        options = {field: getattr(kept, field)() for field in OPTIONS[name]}
    version = 6 if name == "FULLY_CONNECTED" and len(inputs) == 2 else VERSIONS[name]
    return tflite_builder.Op(name, inputs, outputs, options, version)
