"""Projects for tests: a small real network on any board."""

from __future__ import annotations

from pathlib import Path

from graphs import dense_chain

from tinygen import boards, emit, plan, project
from tinygen.project import Contents

WIDTHS = (20, 12, 4)
WEIGHT_BYTES = 20 * 12 + 12 * 4


def contents(name: str = "chain", seed: int = 0) -> Contents:
    """A two-layer network called ``name``; another ``seed`` gives other weights."""
    made = plan.make(dense_chain(*WIDTHS, seed=seed))
    return Contents(
        name=name,
        engine="aot",
        model=b"model file %d" % seed,
        source="chain.tflite",
        library=emit.sources(made, name),
        layers=({"name": "out0", "op": "FULLY_CONNECTED", "tensor": 2, "bytes": 12},),
        weight_bytes=made.weight_bytes,
    )


def write(folder: Path, board: str, name: str = "chain", seed: int = 0) -> Path:
    """The project of :func:`contents` in ``folder``."""
    return project.write(folder, boards.load(board), contents(name, seed)).folder


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder`` and what is in it."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
