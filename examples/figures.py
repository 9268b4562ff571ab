"""What the committed example networks are worth: ``examples/figures.json``, and how it is made.

    python -m examples.figures

Measures every committed int8 network of the four examples: accuracy on the whole test set (which
``data.py`` makes), how many of the committed examples are right, and what ``tinygen bench`` says.
Writes the table of compressed networks in ``README.md`` anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import results, tables
from examples import common, compress
from tinygen import bench, boards, datasets
from tinygen.compile import compile_model

FILE = Path(__file__).with_name("figures.json")
BOARD = "qemu_m4"
WEIGHED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
BEGIN = "<!-- compressed: made by python -m examples.figures -->"
END = "<!-- /compressed -->"
COLUMNS = (
    "network", "accuracy", "weights, bytes", "with code, bytes", "RAM, bytes", "instructions",
)  # fmt: skip
HOLDING = ("weights", "codebook", "counts")
"""Roles of constants in which weights lie."""


def load() -> dict[str, Any]:
    """``tools`` that measured, and ``results``: network, then file, then figures."""
    document: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return document


def cost(path: Path) -> dict[str, int]:
    """Instructions and bytes of one network on a Cortex-M4.

    ``library`` is the model's code and constants, ``constants`` its weights, biases and
    multipliers, ``flash`` and ``ram`` all of the minimal program.  ``weights`` are the bytes of the
    arrays that hold weights, with codebooks, and with biases where kernels read these in between;
    ``elements`` is how many weights the file has.
    """
    found = bench.bench(path, boards.load(BOARD))
    flash = found.sizes.flash
    compiled = compile_model(path, boards.load(BOARD))
    constants = [c for step in compiled.plan.steps for c in step.kernel.constants]
    kernels = [compiled.graph.at(n.inputs[1]) for n in compiled.graph.nodes if n.op in WEIGHED]
    return {
        "elements": sum(kernel.elements for kernel in kernels),
        "weights": sum(c.data.nbytes for c in constants if c.role in HOLDING),
        "instructions": found.instructions,
        "constants": flash.weights,
        "library": flash.weights + flash.code,
        "flash": flash.total,
        "ram": found.sizes.ram.total,
    }


def worth(name: str, path: Path) -> dict[str, Any]:
    """Accuracy on the whole test set, how many committed examples are right, and the cost."""
    sample = datasets.load(common.sample_file(name))
    return {
        "accuracy": common.accuracy_of(path, common.load(common.test_file(name))),
        "sample_right": round(common.accuracy_of(path, sample) * len(sample)),
        **cost(path),
    }


def readme(page: str, document: dict[str, Any]) -> str:
    """``page`` with the table between :data:`BEGIN` and :data:`END` made anew."""
    rows = []
    for name in common.NAMES:
        files = document["results"][name]
        plain = files[f"{name}_int8"]
        for file in (f"{name}_{word}" for word in ("int8", *compress.OWN)):
            if file in files:
                rows.append(_row(file, files[file], plain))
    return tables.between(page, BEGIN, tables.table(COLUMNS, rows), END)


def _row(file: str, found: dict[str, Any], plain: dict[str, Any]) -> list[str]:
    cells = [f"`{file}`", f"{found['accuracy']:.2%}"]
    for key in ("weights", "library", "ram", "instructions"):
        before = plain["elements" if key == "weights" else key]
        cells.append(f"{found[key]:,}{'' if found is plain else times(before / found[key])}")
    return cells


def times(ratio: float) -> str:
    """How many times less something is, nothing where it is about as much."""
    return "" if 0.95 < ratio < 1.05 else f" ({ratio:.1f}x)"


def main() -> None:
    found = {
        name: {
            path.stem: worth(name, path) for path in sorted((common.HERE / name).glob("*.tflite"))
        }
        for name in common.NAMES
    }
    document = {"tools": results.tools(), "results": found}
    FILE.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    page = readme(tables.README.read_text("utf-8"), document)
    tables.README.write_text(page, encoding="utf-8")
    for by_file in found.values():
        for file, row in by_file.items():
            print(file, ", ".join(f"{key} {value:,}" for key, value in row.items()))


if __name__ == "__main__":
    main()
