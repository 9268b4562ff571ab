"""Measure what decoding weights costs: ``python -m benchmarks.encodings --help``.

Without options it prints bits and instructions a weight of every encoding on all emulated cores;
with ``--costs`` the figures on which ``tinygen/encodings/costs.py`` bases its estimates.  The
program measured decodes lines of many kinds; what it decodes is held against the reference.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from elftools.elf.elffile import ELFFile

from tinygen import bench, boards, cycles, emit, encodings, project, resources
from tinygen.boards import Board
from tinygen.encodings import ENCODINGS, Encoded, Encoding
from tinygen.errors import MismatchError, TinyGenError
from tinygen.graph import Array
from tinygen.simulate import qemu

BOARDS = {
    "dsp": "qemu_m4",
    "mve": "qemu_m55",
    "armv7m": "qemu_m3",
    "armv6m": "qemu_m0",
    "rv32m": "qemu_rv32",
    "xtensa": "qemu_xtensa",
}
"""Where each instruction set is measured."""

_MAIN = """
#include "tinygen_port.h"
typedef struct {
  decode_line *decode;
  const uint8_t *data;
  const void *table;
  const uint16_t *lengths;
  int lines;
} decoding;
static const decoding decodings[] = {%(cases)s};
static union { uint64_t aligned[%(words)d]; int8_t values[%(words)d * 8]; } memory;
__attribute__((noinline)) void measured_begin(void) { __asm__ volatile("" : : : "memory"); }
__attribute__((noinline)) void measured_end(void) { __asm__ volatile("" : : : "memory"); }
int main(void)
{
  for (unsigned int i = 0; i < sizeof decodings / sizeof *decodings; ++i) {
    const decoding *const d = &decodings[i];
    const uint8_t *from = d->data;
    decode_line *const decode = d->decode;
    int8_t *to = memory.values;
    measured_begin();
    for (int line = 0; line < d->lines; ++line) {
      from = decode(from, to, d->lengths[line], d->table);
      to += (d->lengths[line] + 7) / 8 * 8;
    }
    measured_end();
    to = memory.values;
    for (int line = 0; line < d->lines; ++line) {
      tinygen_port_write((const uint8_t *)to, d->lengths[line]);
      to += (d->lengths[line] + 7) / 8 * 8;
    }
  }
  tinygen_port_exit(0);
}
"""


@dataclass(frozen=True, eq=False)
class Case:
    """Lines in one encoding."""

    encoding: Encoding
    encoded: Encoded
    lines: tuple[Array, ...]

    @property
    def values(self) -> int:
        """How many values the lines have."""
        return sum(line.size for line in self.lines)


@dataclass(frozen=True)
class Cost:
    """What decoding all lines of a case took; ``cycles`` are an estimate where there is a model."""

    instructions: int
    cycles: int | None

    @property
    def best(self) -> int:
        """Cycles where they are known."""
        return self.instructions if self.cycles is None else self.cycles


def case(encoding: Encoding, lines: Sequence[Array]) -> Case | None:
    """``lines`` in ``encoding`` when it can hold them."""
    made = encodings.encode(encoding, lines)
    return None if made is None else Case(encoding, made, tuple(lines))


def functions(helpers: Sequence[str]) -> str:
    """The C text of ``helpers``, in the order in which models have them."""
    env = emit.environment()
    names = sorted({"decode_line", *helpers})
    texts = [env.get_template(f"kernels/helpers/{name}.c.j2").render() for name in names]
    return "\n".join(["#include <stdint.h>", "#include <string.h>", *texts])


def source(cases: Sequence[Case]) -> str:
    """The program that decodes ``cases``, each between two marks, and writes the values."""
    parts = [functions([name for each in cases for name in each.encoded.helpers])]
    rows = []
    for i, each in enumerate(cases):
        lengths = np.array([line.size for line in each.lines], np.uint16)
        arrays = {f"data{i}": each.encoded.data, f"lengths{i}": lengths}
        table = each.encoded.table
        if table is not None:
            arrays[f"table{i}"] = table
        for name, array in arrays.items():
            parts.append(f"static const {array.dtype}_t {name}[] = {{\n{emit.c_values(array)}\n}};")
        place = "0" if table is None else f"table{i}"
        rows.append(f"{{{each.encoded.decoder}, data{i}, {place}, lengths{i}, {len(lengths)}}}")
    words = max(sum(-(-line.size // 8) for line in each.lines) for each in cases)
    return "\n".join(parts) + _MAIN % {"cases": ",\n".join(rows), "words": words}


def measure(board: Board, cases: Sequence[Case]) -> list[Cost]:
    """What each of ``cases`` costs on the emulated core of ``board``.

    Raises :class:`MismatchError` when other values than the lines' come out.
    """
    with tempfile.TemporaryDirectory(prefix="tinygen-") as name:
        elf = _build(board, source(cases), Path(name))
        marks = _addresses(elf, ("measured_begin", "measured_end"))
        counted = qemu.run_counted(board, elf, marks=marks, timeout=bench.SECONDS)
        if counted.finished.status != 0:
            raise TinyGenError(f"{board.name}: the program ended with {counted.finished.status}")
        wanted = b"".join(line.tobytes() for each in cases for line in each.lines)
        if counted.finished.output != wanted:
            raise MismatchError(f"{board.name}: the decoders give other values than the lines'")
        code = _disassembled(board, elf)
        segments = [s for s in counted.segments if s.mark == marks[0]]
        return [Cost(s.instructions, cycles.estimate(board.core, code, s.blocks)) for s in segments]


def _build(board: Board, text: str, folder: Path) -> Path:
    system = board.system
    assert system is not None
    file, elf = folder / "decoders.c", folder / "decoders.elf"
    file.write_text(text)
    firmware = resources.folder("firmware")
    port = firmware / "port"
    symbols = project.board_manifest(board)["tinygen"]["symbols"]
    command = [bench.tool(board, "gcc"), *system.flags, "-O2", "-std=gnu99"]
    command += ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
    command += ["-ffunction-sections", "-fdata-sections", f"-DTINYGEN_CLOCK_HZ={board.clock_hz}UL"]
    command += [f"-D{definition}" for definition in system.defines]
    command += [f"-I{path}" for path in (firmware / "runtime", port)]
    command += [f"-I{port / name}" for name in system.folders]
    command += [str(file), *(str(p) for f in system.folders for p in (port / f).glob("*.[cS]"))]
    command += ["-nostartfiles", "-Wl,--gc-sections", f"-T{port / system.script}", f"-L{port}"]
    command += [f"-Wl,--defsym,{name}={value:#x}" for name, value in symbols.items()]
    done = subprocess.run([*command, "-o", str(elf)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise TinyGenError(f"{board.name}: the decoders do not compile:\n{done.stderr[:4000]}")
    return elf


def _addresses(elf: Path, names: Sequence[str]) -> tuple[int, ...]:
    with elf.open("rb") as file:
        image = ELFFile(file)
        thumb = image["e_machine"] == "EM_ARM"
        table: Any = image.get_section_by_name(".symtab")
        found = (table.get_symbol_by_name(name)[0]["st_value"] for name in names)
        return tuple(address & ~1 if thumb else address for address in found)


def _disassembled(board: Board, elf: Path) -> dict[int, cycles.Instruction]:
    if board.core not in cycles.TIMINGS:
        return {}
    command = [bench.tool(board, "objdump"), "-d", "-z", str(elf)]
    return cycles.disassembly(
        subprocess.run(command, capture_output=True, text=True, check=True).stdout
    )


def lines_of(
    seed: int, values: Sequence[int], density: float, length: int, lines: int, run: int = 1
) -> list[Array]:
    """Lines of ``values`` drawn like weights, large ones seldom; zeros in runs of ``run``."""
    random = np.random.default_rng(seed)
    chosen = np.array(values)
    chance = np.exp(-0.5 * (2.0 * chosen / max(1, np.abs(chosen).max())) ** 2)
    made = []
    for _ in range(lines):
        drawn = random.choice(chosen, length, p=chance / chance.sum())
        keep = np.repeat(random.random(-(-length // run)) < density, run)[:length]
        made.append(np.where(keep, drawn, 0).astype(np.int8))
    return made


def spread(values: int) -> list[int]:
    """So many values other than 0, evenly over int8."""
    return [v if v else 1 for v in np.linspace(-127, 127, values).round().astype(int)]


def calibration(encoding: Encoding) -> list[Case]:
    """Lines that show what a decoder's time depends on."""
    few = list(range(-7, 8)) if "int4" in encoding.name else spread(15)
    bits = [k for k in range(1, 6) if f"codebook{k}" in encoding.name]
    if bits:
        few = spread((1 << bits[0]) - 1)
    elif "int4" not in encoding.name:
        few = spread(101)
    run = 8 if "blocks" in encoding.name else 1
    shapes = ((27, 24), (64, 12), (300, 3), (1152, 1))
    found = []
    for i, density in enumerate((0.05, 0.2, 0.5, 0.9)):
        for length, lines in shapes[i % 2 :: 2]:
            made = case(encoding, lines_of(i, few, density, length, lines, run))
            if made is not None:
                found.append(made)
    return found


def fit(cases: Sequence[Case], costs: Sequence[int]) -> tuple[float, ...]:
    """Costs of a line, eight values, what is stored and steps, none negative, that are nearest to
    those measured; of those with the smallest error relative to each."""
    rows = np.array(
        [(w.lines, w.groups, w.stored, w.steps) for w in (each.encoded.work for each in cases)],
        dtype=float,
    )
    wanted = np.array(costs, dtype=float)
    scaled = rows / wanted[:, None]
    used = [i for i in range(4) if rows[:, i].any()]
    while True:
        found, *_ = np.linalg.lstsq(scaled[:, used], np.ones(len(cases)), rcond=None)
        if (found >= 0).all():
            break
        used.remove(used[int(np.argmin(found))])
    result = np.zeros(4)
    result[used] = found
    return tuple(result.round(1))


def measured_costs(isa: str, chosen: Sequence[Encoding]) -> dict[str, tuple[float, ...]]:
    """Fitted costs by decoder, and on standard error how far they are off."""
    by_decoder: dict[str, list[Case]] = {}
    for encoding in chosen:
        by_decoder.setdefault(encoding.decoder, []).extend(calibration(encoding))
    cases = [each for some in by_decoder.values() for each in some]
    costs = iter(measure(boards.load(BOARDS[isa]), cases))
    result = {}
    for decoder, some in by_decoder.items():
        taken = [next(costs).best for _ in some]
        result[decoder] = fit(some, taken)
        work = [each.encoded.work for each in some]
        rows = np.array([(w.lines, w.groups, w.stored, w.steps) for w in work])
        off = rows @ np.array(result[decoder]) / np.array(taken) - 1
        print(f"{isa} {decoder}: {off.min():+.0%} to {off.max():+.0%}", file=sys.stderr)
    return result


def shown(encoding: Encoding) -> tuple[str, Case]:
    """64 lines of 576 weights that suit ``encoding``, and what they are."""
    kind, name = encoding.name.rpartition("+")[2], encoding.name
    if "int4" in kind:
        values, text = [v for v in range(-7, 8) if v], "-7..7"
    elif "codebook" in kind:
        values = spread((1 << int(kind[-1])) - name.startswith(("relative", "blocks")))
        text = f"{len(values)} values"
    elif name == "huffman+gaps":
        values, text = spread(16), "16 values"
    else:
        values, text = [v for v in range(-40, 41) if v], "-40..40"
    density, run = 1.0, 1
    if name.startswith(("bitmap", "relative", "huffman+gaps")):
        density, text = 0.2, f"{text}, 80 % zeros"
    elif name.startswith("blocks"):
        density, run = 0.25, int(name[6])
        text = f"{text}, 75 % of blocks zero"
    found = case(encoding, lines_of(0, values, density, 576, 64, run))
    assert found is not None, name
    return text, found


def print_table() -> None:
    """Bits and instructions a weight by encoding and core, as a table in Markdown."""
    chosen = [(encoding, *shown(encoding)) for encoding in ENCODINGS]
    costs = [
        measure(boards.load(board), [made for _, _, made in chosen]) for board in BOARDS.values()
    ]
    loaded = [boards.load(board) for board in BOARDS.values()]
    heads = [board.core for board in loaded]
    timed = [i for i, board in enumerate(loaded) if board.core in cycles.TIMINGS]
    print("| decoder | weights | bits |", " | ".join(heads), "|", end=" ")
    print(" | ".join(f"cycles {heads[i]}" for i in timed), "|")
    print("|---|---|" + "---:|" * (1 + len(heads) + len(timed)))
    for at, (encoding, text, made) in enumerate(chosen):
        row = [cost[at] for cost in costs]
        figures = [f"{each.instructions / made.values:.2f}" for each in row]
        figures += [f"{(row[i].cycles or 0) / made.values:.2f}" for i in timed]
        table = made.encoded.table
        label = encoding.decoder.removeprefix("decode_")
        if not encoding.structured:
            assert table is not None
            label += f", table of {table.nbytes} bytes"
        bits = 8 * made.encoded.bytes / made.values
        print(f"| {label} | {text} | {bits:.2f} |", " | ".join(figures), "|")


def print_costs() -> None:
    """The table in ``tinygen/encodings/costs.py``."""
    found = {isa: measured_costs(isa, ENCODINGS) for isa in BOARDS}
    for decoder in found["dsp"]:
        cells = ("/".join(map(_short, found[isa][decoder])) for isa in BOARDS)
        print(decoder.removeprefix("decode_"), *cells)


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 15 else f"{value:g}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.encodings", description=__doc__)
    parser.add_argument("--costs", action="store_true", help="print the table of costs.py")
    if parser.parse_args().costs:
        print_costs()
    else:
        print_table()
    return 0


if __name__ == "__main__":
    sys.exit(main())
