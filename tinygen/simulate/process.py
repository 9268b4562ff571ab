"""A program on this machine whose standard input and output are a serial line."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from tinygen.errors import TinyGenError

_CHUNK = 1 << 16
_PATIENCE = 30.0  # seconds that a program may leave its input unread
_LIMIT = 1 << 26  # bytes of output that nobody asked for
_GRACE = 5.0  # seconds to end in after SIGTERM
_TAIL = 4000  # bytes of standard error that are shown
_LINE = 200  # bytes of output among which a last line is looked for


@dataclass(frozen=True)
class Finished:
    """A program that ran to its end: exit status, standard output, standard error."""

    status: int
    output: bytes
    errors: str


class Process:
    """A started program as a transport; see :class:`tinygen.simulate.Transport`.

    ``name`` heads every message.  The program ends with :meth:`close`, with the ``with`` block,
    with the object, and, where ``setpriv`` is installed, with the thread that started it, even if
    that is killed: no emulator is left running in the background.
    """

    def __init__(self, command: Sequence[str | Path], name: str) -> None:
        self._name = name
        self._received = bytearray()
        self._last_words = b""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        leash = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()
        try:
            popen = subprocess.Popen(
                [*leash, *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                bufsize=0,
            )
        except OSError as error:
            raise TinyGenError(f"{name}: cannot start {command[0]}: {error.strerror}") from error
        assert popen.stdin is not None and popen.stdout is not None
        self._popen = popen
        self._input: IO[bytes] = popen.stdin
        self._output: IO[bytes] = popen.stdout
        os.set_blocking(self._input.fileno(), False)
        self._end = weakref.finalize(self, _end, popen)

    @property
    def pid(self) -> int:
        """The process that was started."""
        return self._popen.pid

    def write(self, data: bytes) -> None:
        """Send ``data``.  Output that arrives meanwhile is kept, so neither side waits for ever."""
        if not self._send(data):
            raise self._died()

    def read(self, timeout: float) -> bytes:
        if not self._received and not self._receive(timeout):
            raise self._died()
        received, self._received = self._received, bytearray()
        return bytes(received)

    def finish(self, timeout: float) -> Finished:
        """Read to the program's own end; :class:`TinyGenError` if that takes over ``timeout``
        seconds."""
        deadline = time.monotonic() + timeout
        while self._receive(deadline - time.monotonic()):
            if time.monotonic() > deadline:
                self.close()
                raise TinyGenError(f"{self._name}: still running after {timeout:g} seconds")
        return Finished(self._status(), bytes(self._received), self._complaint())

    def close(self) -> None:
        self._end()
        self._errors.close()

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _send(self, data: bytes) -> bool:
        """Send ``data`` while receiving; False when the program has ended."""
        left = memoryview(data)
        patience = time.monotonic() + _PATIENCE
        while left:
            events = self._wait(patience - time.monotonic(), sending=True)
            if self._output.fileno() in events and not self._take():
                return False
            if self._input.fileno() in events:
                try:
                    left = left[os.write(self._input.fileno(), left[:_CHUNK]) :]
                except BlockingIOError:
                    continue
                except BrokenPipeError:
                    return False
                patience = time.monotonic() + _PATIENCE
            elif time.monotonic() > patience:
                raise TinyGenError(f"{self._name}: has read nothing for {_PATIENCE:g} seconds")
        return True

    def _receive(self, timeout: float) -> bool:
        """Wait for output and keep it; False when the program has ended."""
        return self._take() if self._wait(timeout) else True

    def _take(self) -> bool:
        """Keep output that is there; False when there will be no more."""
        got = os.read(self._output.fileno(), _CHUNK)
        self._received += got
        self._last_words = (self._last_words + got)[-_LINE:]
        if len(self._received) > _LIMIT:
            self.close()
            raise TinyGenError(f"{self._name}: does not stop talking; {_LIMIT} bytes were enough")
        return bool(got)

    def _wait(self, timeout: float, sending: bool = False) -> set[int]:
        """File descriptors that are ready: output to read, and input to write if ``sending``."""
        if self._output.closed:
            raise TinyGenError(f"{self._name}: the connection is closed")
        poll = select.poll()
        poll.register(self._output, select.POLLIN)
        if sending:
            poll.register(self._input, select.POLLOUT)
        return {descriptor for descriptor, _ in poll.poll(max(0.0, timeout) * 1000)}

    def _status(self) -> int:
        """Exit status of the program, which has closed its output."""
        try:
            return self._popen.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            return self._popen.wait()

    def _complaint(self) -> str:
        """The end of what the program wrote to standard error."""
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - _TAIL))
        return self._errors.read().decode(errors="replace").strip()

    def _died(self) -> TinyGenError:
        status = self._status()
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
        last_line = self._last_words.decode(errors="replace").strip().rpartition("\n")[2]
        why = last_line if last_line.startswith("fault:") else self._complaint()
        return TinyGenError(f"{self._name}: the program has ended with {how}", why)


def run(command: Sequence[str | Path], name: str, *, send: bytes = b"", timeout: float) -> Finished:
    """Run a program to its end, with ``send`` and nothing more on its serial line.

    Raises :class:`TinyGenError` when it runs longer than ``timeout`` seconds.
    """
    with Process(command, name) as process:
        process._send(send)
        process._input.close()
        return process.finish(timeout)


def _end(popen: subprocess.Popen[bytes]) -> None:
    """Make sure that the program is gone: ask, wait, kill."""
    for pipe in (popen.stdin, popen.stdout):
        if pipe is not None:
            pipe.close()
    if popen.poll() is None:
        popen.terminate()
        try:
            popen.wait(_GRACE)
        except subprocess.TimeoutExpired:
            popen.kill()
            popen.wait()
