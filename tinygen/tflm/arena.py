"""How large the arena of a TFLM interpreter must be.

Found by trying: TFLM's own Python runtime, the same C++ code as on the chip, initialises the model
in arenas of many sizes and runs it in the smallest.  The host's answer is an upper bound for a
32-bit chip with the same kernels: the arena holds the activations, whose sizes are the model's, and
TFLM's records (tensors, nodes, kernels' parameters), which are integers and pointers, and pointers
are twice as large on the host.  The runtime also keeps its recording allocator in the arena, which
firmware does not have.  What optimized kernels may want on top is
:attr:`tinygen.tflm.summary.Summary.scratch_bytes`.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

from tinygen.errors import InputError, TinyGenError

LIMIT = 1 << 26
"""Largest arena tried, in bytes."""

_PROBE = Path(__file__).with_name("probe.py")
_SECONDS = 120
_CRASHES = 40


def arena_bytes(model: bytes, source: str = "model.tflite") -> int:
    """Bytes of the smallest arena, a multiple of 16, in which TFLM runs ``model`` on this machine.

    Raises :class:`InputError` when TFLM refuses the model, and :class:`TinyGenError` when TFLM's
    Python runtime is not installed.
    """
    if importlib.util.find_spec("tflite_micro") is None:
        raise TinyGenError(
            "tflite_micro: the Python runtime of TFLM, which measures the arena, is not installed",
            "pip install 'tinygen[tflm]'",
        )
    low = 0
    for _ in range(_CRASHES):
        status, trials, verdict, log = _probe(model, source, low)
        if status == 0:
            if verdict is None:
                break
            return verdict
        if not trials or trials[-1] >= LIMIT:
            break
        # A crash means that this arena was too small, or that no arena is large enough: go on.
        low = max(low, trials[-1])
    raise InputError(f"{source}: TFLM does not run this model{_reason(log)}")


def _probe(model: bytes, source: str, low: int) -> tuple[int, list[int], int | None, str]:
    """Exit status, sizes tried, the size found if any, and what TFLM logged."""
    try:
        child = subprocess.run(
            [sys.executable, "-P", str(_PROBE), str(low), str(LIMIT)],
            input=model,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{source}: TFLM needs more than {_SECONDS} s for it") from error
    words = child.stdout.decode().split()
    pairs = list(zip(words[::2], words[1::2], strict=False))
    found = [int(number) for word, number in pairs if word == "arena"]
    tried = [int(number) for word, number in pairs if word == "try"]
    log = child.stderr.decode("utf-8", "replace")
    return child.returncode, tried, found[0] if found else None, log


def _reason(log: str) -> str:
    """TFLM's last words in ``log``, fit for a message."""
    noise = r"Failed to (resize|allocate)|AllocateTensors|Traceback|^\s|^\w*Error: |^$"
    lines = [line for line in log.splitlines() if not re.search(noise, line)]
    if not lines:
        return ""
    return ": " + "".join(c if c.isprintable() else "?" for c in lines[-1].strip())[:120]
