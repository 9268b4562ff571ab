"""Kernels written in assembly hold at whatever level a project compiles them.

Arduino cores compile for size, debug builds hardly at all: alignment, frame pointers and the
registers left to a kernel differ.
"""

from __future__ import annotations

from pathlib import Path

import emulated_c
import numpy as np
import pytest
from graphs import convolution, dense_chain, random_inputs
from test_streams import chains

from tinygen import boards, importers, passes, reference, resources
from tinygen.graph import Graph
from tinygen.ops import conv2d

BOARDS = ("qemu_m0", "qemu_m3", "qemu_m4", "qemu_m55", "qemu_rv32", "qemu_xtensa")
QUICK = (("-Os",), ("-O3", "-fno-omit-frame-pointer"))
WIDE = (("-O0",), ("-O1",), ("-Og",), ("-Os", "-fno-omit-frame-pointer"))


def networks() -> list[Graph]:
    digits = resources.folder("examples") / "digits" / "digits_int8.tflite"
    pixel = conv2d.Attrs(padding="VALID")
    return [
        passes.run(importers.load(digits)),
        dense_chain(64, 33, 10),
        convolution((6, 5, 16), (24, 1, 1), pixel),
        convolution((9, 8, 3), (8, 3, 3), conv2d.Attrs(stride=(2, 2))),
        convolution((9, 8, 8), (7, 3, 3)),
        *chains(0),
        *chains(2),
    ]


@pytest.mark.parametrize(
    "optimize",
    [*QUICK, *(pytest.param(flags, marks=pytest.mark.wide) for flags in WIDE)],
    ids="".join,
)
@pytest.mark.parametrize("board", BOARDS)
def test_every_level_gives_the_reference(
    board: str, optimize: tuple[str, ...], tmp_path: Path
) -> None:
    graphs = networks()
    inputs = [random_inputs(graph) for graph in graphs]
    found = emulated_c.run(boards.load(board), graphs, inputs, tmp_path, optimize)
    for i, (graph, given, got) in enumerate(zip(graphs, inputs, found, strict=True)):
        assert np.array_equal(got[0], reference.run(graph, given)[0]), i
