"""Zeros left out: by a bitmap of values or of blocks, or by the gaps between stored values.

What is stored are bytes, four-bit numbers or indices into a codebook.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from tinygen.encodings import packed
from tinygen.encodings.base import (
    Encoding,
    Layout,
    Lines,
    ceil_divide,
    interleaved,
    padded,
    readable,
    summed,
    within,
)
from tinygen.encodings.gaps import positions
from tinygen.graph import Array


@dataclass(frozen=True)
class Unit:
    """How many codes are stored together in how many bytes."""

    codes: int
    bytes: int

    def size(self, count: Array) -> Array:
        """Bytes of ``count`` codes."""
        return ceil_divide(count, self.codes) * self.bytes


@dataclass(frozen=True)
class Kind:
    """What is stored of a value: "" a byte, "int4" or "codebook4" (with its ``bits``)."""

    name: str
    bits: int

    @property
    def suffix(self) -> str:
        """The end of the names of encodings."""
        return f"+{self.name}" if self.name else ""

    @property
    def unit(self) -> Unit:
        """Codes that a decoder fetches at once: those of whole bytes, three of five bits in two."""
        return {3: Unit(8, 3), 5: Unit(3, 2)}.get(self.bits, Unit(8 // self.bits, 1))

    def table(self, distinct: Array) -> tuple[bool, Array | None]:
        """Whether values that are among ``distinct`` can be stored so, and the decoder's table."""
        if self.name == "int4":
            return packed.fits_int4(distinct), None
        if self.bits == 8:
            return True, None
        book = packed.codebook(distinct, self.bits) if distinct.size else None
        return book is not None, book

    def codes(self, values: Array, table: Array | None) -> Array:
        """Values as numbers of ``bits`` bits."""
        if self.name == "int4":
            return packed.nibbles(values)
        return values.view(np.uint8) if table is None else packed.indices(table, values)

    def values(self, codes: Array, table: Array | None) -> Array:
        """The inverse of :meth:`codes`."""
        if self.name == "int4":
            return packed.signed(codes)
        return codes.view(np.int8) if table is None else table[codes]

    def pack(self, codes: Array, counts: Array) -> tuple[Array, Array]:
        """Rows of ``counts`` codes as bytes, in whole units, and how many bytes each takes."""
        rows, _ = padded(codes, counts, self.unit.codes)
        data = packed.pack_bits(rows.reshape(-1, self.unit.codes), self.bits)
        return data.reshape(-1), self.unit.size(counts)

    def unpack(self, data: Array, count: int) -> Array:
        """The first ``count`` codes in ``data``."""
        unit = self.unit
        rows = data[: -(-count // unit.codes) * unit.bytes].reshape(-1, unit.bytes)
        bits = np.unpackbits(rows, axis=1, bitorder="little")[:, : unit.codes * self.bits]
        planes = bits.reshape(-1, self.bits) << np.arange(self.bits, dtype=np.uint8)
        codes: Array = planes.sum(axis=1).astype(np.uint8)[:count]
        return codes


BYTES, INT4, CODEBOOK4 = Kind("", 8), Kind("int4", 4), Kind("codebook4", 4)
CODEBOOKS = tuple(Kind(f"codebook{bits}", bits) for bits in range(1, packed.MOST_BITS + 1))


def bitmap(flags: Array, counts: Array) -> tuple[Array, Array]:
    """Rows of ``counts`` flags as bytes, the first one lowest, and how many bytes each takes."""
    bits, wider = padded(flags, counts, 8)
    return np.packbits(bits, bitorder="little"), wider // 8


def _mask(data: Array, count: int) -> Array:
    return np.unpackbits(data[: -(-count // 8)], count=count, bitorder="little").astype(bool)


def _read(sizes: Array, flags: Array) -> Array:
    """Bytes that decoders look at of lines of ``sizes`` bytes: bitmaps are read by words."""
    found: Array = np.maximum(sizes, 4 * ceil_divide(flags, 32))
    return found


def _encode_bitmap(lines: Lines, *, kind: Kind) -> Layout | None:
    distinct = lines.distinct[lines.distinct != 0]
    possible, table = kind.table(distinct)
    if not possible or (table is not None and packed.bits_for(distinct) < kind.bits):
        return None
    values = lines.values[lines.nonzero]
    bits, marks = bitmap(lines.nonzero, lines.lengths)
    stored, sizes = kind.pack(kind.codes(values, table), summed(lines.nonzero, lines.lengths))
    data = interleaved(bits, marks, stored, sizes)
    reads = _read(marks + sizes, lines.lengths)
    work = lines.work(values.size, int(np.count_nonzero(bits)))
    return Layout(readable(data, marks + sizes, reads), table, work)


def _bitmap_line(
    data: Array, at: int, count: int, table: Array | None, *, kind: Kind
) -> tuple[Array, int]:
    mask = _mask(data[at:], count)
    stored, at = int(mask.sum()), at + -(-count // 8)
    line = np.zeros(count, np.int8)
    line[mask] = kind.values(kind.unpack(data[at:], stored), table)
    return line, at + int(kind.unit.size(np.array(stored)))


@dataclass(frozen=True)
class Gaps:
    """Stored values with the zeros before each of them, ``bits`` wide.

    More zeros than a gap can say are broken by a zero that is stored, and so are the last ones.
    """

    bits: int
    kind: Kind

    @property
    def together(self) -> int:
        """Entries that share bytes."""
        return 2 if (self.bits == 4) != (self.kind.bits == 4) else 1

    def pack(self, gaps: Array, codes: Array, counts: Array) -> Array:
        """Lines of ``counts`` entries as bytes."""
        if self.bits == 4 and self.kind.bits == 4:
            both: Array = codes | (gaps << 4)
            return both
        if self.together == 1:
            return np.stack([gaps, codes], axis=1).reshape(-1)
        halves, whole = (gaps, codes) if self.bits == 4 else (codes, gaps)
        sizes, entry = self.size(counts), within(counts)
        place = np.repeat(np.cumsum(sizes) - sizes, counts) + entry // 2 * 3
        data = np.zeros(sizes.sum(), np.uint8)
        data[place[entry % 2 == 0]] = halves[entry % 2 == 0]
        data[place[entry % 2 == 1]] |= halves[entry % 2 == 1] << 4
        data[place + 1 + entry % 2] = whole
        return data

    def unpack(self, data: Array) -> tuple[Array, Array]:
        """Gaps and codes of all entries that ``data`` holds."""
        if self.bits == 4 and self.kind.bits == 4:
            return data >> 4, data & 15
        if self.together == 1:
            rows = data[: data.size // 2 * 2].reshape(-1, 2)
            return rows[:, 0], rows[:, 1]
        rows = np.pad(data, (0, -data.size % 3)).reshape(-1, 3)
        halves = np.stack([rows[:, 0] & 15, rows[:, 0] >> 4], axis=1).reshape(-1)
        whole = rows[:, 1:].reshape(-1)
        return (halves, whole) if self.bits == 4 else (whole, halves)

    def size(self, entries: Array) -> Array:
        """Bytes of ``entries``."""
        if self.together == 2:
            pairs: Array = entries // 2 * 3 + entries % 2 * 2
            return pairs
        size: Array = entries * ((self.bits + self.kind.bits) // 8)
        return size


def _encode_relative(lines: Lines, *, gaps: Gaps) -> Layout | None:
    places, counts = positions(lines, 1 << gaps.bits)
    values = lines.values[places]
    possible, table = gaps.kind.table(np.unique(values))
    if not possible:
        return None
    before = (np.diff(places, prepend=-1) - 1).astype(np.uint8)
    data = gaps.pack(before, gaps.kind.codes(values, table), counts)
    return Layout(data, table, lines.work(places.size))


def _relative_line(
    data: Array, at: int, count: int, table: Array | None, *, gaps: Gaps
) -> tuple[Array, int]:
    steps, codes = gaps.unpack(data[at : at + 2 * count + 2])
    places = np.cumsum(steps.astype(np.int64) + 1) - 1
    entries = int(np.searchsorted(places, count - 1)) + 1
    line = np.zeros(count, np.int8)
    line[places[:entries]] = gaps.kind.values(codes[:entries], table)
    return line, at + int(gaps.size(np.array(entries)))


@dataclass(frozen=True)
class Blocks:
    """Blocks of ``values`` neighbours, of which those with a value other than 0 are stored."""

    values: int
    kind: Kind

    @property
    def bytes(self) -> int:
        """Bytes of a block."""
        return self.values * self.kind.bits // 8

    def pack(self, codes: Array) -> Array:
        """Rows of codes as bytes."""
        if self.kind.name == "int4":
            return packed.pack_int4(codes, self.values).reshape(-1)
        return packed.pack_bits(codes, self.kind.bits).reshape(-1)

    def unpack(self, data: Array) -> Array:
        """The inverse of :meth:`pack`."""
        if self.kind.bits == 8:
            return data.reshape(-1, self.values)
        if self.kind.name == "int4":
            return packed.unpack_int4(data, self.values)
        return np.stack([data & 15, data >> 4], axis=1).reshape(-1, self.values)


def _encode_blocks(lines: Lines, *, blocks: Blocks) -> Layout | None:
    values, counts = padded(lines.values, lines.lengths, blocks.values)
    rows = values.reshape(-1, blocks.values)
    kept: Array = np.any(rows != 0, axis=1)
    possible, table = blocks.kind.table(np.unique(rows[kept]))
    if not possible:
        return None
    bits, marks = bitmap(kept, counts // blocks.values)
    sizes = summed(kept, counts // blocks.values) * blocks.bytes
    stored = blocks.pack(blocks.kind.codes(rows[kept], table))
    data = interleaved(bits, marks, stored, sizes)
    reads = _read(marks + sizes, counts // blocks.values)
    return Layout(readable(data, marks + sizes, reads), table, lines.work(int(kept.sum())))


def _blocks_line(
    data: Array, at: int, count: int, table: Array | None, *, blocks: Blocks
) -> tuple[Array, int]:
    total = -(-count // blocks.values)
    mask = _mask(data[at:], total)
    at += -(-total // 8)
    size = int(mask.sum()) * blocks.bytes
    line = np.zeros((total, blocks.values), np.int8)
    codes = np.ascontiguousarray(blocks.unpack(data[at : at + size]))
    line[mask] = blocks.kind.values(codes, table)
    return line.reshape(-1)[:count], at + size


def _identifier(name: str) -> str:
    return "decode_" + name.replace("+", "_")


def _encoding(
    name: str,
    helpers: tuple[str, ...],
    encode: Callable[[Lines], Layout | None],
    line: Callable[[Array, int, int, Array | None], tuple[Array, int]],
) -> Encoding:
    decoder = _identifier(name)
    return Encoding(name, decoder, (*helpers, decoder), encode, line)


def _bitmap_encoding(kind: Kind) -> Encoding:
    return _encoding(
        f"bitmap{kind.suffix}",
        ("bit_tricks", "bytes_from_word", "bytes_to_word", "clear_line"),
        partial(_encode_bitmap, kind=kind),
        partial(_bitmap_line, kind=kind),
    )


def _relative_encoding(gaps: Gaps) -> Encoding:
    return _encoding(
        f"relative{gaps.bits}{gaps.kind.suffix}",
        ("bytes_from_word", "clear_line"),
        partial(_encode_relative, gaps=gaps),
        partial(_relative_line, gaps=gaps),
    )


def _blocks_encoding(blocks: Blocks) -> Encoding:
    return _encoding(
        f"blocks{blocks.values}{blocks.kind.suffix}",
        ("bit_tricks", "bytes_from_word", "bytes_to_word", "clear_line"),
        partial(_encode_blocks, blocks=blocks),
        partial(_blocks_line, blocks=blocks),
    )


SPARSE = (
    *(_bitmap_encoding(kind) for kind in (BYTES, INT4, *CODEBOOKS)),
    *(_relative_encoding(Gaps(bits, kind)) for bits in (4, 8) for kind in (BYTES, INT4, CODEBOOK4)),
    *(_blocks_encoding(Blocks(n, kind)) for n in (4, 8) for kind in (BYTES, INT4, CODEBOOK4)),
)
