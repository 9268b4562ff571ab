"""``tinygen compress``: carry out a recipe, or look for the best one.

The data are split into a part to train and calibrate on and one to judge by.  What counts is the
accuracy of generated C on the latter, and flash, RAM and time on the board.  Cheap answers come
first: a float model that lost too much is not quantized, a plan that is too large is not compiled.
"""

from __future__ import annotations

import hashlib
import json
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import numpy as np

from tinygen import datasets, evaluate
from tinygen.boards import Board
from tinygen.compress import METHODS, chain, network, parse, recipe, space
from tinygen.compress.base import Context, Method, Progress, Recipe, silent
from tinygen.compress.chain import Chain
from tinygen.compress.figures import Figures, Meter
from tinygen.compress.judge import Judge, Runner, judge, runner
from tinygen.compress.network import Network
from tinygen.compress.study import open_study
from tinygen.datasets import Data
from tinygen.errors import FitError, InputError, TinyGenError
from tinygen.evaluate import Scores, Task
from tinygen.plan import Goal

Aim = Literal["flash", "ram", "latency"]

ACCURACY_LOSS = 0.5
"""Points that a search may lose unless told otherwise."""

TRIALS = 20
"""Recipes that a search tries unless told otherwise."""

REPEATS = 4
"""Trials for each recipe wanted, at most: a small space is drawn from again and again."""

HOPELESS = 5.0
"""Points beyond the limit from which on a float model is given up; quantization wins none back."""

VALIDATION, MOST_VALIDATION = 0.2, 5000
"""Part of the data that recipes are judged by, and the most examples of it."""

FAILED = 10.0
"""How far beyond its limits a recipe counts that failed: further than any that did not."""


@dataclass(frozen=True)
class Limits:
    """Points of accuracy that may be lost, bytes of flash and RAM, seconds; None: no limit."""

    accuracy_loss: float | None = None
    flash: int | None = None
    ram: int | None = None
    latency: float | None = None


@dataclass(frozen=True, eq=False)
class Request:
    """What ``tinygen compress`` is asked for.

    ``validation`` are data to judge by; without them part of ``data`` is kept for that.  ``test``
    are data that nothing is chosen by.  ``steps`` is a recipe as tables; None is a search of
    ``trials`` recipes or ``timeout`` seconds.
    ``study`` is a storage that several machines share, by default a file beside the output.
    """

    model: Path
    board: Board
    output: Path
    data: Path | None = None
    validation: Path | None = None
    test: Path | None = None
    steps: tuple[Mapping[str, Any], ...] | None = None
    limits: Limits = Limits()
    aim: Aim = "flash"
    goal: Goal = field(default_factory=Goal)
    task: str | None = None
    trials: int = TRIALS
    timeout: float | None = None
    seed: int = 0
    study: str | None = None
    resume: bool = False
    methods: tuple[Method, ...] = field(default_factory=lambda: METHODS)

    @property
    def folder(self) -> Path:
        """Where networks in the making are kept."""
        return self.output.with_suffix(".study")

    @property
    def report(self) -> Path:
        return self.output.with_suffix(".report")


@dataclass(frozen=True, eq=False)
class Row:
    """A recipe and what came of it; ``points`` are those of generated C, see
    :attr:`tinygen.evaluate.Scores.points`.

    ``beyond`` says by which part of each limit the result lies beyond it, 0 or less being within.
    ``note`` says why it ended before all was known.
    """

    what: str
    steps: tuple[Mapping[str, Any], ...] = ()
    float_points: float | None = None
    points: float | None = None
    figures: Figures | None = None
    beyond: Mapping[str, float] = field(default_factory=dict)
    note: str = ""

    @property
    def complete(self) -> bool:
        return self.figures is not None and not self.note

    @property
    def fits(self) -> bool:
        return self.complete and all(value <= 0 for value in self.beyond.values())

    def document(self) -> dict[str, Any]:
        return {
            "what": self.what,
            "recipe": [dict(step) for step in self.steps],
            "float_points": self.float_points,
            "points": self.points,
            "figures": self.figures.document() if self.figures else None,
            "beyond": dict(self.beyond),
            "note": self.note,
        }


def row(document: Mapping[str, Any]) -> Row:
    """The row that :meth:`Row.document` wrote."""
    figures = document["figures"]
    return Row(
        what=document["what"],
        steps=tuple(document["recipe"]),
        float_points=document["float_points"],
        points=document["points"],
        figures=Figures(**figures) if figures else None,
        beyond=document["beyond"],
        note=document["note"],
    )


@dataclass(frozen=True, eq=False)
class Outcome:
    """What was tried and chosen.  ``rows`` are the steps of a recipe, or a search's trials.

    ``file`` holds the chosen network.

    ``tests`` are scores on the test data of the model given, of the plainly quantized one, and of
    the chosen one, by these names.
    """

    request: Request
    task: Task | None
    judged_by: str
    given: Row
    plain: Row
    rows: tuple[Row, ...]
    chosen: Row | None
    file: Path | None
    tests: Mapping[str, Scores]
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Watch:
    """Who is told: of results as they come, of remarks, and of progress."""

    row: Callable[[Row], None] = lambda row: None
    say: Callable[[str], None] = lambda line: None
    progress: Progress = silent


class _OutOfTime(BaseException):
    """The search's time is up; no method may take it for an error of its own."""


def compress(request: Request, watch: Watch | None = None) -> Outcome:
    """Carry out the request up to, but without, writing the output.

    ``chosen`` is None when no result is within the limits.

    Raises :class:`InputError` for a model, data, a method or settings that cannot be used, and
    :class:`TinyGenError` when interrupted.
    """
    watch = watch or Watch()
    with _terminated_as_interrupted():
        try:
            job = _prepare(request, watch)
            if request.steps is not None:
                return job.carry_out(parse(request.steps, request.methods))
            return job.search() if request.data else job.as_it_is()
        except _OutOfTime:
            raise TinyGenError(
                "compress: time was up before there was a result", "give a longer --timeout"
            ) from None
        except KeyboardInterrupt:
            raise TinyGenError(
                "compress: stopped",
                "the same command goes on from what was done"
                + (", with --resume" if request.steps is None else ""),
            ) from None


def write_output(outcome: Outcome) -> None:
    """Write the chosen network, in one step; :class:`FitError` when there is none."""
    if outcome.file is None:
        raise nearest(outcome)
    chain.write(outcome.request.output, outcome.file.read_bytes())


# ---- preparing -----------------------------------------------------------------------------------


def _prepare(request: Request, watch: Watch) -> _Job:
    deadline = time.monotonic() + request.timeout if request.timeout else None
    if request.output.suffix != ".tflite":
        raise InputError(f"{request.output}: the output is a .tflite file", "add -o out.tflite")
    given = network.load(request.model)
    train = validation = None
    digests = [_digest(request.model), str(request.seed)]
    if request.data is not None:
        train, validation = _data(request, given)
        files = (request.data, request.validation)
        digests += [_digest(path) for path in files if path is not None]
    elif given.kind != "int8":
        raise InputError(
            f"{request.model.name}: a float model cannot be quantized without data",
            "give examples with --data train.npz",
        )
    context = Context(train, validation, request.seed, watch.progress)
    links = Chain(request.model, given.kind, tuple(digests), context, request.folder)
    run = runner(watch.say, watch.progress)
    held = Judge()
    if validation is not None:
        held = judge(request.model.name, given, validation, request.task, run)
    goal = replace(request.goal, ram_limit=request.limits.ram)
    meter = Meter(request.board, goal, watch.say)
    return _Job(request, watch, links, held, run, meter, deadline)


def _data(request: Request, given: Network) -> tuple[Data, Data]:
    """What to train on and what to judge by."""
    assert request.data is not None
    data = network.fitting(given, datasets.load(request.data), request.data.name)
    if request.validation is not None:
        name = request.validation.name
        held = network.fitting(given, datasets.load(request.validation), name)
        if (held.labels is None) != (data.labels is None):
            raise InputError(f"{name}: has labels where {request.data.name} has none, or none")
        return data, held
    if len(data) < 2:
        raise InputError(f"{request.data.name}: one example", "give at least two")
    return data.split(min(VALIDATION, MOST_VALIDATION / len(data)), request.seed)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---- the work ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Job:
    request: Request
    watch: Watch
    chain: Chain
    judge: Judge
    run: Runner
    meter: Meter
    deadline: float | None
    memory: dict[str, Row] = field(default_factory=dict)

    def carry_out(self, steps: Recipe) -> Outcome:
        """The recipe, step by step."""
        methods = self.request.methods
        steps = network.complete(steps, self.chain.kind, methods)
        self._check_data(steps)
        given, plain = self._given(), self._plain()
        rows = []
        timed = self._timed()
        for count in range(1, len(steps) + 1):
            made = timed._step(steps[:count], given)
            self.watch.row(made)
            rows.append(made)
        chosen = rows[-1] if rows else plain
        return self._outcome(given, plain, rows, chosen if chosen.fits else None)

    def search(self) -> Outcome:
        """Trials until there are as many as asked for, or time is up."""
        given, plain = self._given(), self._plain()
        request, context = self.request, self.chain.context
        assert context.train is not None
        drawn = space.space(self.chain.kind, context.train, request.methods)
        if not drawn.slots:
            raise InputError("compress: no method suits this model and these data")
        own = request.output.with_suffix(".study.db")
        own.parent.mkdir(parents=True, exist_ok=True)
        study = open_study(request.study or own, self._name(), request.seed, request.resume)
        if request.resume and not study.results():
            self.watch.say("compress: no search with these settings is there; this begins one")
        for done in study.results():
            self._remember(row(done))
        presets = drawn.presets()

        timed = self._timed()

        def attempt(trial: Any) -> dict[str, Any]:
            steps = parse(drawn.tables(trial), request.methods)
            known = self.chain.key(steps) in self.memory
            made = timed._tried(steps, given, plain)
            self._remember(made)
            if not known:
                count = len(self._distinct([*study.results(), made.document()]))
                self.watch.row(replace(made, what=f"[{count}/{request.trials}] {made.what}"))
            return made.document() | {
                "violations": dict(made.beyond),
                "value": self._value(made),
            }

        try:
            while not self._late() and self._more(study.results()):
                study.run(presets, attempt)
        except _OutOfTime:
            self.watch.say("compress: time is up")
        except KeyboardInterrupt:
            raise TinyGenError(
                f"compress: stopped after {len(study.results())} trials",
                "the same command with --resume goes on",
            ) from None
        rows = self._distinct(study.results())
        fitting = [one for one in (*rows, plain) if one.fits]
        chosen = min(fitting, key=self._rank, default=None)
        return self._outcome(given, plain, rows, chosen)

    def as_it_is(self) -> Outcome:
        """Without data nothing can be judged that changes outputs; exact encodings remain."""
        self.watch.say(
            "compress: without data nothing is changed that changes outputs; "
            "what remains are exact encodings of the weights, which --slow-down allows"
        )
        given, plain = self._given(), self._plain()
        return self._outcome(given, plain, [], plain if plain.fits else None)

    # -- single recipes

    def _given(self) -> Row:
        """The model as it was given."""
        if self.chain.kind == "int8":
            return replace(self._plain(silent=True), what="given")
        points = self._float_points(())
        made = Row("given", float_points=points)
        self.watch.row(made)
        if self.judge.task == "classification" and self.judge.data and points is not None:
            classes = self.judge.data.classes or 2
            if points < 150 / classes:
                self.watch.say(
                    f"{self.request.model.name}: right for {points:.1f} % of the examples alone; "
                    "are the inputs scaled as they were in training?"
                )
        return made

    def _plain(self, silent: bool = False) -> Row:
        """The model without any compression but plain quantization."""
        steps = network.complete((), self.chain.kind, self.request.methods)
        key = self.chain.key(steps)
        if key not in self.memory:
            reference = None if self.chain.kind == "int8" else self._float_points(())
            what = "given" if self.chain.kind == "int8" else "plain int8"
            self.memory[key] = self._measured(steps, what, reference)
        made = self.memory[key]
        if not silent:
            self.watch.row(made)
        return made

    def _step(self, steps: Recipe, given: Row) -> Row:
        what = recipe.words(steps[-1:])
        if steps[-1].method.stage == "float":
            points = self._float_points(steps)
            return Row(what, tuple(recipe.document(steps)), points)
        return self._measured(steps, what, _reference(given))

    def _tried(self, steps: Recipe, given: Row, plain: Row) -> Row:
        """A trial, which may fail or end early."""
        what = recipe.words(steps) or plain.what
        known = self.memory.get(self.chain.key(steps))
        if known is not None:
            return replace(known, what=what)
        documents = tuple(recipe.document(steps))
        try:
            lost = self._hopeless(steps, given)
            if lost is not None:
                beyond = self._beyond(lost, None)
                return Row(what, documents, beyond=beyond, note=f"float model lost {lost:.1f}")
            return self._measured(steps, what, _reference(given), early=True)
        except TinyGenError as error:
            note = error.message
        except Exception as error:  # of the trainers' and their libraries'
            note = f"{type(error).__name__}: {error}"
        finally:
            chain.tidy()
        beyond = dict.fromkeys(self._beyond(0.0, None), FAILED)
        return Row(what, documents, beyond=beyond, note=f"failed: {note.splitlines()[0][:200]}")

    def _hopeless(self, steps: Recipe, given: Row) -> float | None:
        """Points that the float model lost behind its first steps, if that is far too much."""
        limit, reference = self.request.limits.accuracy_loss, given.float_points
        floats = sum(step.method.stage == "float" for step in steps)
        for count in range(1, floats + 1):
            points = self._float_points(steps[:count])
            if limit is None or reference is None or points is None:
                continue
            if reference - points > limit + HOPELESS:
                return reference - points
        return None

    def _float_points(self, steps: Recipe) -> float | None:
        """Points of a float network; kept, for it may have to be trained again otherwise."""
        if self.judge.data is None or self.judge.task is None:
            self.chain.file(steps)
            return None
        data = self.judge.data

        def compute() -> float:
            made = self.chain.network(steps)
            points = self.judge.points(self.run.network(made, data))
            return float("nan") if points is None else points

        found = self.chain.remembered(steps, f"{self.judge.task}-points", compute)
        return None if np.isnan(found) else found

    def _measured(
        self, steps: Recipe, what: str, reference: float | None, early: bool = False
    ) -> Row:
        """Everything about a recipe; with ``early`` only until it is known to lie beyond a limit.

        Without a ``reference`` (points) it is its own.
        """
        floats = sum(step.method.stage == "float" for step in steps)
        documents = tuple(recipe.document(steps))
        float_points = None if self.chain.kind == "int8" else self._float_points(steps[:floats])
        graph = self.chain.graph(steps)
        plan = self.meter.plan(graph)
        figures = self.meter.estimated(plan)
        made = Row(what, documents, float_points, None, figures, self._beyond(0.0, figures))
        if early and any(value > 0 for name, value in made.beyond.items() if name != "latency"):
            return replace(made, note="too large")
        points = None
        if self.judge.data is not None:
            points = self.judge.points(self.run.plan(plan, self.judge.data))
        lost = 0.0 if points is None or reference is None else reference - points
        count = not early or self._beyond(lost, figures).get("accuracy", 0) <= 0
        figures = self.meter.measured(plan, count)
        return Row(what, documents, float_points, points, figures, self._beyond(lost, figures))

    # -- judging

    def _beyond(self, lost: float, figures: Figures | None) -> dict[str, float]:
        """How far beyond each limit, as a part of it; the board's own size is a limit, too."""
        limits, board = self.request.limits, self.request.board
        stack = board.system.stack if board.system else 0
        beyond = {}
        if limits.accuracy_loss is not None:
            beyond["accuracy"] = (lost - limits.accuracy_loss) / max(limits.accuracy_loss, 0.5)
        for name, limit, value in (
            ("flash", limits.flash or board.flash_limit, figures.flash if figures else None),
            ("ram", limits.ram or board.ram - stack, figures.arena if figures else None),
            ("latency", limits.latency, figures.seconds if figures else None),
        ):
            if limit is not None:
                beyond[name] = (value - limit) / limit if value is not None else 0.0
        return beyond

    def _value(self, made: Row) -> float | None:
        """What the search makes small; None for what ended early."""
        if not made.complete or made.figures is None:
            return None
        return aim_of(self.request.aim, made.figures)

    def _rank(self, made: Row) -> tuple[float, float]:
        value = self._value(made)
        assert value is not None
        return value, -(made.points or 0.0)

    def _remember(self, made: Row) -> None:
        self.memory.setdefault(self._key(made), made)

    def _key(self, made: Row) -> str:
        return self.chain.key(parse(made.steps, self.request.methods))

    def _distinct(self, results: Sequence[Mapping[str, Any]]) -> list[Row]:
        """A study's rows, those of each recipe once."""
        found: dict[str, Row] = {}
        for done in results:
            found.setdefault(self._key(row(done)), row(done))
        return list(found.values())

    def _more(self, results: Sequence[Mapping[str, Any]]) -> bool:
        """Whether to go on; recipes that were drawn again count little."""
        trials = self.request.trials
        return len(self._distinct(results)) < trials and len(results) < REPEATS * trials

    def _timed(self) -> _Job:
        """The same work, which ends when time is up."""
        if self.deadline is None:
            return self
        progress = _until(self.deadline, self.watch.progress)
        context = replace(self.chain.context, progress=progress)
        chain = replace(self.chain, context=context)
        return replace(self, chain=chain, run=replace(self.run, progress=progress))

    def _late(self) -> bool:
        return self.deadline is not None and time.monotonic() > self.deadline

    def _name(self) -> str:
        """The study's name: a digest of what trials depend on."""
        request, limits = self.request, self.request.limits
        said = [
            *self.chain.inputs,
            self.chain.key(()),
            *(request.board.name, request.aim, str(request.goal), str(limits)),
            str(self.judge.task),
            *sorted(method.name for method in request.methods),
        ]
        return f"tinygen-{hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]}"

    def _check_data(self, steps: Recipe) -> None:
        for step in steps:
            if step.method.needs == "labels":
                self.chain.context.labelled(step.method.name)
            elif step.method.needs == "inputs":
                self.chain.context.data(step.method.name)

    def _outcome(self, given: Row, plain: Row, rows: Sequence[Row], chosen: Row | None) -> Outcome:
        return Outcome(
            request=self.request,
            task=self.judge.task,
            judged_by=self.judge.words,
            given=given,
            plain=plain,
            rows=tuple(rows),
            chosen=chosen,
            file=self.chain.file(parse(chosen.steps, self.request.methods)) if chosen else None,
            tests=self._tests(plain, chosen),
            notes=tuple(self.meter.notes),
        )

    def _tests(self, plain: Row, chosen: Row | None) -> dict[str, Scores]:
        """Scores on the test data, which nothing was chosen by."""
        if self.request.test is None or self.judge.task is None:
            return {}
        given = network.load(self.request.model)
        where = self.request.test.name
        data = network.fitting(given, datasets.load(self.request.test), where)
        if data.labels is None:
            raise InputError(f"{where}: has no labels", "add an array named labels")
        outputs = self.run.network(given, data)
        shapes = data.inputs.shape[1:], outputs.shape[1:]
        task = evaluate.task_of(where, *shapes, data, self.request.task)
        scores = {"given": evaluate.assess(outputs, data, task)}
        for name, made in (("plain", plain), ("chosen", chosen)):
            if made is not None:
                graph = self.chain.graph(parse(made.steps, self.request.methods))
                outputs = self.run.plan(self.meter.plan(graph), data)
                scores[name] = evaluate.assess(outputs, data, task)
        return scores


def _reference(given: Row) -> float | None:
    """Points that losses are counted from."""
    return given.float_points if given.float_points is not None else given.points


def aim_of(aim: Aim, figures: Figures) -> float:
    """The figure that a search for ``aim`` makes small."""
    if aim == "flash":
        return float(figures.flash)
    if aim == "ram":
        return float(figures.arena)
    return float(figures.cycles or figures.instructions or figures.macs)


def nearest(outcome: Outcome) -> FitError:
    """The error that no result within the limits is: what comes nearest, and what it misses."""
    named = outcome.request.steps is not None
    rows = outcome.rows[-1:] if named else (*outcome.rows, outcome.plain)
    known = [made for made in rows if made.complete]
    if not known:
        return FitError("compress: no recipe came to a result", f"see {outcome.request.report}")
    best = min(known, key=lambda made: sum(max(0.0, v) for v in made.beyond.values()))
    missed = "; ".join(_missed(name, best, outcome) for name, v in best.beyond.items() if v > 0)
    if named:
        return FitError(f"compress: the recipe is not within the limits: {missed}", "allow that")
    return FitError(
        f"compress: no recipe meets the limits; nearest is '{best.what}': {missed}",
        "allow that much, or search on with --resume and more --trials; the study is kept",
    )


def _missed(name: str, made: Row, outcome: Outcome) -> str:
    limits, board, figures = outcome.request.limits, outcome.request.board, made.figures
    assert figures is not None
    if name == "accuracy":
        lost = (_reference(outcome.given) or 0.0) - (made.points or 0.0)
        allowed = limits.accuracy_loss or 0.0
        return f"loses {lost:.2f} points, {lost - allowed:.2f} more than {allowed:g}"
    if name == "latency":
        assert figures.seconds is not None and limits.latency is not None
        over = 1000 * (figures.seconds - limits.latency)
        return f"takes {1000 * figures.seconds:.2f} ms, {over:.2f} ms too long"
    if name == "flash":
        value, limit = figures.flash, limits.flash or board.flash_limit
    else:
        stack = board.system.stack if board.system else 0
        value, limit = figures.arena, limits.ram or board.ram - stack
    return f"{name} {value:,} bytes, {value - limit:,} more than {limit:,}"


# ---- time and interrupts -------------------------------------------------------------------------


def _until(deadline: float, progress: Progress) -> Progress:
    """Progress that ends the work once the deadline has passed."""

    @contextmanager
    def limited(what: str, total: int) -> Iterator[Callable[[], None]]:
        with progress(what, total) as step:

            def checked() -> None:
                if time.monotonic() > deadline:
                    raise _OutOfTime
                step()

            yield checked

    def start(what: str, total: int) -> AbstractContextManager[Callable[[], None]]:
        return limited(what, total)

    return start


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """A request to terminate ends the work as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
