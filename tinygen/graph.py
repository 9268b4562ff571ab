"""The network as TinyGen sees it: tensors and nodes in execution order, all of it immutable.

A :class:`Graph` is what importers give, passes rewrite (``Graph -> Graph``) and the planner reads.
Tensors are referred to by index; ``-1`` among a node's inputs is an optional input left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tinygen.errors import InputError

Array = npt.NDArray[Any]

DTYPES = ("int8", "int16", "int32", "int64", "uint8", "bool", "float32")
ABSENT = -1

MAX_RANK = 6
MAX_TENSOR_BYTES = 1 << 24
MAX_ACTIVATION_BYTES = 1 << 28


@dataclass(frozen=True)
class Quant:
    """Affine quantization: ``real = scale * (q - zero_point)``.

    One scale and zero point for the whole tensor, or one a slice along ``axis``.
    Scales are float32 values, as stored in the model, held as Python floats.
    """

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int | None = None

    @property
    def per_tensor(self) -> bool:
        return len(self.scale) == 1


@dataclass(frozen=True, eq=False)
class Tensor:
    """A value: an activation, or a constant when ``data`` (of ``shape`` and ``dtype``) is there."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    quant: Quant | None = None
    data: Array | None = None

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.elements * np.dtype(self.dtype).itemsize

    @property
    def constant(self) -> bool:
        return self.data is not None

    @property
    def scale(self) -> float:
        """The per-tensor scale; raises :class:`InputError` when there is none."""
        return self._only().scale[0]

    @property
    def zero_point(self) -> int:
        """The per-tensor zero point; raises :class:`InputError` when there is none."""
        return self._only().zero_point[0]

    def _only(self) -> Quant:
        if self.quant is None or not self.quant.per_tensor:
            raise InputError(f"tensor '{self.name}' has no per-tensor quantization")
        return self.quant


@dataclass(frozen=True)
class Node:
    """One operator: ``op`` is its TFLite name, ``attrs`` the operator file's own record."""

    op: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    attrs: Any = None
    index: int = -1
    """Position in the imported model, for messages."""


@dataclass(frozen=True, eq=False)
class Graph:
    """A network: ``nodes`` stand in an order that computes every input before its use."""

    name: str
    tensors: tuple[Tensor, ...]
    nodes: tuple[Node, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    source: str = ""
    """Name of the model file, without its folder."""
    sha256: str = ""

    def at(self, index: int) -> Tensor:
        return self.tensors[index]

    def input(self, node: Node, position: int) -> Tensor | None:
        """Input ``position`` of ``node``, or None when it is left out."""
        if position >= len(node.inputs) or node.inputs[position] == ABSENT:
            return None
        return self.tensors[node.inputs[position]]

    def required(self, node: Node, position: int) -> Tensor:
        """Input ``position`` of ``node``; raises :class:`InputError` when it is left out."""
        tensor = self.input(node, position)
        if tensor is None:
            raise InputError(f"{self.where(node)}: input {position} is missing")
        return tensor

    def output(self, node: Node, position: int = 0) -> Tensor:
        return self.tensors[node.outputs[position]]

    def where(self, node: Node) -> str:
        """``kws.tflite: node 7 CONV_2D 'dw3'``, the head of every message about a node."""
        name = self.tensors[node.outputs[0]].name if node.outputs else ""
        return f"{self.source or self.name}: node {node.index} {node.op} {printable(name)!r}"

    def producer(self, tensor: int) -> Node | None:
        return next((n for n in self.nodes if tensor in n.outputs), None)

    def consumers(self, tensor: int) -> tuple[Node, ...]:
        return tuple(n for n in self.nodes if tensor in n.inputs)

    def with_tensor(self, index: int, **changes: Any) -> Graph:
        """A graph in which tensor ``index`` has other fields."""
        changed = replace(self.tensors[index], **changes)
        return replace(self, tensors=(*self.tensors[:index], changed, *self.tensors[index + 1 :]))

    def add_tensor(self, tensor: Tensor) -> tuple[Graph, int]:
        """A graph with one tensor more, and that tensor's index."""
        return replace(self, tensors=(*self.tensors, tensor)), len(self.tensors)

    def check(self) -> None:
        """Raise :class:`InputError` unless the graph is well formed.

        Indices exist, every activation is computed once and before its use, constants are never
        written, dtypes and shapes agree with data, and quantization fits its axis.
        """
        for tensor in self.tensors:
            _check_tensor(self.source or self.name, tensor)
        if sum(t.bytes for t in self.tensors if not t.constant) > MAX_ACTIVATION_BYTES:
            raise InputError(
                f"{self.source or self.name}: activations of {MAX_ACTIVATION_BYTES:,} bytes or more"
            )
        known = {i for i, t in enumerate(self.tensors) if t.constant} | set(self.inputs)
        self._check_indices(self.inputs, "a model input")
        for node in self.nodes:
            self._check_indices((i for i in node.inputs if i != ABSENT), "an operator input")
            self._check_indices(node.outputs, "an operator output")
            for i in node.inputs:
                if i != ABSENT and i not in known:
                    raise InputError(f"{self.where(node)}: reads tensor {i} before it is computed")
            for i in node.outputs:
                if i in known:
                    raise InputError(f"{self.where(node)}: writes tensor {i} a second time")
                known.add(i)
        self._check_indices(self.outputs, "a model output")
        for i in self.outputs:
            if i not in known:
                raise InputError(f"{self.source or self.name}: output tensor {i} is never computed")

    def _check_indices(self, indices: Iterable[int], what: str) -> None:
        for i in indices:
            if not 0 <= i < len(self.tensors):
                raise InputError(
                    f"{self.source or self.name}: {what} names tensor {i} "
                    f"of {len(self.tensors)}; the file is damaged"
                )


def _check_tensor(source: str, tensor: Tensor) -> None:
    where = f"{source}: tensor {printable(tensor.name)!r}"
    if tensor.dtype not in DTYPES:
        raise InputError(f"{where}: element type {tensor.dtype} is not supported")
    if len(tensor.shape) > MAX_RANK:
        raise InputError(f"{where}: rank {len(tensor.shape)} is above {MAX_RANK}")
    if any(extent < 0 for extent in tensor.shape):
        raise InputError(f"{where}: shape {tensor.shape} has a negative extent")
    if tensor.bytes > MAX_TENSOR_BYTES:
        raise InputError(f"{where}: {tensor.bytes} bytes is more than any microcontroller holds")
    if tensor.data is not None and (
        tensor.data.shape != tensor.shape or tensor.data.dtype != np.dtype(tensor.dtype)
    ):
        raise InputError(f"{where}: data {tensor.data.dtype}{tensor.data.shape} does not match")
    quant = tensor.quant
    if quant is None:
        return
    if not all(math.isfinite(s) and s > 0 for s in quant.scale):
        raise InputError(f"{where}: a quantization scale is not a positive number")
    if len(quant.zero_point) != len(quant.scale):
        raise InputError(f"{where}: {len(quant.scale)} scales, {len(quant.zero_point)} zero points")
    info = np.iinfo(tensor.dtype if tensor.dtype in ("int8", "int16", "uint8") else "int32")
    if not all(info.min <= zero_point <= info.max for zero_point in quant.zero_point):
        raise InputError(f"{where}: a zero point is no value of {info.dtype}")
    if quant.axis is not None and not (
        0 <= quant.axis < len(tensor.shape) and len(quant.scale) == tensor.shape[quant.axis]
    ):
        raise InputError(f"{where}: {len(quant.scale)} scales do not fit axis {quant.axis}")


def printable(name: str) -> str:
    """``name`` without control characters and cut to 60 characters, fit for a message."""
    clean = "".join(c if c.isprintable() else "?" for c in name)
    return clean if len(clean) <= 60 else clean[:57] + "..."
