"""TensorFlow Lite flatbuffers: the inverse of :mod:`tinygen.importers.tflite`.

The operators write their own options and say their versions.  Equal graphs give equal bytes;
constants with equal bytes share a buffer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np
import tflite

from tinygen.errors import InputError
from tinygen.graph import Array, Graph, Node, Quant, Tensor, printable
from tinygen.ops import BY_NAME, check

DESCRIPTION = "Written by TinyGen"
SCHEMA_VERSION = 3
ALIGNMENT = 16
"""Bytes to which constants are aligned, as TensorFlow Lite asks for."""

_PLACEHOLDER = tflite.BuiltinOperator.PLACEHOLDER_FOR_GREATER_OP_CODES


def dump(graph: Graph) -> bytes:
    """The .tflite file of ``graph``, which loads as an equal graph.

    Raises :class:`InputError` for a graph that is not sound, and for what the format cannot say:
    operators and attributes that the exact passes make, such as padding in pixels.
    """
    graph.check()
    for node in graph.nodes:
        if node.op not in BY_NAME:
            raise InputError(f"{graph.where(node)}: a .tflite file has no such operator")
        check(BY_NAME[node.op], graph, node)
    return _Writer().model(graph)


class _Writer:
    """One file in the making.  Flatbuffers are written back to front: what is named comes first."""

    def __init__(self) -> None:
        self.builder = flatbuffers.Builder(1024)
        self.buffers: dict[bytes | None, int] = {None: 0}
        """Index of each constant's buffer by its bytes; buffer 0 is that of tensors without."""

    def model(self, graph: Graph) -> bytes:
        named = [(node.op, BY_NAME[node.op].version(graph, node)) for node in graph.nodes]
        codes = sorted(set(named))
        operators = [
            self._operator(graph, node, codes.index(code))
            for node, code in zip(graph.nodes, named, strict=True)
        ]
        subgraph = self._subgraph(graph, operators)
        fields = {
            "OperatorCodes": self._offsets([self._code(*code) for code in codes]),
            "Subgraphs": self._offsets([subgraph]),
            "Description": self.builder.CreateString(DESCRIPTION),
            "Buffers": self._offsets([self._buffer(data) for data in self.buffers]),
        }
        root = self._table("Model", {"Version": SCHEMA_VERSION, **fields})
        self.builder.Finish(root, file_identifier=b"TFL3")
        return bytes(self.builder.Output())

    def _subgraph(self, graph: Graph, operators: Sequence[int]) -> int:
        fields = {
            "Tensors": self._offsets([self._tensor(tensor) for tensor in graph.tensors]),
            "Inputs": self._integers(graph.inputs),
            "Outputs": self._integers(graph.outputs),
            "Operators": self._offsets(operators),
            "Name": self.builder.CreateString("main"),
        }
        return self._table("SubGraph", fields)

    def _tensor(self, tensor: Tensor) -> int:
        data = None if tensor.data is None else _little_endian(tensor.data)
        fields = {
            "Shape": self._integers(tensor.shape),
            "Type": getattr(tflite.TensorType, tensor.dtype.upper()),
            "Buffer": self.buffers.setdefault(data, len(self.buffers)),
            "Name": self.builder.CreateString(tensor.name),
        }
        if tensor.quant is not None:
            fields["Quantization"] = self._quant(tensor.name, tensor.quant)
        return self._table("Tensor", fields)

    def _quant(self, name: str, quant: Quant) -> int:
        scale = np.array(quant.scale, dtype=np.float32)
        if tuple(map(float, scale)) != quant.scale:
            raise InputError(f"tensor {printable(name)!r}: a scale is no float32 value")
        fields = {
            "Scale": self._vector(scale),
            "ZeroPoint": self._vector(np.array(quant.zero_point, dtype=np.int64)),
            "QuantizedDimension": quant.axis or 0,
        }
        return self._table("QuantizationParameters", fields)

    def _operator(self, graph: Graph, node: Node, code: int) -> int:
        op = BY_NAME[node.op]
        fields = {
            "OpcodeIndex": code,
            "Inputs": self._integers(node.inputs),
            "Outputs": self._integers(node.outputs),
        }
        if op.options:
            try:
                values = op.write(graph, node)
            except InputError as error:
                raise InputError(f"{graph.where(node)}: {error.message}", error.hint) from error
            options = {
                name: self._integers(value) if isinstance(value, tuple) else value
                for name, value in values.items()
            }
            fields["BuiltinOptionsType"] = getattr(tflite.BuiltinOptions, op.options)
            fields["BuiltinOptions"] = self._table(op.options, options)
        return self._table("Operator", fields)

    def _code(self, name: str, version: int) -> int:
        number = getattr(tflite.BuiltinOperator, name)
        fields = {
            "DeprecatedBuiltinCode": min(number, _PLACEHOLDER),
            "BuiltinCode": number,
            "Version": version,
        }
        return self._table("OperatorCode", fields)

    def _buffer(self, data: bytes | None) -> int:
        if not data:
            return self._table("Buffer", {})
        vector = self._vector(np.frombuffer(data, dtype=np.uint8), ALIGNMENT)
        return self._table("Buffer", {"Data": vector})

    def _table(self, kind: str, fields: Mapping[str, Any]) -> int:
        getattr(tflite, f"{kind}Start")(self.builder)
        for name, value in fields.items():
            getattr(tflite, f"{kind}Add{name}")(self.builder, value)
        return int(getattr(tflite, f"{kind}End")(self.builder))

    def _vector(self, values: Array, alignment: int = 0) -> int:
        """A vector of scalars, its data aligned to ``alignment`` bytes or its items' size."""
        size = values.dtype.itemsize
        data = _little_endian(values)
        self.builder.StartVector(size, len(values), max(alignment, size))
        self.builder.head -= len(data)
        self.builder.Bytes[self.builder.head : self.builder.head + len(data)] = data
        return int(self.builder.EndVector())

    def _integers(self, values: Sequence[int]) -> int:
        return self._vector(np.array(values, dtype=np.int32))

    def _offsets(self, offsets: Sequence[int]) -> int:
        self.builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        return int(self.builder.EndVector())


def _little_endian(values: Array) -> bytes:
    return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
