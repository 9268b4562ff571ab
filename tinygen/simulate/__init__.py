"""Running firmware without hardware: as a process of this machine, in QEMU, in labwired.

Whatever runs it, a caller sees a :class:`Transport`, the byte pipe to its serial line.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Protocol

from tinygen.boards import Board
from tinygen.errors import InputError


class Transport(Protocol):
    """A byte pipe to running firmware."""

    def write(self, data: bytes) -> None:
        """Send all of ``data``.  Raises :class:`TinyGenError` when the far end takes no more."""

    def read(self, timeout: float) -> bytes:
        """What has arrived, waiting up to ``timeout`` seconds for the first byte; ``b""`` when none
        came.  Raises :class:`TinyGenError` when the far end has died and everything was read."""
        ...

    def close(self) -> None:
        """End the connection, and the program if it was started with it.  May be called twice."""


class Running(Transport, Protocol):
    """A transport to a program that ends where the ``with`` block does."""

    def __enter__(self) -> Transport: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def start(board: Board, elf: Path, *, icount: bool = False) -> Running:
    """Run ``elf``, a system build for ``board``, in the emulator that the board's facts name.

    With ``icount`` a QEMU machine executes one instruction a nanosecond of its own time, which
    makes its counters exact and a run repeatable, at half the speed; it means nothing to others.

    Raises :class:`InputError` for a board without an emulator of its own (``boards.simulated_by``
    finds the one that stands in), :class:`TinyGenError` when the emulator is missing.
    """
    kind = board.emulator.kind if board.emulator else ""
    match kind:
        case "qemu":
            from tinygen.simulate import qemu

            return qemu.start(board, elf, icount=icount)
        case "labwired":
            from tinygen.simulate import labwired

            return labwired.start(board, elf)
        case "native":
            from tinygen.simulate import native

            return native.start(board, elf)
    raise InputError(f"{board.name}: no emulator runs this board's images")
