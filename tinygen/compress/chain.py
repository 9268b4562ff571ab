"""Recipes carried out step by step, what they make being kept by what it is made of.

Each step's network lies in a file named after the model, the data, the seed and the steps that led
to it.  So recipes that begin alike share their beginning, a search that was stopped finds what it
had made, and a network is the same whether it was kept or made anew: it always comes from its file.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tinygen import __version__
from tinygen.compress import network as networks
from tinygen.compress.base import Context, Recipe
from tinygen.compress.network import Kind, Network
from tinygen.graph import Graph


@dataclass(frozen=True, eq=False)
class Chain:
    """The model in the file ``source``, of form ``kind``, and a folder of what was made of it.

    ``inputs`` says what else results depend on: digests of the data, the seed.
    """

    source: Path
    kind: Kind
    inputs: tuple[str, ...]
    context: Context
    folder: Path

    def key(self, recipe: Recipe) -> str:
        """What the result of ``recipe`` is kept under: equal for equal steps from equal inputs."""
        value = hashlib.sha256("\n".join((__version__, *self.inputs)).encode()).hexdigest()
        for step in recipe:
            settings = step.settings.model_dump(mode="json")
            files = [_digest(path) for _, path in step.settings if isinstance(path, Path)]
            said = json.dumps([value, step.method.name, settings, files], sort_keys=True)
            value = hashlib.sha256(said.encode()).hexdigest()
        return value[:24]

    def network(self, recipe: Recipe) -> Network:
        """The network that ``recipe`` makes.

        Raises :class:`tinygen.errors.InputError` when a step takes no such network, and whatever
        its method raises.
        """
        return networks.load(self.file(recipe))

    def graph(self, recipe: Recipe) -> Graph:
        """:meth:`network` where that is a quantized one."""
        made = self.network(recipe)
        assert isinstance(made.value, Graph)
        return made.value

    def file(self, recipe: Recipe) -> Path:
        """The file of the network that ``recipe`` makes, which is made if it is not there."""
        if not recipe:
            return self.source
        path = self.folder / self.key(recipe)
        for suffix in (".keras", ".tflite"):
            if path.with_name(path.name + suffix).is_file():
                return path.with_name(path.name + suffix)
        before = self.network(recipe[:-1])
        step = recipe[-1]
        kind = networks.after(step, before.kind)
        made = step.method.apply(before.value, step.settings, self.context)
        saved = networks.save(Network(kind, made), path)
        del before, made
        tidy()
        return saved

    def remembered(self, recipe: Recipe, name: str, compute: Callable[[], float]) -> float:
        """A figure of the network that ``recipe`` makes, computed once."""
        path = self.folder / f"{self.key(recipe)}.{name}.json"
        if path.is_file():
            return float(json.loads(path.read_text(encoding="utf-8")))
        value = compute()
        write(path, json.dumps(value).encode())
        return value


def _digest(path: Path) -> str:
    """Of the file at ``path``; "" without one, which its method will find missing."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def tidy() -> None:
    """Let go of what Keras keeps of models that are no longer used."""
    if "keras" in sys.modules:
        import keras

        keras.backend.clear_session()
        gc.collect()


def write(path: Path, data: bytes) -> None:
    """Write a file in one step, into a folder that is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(data)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
