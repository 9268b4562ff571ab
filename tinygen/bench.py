"""What a model costs on a core: instructions, cycles (estimated), flash and RAM.

The program measured is minimal: start-up code, the model, inputs, two inferences; no serial line
and of the C library only what the model calls.  QEMU runs it; a plugin counts what the second
inference executes, exactly.  A second build, in which the model reports each layer, gives the
counts by layer and the output bytes, which are held against the reference: a benchmark of wrong
results is an error.  Of boards without a machine in QEMU the core is measured, on a machine that
has the same one.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elftools.elf.elffile import ELFFile

from tinygen import boards, cycles, emit, platformio, project, reference, resources, sizes, verify
from tinygen.boards import Board
from tinygen.compile import Compiled, check_fit, compile_model
from tinygen.errors import InputError, MismatchError, TinyGenError
from tinygen.graph import Graph
from tinygen.ops import macs
from tinygen.plan import Choice, Goal
from tinygen.simulate import qemu
from tinygen.sizes import Sizes

BEGIN, END, LAYER = "tinygen_bench_begin", "tinygen_bench_end", "tinygen_on_layer"
SECONDS = 300.0
"""Time-out of an emulated run."""

SECOND = 3
"""Segment of the second inference: behind start-up, the first inference, and what follows it."""

_STAND_INS = {
    "cortex-m0plus": "cortex-m0",
    "xtensa-lx6": "xtensa-lx106",
    "xtensa-lx7": "xtensa-lx106",
}


@dataclass(frozen=True)
class Program:
    """C sources of a model, and what the minimal program around it needs to know.

    ``name`` is the prefix of the model's symbols and of its header; the header declares what the
    ones that TinyGen generates do.
    """

    name: str
    sources: tuple[Path, ...]
    includes: tuple[Path, ...]
    input_bytes: tuple[int, ...]
    definitions: tuple[str, ...] = ()
    optimize: str = "-O2"


@dataclass(frozen=True)
class Cost:
    """Instructions of one inference, and an estimate of its cycles where there is a model."""

    instructions: int
    cycles: int | None


@dataclass(frozen=True)
class LayerCost:
    """One layer: ``instructions`` and ``cycles`` include the few that report it.

    ``bound`` and ``expected`` are what its kernel says of itself: instructions the method needs,
    counted by hand, and cycles on the core it is written for; 0 when it says nothing.
    ``alternatives`` are the kernels that could have computed it, the one taken among them.
    """

    name: str
    op: str
    kernel: str
    variant: str
    instructions: int
    cycles: int | None
    macs: int
    bound: int = 0
    expected: int = 0
    alternatives: tuple[Choice, ...] = ()


@dataclass(frozen=True)
class Bench:
    """What one inference costs.  ``machine`` is the board that was emulated for ``board``.

    ``macs`` are those that the exact passes leave of the model file's ``nominal_macs``.
    """

    model: str
    board: Board
    machine: Board
    instructions: int
    cycles: int | None
    macs: int
    weight_bytes: int
    arena_bytes: int
    sizes: Sizes
    layers: tuple[LayerCost, ...]
    nominal_macs: int = 0

    @property
    def bound(self) -> int:
        """Instructions that the methods need, over the layers whose kernels say so."""
        return sum(layer.bound for layer in self.layers)

    @property
    def bounded(self) -> int:
        """Instructions that the layers took whose kernels state a bound."""
        return sum(layer.instructions for layer in self.layers if layer.bound)


def machine_for(board: Board) -> Board:
    """The board with a QEMU machine that has the core of ``board``; raises :class:`InputError`."""
    cores = (board.core, _STAND_INS.get(board.core, board.core))
    for core in cores:
        for candidate in (board, *boards.load_all()):
            emulator = candidate.emulator
            if candidate.core == core and emulator is not None and emulator.kind == "qemu":
                return candidate
    raise InputError(
        f"{board.name}: no emulator counts instructions of its core",
        "choose one of the boards that `tinygen boards` shows with qemu",
    )


def bench(path: Path, board: Board, goal: Goal | None = None) -> Bench:
    """Measure the model at ``path``, planned for ``goal``, on the core of ``board``.

    Raises :class:`InputError`, :class:`tinygen.errors.FitError` when the board is too small,
    :class:`MismatchError` when the core computes other bytes than the reference, and
    :class:`TinyGenError` when a compiler or QEMU is missing or fails.
    """
    machine = machine_for(board)
    compiled = compile_model(path, machine, goal=goal)
    check_fit(path, board, compiled.plan.weight_bytes, compiled.plan.arena_bytes)
    with tempfile.TemporaryDirectory(prefix="tinygen-") as name:
        program = generated(compiled, Path(name))
        plain = build(program, machine, Path(name, "plain.elf"))
        traced = build(program, machine, Path(name, "traced.elf"), traced=True)
        cost = measure(machine, plain)
        run = _run(machine, traced, (BEGIN, END, LAYER))
        check_output(compiled.graph, run.finished.output)
        return Bench(
            model=compiled.graph.source,
            board=board,
            machine=machine,
            instructions=cost.instructions,
            cycles=cost.cycles,
            macs=compiled.plan.macs,
            weight_bytes=compiled.plan.weight_bytes,
            arena_bytes=compiled.plan.arena_bytes,
            sizes=sizes.of(plain, compiled.name, board),
            layers=_layers(compiled, run, machine, _disassembled(machine, traced)),
            nominal_macs=macs(compiled.graph),
        )


def generated(compiled: Compiled, folder: Path) -> Program:
    """Write the sources that TinyGen makes of a model into ``folder``."""
    for path, text in emit.sources(compiled.plan, compiled.name).items():
        (folder / Path(path).name).write_text(text)
    graph = compiled.plan.graph
    return Program(
        name=compiled.name,
        sources=(folder / f"{compiled.name}.c",),
        includes=(folder,),
        input_bytes=tuple(graph.at(i).bytes for i in graph.inputs),
        optimize=compiled.plan.compiler_level,
    )


def build(program: Program, machine: Board, elf: Path, traced: bool = False) -> Path:
    """Compile the minimal program around ``program`` for ``machine`` into ``elf``.

    A ``traced`` one reports its layers and writes its outputs.
    """
    system = machine.system
    assert system is not None
    firmware = resources.folder("firmware")
    port = firmware / "port"
    definitions = (
        f'MODEL_HEADER="{program.name}.h"',
        f"MODEL(x)={program.name}_##x",
        f"MODEL_INPUT_BYTES={','.join(map(str, program.input_bytes))}",
        f"TINYGEN_CLOCK_HZ={machine.clock_hz}UL",
        *(("TINYGEN_TRACE=1",) if traced else ()),
        *program.definitions,
        *system.defines,
    )
    symbols = project.board_manifest(machine)["tinygen"]["symbols"]
    _compile(
        [
            tool(machine, "gcc"),
            *system.flags,
            *(
                program.optimize,
                "-std=gnu99",
                "-ffunction-sections",
                "-fdata-sections",
                "-fno-common",
            ),
            *(f"-D{definition}" for definition in definitions),
            *(f"-I{path}" for path in (*program.includes, firmware / "runtime", port)),
            *(f"-I{port / name}" for name in system.folders),
            *(str(p) for p in (*program.sources, firmware / "bench" / "main.c")),
            *(str(p) for name in system.folders for p in sorted((port / name).glob("*.[cS]"))),
            *("-nostartfiles", "-Wl,--gc-sections", f"-T{port / system.script}", f"-L{port}"),
            *(f"-Wl,--defsym,{name}={value:#x}" for name, value in symbols.items()),
            *("-o", str(elf)),
        ]
    )
    return elf


def measure(machine: Board, elf: Path) -> Cost:
    """What the second inference of the program in ``elf`` costs."""
    total = _run(machine, elf, (BEGIN, END)).segments[SECOND]
    code = _disassembled(machine, elf)
    return Cost(total.instructions, cycles.estimate(machine.core, code, total.blocks))


def outputs(machine: Board, elf: Path) -> bytes:
    """What the traced program in ``elf`` computes."""
    return _run(machine, elf, ()).finished.output


def tool(machine: Board, name: str) -> str:
    """A program of the machine's compiler; raises :class:`TinyGenError` when it is missing."""
    assert machine.system is not None
    prefix = machine.system.compiler
    found = shutil.which(f"{prefix}{name}")
    if found is None:
        raise TinyGenError(
            f"{machine.name}: {prefix}{name} is not on PATH",
            f"apt-get install {platformio.PACKAGES.get(prefix, prefix)}",
        )
    return found


def _compile(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise TinyGenError(f"the benchmark does not compile:\n{done.stderr.strip()[:2000]}")


def _run(machine: Board, elf: Path, marks: Sequence[str]) -> qemu.Counted:
    addresses = _addresses(elf, marks)
    counted = qemu.run_counted(machine, elf, marks=addresses.values(), timeout=SECONDS)
    if counted.finished.status != 0:
        raise TinyGenError(
            f"{machine.name}: the benchmark ended with {counted.finished.status}: "
            f"{counted.finished.errors.strip()}"
        )
    return counted


def _addresses(elf: Path, names: Sequence[str]) -> dict[str, int]:
    """Addresses of functions, without the lowest bit that marks Thumb code."""
    with elf.open("rb") as file:
        image = ELFFile(file)
        thumb = image["e_machine"] == "EM_ARM"
        table: Any = image.get_section_by_name(".symtab")
        return {
            name: table.get_symbol_by_name(name)[0]["st_value"] & (~1 if thumb else ~0)
            for name in names
        }


def _layers(
    compiled: Compiled, run: qemu.Counted, machine: Board, code: dict[int, cycles.Instruction]
) -> tuple[LayerCost, ...]:
    """Costs by layer of the second inference of a traced run."""
    steps = compiled.plan.steps
    second = run.segments[-2 - len(steps) : -2] if steps else ()
    return tuple(
        LayerCost(
            name=emit.comment_text(compiled.plan.graph.output(step.node).name),
            op=step.node.op,
            kernel=step.kernel.name,
            variant=step.variant,
            instructions=segment.instructions,
            cycles=cycles.estimate(machine.core, code, segment.blocks),
            macs=step.macs,
            bound=step.kernel.bound,
            expected=step.kernel.cycles,
            alternatives=step.alternatives,
        )
        for step, segment in zip(steps, second, strict=True)
    )


def _disassembled(machine: Board, elf: Path) -> dict[int, cycles.Instruction]:
    if machine.core not in cycles.TIMINGS:
        return {}
    done = subprocess.run(
        [tool(machine, "objdump"), "-d", "-z", str(elf)],
        capture_output=True,
        text=True,
        check=True,
    )
    return cycles.disassembly(done.stdout)


def check_output(graph: Graph, output: bytes) -> None:
    """Raise :class:`MismatchError` unless ``output`` is what ``graph`` makes of the inputs."""
    inputs = next(verify.generated(graph)).inputs
    wanted = b"".join(array.tobytes() for array in reference.run(graph, inputs))
    if output != wanted:
        raise MismatchError(
            f"{graph.source}: the emulated core computes other bytes than the reference",
            "`tinygen verify` names the layer",
        )
