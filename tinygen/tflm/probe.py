"""Measures a model's arena with TFLM's Python runtime.  A program of its own, never imported.

TFLM answers a damaged model or a tiny arena with a crash at times, and its runtime does not share a
process with other TFLite runtimes, so :mod:`tinygen.tflm.arena` runs this file in a child process:

    probe.py LOW LIMIT < model.tflite

``LOW`` bytes are known not to suffice, ``LIMIT`` is the largest arena to try; both are multiples of
16.  Prints ``try N`` before every trial, so that the parent knows which size crashed, and in the
end ``arena N``: the smallest arena in which the model initialises and an inference gives the same
bytes as in a generous one; or ``none`` when it does not initialise in ``LIMIT`` bytes.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from tflite_micro.python.tflite_micro import runtime

STEP = 16  # TFLM aligns its buffers to this many bytes
SPARE = 64 * 1024


def interpreter(model: bytes, size: int) -> Any | None:
    """An interpreter whose arena has ``size`` bytes, or None when that is too small."""
    print(f"try {size}", flush=True)
    try:
        return runtime.Interpreter.from_bytes(model, arena_size=size)
    except RuntimeError:
        return None


def smallest(model: bytes, low: int, limit: int) -> int | None:
    """The smallest sufficient multiple of STEP above ``low``, or None when ``limit`` is not."""
    high = min(limit, max(2 * low, 1024))
    while interpreter(model, high) is None:
        if high >= limit:
            return None
        low, high = high, min(limit, 2 * high)
    while high - low > STEP:
        middle = (low + high) // 2 // STEP * STEP
        if interpreter(model, middle) is None:
            low = middle
        else:
            high = middle
    return high


def outputs(model: bytes, size: int) -> bytes:
    """Bytes of all outputs of a first inference on fixed inputs of all ranges."""
    engine = interpreter(model, size)
    if engine is None:
        return b""
    values = np.random.default_rng(1)
    for i in range(edges(engine.get_input_details)):
        detail = engine.get_input_details(i)
        shape, dtype = tuple(detail["shape"]), np.dtype(detail["dtype"])
        if dtype.kind == "f":
            data = values.uniform(-1.0, 1.0, shape).astype(dtype)
        else:
            info = np.iinfo(dtype)
            data = values.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
        engine.set_input(data, i)
    engine.invoke()
    count = edges(engine.get_output_details)
    return b"".join(engine.get_output(i).tobytes() for i in range(count))


def edges(details: Any) -> int:
    """How many inputs or outputs there are: the runtime only says so by refusing the next."""
    count = 0
    while True:
        try:
            details(count)
        except (IndexError, RuntimeError, ValueError):
            return count
        count += 1


def main(low: int, limit: int) -> int:
    model = sys.stdin.buffer.read()
    size = smallest(model, low, limit)
    if size is None:
        print("none", flush=True)
        return 0
    generous = outputs(model, min(limit, 2 * size + SPARE))
    while size < limit and outputs(model, size) != generous:
        size += STEP
    print(f"arena {size}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
