"""What a compression method is: a name, settings, and a function from network to network.

A recipe is a list of methods with their settings.  They run in the recipe's order on one of three
forms of a network: methods of stage ``float`` on a Keras model, those of stage ``quantize`` make
an int8 :class:`~tinygen.graph.Graph` of that (or of a float .tflite), and methods of stage
``int8`` rewrite the graph.  Keras is imported by the functions that use it, and not before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from tinygen.datasets import Data
from tinygen.errors import InputError

Stage = Literal["float", "quantize", "int8"]

Progress = Callable[[str, int], AbstractContextManager[Callable[[], None]]]
"""Starts a piece of work by its words and number of steps; what it gives is called once a step."""


@contextmanager
def silent(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Progress that nobody sees."""
    del what, total
    yield lambda: None


class Settings(BaseModel):
    """Base of every method's settings: frozen, and nothing unknown in it."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, eq=False)
class Context:
    """What methods work with beside the network.

    ``train`` is what they train and calibrate on, ``validation`` what choices are judged by.
    Equal seeds give equal results on the same machine.
    """

    train: Data | None = None
    validation: Data | None = None
    seed: int = 0
    progress: Progress = silent

    def data(self, what: str) -> Data:
        """``train``, or :class:`InputError` saying that ``what`` needs it."""
        if self.train is None:
            raise InputError(f"{what}: needs data", "give examples with --data train.npz")
        return self.train

    def labelled(self, what: str) -> Data:
        """``train`` with labels, or :class:`InputError`."""
        data = self.data(what)
        if data.labels is None:
            raise InputError(f"{what}: needs labels", "add an array named labels to the data")
        return data


@dataclass(frozen=True)
class Method:
    """One way to compress.  ``summary`` is a line for people; ``source`` the paper it follows.

    ``apply`` maps a network in the form of ``stage``, settings and context to a network: a Keras
    model to a Keras model, either kind of float network to an int8 graph, a graph to a graph.
    """

    name: str
    stage: Stage
    summary: str
    source: str
    settings: type[Settings]
    apply: Callable[[Any, Any, Context], Any]
    needs: Literal["nothing", "inputs", "labels"] = "inputs"


@dataclass(frozen=True)
class RecipeStep:
    """A method and its settings."""

    method: Method
    settings: Settings


Recipe = tuple[RecipeStep, ...]


def parse(steps: Sequence[Mapping[str, Any]], methods: Sequence[Method]) -> Recipe:
    """A recipe from tables as ``tinygen.toml`` has them: ``{"method": "prune", ...settings}``.

    Raises :class:`InputError` for an unknown method or setting, or a value out of range.
    """
    return tuple(_step(number, dict(table), methods) for number, table in enumerate(steps, 1))


def _step(number: int, table: dict[str, Any], methods: Sequence[Method]) -> RecipeStep:
    name = table.pop("method", None)
    method = next((m for m in methods if m.name == name), None)
    if method is None:
        raise InputError(
            f"step {number}: no method is called {name!r}",
            f"methods are {', '.join(m.name for m in methods)}",
        )
    try:
        return RecipeStep(method, method.settings.model_validate(table))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"step {number} {method.name}: {where}: {first['msg']}",
            f"it may have {', '.join(method.settings.model_fields) or 'no settings'}",
        ) from error
