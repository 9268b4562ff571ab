"""What the TFLM engine must know of a model: its operators, inputs, outputs and layers.

TFLM itself interprets the model, so this reads far less than an importer does and takes models
that no importer of ours takes: any operator, several subgraphs, float arithmetic.  The file is
untrusted: every index and length is checked, and TFLM's own runtime has to accept the model
(:mod:`tinygen.tflm.arena`) before any of it reaches firmware.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import tflite

from tinygen.errors import InputError
from tinygen.graph import MAX_RANK, MAX_TENSOR_BYTES, Quant, Tensor, printable
from tinygen.tflm.ops import BUILTIN, CUSTOM

_EDGE_DTYPES = {
    tflite.TensorType.INT8: "int8",
    tflite.TensorType.INT16: "int16",
    tflite.TensorType.INT32: "int32",
    tflite.TensorType.UINT8: "uint8",
    tflite.TensorType.FLOAT32: "float32",
}
_BITS = {
    tflite.TensorType.FLOAT32: 32,
    tflite.TensorType.FLOAT16: 16,
    tflite.TensorType.INT32: 32,
    tflite.TensorType.UINT8: 8,
    tflite.TensorType.INT64: 64,
    tflite.TensorType.BOOL: 8,
    tflite.TensorType.INT16: 16,
    tflite.TensorType.INT8: 8,
    tflite.TensorType.FLOAT64: 64,
    tflite.TensorType.UINT64: 64,
    tflite.TensorType.UINT32: 32,
    tflite.TensorType.UINT16: 16,
    tflite.TensorType.INT4: 4,
    tflite.TensorType.RESOURCE: 0,
}
_OPERATORS = {v: k for k, v in vars(tflite.BuiltinOperator).items() if not k.startswith("_")}
_CUSTOM = tflite.BuiltinOperator.CUSTOM

# Whatever a damaged offset makes the flatbuffer accessors raise.
_DAMAGE = (
    struct.error,
    LookupError,
    ValueError,
    TypeError,
    ArithmeticError,
    MemoryError,
    AttributeError,
    AssertionError,
)


@dataclass(frozen=True)
class Layer:
    """One operator's output, in the order in which TFLM computes them."""

    name: str
    op: str
    node: int
    """Position of the operator in the first subgraph."""
    tensor: int
    """Index of the output tensor in the model file."""
    bytes: int


@dataclass(frozen=True, eq=False)
class Summary:
    """A model as the TFLM engine sees it."""

    source: str
    """Name of the model file, without its folder."""
    sha256: str
    operators: tuple[str, ...]
    """TFLite names of the operators used, sorted."""
    methods: tuple[str, ...]
    """The methods of ``MicroMutableOpResolver`` that add them, in the same order."""
    nodes: int
    """How many operators the first subgraph runs."""
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    layers: tuple[Layer, ...]
    """Empty for models of several subgraphs, whose order of execution the file does not tell."""
    weight_bytes: int
    """Bytes of constants, biases included."""
    resource_variables: int
    """How many variables ``VAR_HANDLE`` can create at the most."""
    scratch_bytes: int
    """What CMSIS-NN's kernels may want in the arena beyond the reference kernels."""


def summarize(data: bytes, filename: str = "model.tflite") -> Summary:
    """Read the flatbuffer ``data``; ``filename`` is for messages.

    Raises :class:`InputError` when it is damaged, when TFLM lacks one of its operators, or when
    an input or output has no fixed size or a type that firmware cannot exchange.
    """
    source = PurePath(filename).name
    if len(data) < 8 or data[4:8] != b"TFL3":
        raise InputError(
            f"{source}: not a TensorFlow Lite model",
            "convert the network with TensorFlow's tf.lite.TFLiteConverter",
        )
    try:
        return _Reader(data, source).summary()
    except InputError:
        raise
    except _DAMAGE as error:
        raise InputError(
            f"{source}: the file is damaged ({type(error).__name__})", "get or convert it again"
        ) from error


class _Reader:
    """Accessors over one flatbuffer that check lengths against the file's."""

    def __init__(self, data: bytes, source: str) -> None:
        self.data = data
        self.source = source
        self.model = tflite.Model.GetRootAsModel(data, 0)

    def summary(self) -> Summary:
        graphs = [
            self.model.Subgraphs(i)
            for i in self._count(self.model.SubgraphsLength(), 4, "subgraphs")
        ]
        if not graphs:
            raise InputError(f"{self.source}: the model has no subgraph")
        nodes = [(g, i, op) for g in graphs for i, op in enumerate(self._operators(g))]
        names = [self._operator_name(op.OpcodeIndex(), i) for _, i, op in nodes]
        used = tuple(sorted(set(names)))
        main = graphs[0]
        return Summary(
            source=self.source,
            sha256=hashlib.sha256(self.data).hexdigest(),
            operators=used,
            methods=tuple((BUILTIN | CUSTOM)[name] for name in used),
            nodes=main.OperatorsLength(),
            inputs=self._edges(main, main.Inputs, main.InputsLength(), "input"),
            outputs=self._edges(main, main.Outputs, main.OutputsLength(), "output"),
            layers=self._layers(main) if len(graphs) == 1 else (),
            weight_bytes=self._weight_bytes(),
            resource_variables=names.count("VAR_HANDLE"),
            scratch_bytes=max(
                (self._scratch(g, op, name) for (g, _, op), name in zip(nodes, names, strict=True)),
                default=0,
            ),
        )

    def _count(self, length: int, item: int, what: str) -> range:
        if not 0 <= length * item <= len(self.data):
            raise InputError(f"{self.source}: {length} {what} do not fit the file; it is damaged")
        return range(length)

    def _indices(self, get: Callable[[int], int], length: int) -> tuple[int, ...]:
        return tuple(int(get(i)) for i in self._count(length, 4, "indices"))

    def _operators(self, graph: Any) -> list[Any]:
        return [graph.Operators(i) for i in self._count(graph.OperatorsLength(), 4, "operators")]

    def _operator_name(self, index: int, node: int) -> str:
        if not 0 <= index < self.model.OperatorCodesLength():
            raise InputError(
                f"{self.source}: operator code {index} does not exist; the file is damaged"
            )
        code = self.model.OperatorCodes(index)
        # The old field holds one byte; newer operators stand in the new field alone.
        builtin = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        if builtin == _CUSTOM:
            name, known = (code.CustomCode() or b"").decode("utf-8", "replace"), CUSTOM
        else:
            name, known = _OPERATORS.get(builtin, f"operator {builtin}"), BUILTIN
        if name not in known:
            raise InputError(
                f"{self.source}: node {node} {printable(name)}: TFLM has no such operator",
                "TFLM's list is MicroMutableOpResolver, one Add function an operator",
            )
        return name

    def _tensor(self, graph: Any, index: int) -> Any:
        if not 0 <= index < graph.TensorsLength():
            raise InputError(f"{self.source}: tensor {index} does not exist; the file is damaged")
        return graph.Tensors(index)

    def _shape(self, tensor: Any) -> tuple[int, ...]:
        return self._indices(tensor.Shape, tensor.ShapeLength())

    def _bytes(self, tensor: Any) -> int:
        """Size of a tensor; unknown extents and unknown types count as nothing."""
        elements = math.prod(self._shape(tensor))
        return max(0, elements) * _BITS.get(tensor.Type(), 0) // 8

    def _edges(
        self, graph: Any, get: Callable[[int], int], length: int, kind: str
    ) -> tuple[Tensor, ...]:
        indices = self._indices(get, length)
        if not indices:
            raise InputError(f"{self.source}: the model has no {kind}")
        return tuple(
            self._edge(self._tensor(graph, index), f"{self.source}: {kind} {i}")
            for i, index in enumerate(indices)
        )

    def _edge(self, tensor: Any, where: str) -> Tensor:
        dtype = _EDGE_DTYPES.get(tensor.Type())
        if dtype is None:
            raise InputError(
                f"{where}: element type number {tensor.Type()} cannot be exchanged with firmware"
            )
        shape = self._shape(tensor)
        if len(shape) > MAX_RANK or any(extent < 1 for extent in shape):
            raise InputError(f"{where}: shape {shape} is not fixed and positive")
        result = Tensor(_name(tensor), shape, dtype, self._quant(tensor.Quantization(), where))
        if result.bytes > MAX_TENSOR_BYTES:
            raise InputError(f"{where}: {result.bytes} bytes is more than a microcontroller holds")
        return result

    def _quant(self, quant: Any, where: str) -> Quant | None:
        if quant is None or quant.ScaleLength() != 1:
            return None
        scale = float(quant.Scale(0))
        zero_point = int(quant.ZeroPoint(0)) if quant.ZeroPointLength() else 0
        limits = np.iinfo(np.int32)
        if not (math.isfinite(scale) and scale > 0 and limits.min <= zero_point <= limits.max):
            raise InputError(f"{where}: its quantization {scale}, {zero_point} means nothing")
        return Quant((scale,), (zero_point,))

    def _layers(self, graph: Any) -> tuple[Layer, ...]:
        return tuple(
            Layer(
                printable(_name(self._tensor(graph, tensor))),
                self._operator_name(operator.OpcodeIndex(), node),
                node,
                tensor,
                self._bytes(self._tensor(graph, tensor)),
            )
            for node, operator in enumerate(self._operators(graph))
            for tensor in self._indices(operator.Outputs, operator.OutputsLength())
        )

    def _weight_bytes(self) -> int:
        buffers = self._count(self.model.BuffersLength(), 4, "buffers")
        return sum(
            len(self._count(self.model.Buffers(i).DataLength(), 1, "bytes of a buffer"))
            for i in buffers
        )

    def _scratch(self, graph: Any, operator: Any, name: str) -> int:
        """Room that CMSIS-NN's kernel of this operator may ask for, in bytes.

        Convolutions gather the input of two outputs as int16 (a 1x1 kernel reads it in place),
        depthwise ones that of one, poolings sum a pixel in int32, dense layers an int32 an output.
        """
        if name in ("CONV_2D", "TRANSPOSE_CONV", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            shape = self._shape(self._tensor(graph, operator.Inputs(1)))
            if name == "FULLY_CONNECTED":
                return 4 * shape[0]
            gathered = 2 * math.prod(shape[1:])
            if name == "DEPTHWISE_CONV_2D":
                return gathered
            return 0 if math.prod(shape[1:-1]) == 1 else 2 * gathered
        if name in ("AVERAGE_POOL_2D", "MAX_POOL_2D"):
            return 4 * self._shape(self._tensor(graph, operator.Inputs(0)))[-1]
        return 0


def _name(tensor: Any) -> str:
    return (tensor.Name() or b"").decode("utf-8", "replace")
