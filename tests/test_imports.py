"""Which module may import which: the edges of the architecture."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import tinygen

PACKAGE = Path(tinygen.__file__).parent

CORE = ("graph", "numerics", "errors", "encodings", "fixed_point")


def imports_of(path: Path) -> set[str]:
    """Names of the modules that the file at ``path`` imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def modules_of(path: Path) -> set[str]:
    """The parts of TinyGen that the file imports, by their name under ``tinygen``."""
    return {
        name.split(".")[1]
        for name in imports_of(path)
        if name.startswith("tinygen.") and name.split(".")[1] != "__version__"
    }


def test_operators_import_only_the_core() -> None:
    for path in (PACKAGE / "ops").glob("*.py"):
        assert modules_of(path) <= {"ops", *CORE}, path.name


def test_core_imports_no_importer_and_no_output() -> None:
    for name in CORE:
        path = PACKAGE / f"{name}.py"
        for file in (path, *(PACKAGE / name).glob("*.py")):
            if file.exists():
                assert modules_of(file) <= set(CORE), file.name
    planning = {"placement", "selection", "streams"}
    for name in ("plan", "reference", *planning):
        assert modules_of(PACKAGE / f"{name}.py") <= {"ops", *planning, *CORE}, name


def test_passes_import_only_graph_and_operators() -> None:
    for path in (PACKAGE / "passes").glob("*.py"):
        assert modules_of(path) <= {"ops", "passes", *CORE}, path.name


def test_exporters_import_only_graph_and_operators() -> None:
    for path in (PACKAGE / "exporters").glob("*.py"):
        assert modules_of(path) <= {"ops", *CORE}, path.name


def test_importing_the_command_line_is_light() -> None:
    heavy = {"tensorflow", "tflite_micro", "labwired", "matplotlib", "esptool"}
    code = "import sys, tinygen.cli; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not heavy & set(loaded)
