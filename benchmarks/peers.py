"""What others make of the same models, in the same minimal program, counted in the same way.

BakeNN 1.0 comes from PyPI into an environment of its own; its wheel carries CMSIS-NN 4.0.0 and
ESP-NN 1.2.6.  Models are rewritten first (:mod:`benchmarks.simplified`), for it reads none of the
reference models as it is; in particular it computes no softmax.  What a peer computes is held
against the reference: nobody is compared with wrong results.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.simplified import simplified
from tinygen import bench, importers, sizes
from tinygen.boards import Board
from tinygen.errors import FitError, TinyGenError

BAKENN = "1.0.0"
ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = ROOT / "build" / f"bakenn-{BAKENN}"
NAME = "peer"


@dataclass(frozen=True)
class Setup:
    """How a peer is set up for a core: BakeNN's target, and options of ``bakenn_child.py``."""

    target: str
    options: tuple[str, ...] = ()


PEERS: Mapping[str, str] = {
    "bakenn": "BakeNN 1.0 as shipped, with CMSIS-NN or ESP-NN where it has kernels for the core",
    "cmsis_nn": "CMSIS-NN 4.0.0, which BakeNN carries, called directly: BakeNN's program without "
    "its refusal of uneven padding; with vectors on the M55",
}
"""Peers by the names they have in the results, with what they are."""

_M4 = Setup("cortex-m4", ("cmsis_nn",))
_ANY = Setup("cortex-m4", ("cmsis_nn", "any_padding"))
SETUPS: Mapping[str, Mapping[str, Setup]] = {
    "cortex-m0": {"bakenn": Setup("cortex-m0plus")},
    "cortex-m3": {"bakenn": Setup("portable32")},
    "cortex-m4": {"bakenn": _M4, "cmsis_nn": _ANY},
    "cortex-m7": {"bakenn": _M4, "cmsis_nn": _ANY},
    "cortex-m55": {"cmsis_nn": Setup("cortex-m4", ("cmsis_nn", "any_padding", "mve"))},
    "rv32imc": {"bakenn": Setup("rv32imc")},
    "xtensa-lx106": {"bakenn": Setup("esp32", ("esp_nn",))},
}
"""Peers by core.  BakeNN has no target with vectors; CMSIS-NN's own kernels in it have them."""

_HEADER = """\
#include "tinygen.h"
void peer_init(void);
void *peer_input(int index);
int peer_run(void);
extern const tinygen_model peer_model;
"""
_SHIM = """\
#include "{header}"
#include "peer.h"
#define SIZE BKNN_PEER_ARENA_SIZE
_Alignas(BKNN_PEER_ARENA_ALIGNMENT) static uint8_t arena[SIZE + !SIZE];
_Alignas(8) static int8_t input[BKNN_PEER_INPUT_BYTES];
_Alignas(8) static int8_t output[BKNN_PEER_OUTPUT_BYTES];
static const tinygen_tensor outputs[] = {{{{ .bytes = sizeof output, .data = output }}}};
const tinygen_model peer_model = {{ .output_count = 1, .outputs = outputs }};
void peer_init(void) {{}}
void *peer_input(int index) {{ return index == 0 ? input : 0; }}
int peer_run(void)
{{
  bknn_peer_infer(SIZE ? arena : 0, input, output);
  return 0;
}}
"""


def install() -> Path:
    """The Python that has BakeNN; installed when it is not there.

    Raises :class:`TinyGenError` when it cannot be installed.
    """
    python = ENVIRONMENT / "bin" / "python"
    ready = ENVIRONMENT / "ready"
    if not ready.is_file():
        commands = (
            [sys.executable, "-m", "venv", str(ENVIRONMENT)],
            [str(python), "-m", "pip", "install", "--quiet", f"bakenn[tflite]=={BAKENN}"],
        )
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise TinyGenError(f"BakeNN cannot be installed:\n{done.stderr.strip()[-1000:]}")
        ready.touch()
    return python


def measure(model: Path, board: Board, setup: Setup) -> dict[str, Any]:
    """What one inference of ``model`` costs with -O2 or -O3, whichever takes fewer instructions.

    The model is the one that BakeNN can read.  Raises
    :class:`benchmarks.simplified.UnsupportedError`, :class:`FitError` and :class:`TinyGenError`.
    """
    with tempfile.TemporaryDirectory(prefix="tinygen-") as name:
        folder = Path(name)
        file = folder / model.name
        file.write_bytes(simplified(model.read_bytes()))
        graph = importers.load(file)
        program = _program(file, folder, setup, graph.at(graph.inputs[0]).bytes)
        rows = []
        for optimize in ("-O2", "-O3"):
            wanted = replace(program, optimize=optimize)
            plain = _linked(wanted, board, folder / "plain.elf")
            traced = bench.build(wanted, board, folder / "traced.elf", traced=True)
            bench.check_output(graph, bench.outputs(board, traced))
            rows.append({"optimize": optimize, **_figures(plain, board)})
        return min(rows, key=lambda row: row["instructions"])


def _figures(elf: Path, board: Board) -> dict[str, Any]:
    cost, size = bench.measure(board, elf), sizes.of(elf, NAME, board)
    return {
        "instructions": cost.instructions,
        "cycles": cost.cycles,
        "flash": size.flash.total,
        "ram": size.ram.total,
    }


def _linked(program: bench.Program, board: Board, elf: Path) -> Path:
    try:
        return bench.build(program, board, elf)
    except TinyGenError as error:
        if "overflowed by" in error.message:
            raise FitError(f"{program.name}: does not fit {board.name}") from error
        raise


def _program(model: Path, folder: Path, setup: Setup, input_bytes: int) -> bench.Program:
    made = folder / "made"
    child = Path(__file__).with_name("bakenn_child.py")
    words = [install(), child, model, made, NAME, setup.target, *setup.options]
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise TinyGenError(f"BakeNN refuses it: {done.stderr.strip().splitlines()[-1]}")
    said = json.loads(done.stdout)
    (folder / f"{NAME}.h").write_text(_HEADER)
    shim = folder / "shim.c"
    shim.write_text(_SHIM.format(header=said["header"]))
    vendors = {"cmsis_nn": "BAKENN_CMSIS_NN_BUILTIN_MEMORY", "esp_nn": "CONFIG_NN_OPTIMIZED=1"}
    return bench.Program(
        name=NAME,
        sources=(shim, *(Path(path) for path in said["sources"])),
        includes=(folder, *(Path(path) for path in said["includes"])),
        input_bytes=(input_bytes,),
        definitions=tuple(d for option, d in vendors.items() if option in setup.options),
    )
