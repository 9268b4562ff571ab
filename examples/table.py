"""The table of what each method brings on each example network: ``docs/compression-results.md``.

    python -m examples.table [NETWORK ...] [--only RECIPE,RECIPE] [--measure]

Runs every recipe of a single method that has not been run yet (networks and figures are kept in
``build/examples``, by the recipe's text and the float network), measures what comes out, and writes
the page anew from all that there is; what is missing, the page says.  Figures of the committed
networks are those of ``examples/figures.json``.  With ``--measure`` networks that are there are
measured again, as after a change of kernels.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from examples import common, compress, distillation, figures, sparsity
from tinygen.errors import TinyGenError

PAGE = common.HERE.parent / "docs" / "compression-results.md"
MOST_LOST = 0.5
"""Points of accuracy; what loses more is set in brackets."""

COLUMNS = ("accuracy", "points", "weights", "constants", "library", "RAM", "instructions")


def key(name: str, word: str) -> str:
    """Changes with the recipe and with the network that it starts from."""
    told = tomllib.loads(compress.recipes(name)[word].read_text(encoding="utf-8"))
    text = json.dumps(told, sort_keys=True).encode()
    return hashlib.sha256(text + common.keras_file(name).read_bytes()).hexdigest()[:16]


def cached(name: str, word: str) -> dict[str, Any] | None:
    """Figures of a recipe that has been run; of committed networks those that tests hold."""
    committed: dict[str, Any] = figures.load()["results"][name]
    if word in compress.OWN:
        return committed.get(f"{name}_{word}")
    path = compress.output(name, word).with_suffix(".json")
    kept = common.BUILD / name / path.name
    if not kept.is_file():
        return None
    found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
    return found if found["key"] == key(name, word) else None


def measured(name: str, word: str, again: bool) -> dict[str, Any]:
    """Figures of a recipe, which is run if it has not been; measured ``again`` if it has."""
    found = cached(name, word)
    if found is None or again:
        path = compress.make(name, word) if found is None else compress.output(name, word)
        found = {"key": key(name, word), **figures.worth(name, path)}
        kept = common.BUILD / name / f"{name}_{word}.json"
        kept.write_text(json.dumps(found), encoding="utf-8")
    return found


def row(label: str, found: dict[str, Any], plain: dict[str, Any]) -> str:
    """A line of the table; bytes and instructions also as ratios to plain int8."""
    points = 100 * (found["accuracy"] - plain["accuracy"])
    lost = f"{points:+.2f}"
    cells = [
        label,
        f"{found['accuracy']:.2%}",
        lost if points >= -MOST_LOST - 1e-9 else f"({lost})",
    ]
    cells.append(f"{found['weights']:,}{figures.times(plain['elements'] / found['weights'])}")
    for column in ("constants", "library", "ram"):
        cells.append(f"{found[column]:,}{figures.times(plain[column] / found[column])}")
    share = found["instructions"] / plain["instructions"]
    cells.append(f"{found['instructions']:,}{'' if found is plain else f' ({share:.2f})'}")
    return f"| {' | '.join(cells)} |"


def section(name: str, known: dict[str, dict[str, Any]], plain: dict[str, Any]) -> Iterable[str]:
    yield f"## {name}"
    yield ""
    yield f"| | {' | '.join(COLUMNS)} |"
    yield "|---|" + "---:|" * len(COLUMNS)
    yield row("plain int8", plain, plain)
    for word, found in known.items():
        label = f"**{word}**" if word in compress.OWN else word
        yield row(label, found, plain)
    missing = [word for word in compress.recipes(name) if word not in known]
    if missing:
        yield ""
        yield f"Not run: {', '.join(missing)}."
    yield ""


def distilled() -> Iterable[str]:
    found = json.loads(distillation.FILE.read_text(encoding="utf-8"))
    yield "## Distillation"
    yield ""
    yield (
        f"The {distillation.NAME} network (accuracy in float {found['teacher']:.2%}) teaches one "
        f"of a quarter of its filters, {found['parameters']:,} parameters, on "
        f"{distillation.EXAMPLES:,} training images; five seeds, as many epochs alone as with the "
        "teacher (`python -m examples.distillation`)."
    )
    yield ""
    yield f"| student | {' | '.join(f'seed {s}' for s in distillation.SEEDS)} | mean | spread |"
    yield "|---|" + "---:|" * (len(distillation.SEEDS) + 2)
    for way in distillation.WAYS:
        each = found[way]
        cells = [f"{a:.2%}" for a in (*each, np.mean(each))]
        yield f"| {way} | {' | '.join(cells)} | {100 * np.std(each, ddof=1):.2f} points |"
    yield ""
    yield (
        "Few examples are where a teacher helps. With all 8,000 images the same student gained "
        "0.1 points, which is within the spread, and on the motion network students of a quarter "
        "of the filters were worse for being taught."
    )
    yield ""


def recovered() -> Iterable[str]:
    points = json.loads(sparsity.FILE.read_text(encoding="utf-8"))
    yield "## Sparse recovery and magnitude pruning, without retraining"
    yield ""
    yield "![accuracy and output error over sparsity](sparse-recovery.svg)"
    yield ""
    yield (
        "All layers of the plain int8 LeNet made sparse alike; accuracy, and the mean squared "
        "error of the outputs against the plain network's (`python -m examples.sparsity`)."
    )
    yield ""
    shown = sorted({p["sparsity"] for p in points})
    yield f"| zero weights | {' | '.join(f'{s:.0%}' for s in shown)} |"
    yield "|---|" + "---:|" * len(shown)
    for solver in sparsity.SOLVERS:
        mine = {p["sparsity"]: p for p in points if p["solver"] == solver}
        cells = [
            f"{mine[s]['accuracy']:.2%}, {mine[s]['error']:.2g}" if s in mine else "-"
            for s in shown
        ]
        yield f"| {solver} | {' | '.join(cells)} |"
    yield ""


def page(tables: dict[str, dict[str, dict[str, Any]]], plain: dict[str, dict[str, Any]]) -> str:
    lines = [HEAD]
    for name, known in tables.items():
        lines += section(name, known, plain[name])
    lines += RECIPES.splitlines()
    for word, path in sorted(
        {w: p for name in common.NAMES for w, p in compress.recipes(name).items()}.items()
    ):
        if word not in compress.OWN:
            lines.append(f"- `{word}`: {_comment(path)}")
    lines.append("")
    for more, file in ((distilled, distillation.FILE), (recovered, sparsity.FILE)):
        if file.is_file():
            lines += more()
    return "\n".join(lines).rstrip() + "\n"


def _comment(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    return " ".join(line[2:] for line in lines if line.startswith("# "))


HEAD = """\
# What compression brings

Four networks of `examples/`, every method alone, and the recipes that combine them, against plain
int8 of the same network (TensorFlow's converter). Made by `python -m examples.table`; the networks
of the recipes **small** and **fast** are committed, and tests hold them to `examples/figures.json`.

Accuracy is on the whole test set (`data.py` of each example), computed by the generated C; points
lost above 0.5 are in brackets. Weights are the bytes that they take in flash as encoded, codebooks
included (and biases where kernels read them in between), against one byte for each weight of the
plain network. Constants are all that the model has in flash beside code, so biases and multipliers
too; library is that and the model's code. RAM is of the minimal program of
`tinygen bench --board qemu_m4`, instructions are of one inference there, with their ratio to plain
int8. The planner is left alone: `tinygen bench` without options.

Recipes were written with an eye on these test sets, and one standard error is about 0.3 points on
the digits and 0.5 on the keywords. Other seeds say how firm points are (`python -m
examples.compress lenet fast 12`): lenet **fast** lost 0.15, 0.10 and 0.20 with seeds 11 to 13, and
keywords **fast** 0.46 and 0.21 with 11 and 12. With four variants drawn of each image instead of
nine, and about as many steps, lenet **fast** lost between 0.05 and 0.70.
"""

RECIPES = """\
## The methods alone

Files in `examples/recipes`; those of **small** and **fast** lie beside each network. What trains
does so on the training set and two drawn variants of each example, for three epochs of that.
"""


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.table")
    parser.add_argument("networks", nargs="*", help="all when none is named")
    parser.add_argument("--only", help="recipes to run, with commas; '' for none")
    parser.add_argument("--measure", action="store_true", help="again, what has been run")
    options = parser.parse_args(arguments)
    for name in options.networks or common.NAMES:
        for word in compress.recipes(name):
            alone = word not in compress.OWN  # the others are for examples.compress
            if alone and (options.only is None or word in options.only.split(",")):
                try:
                    print(name, word, measured(name, word, options.measure), flush=True)
                except TinyGenError as error:
                    print(f"{name} {word}: {error}", file=sys.stderr)
    plain = {name: figures.load()["results"][name][f"{name}_int8"] for name in common.NAMES}
    tables = {
        name: {w: found for w in compress.recipes(name) if (found := cached(name, w))}
        for name in common.NAMES
    }
    PAGE.write_text(page(tables, plain), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
