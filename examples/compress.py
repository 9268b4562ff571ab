"""Compress an example network by a recipe, and write the int8 network that comes out.

    python -m examples.compress lenet small
    python -m examples.compress lenet small 12
    python -m examples.compress all

A recipe is a TOML file of ``[[compress]]`` tables, as ``tinygen compress --recipe`` reads it:
``examples/lenet/small.toml``, or one of those for every network in ``examples/recipes``, in which a
single method is at work.  It starts from the trained float network.  Methods that train do so on
the training set, with as many drawn variants of each example added as the file's ``copies`` says,
never on the test set.  Every random choice has a fixed seed, or that which is given.  Networks
between the steps are kept in ``build/examples``.  Writes ``examples/lenet/lenet_small.tflite``, or
for a single method or another seed into ``build/examples/lenet``.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from examples import common
from tinygen.compress import METHODS, Context, Recipe, parse, recipe
from tinygen.datasets import Data
from tinygen.exporters import tflite as exporter
from tinygen.graph import Graph

SEED = 11
OWN = ("small", "fast")
"""Recipes that each network has: least flash, and fewer instructions too."""

SHARED = common.HERE / "recipes"


def recipes(name: str) -> dict[str, Path]:
    """The recipe files of a network, by name: those of single methods, then its own."""
    own = {word: common.HERE / name / f"{word}.toml" for word in OWN}
    alone = {path.stem: path for path in sorted(SHARED.glob("*.toml"))}
    return alone | {word: path for word, path in own.items() if path.is_file()}


def read(path: Path) -> Recipe:
    """The steps in a recipe file; raises :class:`tinygen.errors.InputError`."""
    return parse(recipe.from_file(path), METHODS)


def output(name: str, word: str, seed: int = SEED) -> Path:
    """Where the network goes that a recipe makes."""
    if seed != SEED:
        return common.BUILD / name / f"{name}_{word}_{seed}.tflite"
    folder = common.HERE if word in OWN else common.BUILD
    return folder / name / f"{name}_{word}.tflite"


def copies(path: Path) -> int:
    """Variants to draw of each training example."""
    return int(tomllib.loads(path.read_text(encoding="utf-8")).get("copies", 0))


def varied(name: str, data: Data, count: int, seed: int) -> Data:
    """``data`` with ``count`` variants of each example, in random order."""
    augment = importlib.import_module(f"examples.{name}.train").AUGMENT
    draw = np.random.default_rng(seed)
    inputs = [data.inputs, *(augment(data.inputs, draw) for _ in range(count))]
    assert data.labels is not None
    everything = Data(np.concatenate(inputs), np.tile(data.labels, len(inputs)))
    return everything.take(draw.permutation(len(everything)))


def run(name: str, steps: Recipe, count: int, seed: int) -> Graph:
    """The int8 graph that ``steps`` make of the float network of an example, with its training set
    and ``count`` variants of each of that."""
    import keras

    train = common.load(common.train_file(name))
    learnt, held = train.split(0.1, seed)
    context = Context(varied(name, learnt, count, seed), held, seed, progress=told)
    network: Any = keras.models.load_model(common.keras_file(name))
    for number, step in enumerate(steps, 1):
        kept = common.BUILD / name / "steps" / f"{_digest(name, steps[:number], count, seed)}.keras"
        if step.method.stage == "float" and kept.is_file():
            network = keras.models.load_model(kept)
            continue
        network = step.method.apply(network, step.settings, context)
        if step.method.stage == "float" and step.method.name != "qat":  # whose ranges no file has
            kept.parent.mkdir(parents=True, exist_ok=True)
            network.save(kept)
    assert isinstance(network, Graph), "the recipe does not quantize"
    return network


def _digest(name: str, steps: Recipe, count: int, seed: int) -> str:
    """Of all that the network after ``steps`` depends on, but for the methods' code."""
    text = json.dumps([recipe.document(steps), count, seed]).encode()
    return hashlib.sha256(text + common.keras_file(name).read_bytes()).hexdigest()[:16]


@contextmanager
def told(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Progress as a line for each piece of work."""
    print(f"  {what}, {total} steps", file=sys.stderr, flush=True)
    yield lambda: None


def make(name: str, word: str, seed: int = SEED) -> Path:
    """Run one recipe and write its network; the file."""
    print(f"{name} {word}", file=sys.stderr)
    common.seed(seed)
    path = output(name, word, seed)
    source = recipes(name)[word]
    graph = run(name, read(source), copies(source), seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(exporter.dump(graph))
    return path


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.compress")
    parser.add_argument("network", choices=[*common.NAMES, "all"])
    parser.add_argument("recipe", nargs="?", help="the name of its file; all of the network's own")
    parser.add_argument("seed", nargs="?", type=int, default=SEED)
    options = parser.parse_args(arguments)
    for name in common.NAMES if options.network == "all" else [options.network]:
        known = recipes(name)
        words = [options.recipe] if options.recipe else [word for word in OWN if word in known]
        for word in words:
            if word not in known:
                parser.error(f"{name} has no recipe {word}; there are {', '.join(known)}")
            path = make(name, word, options.seed)
            test = common.load(common.test_file(name))
            accuracies = [common.accuracy_of(p, test) for p in (common.int8_file(name), path)]
            print(f"{path.name}: accuracy {accuracies[1]:.2%}, plain int8 {accuracies[0]:.2%}")


if __name__ == "__main__":
    main(sys.argv[1:])
