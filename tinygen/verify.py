"""Every output byte of running firmware against the Python reference.

The firmware runs on this machine, in an emulator of the board, or on the board itself, and speaks
the serial protocol.  It gets inputs that are made here or come from the user; the reference gets
the same.  When a byte differs, the firmware is built again with traces, and the CRC-32 of each
layer's output tells where the two part.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from zlib import crc32

import numpy as np

from tinygen import boards, importers, passes, platformio, project, reference, simulate
from tinygen.errors import InputError, MismatchError, TinyGenError
from tinygen.graph import Array, Graph, Tensor, printable
from tinygen.ops import macs
from tinygen.project import Manifest
from tinygen.protocol import Device, LayerTrace
from tinygen.report import console
from tinygen.serialport import SerialTransport
from tinygen.simulate import Transport

HOST = "host"
EMULATOR = "emulator"
TRACE = "-DTINYGEN_TRACE"

_START_SECONDS = 30.0
_HOST_RATE = 200_000.0  # multiply-accumulates a second, with sanitizers and other work to do
_SLOWEST_RATE = 10_000.0  # the same of an emulated chip

Reference = Callable[[Graph, Sequence[Array]], Sequence[Array]]
Launch = Callable[[Sequence[str]], AbstractContextManager[Transport]]
"""Starts the project's firmware, compiled with further flags, and gives the pipe to it."""


@dataclass(frozen=True, eq=False)
class Case:
    """One inference: a name to call it by, and an array for each input of the model."""

    name: str
    inputs: tuple[Array, ...]

    @property
    def data(self) -> bytes:
        return _bytes(self.inputs)


@dataclass(frozen=True)
class VerifyResult:
    """What the comparison found; ``bytes`` is how many were compared, all cases together."""

    project: str
    on: str
    cases: int
    bytes: int
    mismatches: int
    """Bytes that differ."""
    layers: int = 0
    """Layers' outputs compared by their CRC-32, all cases together; only the host's has them."""
    failed: tuple[str, ...] = ()
    """Names of the cases in which an output byte or a layer differs."""
    diverging: str = ""
    """The first layer whose output differs, or why none can be named; "" when nothing differs."""
    stack_peak: int = 0
    """Most bytes of stack the firmware used; 0 when it cannot tell."""
    stack_estimate: int | None = None
    """Bytes of stack that an inference alone takes, as estimated when the project was built."""

    @property
    def passed(self) -> bool:
        return not self.failed


def verify(folder: Path, on: str, data: Path | None = None, cases: int = 5) -> VerifyResult:
    """Compare the firmware of the project in ``folder`` with the reference.

    ``on`` is ``"host"`` (built with sanitizers and traces, so that every layer is compared too),
    ``"emulator"``, or a serial port.  Inputs are those
    in the ``.npz`` file ``data`` (see :func:`read_npz`), or ``cases`` of :func:`generated`.

    Raises :class:`InputError` when the project or the data cannot be used, and
    :class:`TinyGenError` when the firmware does not build, start or answer.
    """
    manifest = project.load(folder)
    graph = model_of(folder, manifest)
    given = list(islice(generated(graph), cases)) if data is None else read_npz(data, graph)
    launch, traced = launcher(folder, manifest, on), _traced(folder, manifest, on)
    return check(manifest, graph, given, on, launch, traced)


def mismatch(result: VerifyResult) -> MismatchError:
    """The error that a failed comparison is."""
    shown = ", ".join(result.failed[:5]) + (", ..." if len(result.failed) > 5 else "")
    return MismatchError(
        f"{result.project}: on {result.on}, {result.mismatches} of {result.bytes} output bytes "
        f"differ from the reference; {len(result.failed)} of {result.cases} cases failed "
        f"({shown}); {result.diverging}",
        "build the project again and verify it with --on host, which uses sanitizers and compares "
        "every layer; if it still differs, report it with the model",
    )


def check(
    manifest: Manifest,
    graph: Graph,
    cases: Sequence[Case],
    on: str,
    launch: Launch,
    traced: Launch,
    run: Reference = reference.run,
) -> VerifyResult:
    """:func:`verify` with its parts given: what starts firmware, and what the reference is.

    ``traced`` starts the firmware that names a diverging layer; it may run in another place.
    """
    deep = on == HOST
    rewritten = graph
    if manifest.engine == "aot":
        rewritten = passes.run(graph, boards.load(manifest.board).features)
    different: dict[str, int] = {}
    compared = layers = 0
    diverging = ""
    with (
        launch((TRACE,) if deep else ()) as transport,
        console.progress(f"verifying on {on}", len(cases)) as bar,
    ):
        device = connect(transport, manifest, on, _patience(rewritten, on))
        for case in cases:
            traces = _infer(device, case, deep)
            found, wanted = device.output(), _bytes(run(graph, case.inputs))
            if len(found) != len(wanted):
                raise TinyGenError(
                    f"{on}: the firmware gives {len(found)} bytes, the reference {len(wanted)}",
                    "build the project again",
                )
            layer = _first_different(manifest, rewritten, case, traces)
            if found != wanted or layer:
                different[case.name] = sum(a != b for a, b in zip(found, wanted, strict=True))
            diverging = diverging or layer
            compared += len(wanted)
            layers += len(traces)
            bar.advance(bar.task_ids[0])
        stack = device.stack_peak()
    if different and not diverging:
        case = next(case for case in cases if case.name in different)
        diverging = _diverging(manifest, rewritten, case, on, traced)
    return VerifyResult(
        project=manifest.name,
        on=on,
        cases=len(cases),
        bytes=compared,
        mismatches=sum(different.values()),
        layers=layers,
        failed=tuple(different),
        diverging=diverging,
        stack_peak=stack,
        stack_estimate=manifest.stack_estimate,
    )


def _infer(device: Device, case: Case, deep: bool) -> tuple[LayerTrace, ...]:
    """One inference from a fresh state; what its layers gave when that is asked for."""
    device.reset()
    device.load(case.data)
    if deep and device.info().layers:
        return device.layers()
    device.infer()
    return ()


def _patience(graph: Graph, on: str) -> float:
    """Seconds that one inference may take: emulated chips are slow, on busy machines slower."""
    return _START_SECONDS + macs(graph) / (_HOST_RATE if on == HOST else _SLOWEST_RATE)


def connect(transport: Transport, manifest: Manifest, on: str, patience: float = 300.0) -> Device:
    """The project's model in the firmware behind ``transport``.

    ``patience`` is how many seconds an inference may take.  Raises :class:`TinyGenError` when the
    firmware was made from another model file.
    """
    device = Device(transport, on, patience)
    info = device.connect()
    if info.models > 1 and info.model != manifest.name:
        info = device.select(manifest.name)
    if info.sha256 != manifest.sha256:
        raise TinyGenError(
            f"{on}: runs '{printable(info.model)}', made from another model file than the project",
            "build the project again, and flash it if it runs on a board",
        )
    return device


# ---- where the firmware runs ---------------------------------------------------------------------


def launcher(folder: Path, manifest: Manifest, on: str) -> Launch:
    """What starts the project's firmware on ``on``; :class:`InputError` without an emulator."""
    if on == HOST:
        return lambda flags: simulate.start(boards.load(HOST), platformio.make(folder, HOST, flags))
    if on == EMULATOR:
        return _emulator(folder, manifest)
    return lambda flags: SerialTransport(on)


def _emulator(folder: Path, manifest: Manifest) -> Launch:
    board = boards.load(manifest.board)
    target = boards.simulated_by(board)
    if target is None:
        raise InputError(
            f"{board.name}: no emulator runs its firmware",
            "verify it with --on host, or with --on PORT on the board itself",
        )
    environment = HOST if board.core == HOST else f"{board.name}_sim"
    built = folder / manifest.artifacts.get("elf", "")

    def launch(flags: Sequence[str]) -> AbstractContextManager[Transport]:
        if not flags and manifest.environment == environment and built.is_file():
            return simulate.start(target, built)
        return simulate.start(target, platformio.make(folder, environment, flags))

    return launch


def _traced(folder: Path, manifest: Manifest, on: str) -> Launch:
    """What starts firmware with traces: in the same place, or on the host instead of on a board."""
    return launcher(folder, manifest, on if on in (HOST, EMULATOR) else HOST)


# ---- which layer ---------------------------------------------------------------------------------


def _first_different(
    manifest: Manifest, graph: Graph, case: Case, traces: Sequence[LayerTrace]
) -> str:
    """Words that name the first layer whose output is not the reference's; "" when all are.

    ``graph`` is the network as the exact passes leave it, channels dropped.  A layer that they left
    in another size when the project was generated, by another version, is not compared.
    """
    if not traces or not manifest.layers:
        return ""
    found = {trace.layer: trace.crc for trace in traces}
    values = reference.run_all(graph, case.inputs)
    for number, layer in enumerate(manifest.layers):
        value = values.get(int(layer["tensor"]))
        if number not in found or value is None or value.nbytes != layer.get("bytes", value.nbytes):
            continue
        if found[number] != crc32(_bytes([value])):
            return f"the first layer that differs is {number} {layer['op']} '{layer['name']}'"
    return ""


def _diverging(manifest: Manifest, graph: Graph, case: Case, on: str, traced: Launch) -> str:
    """Words that say where firmware with traces parts from the reference on ``case``."""
    place = on if on in (HOST, EMULATOR) else HOST
    try:
        with traced((TRACE,)) as transport:
            device = connect(transport, manifest, place, _patience(graph, place))
            traces = _infer(device, case, deep=True)
    except TinyGenError as error:
        return f"no layer can be named: {error.message}"
    if not traces:
        return "no layer can be named: the engine reports none"
    layer = _first_different(manifest, graph, case, traces)
    if layer or place == on:
        return layer or "with traces compiled in all layers agree"
    return "on the host all layers agree: the board runs other firmware, or has a fault"


# ---- inputs --------------------------------------------------------------------------------------


def generated(graph: Graph) -> Iterator[Case]:
    """Cases without end: random bytes, a ramp, small values, extremes, zero, more random bytes.

    ``lcgS`` is the linear congruential generator of Numerical Recipes started at S, its top byte a
    step, reinterpreted as the element type (for float32: ``(byte - 128) / 32``); ``ramp`` counts
    from -128 to 127; ``quiet4`` is ``(b - 128) // 8`` over the bytes of ``lcg4``.  In ``lcgS`` a
    model's inputs share one stream.
    """
    tensors = [graph.at(index) for index in graph.inputs]
    yield Case("lcg1", _random(tensors, 1))
    yield Case("ramp", _each(tensors, lambda n: np.arange(n) % 256 - 128))
    yield Case("quiet4", _each(tensors, lambda n: (_lcg(4, n).astype(np.int64) - 128) // 8))
    yield Case("edges", tuple(_edges(t) for t in tensors))
    yield Case("zero", _each(tensors, lambda n: np.zeros(n, np.int64)))
    for seed in count(2):
        yield Case(f"lcg{seed}", _random(tensors, seed))


def _lcg(seed: int, size: int) -> Array:
    data = bytearray(size)
    x = seed
    for i in range(size):
        x = (x * 1664525 + 1013904223) & 0xFFFFFFFF
        data[i] = x >> 24
    return np.frombuffer(bytes(data), np.uint8)


def _random(tensors: Sequence[Tensor], seed: int) -> tuple[Array, ...]:
    stream = _lcg(seed, sum(t.elements if t.dtype == "float32" else t.bytes for t in tensors))
    arrays = []
    for t in tensors:
        size = t.elements if t.dtype == "float32" else t.bytes
        piece, stream = stream[:size], stream[size:]
        if t.dtype == "float32":
            array: Array = (piece.astype(np.float32) - 128) / 32
        elif t.dtype == "bool":
            array = piece & 1
        else:
            array = piece.view(np.dtype(t.dtype).newbyteorder("<"))
        arrays.append(array.astype(t.dtype).reshape(t.shape))
    return tuple(arrays)


def _each(tensors: Sequence[Tensor], values: Callable[[int], Array]) -> tuple[Array, ...]:
    """``values`` for each input, which wrap in element types that are too narrow."""
    return tuple(values(t.elements).astype(t.dtype).reshape(t.shape) for t in tensors)


def _edges(tensor: Tensor) -> Array:
    """Lowest, highest, lowest, ... of the element type."""
    if tensor.dtype == "float32":
        low, high = -1e6, 1e6
    elif tensor.dtype == "bool":
        low, high = 0, 1
    else:
        limits = np.iinfo(tensor.dtype)
        low, high = limits.min, limits.max
    pattern = np.array([low, high], tensor.dtype)
    return pattern[np.arange(tensor.elements) % 2].reshape(tensor.shape)


def read_npz(path: Path, graph: Graph) -> list[Case]:
    """The user's inputs: an array for each input of the model, each of one case or of several.

    Arrays are taken by the inputs' names; when these are not there, those of a fitting shape in the
    file's order.  Float arrays for an integer input are quantized with its scale and zero point,
    rounded half away from zero and clamped, which is said on stderr; any other element type that
    is not the input's own is refused.  Raises :class:`InputError`.
    """
    arrays = _arrays(path)
    tensors = [graph.at(index) for index in graph.inputs]
    chosen = [
        _converted(path, name, _stacked(arrays[name], tensor.shape), tensor)
        for name, tensor in zip(_chosen(path, arrays, tensors), tensors, strict=True)
    ]
    lengths = {len(array) for array in chosen}
    if len(lengths) != 1 or lengths == {0}:
        raise InputError(
            f"{path.name}: {' and '.join(map(str, sorted(lengths)))} cases",
            "give every input the same number of cases, and at least one",
        )
    return [
        Case(f"{path.stem}[{i}]", tuple(array[i] for array in chosen)) for i in range(lengths.pop())
    ]


def _arrays(path: Path) -> dict[str, Array]:
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise ValueError("one array, without a name")
        with file:
            return {name: file[name] for name in file.files}
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}", "give an .npz file") from error
    except (ValueError, EOFError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not an .npz file of numbers: {error}") from error


def _chosen(path: Path, arrays: Mapping[str, Array], tensors: Sequence[Tensor]) -> list[str]:
    """Names of the arrays for the inputs, in their order."""
    names = [tensor.name for tensor in tensors]
    if not all(name in arrays for name in names):
        fitting = [
            name
            for name, array in arrays.items()
            if any(_fits(array.shape, tensor.shape) for tensor in tensors)
        ]
        names = fitting if len(fitting) == len(tensors) else []
    if names and all(_fits(arrays[n].shape, t.shape) for n, t in zip(names, tensors, strict=True)):
        unused = [name for name in arrays if name not in names]
        if unused:
            console.say(f"{path.name}: not used: {', '.join(map(printable, unused))}")
        return names
    has = ", ".join(f"{printable(name)} {array.shape}" for name, array in arrays.items())
    wants = ", ".join(f"{printable(t.name)} {t.shape}" for t in tensors)
    raise InputError(
        f"{path.name}: no array for each input: it has {has or 'none'}, the model wants {wants}",
        "name the arrays as the model's inputs; the first axis may count cases",
    )


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """One case, a stack of cases, or cases in place of a batch of one."""
    return shape in (wanted, (*shape[:1], *wanted)) or (
        wanted[:1] == (1,) and shape == (*shape[:1], *wanted[1:])
    )


def _stacked(array: Array, wanted: tuple[int, ...]) -> Array:
    return array[np.newaxis] if array.shape == wanted else array.reshape(len(array), *wanted)


def _converted(path: Path, name: str, array: Array, tensor: Tensor) -> Array:
    """``array`` in the element type of ``tensor``."""
    where = f"{path.name}: {printable(name)}"
    if array.dtype == np.dtype(tensor.dtype):
        return array
    if array.dtype.kind != "f" or tensor.dtype == "bool":
        raise InputError(
            f"{where}: is {array.dtype}, the input is {tensor.dtype}",
            f"store it as {tensor.dtype}, or as float32 to have it quantized",
        )
    if not np.isfinite(array).all():
        raise InputError(f"{where}: has values that are no numbers")
    if tensor.dtype == "float32":
        console.say(f"{where}: {array.dtype} narrowed to float32")
        return array.astype(np.float32)
    console.say(
        f"{where}: {array.dtype} quantized to {tensor.dtype} with scale {tensor.scale:g}, "
        f"zero point {tensor.zero_point}"
    )
    return quantized(array, tensor)


def quantized(array: Array, tensor: Tensor) -> Array:
    """Real values as elements of ``tensor``, rounded half away from zero and clamped."""
    real = array.astype(np.float32) / np.float32(tensor.scale)
    rounded = np.copysign(np.floor(np.abs(real.astype(np.float64)) + 0.5), real)
    limits = np.iinfo(tensor.dtype)
    clamped: Array = np.clip(rounded + tensor.zero_point, limits.min, limits.max)
    return clamped.astype(tensor.dtype)


def _bytes(arrays: Sequence[Array]) -> bytes:
    """``arrays`` one after another as they lie in the memory of a chip: little endian."""
    return b"".join(a.astype(a.dtype.newbyteorder("<")).tobytes() for a in arrays)


def model_of(folder: Path, manifest: Manifest) -> Graph:
    """The project's model; :class:`InputError` when it is not the file it was made from."""
    path = inside(folder, manifest.model)
    if hashlib.sha256(importers.read(path)).hexdigest() != manifest.sha256:
        raise InputError(
            f"{manifest.model}: not the file that the project was made from",
            "build the project again from the model you want",
        )
    return importers.load(path)


def inside(folder: Path, path: str) -> Path:
    """``path`` within ``folder``; :class:`InputError` when a damaged manifest points outside."""
    target = (folder / path).resolve()
    if not target.is_relative_to(folder.resolve()):
        raise InputError(f"{folder}: {path!r} lies outside the project")
    return target
