"""Recipes as people write them: words on the command line, tables in TOML, and back."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tinygen.compress.base import Recipe, RecipeStep
from tinygen.errors import InputError

TABLE = "compress"
"""Name of the array of tables that is a recipe, in a file of its own or in ``tinygen.toml``."""


def given(
    file: Path | None,
    methods: Sequence[str] | None,
    tables: tuple[dict[str, Any], ...],
    search: bool,
) -> tuple[dict[str, Any], ...] | None:
    """The steps that the command line names, else those ``tables`` of ``tinygen.toml``; None: look
    for some, which ``search`` asks for.

    Raises :class:`InputError` for two recipes, or a recipe and a search.
    """
    named = [word for word, value in (("--recipe", file), ("--method", methods)) if value]
    if len(named) + search > 1 and named:
        raise InputError(
            f"{' and '.join([*named, *(['--trials'] if search else [])])}: give one of them",
            "--trials searches for a recipe; the others are one",
        )
    if file is not None:
        return from_file(file)
    if methods:
        return tuple(from_words(text) for text in methods)
    return tables if tables and not search else None


def from_file(path: Path) -> tuple[dict[str, Any], ...]:
    """The steps in a TOML file, one table ``[[compress]]`` each; raises :class:`InputError`."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8")).get(TABLE)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}", "give a recipe in TOML") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path.name}: {error}", "give a recipe in TOML") from error
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise InputError(
            f"{path.name}: has no [[{TABLE}]] tables",
            f'a step is [[{TABLE}]], then method = "prune" and its settings',
        )
    return tuple(tables)


def from_words(text: str) -> dict[str, Any]:
    """A step from ``NAME:key=value,key=value``; values are TOML's, or bare words.

    Raises :class:`InputError` when a setting has no value.
    """
    name, _, rest = text.partition(":")
    table: dict[str, Any] = {"method": name.strip()}
    for setting in _split(rest):
        key, equals, value = setting.partition("=")
        if not equals or not key.strip():
            raise InputError(f"--method {text}: '{setting}' is no setting", "write it as key=value")
        table[key.strip()] = _value(value.strip())
    return table


def _split(text: str) -> list[str]:
    """Parts between commas that lie in no bracket and no string."""
    parts = re.findall(r"""(?:"[^"]*"|'[^']*'|\[[^]]*\]|\{[^}]*\}|[^,"'\[{])+""", text)
    return [part for part in parts if part.strip()]


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def document(recipe: Recipe) -> list[dict[str, Any]]:
    """The steps as tables, every setting said, such that :func:`tinygen.compress.parse` reads
    them."""
    return [
        {"method": step.method.name, **step.settings.model_dump(mode="json", exclude_none=True)}
        for step in recipe
    ]


def toml(steps: Sequence[Mapping[str, Any]]) -> str:
    """Tables, as :func:`document` gives them, in TOML."""
    tables = (
        "\n".join([f"[[{TABLE}]]", *(f"{_key(k)} = {_toml(v)}" for k, v in step.items())])
        for step in steps
    )
    return "\n\n".join(tables) + "\n"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(k)} = {_toml(v)}" for k, v in value.items() if v is not None)
        return f"{{{inner}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(v) for v in value)}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    return json.dumps(value, ensure_ascii=True)


def words(recipe: Recipe) -> str:
    """A line for people: the methods with the settings that are not the defaults."""
    return ", ".join(_words(step) for step in recipe)


def _words(step: RecipeStep) -> str:
    settings = step.settings.model_dump(mode="json", exclude_defaults=True)
    said = " ".join(f"{key}={_plain(value)}" for key, value in settings.items())
    return f"{step.method.name} {said}".strip()


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else _toml(value)
