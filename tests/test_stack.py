"""The stack estimate, from a real compiler's report."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tinygen import stack

SOURCE = """
#define APART static __attribute__((noinline)) int
APART leaf(volatile char *p) { volatile char b[40]; b[0] = *p; return b[0]; }
APART kernel(void) { volatile char b[300]; b[1] = 1; return leaf(b); }
APART small(void) { volatile char b[8]; b[1] = 1; return b[1]; }
int m_run(void) { volatile char b[16]; b[0] = 2; return kernel() + small() + b[0]; }
int m_init(void) { volatile char b[9000]; b[0] = 2; return b[0]; }
"""


def test_covers_the_deepest_chain(tmp_path: Path) -> None:
    (tmp_path / "m.c").write_text(SOURCE)
    command = ["gcc", "-O2", "-fstack-usage", "-c", "m.c", "-o", "m.o"]
    subprocess.run(command, cwd=tmp_path, check=True)
    found = stack.of_build(tmp_path, "m")
    assert found is not None
    assert 356 <= found < 1000


def test_functions_in_assembly_are_counted() -> None:
    assert stack.frames("m.c:1:45:f\t0\tstatic\nm.c:2:6:g\t8\tstatic\n") == {
        "f": stack.ASSEMBLY,
        "g": 8,
    }


def test_nothing_known(tmp_path: Path) -> None:
    assert stack.of_build(tmp_path, "m") is None
    assert stack.estimate({"other": 8}, "m") is None
