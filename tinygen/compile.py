"""The order of things: model file to plan to sources to project to firmware."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tinygen import (
    boards,
    config,
    emit,
    importers,
    passes,
    plan,
    platformio,
    project,
    resources,
    stack,
    tflm,
)
from tinygen.boards import Board
from tinygen.config import Engine, Toolchain
from tinygen.errors import FitError, InputError
from tinygen.graph import Graph
from tinygen.ops import macs
from tinygen.plan import Goal, Plan
from tinygen.platformio import Firmware
from tinygen.tflm import dropin

BUNDLED_MODEL = "digits/digits_int8.tflite"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What ``tinygen build`` is asked for, defaults filled in."""

    model: Path
    board: Board
    output: Path
    name: str
    engine: Engine = "aot"
    toolchain: Toolchain = "auto"
    tflm_dir: Path | None = None
    goal: Goal = field(default_factory=Goal)


@dataclass(frozen=True, eq=False)
class Compiled:
    """A model as generated code: ``graph`` as imported, ``plan`` after the exact passes."""

    name: str
    graph: Graph
    plan: Plan
    data: bytes


@dataclass(frozen=True, eq=False)
class Built:
    """What a build made.  ``macs`` is None for a model that only TFLM can read."""

    request: Request
    firmware: Firmware
    macs: int | None
    weight_bytes: int
    arena_bytes: int
    stack_bytes: int | None
    """Estimate of what an inference takes of the stack; None when the compiler said nothing."""
    kept: tuple[str, ...]


def bundled_model() -> Path:
    """The example network that TinyGen carries."""
    return resources.folder("examples") / BUNDLED_MODEL


def request(folder: Path, given: Mapping[str, Any]) -> Request:
    """A request from what the command line gives, ``tinygen.toml`` in ``folder`` and defaults.

    ``given`` has the fields of :class:`config.Settings`; None where nothing was said.  Raises
    :class:`InputError` for an unknown board, a bad name, or when no board is named anywhere.
    """
    settings = config.load(folder)
    chosen = settings.model_copy(update={k: v for k, v in given.items() if v is not None})
    if chosen.board is None:
        raise InputError(
            "build: which board?", "add --board NAME; `tinygen boards` lists what there is"
        )
    board = boards.load(chosen.board)
    model = chosen.model or bundled_model()
    name = _c_name(chosen.name, model)
    if chosen.tflm_dir is not None and chosen.engine != "tflm":
        raise InputError("--tflm-dir: only the tflm engine uses it", "add --engine tflm")
    return Request(
        model=model,
        board=board,
        output=chosen.output or folder / "build" / f"{name}-{board.name}",
        name=name,
        engine=chosen.engine,
        toolchain=chosen.toolchain,
        tflm_dir=chosen.tflm_dir,
        goal=Goal(chosen.optimize, chosen.ram_limit, chosen.slow_down),
    )


def _c_name(name: str | None, model: Path) -> str:
    if name is None:
        return emit.c_identifier(model.stem)
    proper = emit.c_identifier(name)
    if proper != name:
        raise InputError(f"--name {name}: not a name for C functions", f"try --name {proper}")
    return name


def compile_model(
    path: Path, board: Board, name: str | None = None, goal: Goal | None = None
) -> Compiled:
    """Import, rewrite and plan the model at ``path`` for ``board``.

    ``name`` is the C name; without one it is made from the file's.  Raises :class:`InputError`,
    and :class:`FitError` when no plan meets the goal's RAM limit.
    """
    graph = importers.load(path)
    planned = plan_for(graph, board, goal or Goal())
    return Compiled(_c_name(name, path), graph, planned, path.read_bytes())


def plan_for(graph: Graph, board: Board, goal: Goal) -> Plan:
    """The plan of an imported ``graph`` for ``board``, after the exact passes.

    Where no limit is given, RAM is saved as far as the board needs that.
    """
    graph = passes.run(graph, board.features)
    planned = plan.make(graph, board.features, goal)
    room = board.ram - (board.system.stack if board.system else 0)
    if goal.ram_limit is None and planned.arena_bytes > room:
        least = plan.make(graph, board.features, replace(goal, optimize="ram"))
        return min(planned, least, key=lambda made: made.arena_bytes)
    return planned


def build(wanted: Request, say: Say = lambda line: None) -> Built:
    """Generate the project, build it and record what came out.

    Raises :class:`InputError`, :class:`FitError` when the board is too small, and
    :class:`tinygen.errors.TinyGenError` when a tool fails.
    """
    compiled = None
    if wanted.engine == "aot":
        compiled = compile_model(wanted.model, wanted.board, wanted.name, wanted.goal)
        contents = _generated(compiled)
        arena = compiled.plan.arena_bytes
    else:
        contents, arena = _interpreted(wanted)
    check_fit(wanted.model, wanted.board, contents.weight_bytes, arena)
    say(f"{wanted.model.name}: writing {wanted.output}")
    written = project.write(wanted.output, wanted.board, contents)
    firmware = platformio.build(wanted.output, wanted.board, wanted.toolchain, say)
    if not firmware.sizes.fits:
        raise _does_not_fit(wanted, firmware)
    built_in = wanted.output / ".pio" / "build" / firmware.environment
    stack_bytes = stack.of_build(built_in, wanted.name)
    project.record(wanted.output, stack_estimate=stack_bytes)
    return Built(
        request=wanted,
        firmware=firmware,
        macs=compiled.plan.macs if compiled else _macs(wanted.model),
        weight_bytes=contents.weight_bytes,
        arena_bytes=arena,
        stack_bytes=stack_bytes,
        kept=written.kept,
    )


def _generated(compiled: Compiled) -> project.Contents:
    """The ``aot`` engine's part of a project, TFLM's interface to the model included."""
    stand_in = dropin.header(compiled.name, compiled.graph.source, compiled.graph.sha256)
    return project.Contents(
        name=compiled.name,
        engine="aot",
        model=compiled.data,
        source=compiled.graph.source,
        library=emit.sources(compiled.plan, compiled.name) | stand_in,
        layers=layers(compiled.plan),
        weight_bytes=compiled.plan.weight_bytes,
        extra={f"lib/tinygen_tflm/{path}": data for path, data in dropin.runtime().items()},
        optimize=compiled.plan.compiler_level,
    )


def _interpreted(wanted: Request) -> tuple[project.Contents, int]:
    """The ``tflm`` engine's part of a project, and the bytes of its arena."""
    data = importers.read(wanted.model)
    tree = tflm.check_tree(wanted.tflm_dir) if wanted.tflm_dir else None
    _check_tflm_builds(wanted, tree)
    made = tflm.generate(data, wanted.model.name, wanted.name, tree)
    vendor = wanted.board.vendor
    contents = project.Contents(
        name=wanted.name,
        engine="tflm",
        model=data,
        source=made.summary.source,
        library=made.sources,
        layers=[
            {"name": layer.name, "op": layer.op, "tensor": layer.tensor, "bytes": layer.bytes}
            for layer in made.summary.layers
        ],
        weight_bytes=len(data),
        lib_deps=vendor.tflm if vendor and tree is None else (),
        extra={f"lib/tflm/{path}": text for path, text in made.runtime.items()},
    )
    return contents, made.arena_bytes


def _check_tflm_builds(wanted: Request, tree: tflm.Tree | None) -> None:
    """Raise when the environment that will be built has no TFLM, or no compiler for it."""
    choice = platformio.choose(wanted.board, wanted.toolchain)
    target = boards.simulated_by(wanted.board)
    if choice.toolchain == "vendor" or target is None or target.system is None:
        return
    if tree is None:
        raise InputError(
            f"--engine tflm: TensorFlow Lite Micro is not at hand for {choice.environment}, "
            "which compilers from PATH build",
            "name a source tree of it with --tflm-dir",
        )
    tflm.check_compiler(target.system.compiler)


def _macs(model: Path) -> int | None:
    """Multiply-accumulates, if our importer reads the model."""
    try:
        return macs(importers.load(model))
    except InputError:
        return None


def layers(planned: Plan) -> list[dict[str, Any]]:
    """What the manifest says of each layer that the traced firmware reports."""
    graph = planned.graph
    return [
        {
            "name": emit.comment_text(graph.output(step.node).name),
            "op": step.node.op,
            "tensor": step.node.outputs[0],
            "bytes": graph.output(step.node).bytes,
        }
        for step in planned.steps
    ]


def check_fit(model: Path, board: Board, weights: int, arena: int) -> None:
    """Raise :class:`FitError` when weights, or arena and stack, alone are more than there is."""
    stack_bytes = board.system.stack if board.system else 0
    for what, needed, limit in (
        ("flash for its weights", weights, board.flash_limit),
        ("RAM for its arena and the stack", arena + stack_bytes, board.ram),
    ):
        if needed > limit:
            raise FitError(
                f"{model.name}: does not fit {board.name}: needs {needed:,} bytes of {what}, "
                f"the board has {limit:,}",
                f"`tinygen boards {model}` says where it fits",
            )


def _does_not_fit(wanted: Request, firmware: Firmware) -> FitError:
    flash, ram = firmware.sizes.flash, firmware.sizes.ram
    return FitError(
        f"{wanted.model.name}: does not fit {wanted.board.name}: flash {flash.total:,} of "
        f"{flash.limit:,} bytes, RAM {ram.total + ram.stack:,} of {ram.limit:,} with the stack",
        f"`tinygen boards {wanted.model}` says where it fits",
    )
