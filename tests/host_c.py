"""Runs generated C on the host: many models in one sanitized executable, fed over pipes."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from graphs import corner_inputs

from tinygen import emit, plan, reference, resources
from tinygen.graph import Array, Graph

WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")

_DRIVER = """
#include <stdio.h>
#include <string.h>
#include "tinygen.h"
%(includes)s
static const tinygen_model *const models[] = {%(models)s};
static uint32_t crc32(const uint8_t *data, size_t size)
{
  uint32_t crc = ~0u;
  while (size--) {
    crc ^= *data++;
    for (int i = 0; i < 8; ++i) crc = (crc >> 1) ^ (0xEDB88320u & (0u - (crc & 1u)));
  }
  return ~crc;
}
void tinygen_on_layer(const tinygen_model *model, int layer, const void *data, size_t bytes)
{
  const uint32_t crc = crc32((const uint8_t *)data, bytes);
  (void)model; (void)layer;
  fwrite(&crc, 4, 1, stdout);
}
int main(void)
{
  uint32_t index;
  while (fread(&index, 4, 1, stdin) == 1) {
    const tinygen_model *m = models[index];
    m->init();
    for (int i = 0; i < m->input_count; ++i) {
      if (fread(m->inputs[i].data, 1, m->inputs[i].bytes, stdin) != m->inputs[i].bytes) return 2;
    }
    if (m->run() != 0) return 3;
    for (int i = 0; i < m->output_count; ++i) {
      fwrite(m->outputs[i].data, 1, m->outputs[i].bytes, stdout);
    }
    fflush(stdout);
  }
  return 0;
}
"""


class HostModels:
    """Graphs or plans compiled together; ``run`` gives a model's outputs and its layers' CRC-32."""

    def __init__(
        self,
        graphs: Mapping[str, Graph | plan.Plan] | Sequence[Graph | plan.Plan],
        folder: Path,
        compiler: str = "gcc",
        flags: Sequence[str] = ("-O1", *SANITIZERS),
        features: frozenset[str] = frozenset(),
    ) -> None:
        if not isinstance(graphs, Mapping):
            graphs = {f"m{i}": graph for i, graph in enumerate(graphs)}
        self._plans = {
            name: graph if isinstance(graph, plan.Plan) else plan.make(graph, features)
            for name, graph in graphs.items()
        }
        self._names = list(graphs)
        for name, made in self._plans.items():
            plan.check(made)
            for path, text in emit.sources(made, name).items():
                (folder / Path(path).name).write_text(text)
        includes = "".join(f'#include "{name}.h"\n' for name in self._names)
        models = ", ".join(f"&{name}_model" for name in self._names)
        driver = _DRIVER % {"includes": includes, "models": models}
        (folder / "driver.c").write_text(driver)
        language = () if "++" in compiler else ("-std=c99",)
        command = [compiler, *language, *flags, *WARNINGS, "-DTINYGEN_TRACE"]
        command += [f"-I{folder}", f"-I{resources.folder('firmware') / 'runtime'}"]
        command += [str(folder / f"{name}.c") for name in self._names]
        command += [str(folder / "driver.c"), "-o", str(folder / "models")]
        built = subprocess.run(command, capture_output=True, text=True, check=False)
        assert built.returncode == 0, built.stderr[:6000]
        self._process = subprocess.Popen(
            [folder / "models"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __enter__(self) -> HostModels:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(timeout=10)

    def run(self, name: str, inputs: Sequence[Array]) -> tuple[list[Array], list[int]]:
        """Outputs and one CRC-32 a layer, for one model and its inputs."""
        made = self._plans[name]
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(struct.pack("<I", self._names.index(name)))
        for array in inputs:
            self._process.stdin.write(np.ascontiguousarray(array).tobytes())
        self._process.stdin.flush()
        crcs = [struct.unpack("<I", self._read(4))[0] for _ in made.steps]
        outputs = []
        for index in made.graph.outputs:
            tensor = made.graph.at(index)
            data = np.frombuffer(self._read(tensor.bytes), dtype=tensor.dtype)
            outputs.append(data.reshape(tensor.shape))
        return outputs, crcs

    def _read(self, size: int) -> bytes:
        assert self._process.stdout
        data = self._process.stdout.read(size)
        assert len(data) == size, f"the program ended with {self._process.wait()}"
        return data


def check(
    models: Mapping[str, Graph | plan.Plan], folder: Path, features: frozenset[str] = frozenset()
) -> None:
    """Every model's first output is the reference's, for random inputs and those at the limits."""
    with HostModels(models, folder, features=features) as host:
        for name, model in models.items():
            graph = model.graph if isinstance(model, plan.Plan) else model
            for inputs in corner_inputs(graph):
                want = reference.run(graph, inputs)[0]
                assert np.array_equal(host.run(name, inputs)[0][0], want), (name, graph)
