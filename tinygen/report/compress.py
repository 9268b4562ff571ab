"""``tinygen compress``: rows as they come, the result, and the report folder."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from tinygen import __version__
from tinygen.compress import chain, recipe
from tinygen.compress.search import Limits, Outcome, Row
from tinygen.evaluate import Scores
from tinygen.report.console import table
from tinygen.report.evaluate import scores_document

COLUMNS = (
    *("step", ">points, float", ">points, C", ">flash", ">weights", ">RAM"),
    *(">instructions", ">ms", ""),
)
"""Points: per cent of accuracy, of the area under the ROC curve, or of variance explained."""

_WIDTHS = (8, 8, 10, 10, 9, 13, 9)
_HEAD = ("step", "float", "C", "flash", "weights", "RAM", "instructions", "ms", "")


class Lines:
    """Prints rows as they come, one a line, under a head."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.begun = False

    def __call__(self, row: Row) -> None:
        if not self.begun:
            self.begun = True
            self._print(_HEAD)
        self._print(_cells(row))

    def _print(self, cells: Sequence[str]) -> None:
        what, *numbers, note = cells
        padded = (text.rjust(width) for text, width in zip(numbers, _WIDTHS, strict=True))
        said = f"{what}: {note}" if note else what
        self.console.print(f"{' '.join(padded)}  {said}", markup=False)


def _cells(row: Row) -> tuple[str, ...]:
    figures = row.figures
    return (
        row.what,
        _points(row.float_points),
        _points(row.points),
        *(
            (
                f"{figures.flash:,}" if figures.flash_measured else f"~{figures.flash:,}",
                f"{figures.weights:,}",
                f"{figures.arena:,}",
                "" if figures.instructions is None else f"{figures.instructions:,}",
                "" if figures.seconds is None else f"{1000 * figures.seconds:.3g}",
            )
            if figures
            else ("", "", "", "", "")
        ),
        row.note or _verdict(row),
    )


def _points(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _verdict(row: Row) -> str:
    beyond = [name for name, value in row.beyond.items() if value > 0]
    return f"over the limit: {', '.join(beyond)}" if beyond else ""


def document(outcome: Outcome) -> dict[str, Any]:
    """For ``--json`` and ``report.json``.

    Points are per cent; flash, RAM and weights bytes; ``beyond`` by which part of each limit a
    result lies beyond it.  ``chosen`` is null when nothing is within the limits.
    """
    request, chosen = outcome.request, outcome.chosen
    return {
        "tinygen": __version__,
        "model": request.model.name,
        "board": request.board.name,
        "data": request.data.name if request.data else None,
        "test": request.test.name if request.test else None,
        "output": str(request.output) if chosen else None,
        "report": str(request.report),
        "task": outcome.task,
        "judged_by": outcome.judged_by,
        "seed": request.seed,
        "aim": request.aim,
        "optimize": request.goal.optimize,
        "limits": _limits(request.limits),
        "given": outcome.given.document(),
        "plain": outcome.plain.document(),
        "rows": [row.document() for row in outcome.rows],
        "chosen": chosen.document() if chosen else None,
        "recipe": recipe.toml(chosen.steps) if chosen else None,
        "test_scores": {name: scores_document(s) for name, s in outcome.tests.items()},
        "notes": list(outcome.notes),
    }


def _limits(limits: Limits) -> dict[str, float | int | None]:
    return {
        "accuracy_loss": limits.accuracy_loss,
        "flash": limits.flash,
        "ram": limits.ram,
        "latency": limits.latency,
    }


def show(outcome: Outcome, console: Console) -> None:
    """Print the result: what was chosen, beside the plainly quantized model."""
    chosen = outcome.chosen
    assert chosen is not None
    console.print(table(COLUMNS, [_cells(row) for row in _compared(outcome, chosen)]))
    console.print()
    for line in _summary(outcome, chosen):
        console.print(line, markup=False)


def _compared(outcome: Outcome, chosen: Row) -> list[Row]:
    rows = [outcome.given, outcome.plain, chosen]
    rows = rows if outcome.given.what != outcome.plain.what else rows[1:]
    return rows if chosen is not outcome.plain else rows[:-1]


def _summary(outcome: Outcome, chosen: Row) -> list[str]:
    lines = []
    plain, made = outcome.plain.figures, chosen.figures
    if plain and made:
        lines.append(
            f"weights {plain.weights / max(made.weights, 1):.2f}x smaller, "
            f"flash {plain.flash / max(made.flash, 1):.2f}x smaller than plain int8"
            + ("" if made.flash_measured else " (estimated by constants alone)")
        )
        if plain.instructions and made.instructions:
            lines.append(
                f"instructions {made.instructions / plain.instructions:.2f}x of plain int8"
            )
    for name, scores in outcome.tests.items():
        lines.append(f"test data, {name}: {_score(scores)}")
    lines.append(f"wrote {outcome.request.output}, report in {outcome.request.report}")
    return lines


def _score(scores: Scores) -> str:
    points = "" if scores.points is None else f"{scores.points:.2f} points ({scores.task}), "
    return f"{points}{scores.examples:,} examples"


# ---- the folder ----------------------------------------------------------------------------------


def write(outcome: Outcome) -> Path:
    """Write ``report.md``, ``report.json``, ``recipe.toml`` and the picture; gives the folder."""
    folder = outcome.request.report
    chain.write(folder / "report.json", (json.dumps(document(outcome), indent=2) + "\n").encode())
    pictures = _pictures(outcome)
    for name, data in pictures.items():
        chain.write(folder / name, data)
    if outcome.chosen is not None:
        chain.write(folder / "recipe.toml", recipe.toml(outcome.chosen.steps).encode())
    chain.write(folder / "report.md", _markdown(outcome, bool(pictures)).encode())
    return folder


def _markdown(outcome: Outcome, picture: bool) -> str:
    request, chosen = outcome.request, outcome.chosen
    lines = [
        f"# {request.model.name} on {request.board.title}",
        "",
        f"Judged by {outcome.judged_by}. {_limit_words(request.limits)} Seed {request.seed}.",
        "",
    ]
    if chosen is None:
        lines += ["Nothing that was tried is within the limits.", ""]
    else:
        lines += [*_paragraphs(_summary(outcome, chosen)[:-1]), "## Recipe", ""]
        if chosen.steps:
            command = _command(outcome)
            lines += ["```toml", recipe.toml(chosen.steps).rstrip(), "```", ""]
            lines += ["Saved as `recipe.toml`, this gives the same result:", ""]
            lines += ["```", command, "```", ""]
        else:
            lines += ["None: the model as it was given.", ""]
    if picture:
        lines += ["![accuracy over flash](tradeoff.svg)", ""]
    lines += ["## All results", "", *_table(outcome), ""]
    lines += [
        "Points are per cent of accuracy, of the area under the ROC curve, or of variance "
        "explained, on the part of the data kept for judging; those of C are of the generated "
        "code. Flash is the model's code and constants in a minimal program, `~` marks constants "
        "alone. RAM is the arena. Times are estimates: cycles over the clock.",
        *outcome.notes,
        "",
    ]
    return "\n".join(lines)


def _paragraphs(lines: Sequence[str]) -> list[str]:
    return [*(f"- {line}" for line in lines), ""]


def _command(outcome: Outcome) -> str:
    request = outcome.request
    data = f" --data {request.data.name}" if request.data else ""
    return (
        f"tinygen compress {request.model.name}{data} --board {request.board.name} "
        f"--recipe recipe.toml --seed {request.seed} -o {request.output.name}"
    )


def _limit_words(limits: Limits) -> str:
    said = []
    if limits.accuracy_loss is not None:
        said.append(f"at most {limits.accuracy_loss:g} points lost")
    if limits.flash is not None:
        said.append(f"flash {limits.flash:,} bytes")
    if limits.ram is not None:
        said.append(f"RAM {limits.ram:,} bytes")
    if limits.latency is not None:
        said.append(f"{1000 * limits.latency:g} ms")
    return f"Limits: {', '.join(said)}." if said else "No limits but the board's."


def _table(outcome: Outcome) -> list[str]:
    head = ("", *(column.removeprefix(">") for column in COLUMNS[1:-1]), "")
    rows = [outcome.given, outcome.plain, *outcome.rows]
    if outcome.given.what == outcome.plain.what:
        rows = rows[1:]
    body = []
    for row in rows:
        cells = [cell.replace("|", "\\|") for cell in _cells(row)]
        mark = "**" if outcome.chosen is not None and row.steps == outcome.chosen.steps else ""
        body.append(f"| {mark}{cells[0]}{mark} | {' | '.join(cells[1:])} |")
    rule = "|".join(("---", *("---:" for _ in head[1:-1]), "---"))
    return [f"| {' | '.join(head)} |", f"|{rule}|", *body]


def _pictures(outcome: Outcome) -> dict[str, bytes]:
    """``tradeoff.png`` and ``.svg``: points over flash; none without matplotlib or points."""
    rows = [r for r in (outcome.plain, *outcome.rows) if r.complete and r.points is not None]
    if not rows:
        return {}
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return {}
    found = {}
    with rc_context({"svg.hashsalt": "tinygen", "svg.fonttype": "none"}):
        figure = Figure(figsize=(7, 4.5))
        FigureCanvasAgg(figure)
        _draw(figure.subplots(), outcome, rows)
        for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            data = io.BytesIO()
            figure.savefig(data, format=kind, metadata=metadata, dpi=120)
            found[f"tradeoff.{kind}"] = data.getvalue()
    return found


def _draw(axes: Any, outcome: Outcome, rows: Sequence[Row]) -> None:
    def at(some: Sequence[Row]) -> tuple[list[float], list[float]]:
        flash = [row.figures.flash / 1024 for row in some if row.figures]
        return flash, [row.points for row in some if row.points is not None]

    front = _front(rows)
    axes.scatter(*at(rows), s=22, color="0.6", label="tried", zorder=2)
    axes.step(*at(front), where="post", color="tab:blue", label="best so far", zorder=3)
    axes.scatter(*at([outcome.plain]), marker="s", color="tab:orange", label="plain int8", zorder=4)
    if outcome.chosen is not None and outcome.chosen.points is not None:
        chosen = at([outcome.chosen])
        axes.scatter(*chosen, marker="*", s=180, color="tab:green", label="chosen", zorder=5)
    if outcome.request.limits.flash is not None:
        axes.axvline(outcome.request.limits.flash / 1024, color="tab:red", linestyle=":")
    loss = outcome.request.limits.accuracy_loss
    given = outcome.given
    points = given.float_points if given.float_points is not None else given.points
    if loss is not None and points is not None:
        axes.axhline(points - loss, color="tab:red", linestyle=":", label="limits")
    measured = all(row.figures and row.figures.flash_measured for row in rows)
    axes.set_xlabel("flash of the model, KiB" + ("" if measured else " (some estimated)"))
    axes.set_ylabel(f"{outcome.task}, points of generated C")
    axes.grid(alpha=0.3)
    axes.legend()


def _front(rows: Sequence[Row]) -> list[Row]:
    """Rows that no smaller one is better than, from the smallest on."""
    front: list[Row] = []
    key = {id(row): (row.figures.flash if row.figures else 0) for row in rows}
    for row in sorted(rows, key=lambda r: (key[id(r)], -(r.points or 0.0))):
        if not front or (row.points or 0.0) > (front[-1].points or 0.0):
            front.append(row)
    return front
