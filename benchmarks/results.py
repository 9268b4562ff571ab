"""The committed results: what was measured, by model, board and engine.

``results.json`` holds ``tools`` (what measured) and ``results``: model, then board, then engine
(one of :data:`ENGINES` or of :data:`benchmarks.peers.PEERS`), then figures.  Keys are sorted and
figures exact, so that the same tools give the same bytes.  An engine that could not be measured has
an ``error`` instead of figures.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tinygen import bench, boards
from tinygen.compile import compile_model
from tinygen.graph import Graph
from tinygen.ops import BY_NAME
from tinygen.plan import Goal

FILE = Path(__file__).with_name("results.json")
BOARDS = ("qemu_m0", "qemu_m3", "qemu_m4", "qemu_m7", "qemu_m55", "qemu_rv32", "qemu_xtensa")
MAIN = "qemu_m4"
"""The board whose results are compared and plotted."""
HELD = ("instructions", "flash", "ram")
"""Figures that must not change unnoticed."""
TOLERANCE = 0.01

Row = Mapping[str, Any]
Results = dict[str, dict[str, dict[str, Row]]]


ENGINES = {
    "tinygen": Goal(),
    "tinygen_speed": Goal("speed"),
    "tinygen_ram": Goal("ram"),
    "tinygen_size": Goal("size"),
}
"""TinyGen as it is, and asked for speed, for little RAM or for little flash: ``--optimize``."""


def measure(model: Path, board: str, engine: str = "tinygen") -> dict[str, Any]:
    """What TinyGen makes of ``model``, figures as in ``results.json``.

    Raises :class:`tinygen.errors.TinyGenError`, a mismatch with the reference included.
    """
    return row(model, bench.bench(model, boards.load(board), ENGINES[engine]))


def row(model: Path, found: bench.Bench) -> dict[str, Any]:
    """The figures of ``found``, which measured ``model``."""
    graph = compile_model(model, found.machine).plan.graph
    return {
        "instructions": found.instructions,
        "cycles": found.cycles,
        "macs": found.macs,
        "macs_nominal": found.nominal_macs,
        "flash": found.sizes.flash.total,
        "ram": found.sizes.ram.total,
        "weights": found.weight_bytes,
        "live": most_alive(graph),
        "bound": found.bound,
        "bounded": found.bounded,
    }


def most_alive(graph: Graph) -> int:
    """Bytes of the activations that exist at one time when layers run whole, one after another.

    An input that dies may give its memory to the output byte by byte, so a layer is charged what
    lives before it, or what lives behind it, whichever is more.
    """
    home: dict[int, int] = {}
    last: dict[int, int] = dict.fromkeys(graph.inputs, 0)
    steps = [node for node in graph.nodes if not BY_NAME[node.op].view]
    for node in graph.nodes:
        if BY_NAME[node.op].view:
            home[node.outputs[0]] = home.get(node.inputs[0], node.inputs[0])
    for at, node in enumerate(steps):
        for i in (*node.inputs, *node.outputs):
            if i >= 0 and not graph.at(i).constant:
                last[home.get(i, i)] = at
    for i in graph.outputs:
        last[home.get(i, i)] = len(steps)
    most, alive = 0, set(graph.inputs)
    for at, node in enumerate(steps):
        most = max(most, _bytes(graph, alive))
        alive = {i for i in {*alive, *node.outputs} if last.get(i, at) > at}
        most = max(most, _bytes(graph, alive))
    return most


def _bytes(graph: Graph, tensors: Iterable[int]) -> int:
    return sum(graph.at(i).bytes for i in tensors)


def tools() -> dict[str, str]:
    """Versions of what decides the figures, by name."""
    commands = {
        "arm-none-eabi-gcc": ["arm-none-eabi-gcc", "-dumpfullversion"],
        "riscv64-unknown-elf-gcc": ["riscv64-unknown-elf-gcc", "-dumpfullversion"],
        "xtensa-lx106-elf-gcc": ["xtensa-lx106-elf-gcc", "-dumpfullversion"],
        "qemu": ["qemu-system-arm", "--version"],
    }
    found = {}
    for name, command in commands.items():
        if shutil.which(command[0]):
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            first = done.stdout.splitlines()[0].removeprefix("QEMU emulator version ")
            found[name] = first.partition("(")[0].strip()
    return found


def load(file: Path = FILE) -> dict[str, Any]:
    """What was committed, or nothing yet."""
    if not file.is_file():
        return {"tools": {}, "results": {}}
    document: dict[str, Any] = json.loads(file.read_text())
    return document


def save(document: Mapping[str, Any], file: Path = FILE) -> None:
    file.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")


def changes(committed: Row, measured: Row) -> list[str]:
    """What of :data:`HELD` differs by more than :data:`TOLERANCE`, for better or worse."""
    found = []
    for key in HELD:
        was, now = committed.get(key), measured.get(key)
        if was is None or now is None:
            if was != now:
                found.append(f"{key}: {was} committed, {now} measured")
        elif abs(now - was) > TOLERANCE * was:
            word = "worse" if now > was else "better: refresh with `make bench-update`"
            found.append(
                f"{key}: {was:,} committed, {now:,} measured, {now / was - 1:+.1%}, {word}"
            )
    return found
