"""Layers of int16 activations beside the same layers of int8: instructions a multiply-accumulate.

python -m benchmarks.int16 qemu_m4 qemu_m0 qemu_rv32 qemu_xtensa
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from tinygen import bench, boards
from tinygen.boards import Board
from tinygen.exporters import tflite
from tinygen.graph import Graph, Node, Quant, Tensor
from tinygen.numerics import float32
from tinygen.ops import conv2d, depthwise_conv2d, fully_connected

DTYPES = ("int8", "int16")

SHAPES: dict[str, tuple[str, tuple[int, ...], tuple[int, ...]]] = {
    "3x3, 16 to 32 channels": ("CONV_2D", (1, 16, 16, 16), (32, 3, 3, 16)),
    "3x3, 1 to 8 channels": ("CONV_2D", (1, 16, 16, 1), (8, 3, 3, 1)),
    "1x1, 32 to 64 channels": ("CONV_2D", (1, 16, 16, 32), (64, 1, 1, 32)),
    "3x3 depthwise, 32 channels": ("DEPTHWISE_CONV_2D", (1, 16, 16, 32), (1, 3, 3, 32)),
    "dense, 512 to 128": ("FULLY_CONNECTED", (1, 512), (128, 512)),
}
"""Operator, input and filter of each layer; windows pad to the same size."""

_ATTRS = {
    "CONV_2D": conv2d.Attrs(),
    "DEPTHWISE_CONV_2D": depthwise_conv2d.Attrs(),
    "FULLY_CONNECTED": fully_connected.Attrs(),
}


def layer(name: str, dtype: str) -> Graph:
    """The layer ``name`` with random weights, quantized by channel."""
    op, source, shape = SHAPES[name]
    axis = 3 if op == "DEPTHWISE_CONV_2D" else 0
    channels = shape[axis]
    random = np.random.default_rng(0)
    weights = random.normal(0, 40, shape).clip(-127, 127).astype(np.int8)
    scales = tuple(float32(0.01 * (1 + i / channels)) for i in range(channels))
    bias = random.integers(-1000, 1000, channels)
    finer = 1.0 if dtype == "int8" else 2.0**-8

    def activation(label: str, extents: tuple[int, ...], scale: float) -> Tensor:
        return Tensor(label, extents, dtype, Quant((scale * finer,), (0,)))

    tensors = (
        activation("in", source, 2.0**-8),
        Tensor("w", shape, "int8", Quant(scales, (0,) * channels, axis), weights),
        Tensor("b", (channels,), "int32", None, bias.astype(np.int32))
        if dtype == "int8"
        else Tensor("b", (channels,), "int64", None, bias << 8),
        activation("out", (*source[:-1], channels), 2.0**-3),
    )
    nodes = (Node(op, (0, 1, 2), (3,), _ATTRS[op], 0),)
    return Graph("layer", tensors, nodes, (0,), (3,), "layer.tflite", "0" * 64)


def measured(name: str, dtype: str, board: Board) -> float:
    """Instructions a multiply-accumulate of the layer ``name`` on the core of ``board``."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "layer.tflite")
        path.write_bytes(tflite.dump(layer(name, dtype)))
        found = bench.bench(path, board)
    return found.instructions / found.macs


def main(names: list[str]) -> None:
    """Print one table for each board called."""
    for board in map(boards.load, names):
        print(f"\n| `{board.name}` | int8 | int16 |\n|---|---|---|")
        for name in SHAPES:
            cells = " | ".join(f"{measured(name, dtype, board):.2f}" for dtype in DTYPES)
            print(f"| {name} | {cells} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or ["qemu_m4"])
