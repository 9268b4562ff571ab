"""What the minimal program around a model is made of: no function that the model does not need.

A call of the C library, of soft float or of a 64-bit division costs more flash than most kernels.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import shared_models
from elftools.elf.elffile import ELFFile
from graphs import activation, convolution, dense_chain

from tinygen import bench, boards, plan, resources
from tinygen.compile import Compiled, compile_model
from tinygen.graph import Graph, Node
from tinygen.ops import pooling, softmax
from tinygen.passes import run as rewritten

COMPILERS = {"qemu_m4": "arm-none-eabi-gcc", "qemu_m0": "arm-none-eabi-gcc"}
COMPILERS |= {"qemu_m55": "arm-none-eabi-gcc", "qemu_rv32": "riscv64-unknown-elf-gcc"}

OWN = re.compile(r"main$|_start$|tinygen_|m_(run|init|input|output|reset)$")
"""Functions that the model and the port share with each other."""

ARITHMETIC = {"qemu_m0": r"__(aeabi_)?(idivmod|idiv|idiv0|ldiv0|divsi3|lmul|muldi3)$"}
"""What a core has no instruction for: the M0 divides and multiplies to 64 bits by calls."""

MEMORY = r"mem(cpy|move|set)$"
FLASH_OF_MEMORY = 192
"""Bytes that memcpy, memmove and memset may take together, where the port has its own."""


def functions(elf: Path) -> dict[str, tuple[int, str]]:
    """Names of the functions linked, their bytes, and the source file of those that are static."""
    found, source = {}, ""
    with elf.open("rb") as file:
        table: Any = ELFFile(file).get_section_by_name(".symtab")
        for symbol in table.iter_symbols():
            kind, binding = symbol["st_info"]["type"], symbol["st_info"]["bind"]
            if kind == "STT_FILE":
                source = symbol.name
            elif kind == "STT_FUNC" and symbol["st_shndx"] != "SHN_UNDEF":
                where = source if binding == "STB_LOCAL" else ""
                found[symbol.name] = (symbol["st_size"], where)
    return found


def build(compiled: Compiled, board: str, folder: Path) -> Path:
    if shutil.which(COMPILERS[board]) is None:
        pytest.skip(f"{COMPILERS[board]} is not installed")
    program = bench.generated(compiled, folder)
    return bench.build(program, boards.load(board), folder / "program.elf")


def foreign(elf: Path, board: str) -> set[str]:
    """Functions that come from elsewhere and are not asked for."""
    port = resources.folder("firmware") / "port"
    own = {"m.c", "main.c", *(path.name for path in port.rglob("*.c"))}
    allowed = [MEMORY, ARITHMETIC[board]] if board in ARITHMETIC else [MEMORY]
    return {
        name
        for name, (_, source) in functions(elf).items()
        if source not in own
        and not OWN.match(name)
        and not any(re.match(each, name) for each in allowed)
    }


def of_graph(graph: Graph, board: str) -> Compiled:
    return Compiled("m", graph, plan.make(rewritten(graph), boards.load(board).features), b"")


def pooled() -> Graph:
    """A padded convolution, averages and a softmax."""
    graph = convolution((9, 9, 4), (8, 3, 3))
    (image,) = graph.outputs
    graph, averages = graph.add_tensor(replace(graph.at(image), shape=(1, 5, 5, 8)))
    result = activation("result", 1, 5, 5, 8, scale=1 / 256, zero_point=-128)
    graph, parts = graph.add_tensor(result)
    window = pooling.Attrs((3, 3), (2, 2), "SAME")
    nodes = (
        *graph.nodes,
        Node("AVERAGE_POOL_2D", (image,), (averages,), window, 1),
        Node("SOFTMAX", (averages,), (parts,), softmax.Attrs(1.0), 2),
    )
    return replace(graph, nodes=nodes, outputs=(parts,))


@pytest.mark.parametrize("board", COMPILERS)
@pytest.mark.parametrize("make", [pooled, lambda: dense_chain(16, 8, 4)], ids=["pooled", "dense"])
def test_nothing_is_linked_that_is_not_needed(
    board: str, make: Callable[[], Graph], tmp_path: Path
) -> None:
    elf = build(of_graph(make(), board), board, tmp_path)
    assert "main" in functions(elf)
    assert foreign(elf, board) == set()


@pytest.mark.parametrize("board", ["qemu_m0", "qemu_m4", "qemu_m55"])
def test_memory_functions_are_small(board: str, tmp_path: Path) -> None:
    compiled = of_graph(dense_chain(16, 8, 4), board)
    program = bench.generated(compiled, tmp_path)
    count = "(size_t)wide"
    calls = f"memcpy(taken, (void *)&wide, {count}); memset(taken, 0, {count});"
    _spoil(program.sources[0], f"{calls} memmove(taken, (char *)taken + 1, {count});")
    found = functions(bench.build(program, boards.load(board), tmp_path / "program.elf"))
    sizes = [found[name][0] for name in ("memcpy", "memmove", "memset")]
    assert 0 < sum(sizes) <= FLASH_OF_MEMORY


def test_the_bundled_model_calls_no_library(tmp_path: Path) -> None:
    path = resources.folder("examples") / "digits" / "digits_int8.tflite"
    compiled = compile_model(path, boards.load("qemu_m4"), "m")
    assert foreign(build(compiled, "qemu_m4", tmp_path), "qemu_m4") == set()


@shared_models.needed
@pytest.mark.parametrize("model", ["kws_ref_model", "person_detect"])
def test_published_models_call_no_library(model: str, tmp_path: Path) -> None:
    compiled = compile_model(shared_models.path(model), boards.load("qemu_m4"), "m")
    assert foreign(build(compiled, "qemu_m4", tmp_path), "qemu_m4") == set()


def test_a_call_of_the_library_is_noticed(tmp_path: Path) -> None:
    program = bench.generated(of_graph(dense_chain(16, 8, 4), "qemu_m4"), tmp_path)
    _spoil(program.sources[0], "wide = 7 / wide; real = real / 3; taken = malloc(4);")
    elf = bench.build(program, boards.load("qemu_m4"), tmp_path / "program.elf")
    assert {"__aeabi_ldivmod", "__aeabi_ddiv", "malloc"} <= foreign(elf, "qemu_m4")


def _spoil(source: Path, statements: str) -> None:
    """Have the model run ``statements`` too."""
    text = source.read_text()
    head = "static volatile int64_t wide = 1;\nstatic volatile double real = 1;\n"
    head = f"#include <stdlib.h>\n{head}static void *volatile taken;\n"
    head += f"static void spoil(void) {{ real = real; {statements} }}\n"
    include, run = '#include "m_weights.h"', "int m_run(void)\n{"
    assert include in text and run in text
    source.write_text(text.replace(include, head + include).replace(run, f"{run} spoil();"))
