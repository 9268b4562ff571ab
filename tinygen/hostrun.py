"""Generated C on this machine: many inputs through a model, as fast as the compiler makes it.

The model's sources are compiled as they stand, board kernels by their twins in C, into a small
program that maps a file of inputs to a file of outputs.  It computes the bytes that the firmware
computes, on thousands of examples in seconds.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinygen import emit, reference, resources
from tinygen.compress.base import Progress, silent
from tinygen.errors import TinyGenError
from tinygen.graph import Array, Graph, Tensor
from tinygen.plan import Plan

COMPILERS = ("gcc", "cc", "clang")
FEWEST = 64
"""Examples that are worth a process of their own."""
POLL_SECONDS = 0.05

_DRIVER = """\
#include <stdio.h>
#include "tinygen.h"
#include "%(name)s.h"

int main(void)
{
  const tinygen_model *m = &%(name)s_model;
  for (;;) {
    m->init();
    m->reset();
    for (int i = 0; i < m->input_count; ++i) {
      const size_t got = fread(m->inputs[i].data, 1, m->inputs[i].bytes, stdin);
      if (got == 0 && i == 0) return fflush(stdout) != 0;
      if (got != m->inputs[i].bytes) return 2;
    }
    if (m->run() != 0) return 3;
    for (int i = 0; i < m->output_count; ++i) {
      fwrite(m->outputs[i].data, 1, m->outputs[i].bytes, stdout);
    }
  }
}
"""


@dataclass(frozen=True, eq=False)
class Model:
    """A model compiled for this machine; tensors are those of one inference, in order."""

    program: Path
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def run(self, inputs: Sequence[Array], progress: Progress = silent) -> list[Array]:
        """Outputs (n, *shape of the output) for inputs (n, *shape of the input), every dtype the
        tensor's own.

        Raises :class:`TinyGenError` when the program fails.
        """
        arrays = [_checked(a, t) for a, t in zip(inputs, self.inputs, strict=True)]
        count = len(arrays[0])
        parts = np.array_split(np.arange(count), _processes(count))
        sizes = [t.bytes for t in self.outputs]
        with (
            tempfile.TemporaryDirectory(prefix="tinygen-") as name,
            progress("running generated C", count) as step,
            ExitStack() as stack,
        ):
            files = [Path(name, f"out{i}") for i in range(len(parts))]
            running = [
                stack.enter_context(_started(self.program, _rows(arrays, part), file))
                for part, file in zip(parts, files, strict=True)
            ]
            _wait(running, files, sum(sizes), count, step)
            data = b"".join(file.read_bytes() for file in files)
        if len(data) != count * sum(sizes):
            raise TinyGenError(f"{self.program.name}: wrote {len(data)} bytes of outputs")
        table = np.frombuffer(data, np.uint8).reshape(count, sum(sizes))
        edges = np.cumsum([0, *sizes])
        return [
            np.ascontiguousarray(table[:, a:b]).view(t.dtype).reshape(count, *t.shape)
            for t, a, b in zip(self.outputs, edges, edges[1:], strict=False)
        ]


@contextmanager
def compiled(plan: Plan, name: str = "model") -> Iterator[Model]:
    """The program of a plan; raises :class:`TinyGenError` without a compiler."""
    with tempfile.TemporaryDirectory(prefix="tinygen-") as folder:
        for path, text in emit.sources(plan, name).items():
            Path(folder, Path(path).name).write_text(text, encoding="utf-8")
        yield build(Path(folder), name, plan.graph, Path(folder, "program"))


@contextmanager
def of_project(library: Path, name: str, graph: Graph) -> Iterator[Model]:
    """The program of a project's generated library, whose sources are in ``library``."""
    with tempfile.TemporaryDirectory(prefix="tinygen-") as folder:
        yield build(library, name, graph, Path(folder, "program"))


def build(library: Path, name: str, graph: Graph, program: Path) -> Model:
    """Compile the C files in ``library``, the model ``name`` among them, into ``program``.

    Raises :class:`TinyGenError` when there is no compiler, or it refuses the files.
    """
    driver = program.with_name(f"{program.name}_main.c")
    driver.write_text(_DRIVER % {"name": name}, encoding="utf-8")
    sources = sorted(path for path in library.glob("*.c") if path != driver)
    command = [
        *(compiler(), "-std=c99", "-O2", "-w"),
        *(f"-I{path}" for path in (library, resources.folder("firmware") / "runtime")),
        *(str(path) for path in (*sources, driver)),
        *("-lm", "-o", str(program)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise TinyGenError(
            f"{name}: the generated C does not compile on this machine:\n"
            f"{done.stderr.strip()[:2000]}",
            "build the project again",
        )
    inputs, outputs = (tuple(graph.at(i) for i in edge) for edge in (graph.inputs, graph.outputs))
    return Model(program, inputs, outputs)


def compiler() -> str:
    """This machine's C compiler; raises :class:`TinyGenError` when there is none."""
    found = next((path for name in COMPILERS if (path := shutil.which(name))), None)
    if found is None:
        raise TinyGenError(
            "host: no C compiler on PATH, so generated C cannot run here",
            "apt-get install gcc",
        )
    return found


def by_reference(graph: Graph, inputs: Sequence[Array], progress: Progress = silent) -> list[Array]:
    """What :meth:`Model.run` gives, by the numpy reference: the same bytes, slowly."""
    tensors = [graph.at(i) for i in graph.inputs]
    arrays = [_checked(a, t) for a, t in zip(inputs, tensors, strict=True)]
    results = []
    with progress("running the numpy reference", len(arrays[0])) as step:
        for row in range(len(arrays[0])):
            results.append(reference.run(graph, [array[row] for array in arrays]))
            step()
    return [np.stack(column) for column in zip(*results, strict=True)]


def _checked(array: Array, tensor: Tensor) -> Array:
    """``array`` (n, *shape) as it lies in memory; what is no such array is the caller's mistake."""
    assert array.shape[1:] == tensor.shape and array.dtype == np.dtype(tensor.dtype)
    return np.ascontiguousarray(array)


def _processes(count: int) -> int:
    return max(1, min(os.cpu_count() or 1, count // FEWEST))


def _rows(arrays: Sequence[Array], part: Array) -> bytes:
    """The inputs of the examples at ``part``, one example after another."""
    count = len(part)
    flat = [array[part].reshape(count, -1).view(np.uint8) for array in arrays]
    return np.concatenate(flat, axis=1).tobytes()


@contextmanager
def _started(program: Path, data: bytes, output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The program at work on ``data``; killed when the block is left early."""
    given = output.with_suffix(".in")
    given.write_bytes(data)
    with (
        given.open("rb") as source,
        output.open("wb") as sink,
        subprocess.Popen([program], stdin=source, stdout=sink, stderr=subprocess.PIPE) as process,
    ):
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def _wait(
    running: Sequence[subprocess.Popen[bytes]],
    files: Sequence[Path],
    each: int,
    count: int,
    step: Any,
) -> None:
    """Wait for all programs, a step for each example done; raise when one fails."""
    told = 0
    while True:
        ended = all(process.poll() is not None for process in running)
        done = sum(file.stat().st_size for file in files) // max(each, 1)
        for _ in range(told, min(done, count)):
            step()
        told = max(told, min(done, count))
        if ended:
            break
        time.sleep(POLL_SECONDS)
    for process in running:
        if process.returncode != 0:
            raise TinyGenError(
                f"the generated C ended with {process.returncode} on this machine",
                "`tinygen verify --on host` runs it with sanitizers",
            )
