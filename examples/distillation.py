"""Whether a small student learns more with a teacher: five seeds of it alone, and of it taught.

    python -m examples.distillation

The teacher is LeNet, the student the same with a quarter of the filters and fresh weights.  Both
ways it sees the same 2,000 training images, a quarter of what the teacher had, in the same order
for as long; alone, it has the labels, taught, the softened answers of the teacher too.  Prints the
accuracy on the test set of each in float, and writes ``examples/distillation.json``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from examples import common, compress
from tinygen.compress import METHODS, Context, parse

NAME = "lenet"
SEEDS = (1, 2, 3, 4, 5)
EXAMPLES = 2000
FILE = Path(__file__).with_name("distillation.json")
STUDENT = {"method": "distill", "width": 0.25, "epochs": 40, "batch": 64, "learning_rate": 3e-3}
WAYS = {"alone": STUDENT | {"alpha": 0.0}, "taught": STUDENT | {"alpha": 0.9, "temperature": 4.0}}


def main() -> None:
    import keras

    common.seed(compress.SEED)
    teacher = keras.models.load_model(common.keras_file(NAME))
    train = common.load(common.train_file(NAME)).first(EXAMPLES)
    test = common.load(common.test_file(NAME))
    found: dict[str, Any] = {"teacher": common.float_accuracy(teacher, test), "settings": WAYS}
    for way, table in WAYS.items():
        (step,) = parse([table], METHODS)
        accuracies = []
        for seed in SEEDS:
            student = step.method.apply(teacher, step.settings, Context(train, seed=seed))
            accuracies.append(common.float_accuracy(student, test))
            print(f"{way} {seed}: {accuracies[-1]:.2%}", flush=True)
        found["parameters"] = student.count_params()
        found[way] = accuracies
        print(f"{way}: mean {np.mean(accuracies):.2%}, spread {np.std(accuracies, ddof=1):.2%}")
    FILE.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
