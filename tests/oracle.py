"""The byte oracle: TensorFlow Lite for Microcontrollers itself, from PyPI ``tflite_micro``.

TFLM trusts the models it is given and may abort or crash on a bad one, so it runs in a child
process that serves one model after another and is replaced when it dies or takes too long.

    outputs = oracle.shared().run(model_bytes, [input_array])
    tensors = oracle.shared().tensors(model_bytes, [input_array], indices)
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from child import Child, DiedError, serve

Array = np.ndarray[Any, Any]

ARENA_BYTES = 4_000_000
MEMORY_BYTES = 2 << 30
SECONDS = 10.0
TIMEOUT_SECONDS = 120.0


class RefusedError(Exception):
    """TFLM does not take this model; the message is what it printed."""


class CrashedError(RefusedError):
    """TFLM took its whole process down, or did not come back in time."""


class Oracle:
    """TFLM in a child process."""

    def __init__(self) -> None:
        self.child = Child(Path(__file__), TIMEOUT_SECONDS)

    def run(
        self, model: bytes, inputs: Sequence[Array], arena: int = ARENA_BYTES
    ) -> tuple[Array, ...]:
        """The model's outputs for ``inputs``, from a fresh interpreter.

        Raises :class:`RefusedError` when TFLM refuses the model, and of these
        :class:`CrashedError` when it crashes on it.
        """
        outputs: tuple[Array, ...] = self._ask(model, tuple(inputs), arena, None)
        return outputs

    def tensors(
        self,
        model: bytes,
        inputs: Sequence[Array],
        indices: Iterable[int],
        arena: int = ARENA_BYTES,
    ) -> dict[int, Array]:
        """Tensors by index, intermediate ones too, after one inference; raises as :meth:`run`."""
        tensors: dict[int, Array] = self._ask(model, tuple(inputs), arena, tuple(indices))
        return tensors

    def _ask(self, *request: Any) -> Any:
        try:
            return self.child.ask(*request)
        except DiedError as error:
            raise CrashedError(str(error)) from error
        except Exception as error:
            message = f"{type(error).__name__}: {error}: {self.child.said()}"
            raise RefusedError(message) from error


@functools.cache
def shared() -> Oracle:
    """One oracle for all tests of a process."""
    return Oracle()


def _infer(
    model: bytes, inputs: tuple[Array, ...], arena: int, indices: tuple[int, ...] | None
) -> tuple[Array, ...] | dict[int, Array]:
    from tflite_micro.python.tflite_micro import runtime

    # Counting them needs the whole file parsed in Python, which is slow and refuses more than TFLM.
    runtime.count_resource_variables = lambda model: 0
    config = runtime.InterpreterConfig
    interpreter = runtime.Interpreter.from_bytes(
        model,
        arena_size=arena,
        intrepreter_config=config.kAllocationRecording
        if indices is None
        else config.kPreserveAllTensors,
    )
    for i, array in enumerate(inputs):
        interpreter.set_input(array, i)
    interpreter.invoke()
    if indices is not None:
        return {i: np.array(interpreter.GetTensor(i, 0)["tensor_data"]) for i in indices}
    return tuple(np.array(interpreter.get_output(i)) for i in range(_outputs(model)))


def _outputs(model: bytes) -> int:
    import tflite

    return int(tflite.Model.GetRootAsModel(model, 0).Subgraphs(0).OutputsLength())


if __name__ == "__main__":
    serve(_infer, MEMORY_BYTES, SECONDS)
