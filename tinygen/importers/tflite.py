"""TensorFlow Lite flatbuffers.

The file is untrusted.  The flatbuffer accessors check no offsets themselves, so every vector's
length is held against the file's size before anything loops over it, and whatever a damaged offset
makes the accessors raise becomes an :class:`InputError`.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

import numpy as np
import tflite

from tinygen.errors import InputError
from tinygen.graph import Array, Graph, Node, Quant, Tensor, printable
from tinygen.ops import BY_NAME, check

_DTYPES = {
    tflite.TensorType.INT8: "int8",
    tflite.TensorType.INT16: "int16",
    tflite.TensorType.INT32: "int32",
    tflite.TensorType.INT64: "int64",
    tflite.TensorType.UINT8: "uint8",
    tflite.TensorType.BOOL: "bool",
    tflite.TensorType.FLOAT32: "float32",
}

_INT4 = tflite.TensorType.INT4
"""Constants of it become int8 tensors of values in -8..7, as TFLM's kernels see them."""


MAX_OPERATORS = 2_000
MAX_TENSORS = 10_000
MAX_MACS = 1 << 32
"""Minutes of work for the fastest microcontroller; a model above any of these is damaged."""


def _names(enumeration: type) -> dict[int, str]:
    return {v: k for k, v in vars(enumeration).items() if not k.startswith("_")}


_OPERATORS = _names(tflite.BuiltinOperator)
_PLACEHOLDER = tflite.BuiltinOperator.PLACEHOLDER_FOR_GREATER_OP_CODES
_TYPES = _names(tflite.TensorType)
_OPTIONS = {v: k for k, v in _names(tflite.BuiltinOptions).items()}

_DAMAGE = (
    struct.error,
    IndexError,
    ValueError,
    TypeError,
    OverflowError,
    MemoryError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    RecursionError,
)


def _new_operator_code(code: Any) -> int:
    """Field ``builtin_code`` of an OperatorCode, whose own accessor may give the old field."""
    table = code._tab
    offset = table.Offset(10)
    at = table.Pos + offset
    return int.from_bytes(table.Bytes[at : at + 4], "little", signed=True) if offset else 0


def load(data: bytes, filename: str = "model.tflite") -> Graph:
    """The network in the flatbuffer ``data``; ``filename`` is for messages and names.

    Raises :class:`InputError` for anything that is not a sound model of supported operators.
    """
    return _load(data, filename, _check_operators)


def load_float(
    data: bytes,
    filename: str = "model.tflite",
    check_operators: Callable[[Graph], None] = lambda graph: None,
) -> Graph:
    """As :func:`load`, for networks of float32: the graph is sound and its operators are known.

    What operators ask of float tensors is for ``check_operators`` to say, which raises
    :class:`InputError`: :func:`tinygen.compress.float_graph.load` gives one.
    """
    return _load(data, filename, check_operators)


def _check_operators(graph: Graph) -> None:
    for node in graph.nodes:
        check(BY_NAME[node.op], graph, node)
    if sum(BY_NAME[node.op].macs(graph, node) for node in graph.nodes) > MAX_MACS:
        raise InputError(f"{graph.source}: more than {MAX_MACS:,} multiply-accumulates")


def _load(data: bytes, filename: str, check_operators: Callable[[Graph], None]) -> Graph:
    name = PurePath(filename).name
    if len(data) < 8 or data[4:8] != b"TFL3":
        raise InputError(
            f"{name}: not a TensorFlow Lite model",
            "convert the network with TensorFlow's tf.lite.TFLiteConverter",
        )
    try:
        graph = _Reader(data, name).graph()
        check_operators(graph)
    except InputError:
        raise
    except _DAMAGE as error:
        raise InputError(
            f"{name}: the file is damaged ({type(error).__name__})", "get or convert it again"
        ) from error
    return graph


def unpack_int4(data: Array, count: int) -> Array:
    """``count`` values in -8..7, int8, of which bytes hold two: the first in the lower half."""
    halves = np.frombuffer(data.tobytes(), dtype=np.int8)
    pairs = np.stack([halves << 4, halves & -16], axis=1).reshape(-1)
    values: Array = (pairs >> 4)[:count]
    return values


class _Reader:
    """One pass over a flatbuffer; all lengths are checked against the file's."""

    def __init__(self, data: bytes, name: str) -> None:
        self.size = len(data)
        self.name = name
        self.sha256 = hashlib.sha256(data).hexdigest()
        self.model = tflite.Model.GetRootAsModel(data, 0)

    def graph(self) -> Graph:
        if self.model.SubgraphsLength() != 1:
            raise InputError(
                f"{self.name}: {self.model.SubgraphsLength()} subgraphs; models with control "
                "flow are not supported"
            )
        subgraph = self.model.Subgraphs(0)
        for what, count, most in (
            ("tensors", subgraph.TensorsLength(), MAX_TENSORS),
            ("operators", subgraph.OperatorsLength(), MAX_OPERATORS),
        ):
            if count > most:
                raise InputError(f"{self.name}: {count:,} {what}; at most {most:,} are supported")
        tensors = tuple(
            self._tensor(subgraph.Tensors(i))
            for i in self._count(subgraph.TensorsLength(), 4, "tensors")
        )
        nodes = tuple(
            self._node(i, subgraph.Operators(i))
            for i in self._count(subgraph.OperatorsLength(), 4, "operators")
        )
        graph = Graph(
            name=PurePath(self.name).stem,
            tensors=tensors,
            nodes=nodes,
            inputs=self._indices(subgraph.Inputs, subgraph.InputsLength()),
            outputs=self._indices(subgraph.Outputs, subgraph.OutputsLength()),
            source=self.name,
            sha256=self.sha256,
        )
        if not graph.inputs or not graph.outputs:
            raise InputError(f"{self.name}: the model has no input or no output")
        graph.check()
        return graph

    def _count(self, length: int, item: int, what: str) -> range:
        if not 0 <= length * item <= self.size:
            raise InputError(f"{self.name}: {length} {what} do not fit the file; it is damaged")
        return range(length)

    def _indices(self, get: Callable[[int], int], length: int) -> tuple[int, ...]:
        return tuple(int(get(i)) for i in self._count(length, 4, "tensor indices"))

    def _tensor(self, tensor: Any) -> Tensor:
        name = (tensor.Name() or b"").decode("utf-8", "replace")
        where = f"{self.name}: tensor {printable(name)!r}"
        packed = tensor.Type() == _INT4 and tensor.Buffer() > 0
        if tensor.Type() not in _DTYPES and not packed:
            kind = _TYPES.get(tensor.Type(), tensor.Type())
            raise InputError(f"{where}: element type {kind} is not supported")
        if tensor.IsVariable():
            raise InputError(f"{where}: variable tensors are not supported")
        if tensor.Sparsity() is not None:
            raise InputError(f"{where}: sparse tensors are not supported")
        shape = self._indices(tensor.Shape, tensor.ShapeLength())
        dtype = "int8" if packed else _DTYPES[tensor.Type()]
        data = self._data(tensor.Buffer(), shape, dtype, where, packed)
        if packed and data is None:
            raise InputError(f"{where}: element type INT4 is supported for constants alone")
        return Tensor(name, shape, dtype, self._quant(tensor.Quantization(), where, shape), data)

    def _data(
        self, index: int, shape: tuple[int, ...], dtype: str, where: str, packed: bool = False
    ) -> Array | None:
        if not 0 <= index < self.model.BuffersLength():
            raise InputError(f"{where}: buffer {index} does not exist; the file is damaged")
        buffer = self.model.Buffers(index)
        length = buffer.DataLength()
        if index and 0 in shape and length == 0:  # such as the shape of a reshape to a scalar
            return np.zeros(shape, dtype=dtype) if min(shape) == 0 else None
        if index == 0 or length == 0:
            return None
        self._count(length, 1, "bytes of a buffer")
        elements = int(np.prod(shape, dtype=object))
        expected = (elements + 1) // 2 if packed else elements * np.dtype(dtype).itemsize
        if length != expected or min(shape, default=1) < 0:
            kind = "int4" if packed else dtype
            raise InputError(f"{where}: {length} bytes of data for shape {shape} of {kind}")
        if packed:
            return unpack_int4(buffer.DataAsNumpy(), elements).reshape(shape)
        values: Array = np.frombuffer(buffer.DataAsNumpy().tobytes(), dtype=np.dtype(dtype))
        return values.reshape(shape)

    def _quant(self, quant: Any, where: str, shape: tuple[int, ...]) -> Quant | None:
        # Scales without zero points say nothing to TFLM either.
        if quant is None or quant.ScaleLength() == 0 or quant.ZeroPointLength() == 0:
            return None
        scales = self._count(quant.ScaleLength(), 4, "scales")
        zeros = self._count(quant.ZeroPointLength(), 8, "zero points")
        scale = tuple(float(quant.Scale(i)) for i in scales)
        zero_point = tuple(int(quant.ZeroPoint(i)) for i in zeros)
        if len(zero_point) == 1:
            zero_point *= len(scale)
        axis = int(quant.QuantizedDimension())
        if len(scale) == 1:
            return Quant(scale, zero_point)
        # Biases are known that name their filter's dimension: TFLM never looks at it.
        if len(shape) == 1:
            axis = 0
        return Quant(scale, zero_point, axis)

    def _node(self, index: int, operator: Any) -> Node:
        code = self._operator_code(operator.OpcodeIndex())
        where = f"{self.name}: node {index} {code}"
        op = BY_NAME.get(code)
        if op is None:
            raise InputError(
                f"{where}: this operator is not supported",
                f"supported are {', '.join(sorted(BY_NAME))}",
            )
        try:
            attrs = op.read(self._options(operator, op.options))
        except InputError as error:
            raise InputError(f"{where}: {error.message}", error.hint) from error
        return Node(
            op=code,
            inputs=self._indices(operator.Inputs, operator.InputsLength()),
            outputs=self._indices(operator.Outputs, operator.OutputsLength()),
            attrs=attrs,
            index=index,
        )

    def _operator_code(self, index: int) -> str:
        if not 0 <= index < self.model.OperatorCodesLength():
            raise InputError(f"{self.name}: operator code {index} does not exist; file damaged")
        code = self.model.OperatorCodes(index)
        # Of two fields the old holds one byte, 127 for what it cannot; either may be left out.
        old, new = code.DeprecatedBuiltinCode(), _new_operator_code(code)
        if old and new and old != min(new, _PLACEHOLDER):
            raise InputError(
                f"{self.name}: operator code {index} says both {old} and {new}; file damaged"
            )
        builtin = max(old, new)
        if builtin == tflite.BuiltinOperator.CUSTOM:
            custom = (code.CustomCode() or b"").decode("utf-8", "replace")
            return f"CUSTOM:{printable(custom)}"
        return _OPERATORS.get(builtin, f"operator {builtin}")

    def _options(self, operator: Any, kind: str) -> Any:
        table = operator.BuiltinOptions()
        if not kind or table is None or operator.BuiltinOptionsType() == 0:
            return None
        if operator.BuiltinOptionsType() != _OPTIONS[kind]:
            raise InputError("its options are another operator's; the file is damaged")
        options = getattr(tflite, kind)()
        options.Init(table.Bytes, table.Pos)
        return options
