"""What an operator is to TinyGen: one record of functions, one file per operator.

An operator file reads its TFLite options into a small frozen record, says what it does not
support, gives the shape rule, the numpy reference that defines the result, and a list of kernel
variants, the last of which is portable C that always applies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from tinygen.errors import InputError
from tinygen.graph import Array, Graph, Node, Tensor

if TYPE_CHECKING:
    from tinygen.ops.common import Window

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Const:
    """An array that a kernel reads from flash, in the order in which it is read.

    ``role`` names it in the C code and in reports: "weights", "bias", "multiplier", "shift",
    "table".  ``data`` is one-dimensional; its dtype is the C type.  ``step`` is the number of its
    elements that belong to one output channel, where a kernel may be called for some of them.
    ``codes`` are the int8 weights in it, where they may lie in flash in another way.
    """

    role: str
    data: Array
    step: int = 0
    codes: Codes | None = None


Form = Literal["bytes", "flipped", "paired", "woven"]


@dataclass(frozen=True, eq=False)
class Codes:
    """The int8 weights in a constant array, in the order in which a decoder gives them back.

    What kernels read is made of them in memory.  By ``form``: "bytes", as they are; "flipped", 128
    higher as unsigned bytes; "paired", by fours as two 16-bit numbers ``b - 256 a`` (see
    :func:`tinygen.ops.dsp.paired_weights`); "woven", paired, those of two channels together, with
    two words of ``scaling`` before them and the others behind.

    ``values`` is int8 (n,), ``per_channel`` of them for each channel, and ``scaling`` uint32
    (pairs of channels, words).
    """

    values: Array
    per_channel: int
    form: Form = "bytes"
    scaling: Array | None = None


@dataclass(frozen=True)
class Input:
    """Call argument: the address of the node's input ``position``."""

    position: int = 0


@dataclass(frozen=True)
class Output:
    """Call argument: the address of the node's output ``position``."""

    position: int = 0


@dataclass(frozen=True)
class Scratch:
    """Call argument: the address of the step's scratch memory, aligned to 8 bytes."""

    bytes: int


@dataclass(frozen=True)
class Function:
    """Call argument: a C function, one of the kernel's helpers."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Channels:
    """Call argument: how many output channels to compute."""

    count: int


@dataclass(frozen=True, eq=False)
class Decoded:
    """Call argument: the address of weights that are decoded before the call, as ``form`` says.

    ``data``, ``table`` (None when the decoder needs none) and ``scaling`` (of woven weights, its
    ``step`` for two channels) lie in flash.  ``values`` are decoded at a time, ``per_channel`` of
    them for each channel, and fill ``bytes`` of scratch memory, which kernels read as elements of
    ``dtype``; decoding them all takes ``cycles``.
    """

    encoding: str
    decoder: str
    helpers: tuple[str, ...]
    form: Form
    values: int
    per_channel: int
    bytes: int
    dtype: str
    data: Const
    table: Const | None = None
    scaling: Const | None = None
    cycles: int = 0

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for weights that are the same when decoded."""
        arrays = (c.data.tobytes() for c in self.constants)
        return (self.decoder, self.form, self.values, *arrays)

    @property
    def constants(self) -> tuple[Const, ...]:
        return tuple(c for c in (self.data, self.table, self.scaling) if c is not None)


Arg = Input | Output | Scratch | Const | Function | Channels | Decoded | int


@dataclass(frozen=True, eq=False)
class Kernel:
    """A call of a C function that computes one node.

    ``template`` (under ``templates/kernels``) renders the whole function from ``params`` and
    ``name``; two layers with equal template and params share one function.  ``args`` are passed in
    order.  ``helpers`` are small C functions from ``templates/kernels/helpers`` that the body
    calls.

    Memory of inputs that die here may be the output's.  ``in_place`` lists input positions at whose
    very address the output may lie.  ``overlap`` says more, by input position: the output may lie
    anywhere from so many bytes below the input's address on down (0: at the same address too);
    :func:`tinygen.ops.common.overlap` computes it for kernels that go through pixels in order.

    ``cycles`` is what a call is expected to take on the core that the variant is written for: the
    planner takes the variant that is expected to take the fewest.  ``bound`` is the number of
    instructions that the method itself needs, counted by hand: loads, extensions, products and
    requantization of the inner loops, without calls, loop heads and addresses.  0 is not known.

    ``channels`` is the least number of output channels for which it may be called at a time, the
    outputs of a pixel lying apart as before; 0: for all alone.  ``again`` are the cycles that every
    further call takes beside the products.  ``tile`` is how many are computed at a time, 0: all.
    """

    name: str
    template: str
    params: Mapping[str, Any]
    args: tuple[Arg, ...]
    helpers: tuple[str, ...] = ()
    in_place: tuple[int, ...] = ()
    overlap: Mapping[int, int] = field(default_factory=dict)
    cycles: int = 0
    bound: int = 0
    encoding: str = "dense"
    """How the weights lie in flash, in a word for reports."""
    channels: int = 0
    again: int = 0
    tile: int = 0

    @property
    def scratch(self) -> int:
        """Bytes of scratch memory: the kernel's own; from a multiple of 8 on, what is decoded."""
        decoded = sum(aligned(arg.bytes) for arg in self.decoded)
        return aligned(self.own_scratch) + decoded + 4 if decoded else self.own_scratch

    @property
    def own_scratch(self) -> int:
        return sum(arg.bytes for arg in self.args if isinstance(arg, Scratch))

    @property
    def decoded(self) -> tuple[Decoded, ...]:
        return tuple(arg for arg in self.args if isinstance(arg, Decoded))

    @property
    def constants(self) -> tuple[Const, ...]:
        found: list[Const] = []
        for arg in self.args:
            found += [arg] if isinstance(arg, Const) else []
            found += arg.constants if isinstance(arg, Decoded) else []
        return tuple(found)

    @property
    def bytes(self) -> int:
        """Bytes of its constants."""
        return sum(constant.data.nbytes for constant in self.constants)


def aligned(size: int) -> int:
    """``size`` rounded up to a multiple of 8, to which decoded weights are aligned."""
    return -(-size // 8) * 8


@dataclass(frozen=True)
class Variant:
    """One way to compute an operator: ``lower`` gives the call, or None when it does not apply.

    ``features`` are what the core must have, such as ``{"dsp"}``; empty means any core.
    """

    isa: str
    lower: Callable[[Graph, Node], Kernel | None]
    features: frozenset[str] = frozenset()


Restriction = Callable[[Graph, Node], bool]
"""True when the node is fine.  Its docstring is the message, with ``{attrs}``, ``{inputs}`` and
``{outputs}`` (tensors, by position) to format."""


@dataclass(frozen=True)
class Op:
    """An operator.

    ``read`` turns the TFLite options table (None when absent) into attributes;
    ``shapes`` gives the output shapes; ``reference`` maps input arrays (None where left out) to
    output arrays; ``macs`` counts multiply-accumulates.  A ``view`` changes shape alone: its
    output is its first input's memory and no code runs.
    """

    name: str
    shapes: Callable[[Graph, Node], tuple[Shape, ...]]
    reference: Callable[[Graph, Node, tuple[Array | None, ...]], tuple[Array, ...]]
    options: str = ""
    """Class name of the TFLite options table, such as "Conv2DOptions"; empty for none."""
    read: Callable[[Any], Any] = lambda options: None
    write: Callable[[Graph, Node], Mapping[str, Any]] = lambda graph, node: {}
    """Fields of the options table, as flatbuffers names them in Python: what :attr:`read` reads."""
    version: Callable[[Graph, Node], int] = lambda graph, node: 1
    """The first version of the operator, as TensorFlow counts them, that computes the node."""
    restrictions: tuple[Restriction, ...] = ()
    variants: tuple[Variant, ...] = ()
    macs: Callable[[Graph, Node], int] = lambda graph, node: 0
    view: bool = False
    rows: Callable[[Graph, Node], Window | None] = lambda graph, node: None
    """The window through which an output row sees rows of the inputs, None when a row alone cannot
    be computed.  Windows that pad need attributes with ``pads``."""
    inputs: tuple[int, int] = (1, 1)
    """Smallest and largest number of inputs."""


def check(op: Op, graph: Graph, node: Node) -> None:
    """Raise :class:`InputError` when ``node`` is not what ``op`` supports or its shape is wrong."""
    low, high = op.inputs
    if not low <= len(node.inputs) <= high or len(node.outputs) != 1:
        raise InputError(
            f"{graph.where(node)}: {len(node.inputs)} inputs and {len(node.outputs)} outputs "
            f"are not what the operator has"
        )
    inputs: tuple[Tensor | None, ...] = tuple(graph.input(node, i) for i in range(high))
    for restriction in op.restrictions:
        if not restriction(graph, node):
            message = " ".join((restriction.__doc__ or "").split()).format(
                attrs=node.attrs, inputs=inputs, outputs=[graph.at(i) for i in node.outputs]
            )
            raise InputError(f"{graph.where(node)}: {message}")
    expected = op.shapes(graph, node)
    for index, shape in zip(node.outputs, expected, strict=True):
        if graph.at(index).shape != shape:
            raise InputError(
                f"{graph.where(node)}: the model says its output is {graph.at(index).shape}, "
                f"its inputs make it {shape}"
            )


__all__ = [
    "Arg",
    "Channels",
    "Codes",
    "Const",
    "Decoded",
    "Form",
    "Function",
    "Input",
    "Kernel",
    "Op",
    "Output",
    "Restriction",
    "Scratch",
    "Shape",
    "Variant",
    "check",
]
