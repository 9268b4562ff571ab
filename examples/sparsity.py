"""Sparse recovery against magnitude pruning, both without retraining: accuracy over sparsity.

    python -m examples.sparsity

Makes the plain int8 LeNet sparse in every layer, by the smallest weights and by two solvers of
sparse recovery, which see 256 training images and no labels.  Writes ``examples/sparsity.json``
(accuracy on the test set, mean squared error of the outputs against the plain network's), of which
solvers that are there are not run again, and ``docs/sparse-recovery.svg``.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from examples import common
from tinygen import importers
from tinygen.compress import Context, recover
from tinygen.datasets import Data

NAME = "lenet"
SPARSITIES = (0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9)
SOLVERS: tuple[recover.Solver, ...] = ("magnitude", "lasso", "elimination")
LOOKS = {"magnitude": "k--o", "lasso": "C0-s", "elimination": "C2-D"}
FILE = Path(__file__).with_name("sparsity.json")
PLOT = common.HERE.parent / "docs" / "sparse-recovery.svg"


def plot(points: list[dict[str, Any]]) -> None:
    """Two panels over sparsity: accuracy, and the error of the outputs."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    pyplot.rcParams |= {"svg.hashsalt": "tinygen", "font.size": 9}
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    for solver in SOLVERS:
        mine = [p for p in points if p["solver"] == solver]
        sparsity = [100 * p["sparsity"] for p in mine]
        left.plot(sparsity, [100 * p["accuracy"] for p in mine], LOOKS[solver], label=solver, ms=4)
        right.semilogy(sparsity, [p["error"] for p in mine], LOOKS[solver], label=solver, ms=4)
    left.set(xlabel="zero weights, %", ylabel="accuracy on 2,000 test images, %")
    right.set(xlabel="zero weights, %", ylabel="mean squared error of outputs")
    left.legend()
    figure.savefig(PLOT, metadata={"Date": None})


def main() -> None:
    train = common.load(common.train_file(NAME))
    graph = importers.load(common.int8_file(NAME))
    known = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else []
    found: list[dict[str, Any]] = [p for p in known if p["solver"] in SOLVERS]
    for solver in SOLVERS:
        if any(p["solver"] == solver for p in found):
            continue
        context = Context(Data(train.inputs))
        test = common.load(common.test_file(NAME))
        for point in recover.curve(graph, SPARSITIES, context, test, (solver,)):
            error = float(f"{point.error:.3g}")
            found.append(dataclasses.asdict(point) | {"error": error})
            print(f"{solver:12} {point.sparsity:.0%} {point.accuracy:.2%} {error}", flush=True)
        FILE.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    plot(found)


if __name__ == "__main__":
    main()
