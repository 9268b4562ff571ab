"""``tinygen boards``: what there is, and where a model fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from tinygen import importers
from tinygen.boards import Board, load_all
from tinygen.compile import plan_for
from tinygen.plan import Goal, Plan
from tinygen.report.console import table


def obstacle(planned: Plan, board: Board) -> str:
    """What keeps the model off the board, or nothing.

    Counts weights, arena, stack and what the vendor's framework takes; the code of the network
    itself (some kilobytes) shows only once it is built.
    """
    framework = board.vendor.framework_flash if board.vendor else 0
    stack = board.system.stack if board.system else 0
    if planned.weight_bytes + framework > board.flash_limit:
        return f"needs over {planned.weight_bytes + framework:,} B of flash"
    if planned.arena_bytes + stack > board.ram:
        return f"needs over {planned.arena_bytes + stack:,} B of RAM"
    return ""


def document(model: Path | None) -> dict[str, Any]:
    """For ``--json``: facts of every board, with a model also ``fits`` and ``obstacle``."""
    graph = importers.load(model) if model is not None else None
    boards = []
    for board in load_all():
        facts: dict[str, Any] = {
            "name": board.name,
            "title": board.title,
            "mcu": board.mcu,
            "core": board.core,
            "clock_hz": board.clock_hz,
            "flash": board.flash_limit,
            "ram": board.ram,
            "builds": [kind for kind in ("vendor", "system") if getattr(board, kind)],
            "flashable": bool(board.vendor) or bool(board.system and board.system.flashable),
            "emulator": _emulator(board),
        }
        if graph is not None:
            planned = plan_for(graph, board, Goal())
            hindrance = obstacle(planned, board)
            facts |= {"fits": not hindrance, "obstacle": hindrance}
        boards.append(facts)
    return {"boards": boards}


def _emulator(board: Board) -> str:
    if board.emulator is None:
        return ""
    if board.emulator.stands_in:
        return f"{board.emulator.stands_in} stands in"
    return board.emulator.kind


def show(model: Path | None, console: Console) -> None:
    """Print the boards."""
    rows = []
    for facts in document(model)["boards"]:
        row = [
            facts["name"],
            facts["title"],
            facts["core"],
            facts["flash"],
            facts["ram"],
            ", ".join(facts["builds"]),
            facts["emulator"] or "-",
        ]
        if model is not None:
            row.append("fits" if facts["fits"] else facts["obstacle"])
        rows.append(row)
    columns = ["board", "", "core", ">flash", ">RAM", "builds with", "emulator"]
    fits = [f"{model.name}"] if model is not None else []
    console.print(table([*columns, *fits], rows))
