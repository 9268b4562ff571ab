"""The two streams: data on stdout, progress and messages on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table


def out() -> Console:
    """Where data goes; plain and unwrapped when stdout is no terminal."""
    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(highlight=False, width=int(os.environ.get("COLUMNS", "200")), soft_wrap=True)


def err() -> Console:
    """Where progress and messages go."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def say(message: str) -> None:
    """A line of progress."""
    err().print(message, markup=False)


def print_json(document: Mapping[str, Any]) -> None:
    """The one JSON document of a verb."""
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str = "") -> Table:
    """A table whose columns named with a leading ``>`` are right-aligned."""
    result = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        right = column.startswith(">")
        result.add_column(
            column.removeprefix(">"), justify="right" if right else "left", overflow="fold"
        )
    for row in rows:
        result.add_row(*(number(cell) for cell in row))
    return result


def number(cell: object) -> str:
    """Integers with thousands separators, all else as it is, without markup."""
    text = f"{cell:,}" if isinstance(cell, int) and not isinstance(cell, bool) else str(cell)
    return text.replace("[", r"\[")


@contextmanager
def progress(what: str, total: int) -> Iterator[Progress]:
    """A progress bar on stderr, where that is a terminal, for work that takes over a second."""
    columns = (TextColumn(what), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    console = err()
    hidden = not console.is_terminal
    with Progress(
        *columns, TimeElapsedColumn(), console=console, transient=True, disable=hidden
    ) as bar:
        bar.add_task(what, total=total)
        yield bar


@contextmanager
def steps(what: str, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar on stderr that the function it gives moves on by a step."""
    with progress(what, total) as bar:
        yield lambda: bar.advance(bar.task_ids[0])
