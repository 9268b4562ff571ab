"""From a plan to C sources, through Jinja2.

Templates substitute, loop and test booleans; everything they print is prepared here.  Names and
strings from a model never reach C unless they pass :func:`c_identifier` or :func:`comment_text`.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import numpy as np

from tinygen import __version__, resources
from tinygen.errors import InputError
from tinygen.graph import Array, Graph, Tensor
from tinygen.numerics import LIMITS
from tinygen.ops.base import (
    Channels,
    Const,
    Decoded,
    Input,
    Kernel,
    Output,
    Scratch,
    aligned,
)
from tinygen.plan import Plan, Step
from tinygen.streams import Section, Stage, Stream

C_TYPES = {
    "int8": "int8_t",
    "int16": "int16_t",
    "int32": "int32_t",
    "int64": "int64_t",
    "uint8": "uint8_t",
    "uint16": "uint16_t",
    "uint32": "uint32_t",
    "bool": "uint8_t",
    "float32": "float",
}
RUNTIME_TYPES = {
    "int8": "TINYGEN_INT8",
    "int16": "TINYGEN_INT16",
    "int32": "TINYGEN_INT32",
    "float32": "TINYGEN_FLOAT32",
    "uint8": "TINYGEN_UINT8",
}
RUNTIME_VERSION = 1
LINE = 100

# Words that C99 or C++20 reserve and a lower-case identifier could be, headers of C libraries and
# Arduino cores (a model's header must not be taken for one of them), names we use ourselves.
_RESERVED = frozenset(
    re.findall(
        r"\w+",
        """alignas alignof and asm auto bool break case catch char class compl concept const
        constexpr continue default delete do double else enum explicit export extern false float
        for friend goto if inline int long main mutable namespace new noexcept not nullptr operator
        or private protected public register requires restrict return short signed sizeof static
        struct switch template this throw true try typedef typename union unsigned using virtual
        void volatile while xor
        assert complex ctype errno fenv inttypes iso646 limits locale math setjmp signal stdalign
        stdarg stdatomic stdbool stddef stdint stdio stdlib stdnoreturn string strings tgmath
        threads time uchar wchar wctype
        alloca dirent fcntl libgen malloc memory newlib poll pthread reent regex sched search select
        semaphore termios unistd utime wait
        arduino binary cbuf itoa pgmspace print server client stream wiring
        tinygen tflm""",
    )
)


def c_identifier(text: str) -> str:
    """A lower-case C and C++ identifier made from ``text``; "model" when nothing remains.

    The result starts with a letter, is at most 40 characters long and no reserved word.
    """
    name = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
    if not name:
        return "model"
    if name[0].isdigit() or name in _RESERVED:
        name = f"model_{name}"
    return name[:40].rstrip("_")


def comment_text(text: str, width: int = 48) -> str:
    """``text`` fit for a C comment: letters, digits and ``._:/-`` alone, never ``*/`` or ``//``."""
    clean = re.sub(r"/+", "/", re.sub(r"[^A-Za-z0-9._:/-]", "_", text))
    return clean if len(clean) <= width else "..." + clean[3 - width :]


@functools.cache
def environment() -> jinja2.Environment:
    """The one Jinja environment; it keeps the templates that it has compiled."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(resources.folder("templates")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )


@dataclass(frozen=True)
class Edge:
    """An input or output as the templates see it."""

    macro: str  # KWS_INPUT0
    name: str
    tensor: Tensor
    offset: int

    @property
    def ctype(self) -> str:
        return C_TYPES[self.tensor.dtype]

    @property
    def runtime_type(self) -> str:
        return RUNTIME_TYPES[self.tensor.dtype]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape or (1,)

    @property
    def scale(self) -> str:
        quant = self.tensor.quant
        return c_float(quant.scale[0]) if quant and quant.per_tensor else "0.0f"

    @property
    def zero_point(self) -> int:
        quant = self.tensor.quant
        return quant.zero_point[0] if quant and quant.per_tensor else 0

    @property
    def quantized(self) -> bool:
        return self.tensor.dtype in ("int8", "int16", "uint8") and self.scale != "0.0f"

    @property
    def limits(self) -> tuple[int, int]:
        return LIMITS[self.tensor.dtype]


@dataclass(frozen=True)
class Row:
    """A line of the layer table in the header comment."""

    index: int
    name: str
    op: str
    shapes: str
    kernel: str
    encoding: str
    weights: int
    macs: int


def c_float(value: float) -> str:
    """A float32 literal that reads back as exactly ``value``."""
    text = str(np.format_float_scientific(np.float32(value), unique=True, trim="0"))
    return f"{text}f"


def sources(plan: Plan, name: str) -> dict[str, str]:
    """The generated library: ``{relative path: text}`` for the model called ``name`` in C.

    The same plan and name give the same text on any machine.
    """
    env = environment()
    functions = _Functions(env)
    constants = _Constants()
    calls = []
    streams = []
    for i, step in enumerate(plan.steps):
        if step.stream:
            streams.append(_stream(plan, name, i, step.stream, functions, constants))
            call = f"  {streams[-1]['name']}();"
        else:
            places = _places(plan, name, step)
            call = _step_call(functions.name_of(step.kernel), step.kernel, places, i, constants)
        calls.append(
            {
                "call": call,
                "index": i,
                "comment": f"{step.node.op} {comment_text(_layer_name(plan.graph, step))}",
                "output": f"{name}_arena.bytes + {plan.offsets[step.node.outputs[0]]}",
                "bytes": plan.graph.output(step.node).bytes,
            }
        )
    context: dict[str, Any] = {
        "name": name,
        "macro": name.upper(),
        "version": __version__,
        "runtime_version": RUNTIME_VERSION,
        "source": comment_text(plan.graph.source),
        "sha256": plan.graph.sha256,
        "inputs": edges(plan, name, "INPUT", plan.graph.inputs),
        "outputs": edges(plan, name, "OUTPUT", plan.graph.outputs),
        "arena_bytes": plan.arena_bytes,
        "weight_bytes": constants.bytes,
        "macs": plan.macs,
        "rows": _rows(plan, functions),
        "memory": memory_map(plan),
        "helpers": functions.helper_texts(),
        "kernels": functions.texts(),
        "streams": streams,
        "constants": constants.texts(),
        "calls": calls,
    }
    return {
        f"src/{name}.h": env.get_template("model/model.h.j2").render(context),
        f"src/{name}.c": env.get_template("model/model.c.j2").render(context),
        f"src/{name}_weights.h": env.get_template("model/weights.h.j2").render(context),
    }


def edges(plan: Plan, name: str, kind: str, tensors: Iterable[int]) -> list[Edge]:
    """Inputs or outputs for the header, after checking that their types can be described."""
    result = []
    for i, index in enumerate(tensors):
        tensor = plan.graph.at(index)
        if tensor.dtype not in RUNTIME_TYPES:
            raise InputError(
                f"{plan.graph.source}: {kind.lower()} {i} has element type {tensor.dtype}"
            )
        macro = f"{name.upper()}_{kind}{i}"
        result.append(Edge(macro, comment_text(tensor.name), tensor, plan.offsets[index]))
    return result


class _Functions:
    """Kernel functions and helpers of one model, each body once."""

    def __init__(self, env: jinja2.Environment) -> None:
        self._env = env
        self._names: dict[str, str] = {}  # body with a neutral name -> C name
        self._texts: dict[str, str] = {}  # C name -> text
        self._helpers: set[str] = set()

    def name_of(self, kernel: Kernel) -> str:
        """The C function for ``kernel``, rendering it if no equal one is there yet."""
        template = self._env.get_template(f"kernels/{kernel.template}")
        self._helpers.update(kernel.helpers)
        body = template.render({**kernel.params, "name": "kernel_"})
        if body not in self._names:
            name, suffix = kernel.name, 2
            while name in self._texts:
                name, suffix = f"{kernel.name}_v{suffix}", suffix + 1
            self._names[body] = name
            self._texts[name] = _tidy(template.render({**kernel.params, "name": name}))
        return self._names[body]

    def use(self, helper: str) -> None:
        """Have ``helper`` among the helpers."""
        self._helpers.add(helper)

    def texts(self) -> list[str]:
        return list(self._texts.values())

    def helper_texts(self) -> list[str]:
        return [
            _tidy(self._env.get_template(f"kernels/helpers/{helper}.c.j2").render())
            for helper in sorted(self._helpers)
        ]


class _Constants:
    """Constant arrays of one model, equal ones stored once."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}  # digest -> C name
        self._arrays: dict[str, Const] = {}

    def name_of(self, const: Const, layer: int) -> str:
        digest = hashlib.sha256(const.data.tobytes()).hexdigest() + str(const.data.dtype)
        if digest not in self._names:
            name, suffix = f"layer{layer}_{const.role}", 2
            while name in self._arrays:
                name, suffix = f"layer{layer}_{const.role}{suffix}", suffix + 1
            self._names[digest] = name
            self._arrays[name] = const
        return self._names[digest]

    @property
    def bytes(self) -> int:
        return sum(const.data.nbytes for const in self._arrays.values())

    def texts(self) -> list[dict[str, Any]]:
        return [
            {
                "name": name,
                "ctype": C_TYPES[str(const.data.dtype)],
                "size": const.data.size,
                "values": c_values(const.data),
            }
            for name, const in self._arrays.items()
        ]


def c_values(data: Array) -> str:
    """Numbers of a one-dimensional array as the lines of a C initialiser."""
    words = [c_float(v) if data.dtype == np.float32 else str(int(v)) for v in data]
    # The most negative int32 is no literal in C.
    words = [w if w != "-2147483648" else "(-2147483647 - 1)" for w in words]
    lines, line = [], " "
    for word in words:
        if len(line) + len(word) + 2 > LINE:
            lines.append(line)
            line = " "
        line += f" {word},"
    return "\n".join([*lines, line])


@dataclass(frozen=True)
class _Places:
    """C expressions for the addresses that a kernel call takes."""

    inputs: Sequence[str]
    output: str
    scratch: str
    decoded: Callable[[Decoded], str]
    """The address of decoded weights, as bytes."""


def _places(plan: Plan, name: str, step: Step) -> _Places:
    """Addresses of a step's tensors in the arena."""

    def address(tensor: int) -> str:
        if tensor not in plan.offsets:
            return ""
        kind = C_TYPES[plan.graph.at(tensor).dtype]
        place = f"{name}_arena.bytes + {plan.offsets[tensor]}"
        return place if kind == "int8_t" else f"({kind} *)(void *)({place})"

    return _Places(
        inputs=[address(t) for t in step.node.inputs],
        output=address(step.node.outputs[0]),
        scratch=f"(void *)({name}_arena.bytes + {step.scratch})",
        decoded=_decoded_at(name, step),
    )


def _decoded_at(name: str, step: Step) -> Callable[[Decoded], str]:
    """Where in the arena the step's decoded weights lie: behind its other scratch memory."""
    offset = aligned(step.scratch + aligned(step.kernel.own_scratch))
    places = {}
    for decoded in step.kernel.decoded:
        places[decoded.key] = f"{name}_arena.bytes + {offset}"
        offset += aligned(decoded.bytes)
    return lambda decoded: places[decoded.key]


@dataclass(frozen=True)
class _Some:
    """The channels of a call: C expressions for the first and their number.  Empty: all."""

    first: str = ""
    count: str = ""

    def at(self, address: str, step: int) -> str:
        """``address``, ``step`` elements further for each channel before the first."""
        if not self.first or not step:
            return address
        return f"{address} + {self.first}" + (f" * {step}" if step > 1 else "")

    def number(self, total: int, of_each: int, of: int = 1) -> str:
        """``of_each`` for every ``of`` channels, ``total`` for all."""
        if not self.count:
            return str(total)
        if self.count.isdigit():
            return str(-(-int(self.count) * of_each // of))
        product = self.count if of_each == 1 else f"{self.count} * {of_each}"
        return product if of == 1 else f"({product} + {of - 1}) / {of}"


_ALL = _Some()


def _step_call(
    function: str, kernel: Kernel, places: _Places, index: int, constants: _Constants
) -> str:
    """The call of a kernel for the layer at ``index``, its weights decoded before it; in a loop
    when some channels are computed at a time."""
    if not kernel.tile:
        lines = [_decoding(d, places, index, constants) for d in kernel.decoded]
        lines.append(_wrap_call(function, _words(kernel, places, index, constants), 2))
        return "\n".join(lines)
    (decoded,) = kernel.decoded
    tile = kernel.tile
    total = next(arg.count for arg in kernel.args if isinstance(arg, Channels))
    some = _Some("first", str(tile) if total % tile == 0 else "count")
    words = _words(kernel, places, index, constants, some)
    lines = ["  {", f"    const uint8_t *codes = {constants.name_of(decoded.data, index)};"]
    lines.append(f"    for (int first = 0; first < {total}; first += {tile}) {{")
    if total % tile:
        left = f"{total} - first"
        lines.append(f"      const int count = {left} < {tile} ? {left} : {tile};")
    lines.append(_decoding(decoded, places, index, constants, some))
    return "\n".join([*lines, _wrap_call(function, words, 6), "    }", "  }"])


def _decoding(
    decoded: Decoded,
    places: _Places,
    index: int,
    constants: _Constants,
    some: _Some = _ALL,
) -> str:
    """Statements that decode weights; those of some channels from ``codes`` on, which moves."""
    table = constants.name_of(decoded.table, index) if decoded.table else "NULL"
    to, each = places.decoded(decoded), decoded.per_channel
    words_to = f"(uint32_t *)(void *)({to})"
    indent, keep = (6, "codes = ") if some.first else (2, "(void)")
    codes = "codes" if some.first else constants.name_of(decoded.data, index)
    if decoded.scaling is not None:
        step = decoded.scaling.step
        scaling = constants.name_of(decoded.scaling, index)
        if some.first:
            scaling = f"{scaling} + {some.first} / 2 * {step}"
        pairs = some.number(decoded.values // (2 * each), 1, 2)
        arguments = [codes, words_to, pairs, str(each // 4), scaling, str(step)]
        return _wrap_call(f"{keep}weave_weights", [*arguments, decoded.decoder, table], indent)
    count = some.number(decoded.values, each)
    lines = [_wrap_call(f"{keep}{decoded.decoder}", [codes, to, count, table], indent)]
    if decoded.form != "bytes":
        function = "pair_weights" if decoded.form == "paired" else "flip_signs"
        words = some.number(-(-decoded.values // 4), each, 4)
        lines.append(_wrap_call(function, [words_to, words], indent))
    return "\n".join(lines)


def _words(
    kernel: Kernel, places: _Places, index: int, constants: _Constants, some: _Some = _ALL
) -> list[str]:
    """The arguments of a call of ``kernel`` for the layer at ``index``, for ``some`` channels."""
    words = []
    for arg in kernel.args:
        if isinstance(arg, Input):
            words.append(places.inputs[arg.position])
        elif isinstance(arg, Output):
            words.append(some.at(places.output, 1))
        elif isinstance(arg, Scratch):
            words.append(places.scratch)
        elif isinstance(arg, Const):
            words.append(some.at(constants.name_of(arg, index), arg.step))
        elif isinstance(arg, Channels):
            words.append(some.number(arg.count, 1))
        elif isinstance(arg, Decoded):
            kind, place = C_TYPES[arg.dtype], places.decoded(arg)
            words.append(place if kind == "int8_t" else f"(const {kind} *)(void *)({place})")
        else:
            words.append(str(arg))
    return words


def _wrap_call(function: str, arguments: Sequence[str], indent: int) -> str:
    """``function(arguments);`` over as many lines as it needs."""
    lines, line = [], f"{' ' * indent}{function}("
    for i, argument in enumerate(arguments):
        word = argument + (", " if i + 1 < len(arguments) else ");")
        if len(line) + len(word.rstrip()) > LINE:
            lines.append(line.rstrip())
            line = " " * (indent + 4)
        line += word
    return "\n".join([*lines, line])


def _stream(
    plan: Plan,
    name: str,
    index: int,
    stream: Stream,
    functions: _Functions,
    constants: _Constants,
) -> dict[str, Any]:
    """What the template of a stream needs: one entry a stage, its calls by range of rows."""
    arena, scratch = f"{name}_arena.bytes", plan.steps[index].scratch
    makers = {stage.node.outputs[0]: i for i, stage in enumerate(stream.stages)}
    own = f"(void *)({arena} + {scratch + stream.own_scratch})"
    decoded_at = _decoded_at(name, plan.steps[index])

    def row_pointer(tensor: int, row: str) -> str:
        place, kind = row_address(tensor, row), C_TYPES[plan.graph.at(tensor).dtype]
        return place if kind == "int8_t" or not place else f"({kind} *)(void *)({place})"

    def row_address(tensor: int, row: str) -> str:
        maker = makers.get(tensor)
        if maker is None and tensor not in plan.offsets:
            return ""  # a constant, or left out
        if maker is not None and stream.stages[maker].lines:
            stage = stream.stages[maker]
            if stage.lines == 1:
                return f"lines{maker}"
            return f"lines{maker} + ({row} - base{maker}) * {stage.row_bytes}"
        image = plan.graph.at(tensor)
        start = f"{arena} + {plan.offsets[tensor]}"
        if row == "0":
            return start
        count = row if row.isidentifier() else f"({row})"
        return f"{start} + {count} * {image.bytes // image.shape[1]}"

    def call(i: int, stage: Stage, section: Section) -> str:
        reach = stage.reach
        top = section.first * reach.stride < reach.top
        row = "0" if top else _affine(reach.stride, f"row{i}", -reach.top)
        places = _Places(
            inputs=[row_pointer(t, row) for t in stage.node.inputs],
            output=row_pointer(stage.node.outputs[0], f"row{i}"),
            scratch=own,
            decoded=decoded_at,
        )
        words = _words(section.kernel, places, index, constants)
        indent = 8 if len(stage.sections) > 1 else 6
        return _wrap_call(functions.name_of(section.kernel), words, indent)

    stages = [
        {
            "index": i,
            "comment": f"{stage.node.op} {comment_text(plan.graph.output(stage.node).name)}",
            "rows": stage.rows,
            "needed": _affine(stage.ahead, "tick", stage.lead),
            "lines": stage.lines,
            "address": f"{arena} + {scratch + stage.offset}",
            "row_bytes": stage.row_bytes,
            "kept": max(stage.lines - 1, 0) * stage.row_bytes,
            "calls": [(section.end, call(i, stage, section)) for section in stage.sections],
        }
        for i, stage in enumerate(stream.stages)
    ]
    if any(stage.lines > 1 for stage in stream.stages):
        functions.use("slide_down")
    places = _Places([], "", own, decoded_at)
    decoded = plan.steps[index].kernel.decoded
    return {
        "name": f"rows_of_layer{index}",
        "ticks": stream.stages[-1].rows,
        "stages": stages,
        "decoding": [_decoding(weights, places, index, constants) for weights in decoded],
    }


def _affine(factor: int, variable: str, constant: int) -> str:
    """``factor * variable + constant`` without what is not needed."""
    product = variable if factor == 1 else f"{factor} * {variable}"
    if not constant:
        return product
    return f"{product} {'+' if constant > 0 else '-'} {abs(constant)}"


def _rows(plan: Plan, functions: _Functions) -> list[Row]:
    rows = []
    for i, step in enumerate(plan.steps):
        constants = step.kernel.constants
        rows.append(
            Row(
                index=i,
                name=comment_text(_layer_name(plan.graph, step), 36),
                op=step.node.op,
                shapes=f"{_shape(plan.graph.required(step.node, 0))} -> "
                f"{_shape(plan.graph.output(step.node))}",
                kernel=_kernel_names(step, functions),
                encoding=step.kernel.encoding if constants else "-",
                weights=sum(c.data.nbytes for c in constants),
                macs=step.macs,
            )
        )
    return rows


def _kernel_names(step: Step, functions: _Functions) -> str:
    """The function that computes ``step``, or those that a stream calls."""
    if step.stream is None:
        return functions.name_of(step.kernel)
    sections = [section for stage in step.stream.stages for section in stage.sections]
    names = dict.fromkeys(functions.name_of(section.kernel) for section in sections)
    return f"row by row: {', '.join(names)}"


def _shape(tensor: Tensor) -> str:
    return "x".join(str(extent) for extent in tensor.shape) or "1"


def _layer_name(graph: Graph, step: Step) -> str:
    return graph.output(step.node).name


def memory_map(plan: Plan) -> list[dict[str, Any]]:
    """The arena's buffers for people: offset, bytes, first and last step, contents."""
    edge_names = {t: f"input {i}" for i, t in enumerate(plan.graph.inputs)}
    edge_names |= {t: f"output {i}" for i, t in enumerate(plan.graph.outputs)}
    maker = {t: f"layer {i}" for i, step in enumerate(plan.steps) for t in step.node.outputs}
    return [
        {
            "offset": b.offset,
            "bytes": b.bytes,
            "first": b.first,
            "last": b.last,
            "what": ", ".join(
                edge_names.get(t) or maker[t] for t in b.tensors if t in edge_names or t in maker
            )
            or f"scratch of layer {b.first}",
        }
        for b in plan.buffers
    ]


def _tidy(text: str) -> str:
    """``text`` without blank lines at its ends or doubled inside."""
    return re.sub(r"\n[ \t]*(\n[ \t]*)+\n", "\n\n", text.strip("\n")) + "\n"
