"""Builds ``dut_host.c`` with the runtime and talks to it through pipes."""

from __future__ import annotations

import os
import select
import subprocess
from pathlib import Path
from types import TracebackType

from tinygen.errors import TinyGenError
from tinygen.resources import folder

HERE = Path(__file__).parent
RUNTIME = folder("firmware") / "runtime"
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror", "-pedantic")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def build(folder: Path, *defines: str) -> Path:
    """The host program with the three models of ``dut_host.c``; returns the executable."""
    program = folder / "dut"
    sources = [str(HERE / "dut_host.c"), str(RUNTIME / "tinygen_dut.c")]
    options = ["-std=gnu99", "-g", *WARNINGS, *SANITIZERS, *defines, "-I", str(RUNTIME)]
    subprocess.run(["gcc", *options, *sources, "-o", str(program)], check=True)
    return program


class Pipe:
    """A transport to a program's standard input and output."""

    def __init__(self, program: Path, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [str(program), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        assert self._process.stdin and self._process.stdout
        self._stdin, self._stdout = self._process.stdin, self._process.stdout

    def write(self, data: bytes) -> None:
        try:
            self._stdin.write(data)
        except BrokenPipeError as error:
            raise TinyGenError("dut: the program ended") from error

    def read(self, timeout: float) -> bytes:
        ready, _, _ = select.select([self._stdout], [], [], timeout)
        if not ready:
            return b""
        data = os.read(self._stdout.fileno(), 65536)
        if not data:
            raise TinyGenError(f"dut: the program ended with status {self._process.wait()}")
        return data

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._stdin.close()
        self._stdout.close()

    def finish(self) -> int:
        """Close the program's input and return its exit status."""
        self._stdin.close()
        status = self._process.wait(10)
        self._stdout.close()
        return status

    def __enter__(self) -> Pipe:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()
