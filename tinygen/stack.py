"""How much stack an inference needs, estimated from what the compiler says of each function."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

CALL_DEPTH = 2
"""Functions below ``<name>_run`` that can be active at once: a kernel and a helper it calls."""

ASSEMBLY = 108
"""The most that a function written in assembly takes (rows of ``conv2d/dsp_lines.c.j2``), of which
the compiler says 0 bytes."""


def frames(usage: str) -> dict[str, int]:
    """Bytes of stack by function, from the text of a ``.su`` file (GCC's ``-fstack-usage``)."""
    found = re.findall(r":(\w+)\t(\d+)\t", usage)
    return {name: int(size) or ASSEMBLY for name, size in found}


def estimate(sizes: Mapping[str, int], name: str) -> int | None:
    """Bytes for ``<name>_run`` and the largest functions that it may have called.

    An upper bound as long as no chain of calls below it is deeper than :data:`CALL_DEPTH` in the
    model's own file; what the C library adds is not in it.  None without a frame for the function.
    """
    entry = f"{name}_run"
    if entry not in sizes:
        return None
    own = (f"{name}_init", f"{name}_reset", f"{name}_input", f"{name}_output", entry)
    others = sorted((size for f, size in sizes.items() if f not in own), reverse=True)
    return sizes[entry] + sum(others[:CALL_DEPTH])


def of_build(folder: Path, name: str) -> int | None:
    """The estimate for the model ``name`` from the ``.su`` files below ``folder``, if any."""
    for path in sorted(folder.rglob(f"{name}.su")):
        found = estimate(frames(path.read_text(encoding="utf-8", errors="replace")), name)
        if found is not None:
            return found
    return None
