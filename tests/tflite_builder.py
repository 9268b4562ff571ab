"""Write .tflite files from plain Python data, corner cases included.

A :class:`Model` says exactly what stands in the file: it is written as it is, sound or not, so that
tests can ask for what no converter would emit.  ``Model.bytes`` gives the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import flatbuffers
import numpy as np
import tflite

Array = np.ndarray[Any, Any]

DTYPES = {
    "int4": tflite.TensorType.INT4,
    "int8": tflite.TensorType.INT8,
    "uint8": tflite.TensorType.UINT8,
    "int16": tflite.TensorType.INT16,
    "int32": tflite.TensorType.INT32,
    "int64": tflite.TensorType.INT64,
    "bool": tflite.TensorType.BOOL,
    "float32": tflite.TensorType.FLOAT32,
}

OPTIONS = {
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "ADD": "AddOptions",
    "MUL": "MulOptions",
    "SUB": "SubOptions",
    "PAD": "PadOptions",
    "PADV2": "PadV2Options",
    "RESHAPE": "ReshapeOptions",
    "SQUEEZE": "SqueezeOptions",
    "EXPAND_DIMS": "ExpandDimsOptions",
    "SOFTMAX": "SoftmaxOptions",
    "LEAKY_RELU": "LeakyReluOptions",
    "HARD_SWISH": "HardSwishOptions",
    "MEAN": "ReducerOptions",
    "CONCATENATION": "ConcatenationOptions",
    "QUANTIZE": "QuantizeOptions",
    "DEQUANTIZE": "DequantizeOptions",
}
"""The options table of each operator that has one."""

SAME, VALID = tflite.Padding.SAME, tflite.Padding.VALID
NONE, RELU, RELU_N1_TO_1, RELU6 = 0, 1, 2, 3
"""Fused activations, as the options have them."""

_ALIGNMENT = 16
_OLD_CODES = 127  # the largest operator the file format's old one-byte field can name


@dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor.  ``shape`` None leaves the shape out, ``scale`` empty the quantization.

    ``signature`` is the ``shape_signature``, in which -1 stands for an unknown extent.
    ``data`` makes it a constant and is written as it is, whatever shape and dtype say.
    """

    shape: tuple[int, ...] | None
    dtype: str = "int8"
    scale: tuple[float, ...] = ()
    zero_point: tuple[int, ...] = ()
    axis: int = 0
    data: Array | None = None
    name: str = ""
    signature: tuple[int, ...] | None = None
    variable: bool = False


@dataclass(frozen=True)
class Op:
    """One operator by its TFLite name; ``inputs`` are tensor indices, -1 for one left out.

    ``options`` are fields of the operator's options table as flatbuffers names them in Python
    (``{"StrideH": 2}``); an empty mapping writes an empty table, None no table at all.
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any] | None = None
    version: int = 1


@dataclass(frozen=True)
class Model:
    """A model of one subgraph.  ``old_codes`` writes operator codes as old converters did."""

    tensors: tuple[Tensor, ...]
    ops: tuple[Op, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    old_codes: bool = False
    metadata: Mapping[str, bytes] = field(default_factory=dict)

    @cached_property
    def bytes(self) -> bytes:
        """The flatbuffer file."""
        return _Writer().model(self)


class _Writer:
    def __init__(self) -> None:
        self.builder = flatbuffers.Builder(1024)
        self.buffers = [self._buffer(b"")]  # buffer 0 is always there and empty

    def model(self, model: Model) -> bytes:
        codes = sorted({(op.name, op.version) for op in model.ops})
        code_vector = self._offsets([self._code(*c, old=model.old_codes) for c in codes])
        subgraph = self._offsets([self._subgraph(model, codes)])
        metadata = self._offsets([self._metadata(k, v) for k, v in model.metadata.items()])
        description = self.builder.CreateString("TinyGen test model")
        buffers = self._offsets(self.buffers)
        root = self._table(
            "Model",
            Version=3,
            OperatorCodes=code_vector,
            Subgraphs=subgraph,
            Description=description,
            Buffers=buffers,
            Metadata=metadata if model.metadata else None,
        )
        self.builder.Finish(root, file_identifier=b"TFL3")
        return bytes(self.builder.Output())

    def _subgraph(self, model: Model, codes: list[tuple[str, int]]) -> int:
        tensors = self._offsets([self._tensor(t) for t in model.tensors])
        ops = self._offsets([self._op(op, codes.index((op.name, op.version))) for op in model.ops])
        inputs, outputs = self._integers(model.inputs), self._integers(model.outputs)
        name = self.builder.CreateString("main")
        return self._table(
            "SubGraph", Tensors=tensors, Inputs=inputs, Outputs=outputs, Operators=ops, Name=name
        )

    def _tensor(self, tensor: Tensor) -> int:
        shape = None if tensor.shape is None else self._integers(tensor.shape)
        signature = None if tensor.signature is None else self._integers(tensor.signature)
        name = self.builder.CreateString(tensor.name)
        index = 0
        if tensor.data is not None:
            index = len(self.buffers)
            self.buffers.append(self._buffer(tensor.data.tobytes()))
        quantization = None
        if tensor.scale or tensor.zero_point:
            scale = self._vector(np.array(tensor.scale, dtype=np.float32))
            zero_point = self._vector(np.array(tensor.zero_point, dtype=np.int64))
            quantization = self._table(
                "QuantizationParameters",
                Scale=scale if tensor.scale else None,
                ZeroPoint=zero_point if tensor.zero_point else None,
                QuantizedDimension=tensor.axis,
            )
        return self._table(
            "Tensor",
            Shape=shape,
            Type=DTYPES[tensor.dtype],
            Buffer=index,
            Name=name,
            Quantization=quantization,
            IsVariable=tensor.variable,
            ShapeSignature=signature,
        )

    def _op(self, op: Op, code: int) -> int:
        options, kind = None, 0
        if op.options is not None:
            table = OPTIONS[op.name]
            kind = getattr(tflite.BuiltinOptions, table)
            fields = {
                key: self._integers(value) if isinstance(value, tuple) else value
                for key, value in op.options.items()
            }
            options = self._table(table, **fields)
        inputs, outputs = self._integers(op.inputs), self._integers(op.outputs)
        return self._table(
            "Operator",
            OpcodeIndex=code,
            Inputs=inputs,
            Outputs=outputs,
            BuiltinOptionsType=kind,
            BuiltinOptions=options,
        )

    def _code(self, name: str, version: int, old: bool) -> int:
        number = getattr(tflite.BuiltinOperator, name)
        return self._table(
            "OperatorCode",
            DeprecatedBuiltinCode=min(number, _OLD_CODES),
            BuiltinCode=0 if old else number,
            Version=version,
        )

    def _metadata(self, name: str, data: bytes) -> int:
        index = len(self.buffers)
        self.buffers.append(self._buffer(data))
        text = self.builder.CreateString(name)
        return self._table("Metadata", Name=text, Buffer=index)

    def _buffer(self, data: bytes) -> int:
        vector = self._vector(np.frombuffer(data, dtype=np.uint8), _ALIGNMENT) if data else None
        return self._table("Buffer", Data=vector)

    def _table(self, kind: str, **fields: Any) -> int:
        """A table of the schema; fields that are None stay out of it."""
        getattr(tflite, f"{kind}Start")(self.builder)
        for key, value in fields.items():
            if value is not None:
                getattr(tflite, f"{kind}Add{key}")(self.builder, value)
        return int(getattr(tflite, f"{kind}End")(self.builder))

    def _vector(self, values: Array, alignment: int = 0) -> int:
        """A vector of scalars, its data aligned to ``alignment`` bytes or its items' size."""
        size = values.dtype.itemsize
        self.builder.StartVector(size, len(values), max(alignment, size))
        data = values.tobytes()
        self.builder.head -= len(data)
        self.builder.Bytes[self.builder.head : self.builder.head + len(data)] = data
        return int(self.builder.EndVector())

    def _integers(self, values: tuple[int, ...]) -> int:
        return self._vector(np.array(values, dtype=np.int32))

    def _offsets(self, offsets: list[int]) -> int:
        self.builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        return int(self.builder.EndVector())
