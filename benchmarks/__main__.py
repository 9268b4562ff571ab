"""Measure models on all emulated cores, with peers: ``python -m benchmarks --help``.

What is measured goes into ``results.json``; what is not keeps its figures there.  Tables and plots
are then made of the whole.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks import peers, results, tables
from benchmarks.simplified import UnsupportedError
from tinygen import boards, importers, resources
from tinygen.errors import FitError, InputError, TinyGenError
from tinygen.report import console

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "models"


@dataclass(frozen=True)
class Job:
    """One measurement; ``engine`` is one of TinyGen's or a peer."""

    model: Path
    board: str
    engine: str


def main() -> int:
    wanted = _arguments()
    found = models(wanted.models, wanted.only)
    if not found:
        console.say("no model to measure")
        return 2
    jobs = [
        Job(model, board, engine)
        for model in found
        for board in wanted.boards
        for engine in engines(board, wanted.engines)
    ]
    document = results.load()
    document["tools"] |= results.tools()
    failures = 0
    for job, row in _measured(jobs, wanted.jobs):
        if "error" in row:
            console.say(f"{job.model.stem} on {job.board}, {job.engine}: {row['error']}")
            failures += job.engine in results.ENGINES and not row.get("expected")
        by_model = document["results"].setdefault(job.model.stem, {})
        by_model.setdefault(job.board, {})[job.engine] = {
            key: value for key, value in row.items() if key != "expected"
        }
    results.save(document)
    tables.write(document)
    if wanted.plots:
        from benchmarks import plots  # matplotlib is optional

        plots.write(document)
    console.say(f"{len(jobs)} measurements, {failures} failed; benchmarks/RESULTS.md is new")
    return 1 if failures else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--models", type=Path, help="folder of .tflite files")
    parser.add_argument("--only", nargs="+", default=(), help="names of models, without suffix")
    parser.add_argument("--boards", nargs="+", default=results.BOARDS, choices=results.BOARDS)
    parser.add_argument("--engines", choices=("all", "tinygen", "peers"), default="all")
    parser.add_argument("--plots", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    wanted = parser.parse_args()
    if wanted.plots and find_spec("matplotlib") is None:
        console.say("no plots: matplotlib is missing; pip install 'tinygen[bench]'")
        wanted.plots = False
    return wanted


def models(folder: Path | None, only: tuple[str, ...] = ()) -> list[Path]:
    """The models that TinyGen reads: of ``folder``, or the reference models where they are, the
    bundled one, and those that installed packages carry."""
    if folder is not None:
        files = sorted(folder.glob("*.tflite"))
    else:
        files = [
            *sorted(SHARED.glob("*.tflite")),
            resources.folder("examples") / "digits" / "digits_int8.tflite",
            *_packaged(),
        ]
    return [f for f in files if (not only or f.stem in only) and _readable(f)]


def _packaged() -> list[Path]:
    spec = find_spec("pymicro_wakeword")
    if spec is None or spec.origin is None:
        return []
    return sorted((Path(spec.origin).parent / "models").glob("*.tflite"))


def _readable(file: Path) -> bool:
    try:
        importers.load(file)
    except InputError as error:
        console.say(f"left out: {error.message}")
        return False
    return True


def engines(board: str, which: str) -> tuple[str, ...]:
    """Engines to measure on ``board``: TinyGen, its peers there, or "all"."""
    ours = tuple(results.ENGINES) if board == results.MAIN else ("tinygen",)
    if which == "peers":
        ours = ()
    others = peers.SETUPS.get(boards.load(board).core, {}) if which != "tinygen" else {}
    return (*ours, *others)


def _measured(jobs: list[Job], processes: int) -> list[tuple[Job, dict[str, Any]]]:
    """All jobs with their rows, in the order of ``jobs``."""
    if any(job.engine not in results.ENGINES for job in jobs):
        try:
            peers.install()
        except TinyGenError as error:
            console.say(f"no peers: {error.message}")
            jobs = [job for job in jobs if job.engine in results.ENGINES]
    rows: dict[Job, dict[str, Any]] = {}
    with console.progress("measuring", len(jobs)) as bar, ProcessPoolExecutor(processes) as pool:
        futures = {pool.submit(measured, job): job for job in jobs}
        for future in as_completed(futures):
            rows[futures[future]] = future.result()
            bar.advance(bar.task_ids[0])
    return [(job, rows[job]) for job in jobs]


def measured(job: Job) -> dict[str, Any]:
    """The figures of one job, or its error; ``expected`` when the error is no fault."""
    board = boards.load(job.board)
    try:
        if job.engine in results.ENGINES:
            return results.measure(job.model, job.board, job.engine)
        return peers.measure(job.model, board, peers.SETUPS[board.core][job.engine])
    except FitError:
        return {"error": "does not fit", "expected": True}
    except UnsupportedError as error:
        return {"error": f"unsupported: {error}", "expected": True}
    except TinyGenError as error:
        return {"error": error.message.splitlines()[0][:200]}


if __name__ == "__main__":
    sys.exit(main())
