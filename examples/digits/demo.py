"""Builds the digit classifier for two boards and runs 100 test images on both emulated chips.

Prints how many images each chip reads right, beside the Python reference, and whether all output
bytes agree.  Exit code 0 only when they do.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from tinygen import boards, importers, project, reference, verify
from tinygen import compile as compiler
from tinygen.graph import Array
from tinygen.report import build as report
from tinygen.report import console

HERE = Path(__file__).resolve().parent
BUILD = HERE.parents[1] / "build"
BOARDS = ("nano33ble", "esp32")


def on_chip(folder: Path, cases: list[verify.Case]) -> list[bytes]:
    """Output bytes of each case from the project's firmware in its board's emulator."""
    manifest = project.load(folder)
    launch = verify.launcher(folder, manifest, verify.EMULATOR)
    with launch(()) as transport, console.progress(manifest.board, len(cases)) as bar:
        device = verify.connect(transport, manifest, verify.EMULATOR)
        results = []
        for case in cases:
            results.append(device.run(case.data))
            bar.advance(bar.task_ids[0])
        return results


def correct(outputs: list[bytes], labels: Array) -> int:
    """How many of the outputs, ten int8 scores each, are highest at their label."""
    scores = np.array([np.frombuffer(output, dtype=np.int8) for output in outputs])
    return int((scores.argmax(axis=1) == labels).sum())


def main() -> int:
    """Run the demo; returns the exit code."""
    out = console.out()
    model, data = compiler.bundled_model(), HERE / "digits_test.npz"
    graph = importers.load(model)
    cases = verify.read_npz(data, graph)
    labels = np.load(data)["labels"]
    wanted = [reference.run(graph, case.inputs)[0].tobytes() for case in cases]

    rows = [("Python reference", correct(wanted, labels), "", "")]
    agree = True
    for name in BOARDS:
        folder = BUILD / f"{graph.name}-{name}"
        request = compiler.Request(model, boards.load(name), folder, graph.name)
        report.show(compiler.build(request, console.say), out)
        out.print()
        started = time.monotonic()
        outputs = on_chip(folder, cases)
        equal = sum(a == b for a, b in zip(outputs, wanted, strict=True))
        agree &= equal == len(cases)
        seconds = f"{time.monotonic() - started:.0f} s"
        rows.append((f"{name}, emulated", correct(outputs, labels), f"{equal}", seconds))
    columns = ["", f">right of {len(cases)}", ">outputs equal", ">took"]
    out.print(console.table(columns, rows))
    out.print("\nAll bytes agree." if agree else "\nOutputs differ from the reference.")
    return 0 if agree else 4


if __name__ == "__main__":
    sys.exit(main())
