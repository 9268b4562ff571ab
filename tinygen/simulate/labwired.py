"""Whole chips in labwired: the image for the board itself, with its clocks, serial line, memory.

labwired interprets a few million instructions a second, about one on the ESP32, and counts one
cycle for each, so counts from it are instructions.  What a chip looks like to it is in
``chips/<name>.toml``.  Instructions that it does not have are written in others (:mod:`.thumb`).
It runs in a process of its own (``labwired_child.py``), and only while someone waits for output:
firmware that nobody listens to stands still, so that the same commands always take the same number
of instructions.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import os
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from tinygen.boards import Board
from tinygen.errors import InputError, TinyGenError
from tinygen.simulate import process, thumb

_CHIPS = Path(__file__).with_name("chips")
_CHILD = Path(__file__).with_name("labwired_child.py")

_CYCLES_A_SLICE = 20_000  # between two looks at the outside; some milliseconds
_PATIENCE = 60.0  # seconds that an answer may take longer than was asked for
_ENDED = 0x100  # TINYGEN_ENDED of firmware/port/common/chip.h
_REPLACEMENTS_AFTER = 0x80_0000  # from the start of flash: beyond any, and within reach of branches
_PAINT = 0x5AA5C33C  # TINYGEN_STACK_PAINT of firmware/port/common/stack.h


def available() -> bool:
    """Whether labwired is installed."""
    return importlib.util.find_spec("labwired") is not None


def start(board: Board, elf: Path) -> Machine:
    """Run ``elf`` on the chip that ``board.emulator`` names.

    Raises :class:`InputError` when ``elf`` is not a TinyGen image for a chip, :class:`TinyGenError`
    when labwired is not installed, does not know the chip, or refuses the image.
    """
    if not available():
        raise TinyGenError(
            f"{board.name}: labwired, which emulates this board, is not installed",
            'pip install "tinygen[sim]"',
        )
    return Machine(board, elf)


def run(board: Board, elf: Path, *, send: bytes = b"", timeout: float = 60.0) -> process.Finished:
    """Run ``elf`` to its end, with ``send`` on its serial line: exit status and output.

    Raises :class:`TinyGenError` when it runs longer than ``timeout`` seconds.
    """
    output = bytearray()
    with start(board, elf) as machine:
        machine.write(send)
        deadline = time.monotonic() + timeout
        while machine.status is None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TinyGenError(f"{board.name}: still running after {timeout:g} seconds")
            output += machine.read(left)
        return process.Finished(machine.status, bytes(output), "")


class Machine:
    """A program on an emulated chip: a transport (see :class:`tinygen.simulate.Transport`) to its
    serial line, and a look into its memory.  Ends with :meth:`close` or the ``with`` block."""

    def __init__(self, board: Board, elf: Path) -> None:
        self.cycles = 0
        """Instructions executed so far."""
        self.status: int | None = None
        """The program's exit status once it has ended."""
        self._name = board.name
        self._image = _Image.of(elf)
        self._unsent = b""
        self._answers = bytearray()
        self._last_line = b""
        with _description(board, self._image) as request:
            self._child = process.Process([sys.executable, "-P", _CHILD], board.name)
            try:
                self._ask(request, 0.0)
            except BaseException:
                self.close()
                raise

    def write(self, data: bytes) -> None:
        """Send ``data``; it arrives while :meth:`read` runs the machine."""
        self._check()
        self._unsent += data

    def read(self, timeout: float) -> bytes:
        """What the firmware sends, once it does; ``b""`` when ``timeout`` seconds pass first.

        Raises :class:`TinyGenError` when the program has ended, or the emulator has.
        """
        self._check()
        seconds = max(timeout, 0.0)
        answer = self._ask({"run": seconds, "input": self._unsent.hex()}, seconds)
        self._unsent = b""
        self.cycles = answer["cycles"]
        output = bytes.fromhex(answer["output"])
        self._last_line = (self._last_line + output).rstrip().rpartition(b"\n")[2][-200:]
        if answer["ended"]:
            self.status = answer["ended"] - _ENDED
        return output

    def symbol(self, name: str) -> int:
        """The address of ``name``; :class:`InputError` when the program has no such symbol."""
        return self._image.symbol(name)

    def memory(self, address: int, count: int) -> bytes:
        """``count`` bytes of memory as they are now."""
        return bytes.fromhex(self._ask({"read": [address, count]}, 0.0)["bytes"])

    def stack_peak(self) -> int:
        """Bytes of stack that have been used at the most, by the paint that start-up puts there."""
        bottom, top = self.symbol("tinygen_stack_bottom"), self.symbol("tinygen_stack_top")
        stack = self.memory(bottom, top - bottom)
        paint = _PAINT.to_bytes(4, "little")
        untouched = 0
        while stack.startswith(paint, untouched):
            untouched += len(paint)
        return len(stack) - untouched

    def close(self) -> None:
        self._child.close()

    def __enter__(self) -> Machine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _check(self) -> None:
        if self.status is not None:
            why = self._last_line.decode(errors="replace")
            raise TinyGenError(
                f"{self._name}: the program has ended with status {self.status}",
                why if why.startswith("fault:") else "",
            )

    def _ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        """The answer to ``request``, which may take ``seconds`` and some more."""
        self._child.write(json.dumps(request).encode() + b"\n")
        deadline = time.monotonic() + seconds + _PATIENCE
        while b"\n" not in self._answers:
            left = deadline - time.monotonic()
            if left <= 0:
                self.close()
                raise TinyGenError(f"{self._name}: the emulator does not answer any more")
            self._answers += self._child.read(left)
        line, _, rest = bytes(self._answers).partition(b"\n")
        self._answers = bytearray(rest)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise TinyGenError(f"{self._name}: labwired has stopped: {answer['error']}")
        return answer


@dataclass(frozen=True)
class _Code:
    """A piece of Thumb code: where it runs, where it is in the file, how many bytes."""

    address: int
    offset: int
    count: int


@dataclass(frozen=True)
class _Image:
    """An ELF file: symbols, what goes to which address of flash, Thumb code, all of its bytes."""

    name: str
    symbols: dict[str, int]
    segments: tuple[tuple[int, bytes], ...]
    thumb: tuple[_Code, ...]
    file: bytes

    @staticmethod
    def of(path: Path) -> _Image:
        try:
            with path.open("rb") as stream:
                elf = ELFFile(stream)
                table: Any = elf.get_section_by_name(".symtab")
                symbols = list(table.iter_symbols()) if table else []
                segments = tuple(
                    (segment["p_paddr"], segment.data())
                    for segment in elf.iter_segments("PT_LOAD")
                    if segment["p_filesz"]
                )
                code = tuple(_thumb(elf, symbols))
                stream.seek(0)
                file = stream.read()
        except (OSError, ELFError) as error:
            raise InputError(f"{path}: cannot be read as an ELF file: {error}") from error
        named = {symbol.name: symbol["st_value"] for symbol in symbols}
        return _Image(path.name, named, segments, code, file)

    def symbol(self, name: str) -> int:
        if name not in self.symbols:
            raise InputError(
                f"{self.name}: has no symbol '{name}'", "give an image that TinyGen's ports are in"
            )
        return self.symbols[name]


def _thumb(elf: ELFFile, symbols: list[Any]) -> Iterator[_Code]:
    """Thumb code, told from data among it by the symbols that the linker puts at each change."""
    marks = [(s["st_shndx"], s["st_value"], s.name) for s in symbols if s.name[:1] == "$"]
    for index, section in enumerate(elf.iter_sections()):
        start, end = section["sh_addr"], section["sh_addr"] + section["sh_size"]
        own = sorted((at, name) for where, at, name in marks if where == index)
        for (at, name), (stop, _) in itertools.pairwise([*own, (end, "")]):
            if name.split(".")[0] == "$t":
                yield _Code(at, section["sh_offset"] + at - start, stop - at)


@contextlib.contextmanager
def _description(board: Board, image: _Image) -> Iterator[dict[str, Any]]:
    """The child's first request, with labwired's own files for the chip for as long as it lasts."""
    chip = _chip(board)
    words = chip.pop("words", []) + _words(image, chip["flash"]["base"], chip.pop("mirror", None))
    file = image.file
    if chip["arch"] == "arm":
        chip["reset_vector_offset"] = image.symbol("tinygen_vectors") - chip["flash"]["base"]
        base = chip["flash"]["base"] + _REPLACEMENTS_AFTER
        chip["memory_regions"] = [{"name": "replacements", "base": base, "size": "1024KB"}]
        file, replacements = _rewritten(image, base)
        words += _words_of(replacements, base)
    with tempfile.TemporaryDirectory(prefix="tinygen-") as folder:
        for device in chip["peripherals"]:
            if "registers" in device:
                path = Path(folder, f"registers-{device['id']}.yaml")
                registers = device.pop("registers")
                _write(path, {"peripheral": device["id"], "version": "1", "registers": registers})
                device["config"] = {"path": os.fspath(path)}
        _write(Path(folder, "chip.yaml"), chip)
        _write(Path(folder, "system.yaml"), {"name": board.name, "chip": "chip.yaml"})
        Path(folder, "program.elf").write_bytes(file)
        yield {
            "elf": os.fspath(Path(folder, "program.elf")),
            "system": os.fspath(Path(folder, "system.yaml")),
            "slice": _CYCLES_A_SLICE / chip["cpu_hz"],
            "words": words,
            "ended": image.symbol("tinygen_port_ended"),
            "mailbox": image.symbols.get("tinygen_port_mailbox"),
        }


def _chip(board: Board) -> dict[str, Any]:
    """The chip's description, anew for each caller."""
    assert board.emulator is not None
    path = _CHIPS / f"{board.emulator.machine}.toml"
    if not path.is_file():
        known = ", ".join(sorted(path.stem for path in _CHIPS.glob("*.toml")))
        raise TinyGenError(
            f"{board.name}: no description of the chip '{board.emulator.machine}' for labwired",
            f"there are descriptions of {known}",
        )
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _words(image: _Image, flash: int, mirror: int | None) -> list[tuple[int, int]]:
    """Words to write before the start: flash's second place, and that the program is emulated.

    The emulator loads flash at one address, while the chip maps it at ``mirror``, too.
    """
    words: list[tuple[int, int]] = []
    if mirror is not None:
        for address, data in image.segments:
            words += _words_of(data, address - flash + mirror)
    if "tinygen_port_emulated" in image.symbols:
        words.append((image.symbols["tinygen_port_emulated"], 1))
    return words


def _words_of(data: bytes, address: int) -> list[tuple[int, int]]:
    """``data`` at ``address`` as words, the last one filled up with zeros."""
    padded = data + bytes(-len(data) % 4)
    return [
        (address + at, int.from_bytes(padded[at : at + 4], "little"))
        for at in range(0, len(padded), 4)
    ]


def _rewritten(image: _Image, base: int) -> tuple[bytes, bytes]:
    """The file in instructions that labwired has, and what its branches lead to at ``base``."""
    file = bytearray(image.file)
    replacements = b""
    for piece in image.thumb:
        code = image.file[piece.offset : piece.offset + piece.count]
        rewritten = thumb.rewrite(code, piece.address, base + len(replacements))
        file[piece.offset : piece.offset + piece.count] = rewritten.code
        replacements += rewritten.replacements
    return bytes(file), replacements


def _write(path: Path, facts: dict[str, Any]) -> None:
    path.write_text(json.dumps(facts), encoding="utf-8")  # which is YAML, too
