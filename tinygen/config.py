"""``tinygen.toml``: a project's own defaults for ``tinygen build``, and its recipe."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from tinygen.errors import InputError
from tinygen.plan import Optimize

FILE_NAME = "tinygen.toml"

Engine = Literal["aot", "tflm"]
Toolchain = Literal["auto", "vendor", "system"]


def parse_size(value: Any) -> Any:
    """Bytes from a number, or from text such as ``20k`` (1,024 bytes each); raises ValueError."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"(\d{1,9})\s*([kKmM]?)(?:i?[bB])?", value.strip())
    if found is None:
        raise ValueError(f"'{value}' is no size; 20k and 20480 are")
    return int(found[1]) << {"": 0, "k": 10, "m": 20}[found[2].lower()]


def parse_time(text: str) -> float:
    """Seconds from text such as ``50ms``, ``800us`` or ``0.05s``; raises ValueError."""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)\s*(s|ms|us)", text.strip())
    if found is None:
        raise ValueError(f"'{text}' is no time; 50ms and 0.05s are")
    return float(found[1]) * {"s": 1.0, "ms": 1e-3, "us": 1e-6}[found[2]]


Size = Annotated[int, BeforeValidator(parse_size), Field(gt=0)]
"""A number of bytes; text may end in k or M."""


class Settings(BaseModel):
    """What ``[build]`` in ``tinygen.toml`` may say.  Paths are relative to the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Path | None = None
    board: str | None = None
    output: Path | None = None
    name: str | None = None
    engine: Engine = "aot"
    toolchain: Toolchain = "auto"
    tflm_dir: Path | None = None
    optimize: Optimize = "balanced"
    ram_limit: Size | None = None
    slow_down: Annotated[float, Field(ge=1)] | None = None


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    build: Settings = Settings()
    compress: tuple[dict[str, Any], ...] = ()


def load(folder: Path) -> Settings:
    """Settings of ``tinygen.toml`` in ``folder``, or the defaults when there is none.

    Raises :class:`InputError` when the file is not what it should be.
    """
    settings = _load(folder).build
    return settings.model_copy(
        update={
            key: folder / value
            for key in ("model", "output", "tflm_dir")
            if (value := getattr(settings, key)) is not None
        }
    )


def load_recipe(folder: Path) -> tuple[dict[str, Any], ...]:
    """The steps that ``[[compress]]`` tables of ``tinygen.toml`` in ``folder`` say, if any.

    Raises :class:`InputError` as :func:`load` does; methods and their settings are not checked.
    """
    return _load(folder).compress


def _load(folder: Path) -> _File:
    path = folder / FILE_NAME
    if not path.is_file():
        return _File()
    try:
        return _File.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{FILE_NAME}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{FILE_NAME}: {where}: {first['msg']}",
            f"[build] may have {', '.join(Settings.model_fields)}",
        ) from error
