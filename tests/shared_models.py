"""The published reference models with their golden outputs, where a machine has them.

They lie outside the repository, in the folder that ``FOLDER`` names; tests that need them skip,
saying so, when it is not there.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Array = np.ndarray[Any, Any]

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "models"
STATEFUL = "keyword_scrambled_8bit"
SUPPORTED = (
    "ad01_int8",
    "hello_world_int8",
    "kws_ref_model",
    "micro_speech_quantized",
    "person_detect",
    "pretrainedResnet_quant",
    "str_ww_ref_model",
    "vww_96_int8",
)
"""All but the stateful SVDF model."""

needed = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"reference models not at {FOLDER.name}")


@dataclass(frozen=True, eq=False)
class Golden:
    """One inference: input by name, exact output bytes, CRC-32 of every operator's outputs."""

    name: str
    input: Array
    output: Array
    layer_crc32: tuple[int, ...]


def path(model: str) -> Path:
    """The file of ``model``, given without its suffix."""
    return FOLDER / f"{model}.tflite"


def goldens(model: str) -> tuple[Golden, ...]:
    """The golden cases of ``model``."""
    entry = _entries()[model]
    shape, dtype = tuple(entry["input_shape"]), entry["input_dtype"]
    return tuple(
        Golden(
            name=case["input"],
            input=_input(case["input"], shape, dtype),
            output=np.frombuffer(
                bytes.fromhex(case["output_hex"]), dtype=case["output_dtype"]
            ).reshape(case["output_shape"]),
            layer_crc32=tuple(int(crc, 16) for crc in case["layer_crc32"]),
        )
        for case in entry["cases"]
    )


@functools.cache
def _entries() -> dict[str, Any]:
    entries = json.loads((FOLDER / "goldens.json").read_text())
    return {Path(entry["model"]).stem: entry for entry in entries}


def _lcg(seed: int) -> Iterator[int]:
    x = seed
    while True:
        x = (x * 1664525 + 1013904223) % (1 << 32)
        yield x >> 24


def _input(name: str, shape: tuple[int, ...], dtype: str) -> Array:
    """The input that ``name`` stands for: ``lcgS``, ``ramp`` or ``quiet4``."""
    count = int(np.prod(shape))
    if name == "ramp":
        return (np.arange(count) % 256 - 128).astype(dtype).reshape(shape)
    random = _lcg(4 if name == "quiet4" else int(name.removeprefix("lcg")))
    if name == "quiet4":
        values = [(next(random) - 128) // 8 for _ in range(count)]
        return np.array(values, dtype=dtype).reshape(shape)
    data = bytes(next(random) for _ in range(count * np.dtype(dtype).itemsize))
    return np.frombuffer(data, dtype=dtype).reshape(shape)
