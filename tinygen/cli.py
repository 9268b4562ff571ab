"""The command line: one verb a function, errors in one place.

Exit codes: 0 done, 1 failed, 2 bad usage or input, 3 does not fit the board, 4 outputs differ from
the reference.
"""

from __future__ import annotations

import errno
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from tinygen import __version__
from tinygen.errors import InputError, TinyGenError
from tinygen.report import console

if TYPE_CHECKING:
    from tinygen.plan import Goal

app = typer.Typer(
    name="tinygen",
    help="A neural network and a board in; small, fast, bit-exact firmware out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class EngineName(StrEnum):
    aot = "aot"
    tflm = "tflm"


class ToolchainName(StrEnum):
    auto = "auto"
    vendor = "vendor"
    system = "system"


class OptimizeName(StrEnum):
    speed = "speed"
    balanced = "balanced"
    ram = "ram"
    size = "size"


class AimName(StrEnum):
    flash = "flash"
    ram = "ram"
    latency = "latency"


class TaskName(StrEnum):
    auto = "auto"
    classification = "classification"
    anomaly = "anomaly"
    regression = "regression"


def _size(text: str) -> int:
    """Bytes from what a person writes, such as 20k."""
    from tinygen.config import parse_size

    try:
        return int(parse_size(text))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _time(text: str) -> float:
    """Seconds from what a person writes, such as 50ms."""
    from tinygen.config import parse_time

    try:
        return parse_time(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


Optimize = Annotated[
    OptimizeName | None,
    typer.Option(
        help="speed: no cycle for RAM; balanced: a few; ram: up to a quarter; size: least flash."
    ),
]
RamLimit = Annotated[
    int | None,
    typer.Option(
        "--ram-limit", parser=_size, metavar="BYTES", help="Most RAM for tensors, such as 20k."
    ),
]
SlowDown = Annotated[
    float | None,
    typer.Option(
        "--slow-down",
        min=1.0,
        metavar="FACTOR",
        help="How much slower encoded weights may make it, such as 1.5; entropy coding included.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Model = Annotated[Path, typer.Argument(metavar="MODEL", help="A .tflite file.")]
Project = Annotated[
    Path, typer.Argument(metavar="PROJECT", help="A folder that `tinygen build` made.")
]
BoardName = Annotated[
    str | None, typer.Option("--board", "-b", help="A board; `tinygen boards` lists them.")
]
Port = Annotated[
    str | None, typer.Option("--port", "-p", help="Serial port; found by USB id when left out.")
]


def _goal(optimize: OptimizeName | None, ram_limit: int | None, slow_down: float | None) -> Goal:
    from tinygen.plan import Goal

    return Goal(optimize.value if optimize else "balanced", ram_limit, slow_down)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tinygen {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    del version


@app.command()
def build(
    model: Annotated[
        Path | None,
        typer.Argument(
            metavar="MODEL", help="A .tflite file; else tinygen.toml's, else the bundled example."
        ),
    ] = None,
    board: BoardName = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Project folder [build/NAME-BOARD]."),
    ] = None,
    engine: Annotated[
        EngineName | None, typer.Option(help="aot: generated C; tflm: TensorFlow Lite Micro.")
    ] = None,
    toolchain: Annotated[
        ToolchainName | None,
        typer.Option(help="vendor: PlatformIO's packages; system: compilers on PATH."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model in C.")] = None,
    tflm_dir: Annotated[
        Path | None, typer.Option(help="A local tree of TFLM for --engine tflm.")
    ] = None,
    optimize: Optimize = None,
    ram_limit: RamLimit = None,
    slow_down: SlowDown = None,
    as_json: Json = False,
) -> None:
    """Build firmware for a model and a board."""
    from tinygen import compile as compiler
    from tinygen.report import build as report

    given = {
        "model": model,
        "board": board,
        "output": output,
        "engine": engine.value if engine else None,
        "toolchain": toolchain.value if toolchain else None,
        "name": name,
        "tflm_dir": tflm_dir,
        "optimize": optimize.value if optimize else None,
        "ram_limit": ram_limit,
        "slow_down": slow_down,
    }
    result = compiler.build(compiler.request(Path.cwd(), given), console.say)
    if as_json:
        console.print_json(report.document(result))
    else:
        report.show(result, console.out())


@app.command()
def verify(
    project: Project,
    on: Annotated[
        str, typer.Option("--on", help="host, emulator, or the serial port of a board.")
    ] = "emulator",
    data: Annotated[
        Path | None, typer.Option(help="Inputs of your own, a .npz [generated ones].")
    ] = None,
    cases: Annotated[int, typer.Option(min=1, help="How many inputs to generate.")] = 5,
    as_json: Json = False,
) -> None:
    """Compare every output byte of running firmware with the Python reference."""
    from tinygen import verify as verifier
    from tinygen.report import verify as report

    result = verifier.verify(project, on, data=data, cases=cases)
    if as_json:
        console.print_json(report.document(result))
    else:
        report.show(result, console.out())
    if not result.passed:
        raise verifier.mismatch(result)


@app.command()
def compress(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A .keras file, or a float or int8 .tflite.")
    ],
    board: Annotated[
        str, typer.Option("--board", "-b", help="A board; `tinygen boards` lists them.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The .tflite file to write.", show_default=False)
    ],
    data: Annotated[
        Path | None, typer.Option(help="A .npz with inputs and labels: to train and to judge by.")
    ] = None,
    validation: Annotated[
        Path | None, typer.Option(help="A .npz to judge by [part of --data].")
    ] = None,
    test: Annotated[
        Path | None, typer.Option(help="A .npz that nothing is chosen by, to report at the end.")
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="A TOML file of [[compress]] tables: do that, no search.")
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME:key=value,...", help="A step, no search; may be given several times."
        ),
    ] = None,
    max_accuracy_loss: Annotated[
        float | None, typer.Option(min=0, help="Points that may be lost [0.5 when searching].")
    ] = None,
    flash_limit: Annotated[
        int | None,
        typer.Option(parser=_size, metavar="BYTES", help="Most flash for the model, such as 64k."),
    ] = None,
    ram_limit: RamLimit = None,
    latency_limit: Annotated[
        float | None,
        typer.Option(parser=_time, metavar="TIME", help="Longest inference, such as 50ms."),
    ] = None,
    goal: Annotated[AimName, typer.Option(help="What to make small.")] = AimName.flash,
    optimize: Optimize = None,
    slow_down: SlowDown = None,
    task: Annotated[TaskName, typer.Option(help="What the outputs are.")] = TaskName.auto,
    trials: Annotated[
        int | None,
        typer.Option(min=1, help="Recipes to try [20]; given: search, whatever a file says."),
    ] = None,
    timeout: Annotated[float | None, typer.Option(min=1, help="Seconds to search at most.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of every random choice.")] = 0,
    study: Annotated[
        str | None,
        typer.Option(metavar="URL", help="An Optuna storage or journal file that machines share."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped search.")] = False,
    as_json: Json = False,
) -> None:
    """Make a model small: carry out a recipe, or search for the best one within limits."""
    from tinygen import boards as facts
    from tinygen import config
    from tinygen.compress import recipe as recipes
    from tinygen.compress import search
    from tinygen.report import compress as report

    steps = recipes.given(recipe, method, config.load_recipe(Path.cwd()), trials is not None)
    if max_accuracy_loss is None and steps is None:
        max_accuracy_loss = search.ACCURACY_LOSS
    request = search.Request(
        model=model,
        board=facts.load(board),
        output=output,
        data=data,
        validation=validation,
        test=test,
        steps=steps,
        limits=search.Limits(max_accuracy_loss, flash_limit, ram_limit, latency_limit),
        aim=goal.value,
        goal=_goal(optimize, None, slow_down),
        task=None if task is TaskName.auto else task.value,
        trials=trials or search.TRIALS,
        timeout=timeout,
        seed=seed,
        study=study,
        resume=resume,
    )
    watch = search.Watch(report.Lines(console.err()), console.say, console.steps)
    outcome = search.compress(request, watch)
    report.write(outcome)
    search.write_output(outcome)
    if as_json:
        console.print_json(report.document(outcome))
    else:
        report.show(outcome, console.out())


@app.command()
def evaluate(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="PROJECT", help="A folder that `tinygen build` made, or a .tflite file."
        ),
    ],
    data: Annotated[
        Path, typer.Option(help="A .npz with inputs and labels (or x and y).", show_default=False)
    ],
    task: Annotated[TaskName, typer.Option(help="What the outputs are.")] = TaskName.auto,
    float_model: Annotated[
        Path | None,
        typer.Option("--float", help="The model before quantization, to compare with."),
    ] = None,
    by_reference: Annotated[
        bool, typer.Option("--reference", help="Run the numpy reference: no compiler, slow.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Say how good a model is, running its generated C on this machine."""
    from tinygen import evaluate as evaluator
    from tinygen.report import evaluate as report

    chosen = None if task is TaskName.auto else task.value
    result = evaluator.evaluate(
        model, data, chosen, float_model, by_reference, progress=console.steps
    )
    if as_json:
        console.print_json(report.document(result))
    else:
        report.show(result, console.out())


@app.command()
def flash(project: Project, port: Port = None, as_json: Json = False) -> None:
    """Write a built project's firmware to its board."""
    from tinygen import flash as flasher

    result = flasher.flash(project, port)
    if as_json:
        console.print_json(result.document())
    else:
        console.out().print(result.message, markup=False)


@app.command()
def monitor(
    project: Annotated[
        Path | None, typer.Argument(metavar="PROJECT", help="Whose board to look for.")
    ] = None,
    port: Port = None,
    baud: Annotated[int, typer.Option(min=300, help="Bits a second.")] = 115_200,
) -> None:
    """Show what a board says on its serial port; Ctrl-C ends it."""
    from tinygen import monitor as watcher

    watcher.monitor(project, port, baud)


@app.command()
def boards(
    model: Annotated[
        Path | None, typer.Argument(metavar="MODEL", help="Say whether it fits each board.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the boards, with a model also whether it fits."""
    from tinygen.report import boards as report

    if as_json:
        console.print_json(report.document(model))
    else:
        report.show(model, console.out())


@app.command()
def inspect(
    model: Model,
    board: BoardName = "host",
    optimize: Optimize = None,
    ram_limit: RamLimit = None,
    slow_down: SlowDown = None,
    as_json: Json = False,
) -> None:
    """Show a model's layers, work, weights and memory over time."""
    from tinygen import boards as facts
    from tinygen import compile as compiler
    from tinygen.report import inspect as report

    goal = _goal(optimize, ram_limit, slow_down)
    compiled = compiler.compile_model(model, facts.load(board or "host"), goal=goal)
    graph, planned = compiled.graph, compiled.plan
    if as_json:
        console.print_json(report.document(graph, planned))
    else:
        report.show(graph, planned, console.out())


@app.command()
def bench(
    model: Model,
    board: BoardName = "qemu_m4",
    why: Annotated[bool, typer.Option("--why", help="Show the kernels not taken, too.")] = False,
    optimize: Optimize = None,
    ram_limit: RamLimit = None,
    slow_down: SlowDown = None,
    as_json: Json = False,
) -> None:
    """Measure instructions, flash and RAM of a model on an emulated core."""
    from tinygen import bench as bencher
    from tinygen import boards as facts
    from tinygen.report import bench as report

    goal = _goal(optimize, ram_limit, slow_down)
    result = bencher.bench(model, facts.load(board or "qemu_m4"), goal)
    if as_json:
        console.print_json(report.document(result))
    else:
        report.show(result, console.out(), why)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what is installed, what is missing, and how to install it."""
    from tinygen.report import doctor as report

    facts = report.examine()
    if as_json:
        console.print_json(report.document(facts))
    else:
        report.show(facts, console.out())


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and leave with its exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        app(args=words)
        sys.exit(0)
    except TinyGenError as error:
        _fail(error, "--json" in words)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        _fail(_system_error(error), "--json" in words)
    except Exception as error:
        if os.environ.get("TINYGEN_DEBUG"):
            raise
        _fail(_internal_error(error), "--json" in words)


def _fail(error: TinyGenError, as_json: bool) -> NoReturn:
    if as_json:
        facts: dict[str, Any] = {"message": error.message, "hint": error.hint}
        console.print_json({"error": facts | {"exit_code": error.exit_code}})
    hint = f"\n\nhint: {error.hint}" if error.hint else ""
    console.err().print(f"error: {error.message}{hint}", markup=False)
    sys.exit(error.exit_code)


def _system_error(error: OSError) -> TinyGenError:
    where = f"{error.filename}: " if error.filename else ""
    reason = error.strerror or str(error)
    if error.errno == errno.ENOSPC:
        return TinyGenError(f"{where}{reason}", "free some disk space and try again")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return InputError(f"{where}{reason}", "choose a folder that you may write to with -o")
    return TinyGenError(f"{where}{reason}")


def _internal_error(error: Exception) -> TinyGenError:
    return TinyGenError(
        f"tinygen: this is a bug: {type(error).__name__}: {error}",
        "run again with TINYGEN_DEBUG=1 and report what it prints",
    )
