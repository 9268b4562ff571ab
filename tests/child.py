"""A child process that answers one request after another and may die of any of them.

The parent's side is :class:`Child`.  The child's is :func:`serve`, which the script that the child
runs calls with the function that answers.  Requests and answers are pickled over pipes; whatever
else the child prints goes to a log that the parent can read.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import resource
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

START_SECONDS = 120.0


class DiedError(Exception):
    """The child died, or did not answer in time; the message says how."""


class Child:
    """``script`` run by this Python, started at the first request and whenever it died.

    ``timeout`` is in seconds for one answer, on the clock: generous, a last resort.
    ``environment`` adds to this process's own.
    """

    def __init__(
        self, script: Path, timeout: float, environment: Mapping[str, str] | None = None
    ) -> None:
        self.timeout = timeout
        self._script = script.resolve()
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115, lives as long as this
        atexit.register(self.close)

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def ask(self, *request: Any) -> Any:
        """The child's answer; what the child's function raises is raised here.

        Raises :class:`DiedError` when there is no answer.
        """
        process = self._process or self._start()
        self._log.seek(0)
        self._log.truncate()
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died: reading tells how
            _send(process.stdin, request)
        answer, error = self._receive(process, self.timeout)
        if error is not None:
            raise error
        return answer

    def said(self) -> str:
        """What the child printed since the last request."""
        self._log.seek(0)
        return self._log.read(4000).decode("utf-8", "replace").strip()

    def close(self) -> None:
        """End the child; the next request starts another."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _start(self) -> subprocess.Popen[bytes]:
        process = self._process = subprocess.Popen(
            [sys.executable, str(self._script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=self._environment,
            bufsize=0,
        )
        self._receive(process, START_SECONDS)
        return process

    def _receive(self, process: subprocess.Popen[bytes], seconds: float) -> Any:
        assert process.stdout is not None
        try:
            return _receive(process.stdout, time.monotonic() + seconds)
        except TimeoutError as timeout:
            self.close()
            raise DiedError(f"no answer within {seconds} s") from timeout
        except EOFError as ended:
            code = process.wait()
            self.close()
            raise DiedError(f"exit {code}: {self.said()}") from ended


def serve(answer: Callable[..., Any], memory: int, seconds: float) -> None:
    """Answer requests on stdin until it closes.

    The process has at most ``memory`` bytes of address space, and dies of a request that takes it
    more than ``seconds`` of computing, however busy the machine is.
    """
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what a library prints must not get among the answers
    requests = os.fdopen(0, "rb", buffering=0)
    _send(replies, "ready")
    with contextlib.suppress(EOFError):
        while True:
            request = _receive(requests)
            reply: tuple[Any, Exception | None]
            signal.setitimer(signal.ITIMER_PROF, seconds)
            try:
                reply = (answer(*request), None)
            except Exception as error:
                reply = (None, error.with_traceback(None))
            signal.setitimer(signal.ITIMER_PROF, 0)
            _send(replies, reply)


def _send(stream: IO[bytes], message: Any) -> None:
    data = pickle.dumps(message)
    view = memoryview(struct.pack("<Q", len(data)) + data)
    while view:
        view = view[stream.write(view) :]


def _receive(stream: IO[bytes], deadline: float | None = None) -> Any:
    (length,) = struct.unpack("<Q", _read(stream, 8, deadline))
    return pickle.loads(_read(stream, length, deadline))


def _read(stream: IO[bytes], length: int, deadline: float | None) -> bytes:
    data = bytearray()
    while len(data) < length:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([stream], [], [], left)[0]:
                raise TimeoutError
        part = os.read(stream.fileno(), min(length - len(data), 1 << 20))
        if not part:
            raise EOFError
        data += part
    return bytes(data)
