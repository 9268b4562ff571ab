"""``tinygen.toml``: a project's own defaults for ``tinygen build``."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from tinygen.errors import InputError

FILE_NAME = "tinygen.toml"

Engine = Literal["aot", "tflm"]
Toolchain = Literal["auto", "vendor", "system"]


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


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    build: Settings = Settings()


def load(folder: Path) -> Settings:
    """Settings of ``tinygen.toml`` in ``folder``, or the defaults when there is none.

    Raises :class:`InputError` when the file is not what it should be.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return Settings()
    try:
        settings = _File.model_validate(tomllib.loads(path.read_text(encoding="utf-8"))).build
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{FILE_NAME}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{FILE_NAME}: {where}: {first['msg']}",
            f"[build] may have {', '.join(Settings.model_fields)}",
        ) from error
    return settings.model_copy(
        update={
            key: folder / value
            for key in ("model", "output", "tflm_dir")
            if (value := getattr(settings, key)) is not None
        }
    )
