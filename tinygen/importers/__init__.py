"""Readers of model files: one module a format, each giving a :class:`tinygen.graph.Graph`."""

from __future__ import annotations

from pathlib import Path

from tinygen.errors import InputError
from tinygen.graph import Graph
from tinygen.importers import tflite

MAX_FILE_BYTES = 64 << 20


def load(path: Path) -> Graph:
    """The network in the file at ``path``.

    Raises :class:`InputError` when the file cannot be read, is damaged, or holds something that is
    not supported.
    """
    return tflite.load(read(path), path.name)


def read(path: Path) -> bytes:
    """The bytes of a model file; raises :class:`InputError` when they cannot be had."""
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise InputError(f"{path}: {size} bytes is more than any microcontroller holds")
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: {error.strerror or error}", "give the path of a .tflite model file"
        ) from error
