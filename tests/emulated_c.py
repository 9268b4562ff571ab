"""Runs generated C on emulated cores: many models and their inputs in one bare-metal program."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from graphs import random_inputs
from host_c import WARNINGS

from tinygen import emit, plan, project, reference, resources
from tinygen.boards import Board
from tinygen.graph import Graph
from tinygen.simulate import qemu

Array = np.ndarray[Any, Any]

SECONDS = 300.0

_DRIVER = """
#include <string.h>
#include "tinygen.h"
#include "tinygen_port.h"
%(includes)s
static const struct { const tinygen_model *model; const uint8_t *inputs; } runs[] = {%(runs)s};
int main(void)
{
  for (size_t i = 0; i < sizeof runs / sizeof runs[0]; ++i) {
    const tinygen_model *m = runs[i].model;
    const uint8_t *inputs = runs[i].inputs;
    m->init();
    for (int k = 0; k < m->input_count; ++k) {
      memcpy(m->inputs[k].data, inputs, m->inputs[k].bytes);
      inputs += m->inputs[k].bytes;
    }
    if (m->run() != 0) {
      tinygen_port_exit(1);
    }
    for (int k = 0; k < m->output_count; ++k) {
      tinygen_port_write((const uint8_t *)m->outputs[k].data, m->outputs[k].bytes);
    }
  }
  tinygen_port_exit(0);
}
"""


def run(
    board: Board,
    graphs: Sequence[Graph | plan.Plan],
    inputs: Sequence[Sequence[Array]],
    folder: Path,
    optimize: Sequence[str] = ("-O2",),
) -> list[list[Array]]:
    """Outputs of each graph or plan for its inputs, computed on the emulated core of ``board``."""
    names = [f"m{i}" for i in range(len(graphs))]
    plans = [
        graph if isinstance(graph, plan.Plan) else plan.make(graph, board.features)
        for graph in graphs
    ]
    for name, made in zip(names, plans, strict=True):
        for path, text in emit.sources(made, name).items():
            (folder / Path(path).name).write_text(text)
    includes = [f'#include "{name}.h"' for name in names]
    for name, given in zip(names, inputs, strict=True):
        data = b"".join(np.ascontiguousarray(array).tobytes() for array in given)
        values = ",".join(map(str, data))
        includes.append(f"static const uint8_t {name}_inputs[] = {{{values}}};")
    runs = ", ".join(f"{{&{name}_model, {name}_inputs}}" for name in names)
    driver = folder / "driver.c"
    driver.write_text(_DRIVER % {"includes": "\n".join(includes), "runs": runs})
    elf = build(board, [driver, *(folder / f"{name}.c" for name in names)], folder, optimize)
    finished = qemu.run(board, elf, timeout=SECONDS)
    assert finished.status == 0, finished
    return _outputs([made.graph for made in plans], finished.output)


def check(
    board: Board,
    models: Sequence[Graph | plan.Plan],
    folder: Path,
    optimize: Sequence[str] = ("-O2",),
) -> None:
    """Every model's first output is the reference's on the core of ``board``, for random inputs."""
    graphs = [model.graph if isinstance(model, plan.Plan) else model for model in models]
    inputs = [random_inputs(graph, i) for i, graph in enumerate(graphs)]
    found = run(board, models, inputs, folder, optimize)
    for i, (graph, given, outputs) in enumerate(zip(graphs, inputs, found, strict=True)):
        assert np.array_equal(outputs[0], reference.run(graph, given)[0]), (i, graph)


def build(
    board: Board, sources: Sequence[Path], folder: Path, optimize: Sequence[str] = ("-O2",)
) -> Path:
    """A program of ``sources`` and the board's port, without warnings."""
    system = board.system
    assert system is not None
    firmware, elf = resources.folder("firmware"), folder / "program.elf"
    port = firmware / "port"
    symbols = project.board_manifest(board)["tinygen"]["symbols"]
    compiler = shutil.which(f"{system.compiler}gcc")
    assert compiler is not None, f"{system.compiler}gcc is not installed"
    command = [compiler, *system.flags, *optimize, "-std=gnu99", *WARNINGS]
    command += ["-ffunction-sections", "-fdata-sections", f"-I{folder}"]
    command += [f"-DTINYGEN_CLOCK_HZ={board.clock_hz}UL", *(f"-D{d}" for d in system.defines)]
    command += [f"-I{path}" for path in (firmware / "runtime", port)]
    command += [f"-I{port / name}" for name in system.folders]
    command += [str(path) for path in sources]
    command += [str(p) for f in system.folders for p in sorted((port / f).glob("*.[cS]"))]
    command += ["-nostartfiles", "-Wl,--gc-sections", f"-T{port / system.script}", f"-L{port}"]
    command += [f"-Wl,--defsym,{name}={value:#x}" for name, value in symbols.items()]
    built = subprocess.run(
        [*command, "-lm", "-o", str(elf)], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr[:6000]
    return elf


def _outputs(graphs: Sequence[Graph], data: bytes) -> list[list[Array]]:
    found, at = [], 0
    for graph in graphs:
        arrays: list[Array] = []
        for tensor in (graph.at(i) for i in graph.outputs):
            part = data[at : at + tensor.bytes]
            arrays.append(np.frombuffer(part, dtype=tensor.dtype).reshape(tensor.shape))
            at += tensor.bytes
        found.append(arrays)
    assert at == len(data)
    return found
