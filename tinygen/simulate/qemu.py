"""Running firmware in QEMU, and counting what it executes.

Three ways, by what a caller wants to know:

- :func:`start`: a serial line to a program that waits for commands.
- :func:`run`: exit status and output of a program that ends by itself.
- :func:`run_counted`: besides, how often each block of instructions ran.  Exact, and nearly as fast
  as without; a plugin counts (``block_counts.c``), which is compiled when it is first needed.

With ``icount`` QEMU's clock advances one nanosecond an instruction, so that the program itself can
count (``tinygen_port_count``): instruction by instruction on RISC-V, elsewhere to within a tick of
the fastest timer, 25 to 62 instructions.  Compiled with -Os, a reading itself takes 9 instructions
on RISC-V, 16 on the M55, 20 on the M3, M4 and M7, 59 on Xtensa, and 70 on the M0.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tinygen import resources
from tinygen.boards import Board
from tinygen.cycles import Block
from tinygen.errors import InputError, TinyGenError
from tinygen.simulate import process

_PLUGIN_SOURCE = Path(__file__).with_name("block_counts.c")
_MARKS = 64  # MARKS in block_counts.c


@dataclass(frozen=True)
class Machine:
    """How QEMU emulates one architecture: program, its Debian package, options it always needs."""

    program: str
    package: str
    options: tuple[str, ...] = ()


_MACHINES = {
    "cortex": Machine("qemu-system-arm", "qemu-system-arm"),
    "rv32imc": Machine("qemu-system-riscv32", "qemu-system-misc", ("-bios", "none")),
    "xtensa": Machine("qemu-system-xtensa", "qemu-system-misc"),
}


@dataclass(frozen=True)
class Counting:
    """A request to count blocks into ``file``, cut into segments at the addresses in ``marks``."""

    file: Path
    marks: tuple[int, ...] = ()


@dataclass(frozen=True)
class Segment:
    """What ran from one mark to the next: each block once, by address.

    ``mark`` is the address that began it, the first instruction of it included; None at reset.
    """

    mark: int | None
    blocks: tuple[Block, ...]

    @property
    def instructions(self) -> int:
        """Instructions executed.  A conditional one counts whether or not its condition held."""
        return sum(block.count * block.executions for block in self.blocks)


@dataclass(frozen=True)
class Counted:
    """A program that ran to its end, and what it executed in the order of time."""

    finished: process.Finished
    segments: tuple[Segment, ...]


def start(
    board: Board, elf: Path, *, icount: bool = False, counting: Counting | None = None
) -> process.Process:
    """Run ``elf`` on the machine of ``board``; its UART is the transport.

    Nothing is lost in either direction: QEMU takes a byte when the UART has room for it.  With
    ``counting`` the counts are in its file after ``close``; see :func:`read_counts`.

    Raises :class:`TinyGenError` when QEMU, or for counting a C compiler, is missing.
    """
    return process.Process(command(board, elf, icount, counting), board.name)


def run(
    board: Board, elf: Path, *, send: bytes = b"", timeout: float = 60.0, icount: bool = False
) -> process.Finished:
    """Run ``elf`` until it calls ``tinygen_port_exit`` or faults, with ``send`` on its UART.

    Raises :class:`TinyGenError` when that takes longer than ``timeout`` seconds.
    """
    return process.run(command(board, elf, icount), board.name, send=send, timeout=timeout)


def run_counted(
    board: Board,
    elf: Path,
    *,
    marks: Iterable[int] = (),
    send: bytes = b"",
    timeout: float = 60.0,
) -> Counted:
    """Like :func:`run`, and count the blocks that are executed.

    Each time one of ``marks``, up to 64 addresses of functions' first instructions (for Thumb
    without the lowest bit), is reached, a new segment begins with it: the functions of layers, say,
    or ``tinygen_on_layer``.  The program runs as it is, and nothing is added to its counts.
    """
    with tempfile.TemporaryDirectory(prefix="tinygen-") as folder:
        counting = Counting(Path(folder, "counts"), tuple(marks))
        words = command(board, elf, counting=counting)
        finished = process.run(words, board.name, send=send, timeout=timeout)
        return Counted(finished, read_counts(counting.file))


def read_counts(file: Path) -> tuple[Segment, ...]:
    """The segments in a file that :class:`Counting` named, once the program has ended.

    Raises :class:`TinyGenError` when QEMU did not come to write it.
    """
    lines = file.read_text(encoding="ascii").splitlines() if file.is_file() else []
    if not lines or lines[-1] != "end":
        raise TinyGenError(f"{file.name}: the emulator ended before it wrote its counts")
    segments: list[tuple[int, dict[tuple[int, int], Block]]] = []
    for line in lines[:-1]:
        if line.startswith("segment "):
            segments.append((int(line.split()[1]), {}))
            continue
        address, count, executions, jumps = map(int, line.split())
        blocks = segments[-1][1]
        twin = blocks.get((address, count), Block(address, count, 0, 0))
        blocks[address, count] = Block(
            address, count, twin.executions + executions, twin.jumps + jumps
        )
    return tuple(
        Segment(mark if mark >= 0 else None, tuple(blocks[key] for key in sorted(blocks)))
        for mark, blocks in segments
    )


def machine_of(board: Board) -> Machine:
    """The QEMU that emulates the architecture of ``board``; :class:`InputError` if none does."""
    if board.emulator is None or board.emulator.kind != "qemu":
        raise InputError(f"{board.name}: QEMU has no machine for this board")
    return _MACHINES[next(key for key in _MACHINES if board.core.startswith(key))]


def command(
    board: Board, elf: Path, icount: bool = False, counting: Counting | None = None
) -> list[str | Path]:
    """QEMU's command line that runs ``elf`` on the machine of ``board``.

    Raises :class:`TinyGenError` when QEMU, or for counting a C compiler, is missing.
    """
    machine, emulator = machine_of(board), board.emulator
    assert emulator is not None
    program = shutil.which(machine.program)
    if program is None:
        raise TinyGenError(
            f"{machine.program}: not found; it runs firmware for {board.name}",
            f"apt-get install {machine.package}",
        )
    if not elf.is_file():
        raise InputError(f"{elf.name}: no such file")
    return [
        program,
        *("-no-user-config", "-display", "none", "-monitor", "none"),
        *_serial(emulator.machine),
        *("-semihosting-config", "enable=on,target=native"),
        *("-machine", emulator.machine),
        *(("-cpu", emulator.cpu) if emulator.cpu else ()),
        *machine.options,
        *emulator.options,
        *(("-icount", "shift=0,sleep=off") if icount else ()),
        *(_plugin(program, counting) if counting else ()),
        *("-kernel", elf.resolve()),
    ]


def _serial(machine: str) -> tuple[str, ...]:
    """The options that connect the UART to standard input and output, binary and unbuffered.

    ``mux`` puts a buffer of 32 bytes before the UART, without which every byte costs a change of
    threads; its escape character is set to one that no byte equals.  The nRF51's UART never asks
    for bytes that came before it was switched on, so it has to do without.
    """
    mux = "off" if machine == "microbit" else "on"
    return (
        "-echr",
        "256",
        "-chardev",
        f"stdio,id=uart,signal=off,mux={mux}",
        "-serial",
        "chardev:uart",
    )


def _plugin(program: str, counting: Counting) -> tuple[str, str]:
    """The options that load the counting plugin."""
    if len(counting.marks) > _MARKS:
        raise InputError(f"counting: {len(counting.marks)} marks are more than {_MARKS}")
    library = _compiled(_plugin_api(program))
    marks = "".join(f",mark={mark}" for mark in counting.marks)
    return "-plugin", f"file={_escaped(library)},out={_escaped(counting.file.resolve())}{marks}"


def _escaped(path: Path) -> str:
    """``path`` as a value in QEMU's option lists, where a comma is written twice."""
    return str(path).replace(",", ",,")


@cache
def _plugin_api(program: str) -> int:
    """Version of the plugin interface to compile for: QEMU takes 1 up to its release 8, then 2."""
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"version (\d+)", answer.stdout)
    return 1 if found and int(found[1]) < 9 else 2


def _compiled(api: int) -> Path:
    """The counting plugin, compiled once for each content of its source and kept in the cache."""
    source = _PLUGIN_SOURCE.read_bytes()
    folder = resources.cache() / "qemu"
    library = folder / f"block_counts-{api}-{hashlib.sha256(source).hexdigest()[:16]}.so"
    if library.is_file():
        return library
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise TinyGenError(
            "cc: not found; counting instructions needs a C compiler for this machine",
            "apt-get install gcc",
        )
    folder.mkdir(parents=True, exist_ok=True)
    made = library.with_suffix(f".{os.getpid()}")
    options = ("-O2", "-std=gnu99", "-shared", "-fPIC", "-fvisibility=hidden")
    done = subprocess.run(
        [compiler, *options, f"-DPLUGIN_API={api}", "-o", made, _PLUGIN_SOURCE],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise TinyGenError(f"{_PLUGIN_SOURCE.name}: cannot be compiled", done.stderr.strip())
    made.replace(library)
    return library
