"""The child process of the fuzz test: all of TinyGen that sees a model file, up to C code.

``examine(data)`` gives None when the file is refused as it should be, with
:class:`tinygen.errors.InputError`, and else random inputs for the model and its outputs.  Anything
else that happens here, running out of time or memory too, is a bug.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from child import serve

from tinygen import emit, passes, plan, reference
from tinygen.errors import InputError
from tinygen.graph import Tensor
from tinygen.importers import tflite

Array = np.ndarray[Any, Any]
Arrays = tuple[Array, ...]

MEMORY_BYTES = 1 << 30
SECONDS = 5.0
NAME = "fuzz"


def examine(data: bytes) -> tuple[Arrays, Arrays] | None:
    try:
        graph = tflite.load(data, f"{NAME}.tflite")
        inputs = tuple(_random(graph.at(i)) for i in graph.inputs)
        outputs = tuple(reference.run(graph, inputs))
        planned = plan.make(passes.run(graph))
        plan.check(planned)
        sources = emit.sources(planned, NAME)
    except InputError:
        return None
    for path, text in sources.items():
        assert NAME in path and ".." not in path and not path.startswith("/")
        assert text.isascii()
    return inputs, outputs


def _random(tensor: Tensor) -> Array:
    random = np.random.default_rng(0)
    if tensor.dtype == "float32":
        return random.normal(size=tensor.shape).astype(np.float32)
    data = random.bytes(tensor.bytes)
    return np.frombuffer(data, dtype=tensor.dtype).reshape(tensor.shape)


if __name__ == "__main__":
    warnings.simplefilter("error")  # they would reach the user's terminal
    serve(examine, MEMORY_BYTES, SECONDS)
