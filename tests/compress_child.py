"""A search with a quick method of its own, for tests that run it in a process that may be killed.

The method rounds int8 weights to multiples of a step, which makes them few and the network worse.
Arguments are those of ``tinygen compress``, the search's table being this method's.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from tinygen.cli import main
from tinygen.compress import search, space
from tinygen.compress.base import Context, Method, Settings
from tinygen.graph import Graph
from tinygen.report import compress as report


class RoundSettings(Settings):
    """Weights become multiples of ``step``."""

    step: int = 1
    fail: bool = False


def apply(graph: Graph, settings: RoundSettings, context: Context) -> Graph:
    with Path(os.environ.get("ROUND_LOG", os.devnull)).open("a") as log:
        log.write(f"{settings.step}\n")
    if settings.fail:
        raise RuntimeError("asked to")
    tensors = list(graph.tensors)
    for node in graph.nodes:
        if node.op in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            weights = tensors[node.inputs[1]]
            assert weights.data is not None
            few = np.round(weights.data / settings.step) * settings.step
            data = np.clip(few, -127, 127).astype(np.int8)
            tensors[node.inputs[1]] = replace(weights, data=data)
    with context.progress("rounding", 2) as step:
        step()
        step()
    return replace(graph, tensors=tuple(tensors))


ROUND = Method("round", "int8", "few weights", "nobody", RoundSettings, apply)
METHODS = (ROUND,)
DRAWS = {"round": {"step": space.Number(1, 60)}}
SLOTS = {"int8": (space.Slot("finish", ("round",)),)}
PRESETS = ((), ({"method": "round", "step": 2},))


def install() -> None:
    """Put the method in place of the real ones."""
    search.METHODS = METHODS
    space.DRAWS, space.SLOTS, space.PRESETS = DRAWS, SLOTS, PRESETS  # type: ignore[assignment]


def stop_after(trials: int, number: int) -> None:
    """Send this process a signal when so many trials are through, the last not yet recorded."""
    told = 0
    print_row = report.Lines.__call__

    def counting(lines: report.Lines, row: search.Row) -> None:
        nonlocal told
        print_row(lines, row)
        told += row.what.startswith("[")
        if told == trials:
            os.kill(os.getpid(), number)

    report.Lines.__call__ = counting  # type: ignore[method-assign]


if __name__ == "__main__":
    install()
    stop_after(int(os.environ["KILL_AFTER"]), signal.SIGKILL)
    main(sys.argv[1:])
