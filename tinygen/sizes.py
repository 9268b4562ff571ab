"""Where the bytes of a firmware image go, read from its ELF file.

Functions and constants belong to the model when they come from its library's files or carry its
prefix; with TensorFlow Lite Micro, the interpreter and its kernels count as the model's code.
Padding, literals and strings have no symbol and end up under the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile

from tinygen.boards import Board
from tinygen.errors import TinyGenError

_INTERPRETER = ("tflite", "TfLite", "gemmlowp", "flatbuffers", "ruy")  # in mangled names


@dataclass(frozen=True)
class Flash:
    """Bytes of flash: all that is loaded, the model's functions, its constants, and the limit."""

    total: int
    code: int
    weights: int
    limit: int

    @property
    def rest(self) -> int:
        return self.total - self.code - self.weights


@dataclass(frozen=True)
class Ram:
    """Bytes of RAM: all static data, the model's arena in it, the stack beside it, the limit."""

    total: int
    arena: int
    stack: int
    limit: int

    @property
    def rest(self) -> int:
        return self.total - self.arena


@dataclass(frozen=True)
class Sizes:
    """What an image takes of its board."""

    flash: Flash
    ram: Ram

    @property
    def fits(self) -> bool:
        return (
            self.flash.total <= self.flash.limit
            and self.ram.total + self.ram.stack <= self.ram.limit
        )


@dataclass(frozen=True)
class _Symbol:
    name: str
    file: str  # "" for a global symbol
    kind: str
    address: int
    size: int
    writable: bool


def of(elf: Path, name: str, board: Board) -> Sizes:
    """Sizes of the image ``elf`` with the model called ``name``, against what ``board`` has.

    Raises :class:`TinyGenError` for a file that is not an ELF image.
    """
    try:
        with elf.open("rb") as file:
            image = ELFFile(file)
            return _sizes(image, name, board)
    except (OSError, ELFError) as error:
        raise TinyGenError(f"{elf}: cannot be read as an ELF file: {error}") from error


def _sizes(image: ELFFile, name: str, board: Board) -> Sizes:
    flash = ram = stack = 0
    for section in image.iter_sections():
        flags, size = section["sh_flags"], section["sh_size"]
        if not flags & SH_FLAGS.SHF_ALLOC or "dummy" in section.name:
            continue
        if section["sh_type"] != "SHT_NOBITS":
            flash += size
        if flags & SH_FLAGS.SHF_WRITE:
            if "stack" in section.name:
                stack += size
            else:
                ram += size
    mine = {
        symbol.address: symbol
        for symbol in _symbols(image)
        if _belongs(symbol, name) and symbol.size > 0
    }.values()
    arenas = [symbol.size for symbol in mine if symbol.writable and "arena" in symbol.name]
    return Sizes(
        Flash(
            total=flash,
            code=sum(symbol.size for symbol in mine if symbol.kind == "STT_FUNC"),
            weights=sum(
                symbol.size
                for symbol in mine
                if symbol.kind == "STT_OBJECT" and not symbol.writable
            ),
            limit=board.flash_limit,
        ),
        Ram(total=ram, arena=sum(arenas), stack=stack or _reserved(image), limit=board.ram),
    )


def _symbols(image: ELFFile) -> Iterator[_Symbol]:
    """Functions and objects; local ones stand after the symbol of the file they come from."""
    table: Any = image.get_section_by_name(".symtab")
    file = ""
    for symbol in table.iter_symbols() if table else ():
        info, index = symbol["st_info"], symbol["st_shndx"]
        if info["type"] == "STT_FILE":
            file = symbol.name
        elif info["type"] in ("STT_FUNC", "STT_OBJECT") and isinstance(index, int):
            flags = image.get_section(index)["sh_flags"]
            yield _Symbol(
                name=symbol.name,
                file=file if info["bind"] == "STB_LOCAL" else "",
                kind=info["type"],
                address=symbol["st_value"],
                size=symbol["st_size"],
                writable=bool(flags & SH_FLAGS.SHF_WRITE),
            )


def _belongs(symbol: _Symbol, name: str) -> bool:
    """The symbol is the model's, or of the interpreter that runs it."""
    own = (symbol.name.removeprefix("g_") if not symbol.file else Path(symbol.file).stem) + "_"
    return own.startswith(f"{name}_") or any(word in symbol.name for word in _INTERPRETER)


def _reserved(image: ELFFile) -> int:
    """The stack that our linker scripts keep free: a symbol given on the linker's command line."""
    table: Any = image.get_section_by_name(".symtab")
    found = table.get_symbol_by_name("TINYGEN_STACK_SIZE") if table else None
    return int(found[0]["st_value"]) if found else 0
