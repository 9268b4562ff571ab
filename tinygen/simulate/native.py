"""Running a build for the machine at hand."""

from __future__ import annotations

from pathlib import Path

from tinygen.boards import Board
from tinygen.errors import InputError
from tinygen.simulate import process


def start(board: Board, program: Path) -> process.Process:
    """Run ``program``; its standard input and output are the serial line.

    What sanitizers find ends the program; the next :meth:`read` raises with their report as hint.
    """
    return process.Process([_existing(program)], board.name)


def run(
    board: Board, program: Path, *, send: bytes = b"", timeout: float = 60.0
) -> process.Finished:
    """Run ``program`` to its end and return exit status, output and what sanitizers said.

    Raises :class:`TinyGenError` when it runs longer than ``timeout`` seconds.
    """
    return process.run([_existing(program)], board.name, send=send, timeout=timeout)


def _existing(program: Path) -> Path:
    if not program.is_file():
        raise InputError(f"{program.name}: no such file")
    return program.resolve()
