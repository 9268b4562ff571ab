"""Which recipes a search considers: the order of methods, and what is drawn of their settings.

A recipe has a place for each slot, in order; in a slot stands one of its methods or, where the slot
may be empty, none.  What is not drawn keeps the method's default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tinygen.compress.base import Method
from tinygen.compress.network import Kind
from tinygen.datasets import Data

NONE = "none"


@dataclass(frozen=True)
class Number:
    """A real or whole number between two, both included."""

    low: float
    high: float
    step: float | None = None

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int)


@dataclass(frozen=True)
class Choice:
    """One of some values, by what it is called."""

    values: Mapping[str, Any]


Draw = Number | Choice


def _any(*values: Any) -> Choice:
    return Choice({str(value): value for value in values})


DRAWS: Mapping[str, Mapping[str, Draw]] = {
    "prune_filters": {
        "amount": Number(0.2, 0.6, 0.05),
        "scope": _any("layer", "global"),
    },
    "distill": {
        "width": Number(0.25, 0.75, 0.125),
    },
    "low_rank": {
        "energy": Number(0.8, 0.98, 0.02),
    },
    "prune": {
        "sparsity": Number(0.5, 0.9, 0.05),
        "pattern": _any("any", "1x4"),
        "scope": _any("layer", "global"),
    },
    "cluster": {
        "entries": _any(4, 8, 16, 32),
    },
    "qat": {
        "bits": _any(4, 8),
    },
    "quantize": {
        "calibration": _any("minmax", "mse", "percentile"),
        "weight_range": _any("max", "mse"),
        "bias_correction": _any(False, True),
    },
    "thin_filters": {
        "amount": Number(0.1, 0.4, 0.05),
        "scope": _any("layer", "global"),
    },
    "recover": {
        "sparsity": Number(0.3, 0.8, 0.05),
        "pattern": _any("any", "1x4"),
    },
    "cluster_weights": {
        "entries": _any(4, 8, 16, 32),
    },
    "round_weights": {
        "bits": Number(3, 5),
    },
}
"""What is drawn of each method's settings; a method that is not here is not searched."""


@dataclass(frozen=True)
class Slot:
    """A place in recipes for one of some methods."""

    name: str
    methods: tuple[str, ...]
    may_be_empty: bool = True


_FINISH = Slot("finish", ("cluster_weights", "round_weights"))

SLOTS: Mapping[Kind, tuple[Slot, ...]] = {
    "keras": (
        Slot("shrink", ("prune_filters", "distill", "low_rank")),
        Slot("thin", ("prune",)),
        Slot("share", ("cluster", "qat")),
        Slot("quantize", ("quantize",), may_be_empty=False),
        _FINISH,
    ),
    "float": (
        Slot("quantize", ("quantize",), may_be_empty=False),
        Slot("shrink", ("thin_filters",)),
        Slot("thin", ("recover",)),
        _FINISH,
    ),
    "int8": (
        Slot("shrink", ("thin_filters",)),
        Slot("thin", ("recover",)),
        _FINISH,
    ),
}
"""The slots of recipes for each form of a model, in the recipe's order."""

_SHARED = {"method": "cluster_weights", "entries": 16}
_TRAINED = {"method": "cluster", "entries": 16}

PRESETS: tuple[tuple[Mapping[str, Any], ...], ...] = (
    (),
    (_SHARED,),
    ({"method": "recover", "sparsity": 0.5},),
    ({"method": "recover", "sparsity": 0.5}, _SHARED),
    ({"method": "thin_filters", "amount": 0.2}, _SHARED),
    (_TRAINED,),
    ({"method": "prune", "sparsity": 0.75},),
    ({"method": "prune", "sparsity": 0.7}, _TRAINED),
    ({"method": "prune_filters", "amount": 0.4}, _TRAINED),
    ({"method": "prune_filters", "amount": 0.4}, {"method": "prune", "sparsity": 0.6}, _TRAINED),
    ({"method": "distill", "width": 0.5}, _TRAINED),
)
"""What a search tries first, quick ones ahead: recipes that often do well.  Those for which a space
lacks a method are left out."""


class Trial(Protocol):
    """What a trial of Optuna's does for us."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None
    ) -> float: ...

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int: ...


@dataclass(frozen=True, eq=False)
class Space:
    """The recipes of one search: slots, and in each the methods that can be used."""

    slots: tuple[Slot, ...]
    methods: Mapping[str, Method]

    def tables(self, trial: Trial) -> list[dict[str, Any]]:
        """A recipe drawn by ``trial``, as tables."""
        found = []
        for slot in self.slots:
            name = slot.methods[0]
            options = _options(slot)
            if len(options) > 1:
                name = trial.suggest_categorical(slot.name, options)
            if name == NONE:
                continue
            table = {"method": name}
            for setting, draw in DRAWS[name].items():
                table[setting] = _drawn(trial, f"{slot.name}.{name}.{setting}", draw)
            found.append(table)
        return found

    def presets(self) -> list[dict[str, Any]]:
        """The parameters of :data:`PRESETS`, each once, without those that this space lacks."""
        found: list[dict[str, Any]] = []
        for preset in PRESETS:
            parameters = self._parameters(preset)
            if parameters is not None and parameters not in found:
                found.append(parameters)
        return found

    def _parameters(self, preset: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
        wanted = {step["method"]: step for step in preset}
        parameters: dict[str, Any] = {}
        for slot in self.slots:
            options = _options(slot)
            here = [name for name in slot.methods if name in wanted]
            name = here[0] if here else (NONE if slot.may_be_empty else slot.methods[0])
            if len(options) > 1:
                parameters[slot.name] = name
            if name == NONE:
                continue
            given = wanted.pop(name, {})
            for setting, draw in DRAWS[name].items():
                default = self.methods[name].settings.model_fields[setting].default
                value = given.get(setting, default)
                parameters[f"{slot.name}.{name}.{setting}"] = _parameter(draw, value)
        return None if wanted else parameters


def space(kind: Kind, data: Data, methods: Sequence[Method]) -> Space:
    """The recipes for a model of form ``kind`` that ``data`` allow."""
    offered = {"nothing", "inputs"} | ({"labels"} if data.labels is not None else set())
    usable = {m.name: m for m in methods if m.name in DRAWS and m.needs in offered}
    slots = (
        Slot(slot.name, tuple(n for n in slot.methods if n in usable), slot.may_be_empty)
        for slot in SLOTS[kind]
    )
    return Space(tuple(slot for slot in slots if slot.methods), usable)


def _options(slot: Slot) -> tuple[str, ...]:
    return (NONE, *slot.methods) if slot.may_be_empty else slot.methods


def _drawn(trial: Trial, name: str, draw: Draw) -> Any:
    if isinstance(draw, Choice):
        labels = tuple(draw.values)
        only = len(labels) == 1
        return draw.values[labels[0] if only else trial.suggest_categorical(name, labels)]
    if draw.whole:
        return trial.suggest_int(name, int(draw.low), int(draw.high), step=int(draw.step or 1))
    return round(trial.suggest_float(name, draw.low, draw.high, step=draw.step), 6)


def _parameter(draw: Draw, value: Any) -> Any:
    """What ``value`` is called among the parameters; the first or lowest when it is not drawn."""
    if isinstance(draw, Choice):
        called = [label for label, other in draw.values.items() if other == value]
        return called[0] if called else next(iter(draw.values))
    known = isinstance(value, int | float) and draw.low <= value <= draw.high
    return value if known else draw.low
