"""A plain serial monitor: what the board says goes to stdout, what you type goes to the board."""

from __future__ import annotations

import codecs
import sys
import threading
from pathlib import Path
from typing import TextIO

from tinygen import boards, project, serialport
from tinygen.errors import TinyGenError
from tinygen.report import console
from tinygen.serialport import BAUD, SerialTransport

_WAIT_SECONDS = 0.2


def monitor(
    folder: Path | None = None,
    port: str | None = None,
    baud: int = BAUD,
    typed: TextIO | None = None,
    shown: TextIO | None = None,
) -> None:
    """Show what arrives at ``port`` until Ctrl-C; lines of ``typed`` are sent, with their ends.

    Without ``port``, the board of the project in ``folder`` is looked for, and without that the
    only USB serial port there is.  ``typed`` and ``shown`` are stdin and stdout unless given.
    Raises :class:`InputError` when no port or several fit, and :class:`TinyGenError` when the port
    goes away.
    """
    board = boards.load(project.load(folder).board) if folder else None
    device = serialport.find(board, port)
    with SerialTransport(device, baud) as transport:
        console.say(f"{device} at {baud:,} baud; Ctrl-C ends")
        sender = threading.Thread(target=_send, args=(typed or sys.stdin, transport), daemon=True)
        sender.start()
        try:
            _show(transport, shown or sys.stdout)
        except KeyboardInterrupt:
            console.say("")


def _show(transport: SerialTransport, shown: TextIO) -> None:
    """Copy what arrives to ``shown``, for ever; line ends become the system's."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    while True:
        text = decoder.decode(transport.read(_WAIT_SECONDS))
        if text:
            shown.write(text.replace("\r", ""))
            shown.flush()


def _send(typed: TextIO, transport: SerialTransport) -> None:
    """Send what is typed, line by line, until it ends or the port goes away."""
    try:
        for line in typed:
            transport.write(line.encode())
    except (TinyGenError, ValueError):  # ValueError: the stream was closed meanwhile
        return
