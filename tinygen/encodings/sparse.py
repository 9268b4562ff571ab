"""Zeros left out: by a bitmap of values or of blocks, or by the gaps between stored values.

What is stored are bytes, four-bit numbers or indices into a codebook.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from tinygen.encodings import packed
from tinygen.encodings.base import Encoding, Layout, joined, work
from tinygen.encodings.gaps import positions
from tinygen.graph import Array


@dataclass(frozen=True)
class Unit:
    """How many codes are stored together in how many bytes."""

    codes: int
    bytes: int

    def size(self, count: int) -> int:
        """Bytes of ``count`` codes."""
        return -(-count // self.codes) * self.bytes


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

    def table(self, lines: Sequence[Array]) -> tuple[bool, Array | None]:
        """Whether values of ``lines`` can be stored so, and the decoder's table."""
        if self.name == "int4":
            return packed.fits_int4(lines), None
        if self.bits == 8:
            return True, None
        book = packed.codebook(lines, self.bits)
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

    def pack(self, codes: Array) -> Array:
        """Codes as bytes, in whole units, the first in the lowest bits."""
        unit = self.unit
        rows = np.pad(codes, (0, -codes.size % unit.codes)).reshape(-1, unit.codes)
        return packed.pack_bits(rows, self.bits).reshape(-1)

    def unpack(self, data: Array, count: int) -> Array:
        """The first ``count`` codes in ``data``."""
        unit = self.unit
        rows = data[: unit.size(count)].reshape(-1, unit.bytes)
        bits = np.unpackbits(rows, axis=1, bitorder="little")[:, : unit.codes * self.bits]
        planes = bits.reshape(-1, self.bits) << np.arange(self.bits, dtype=np.uint8)
        codes: Array = planes.sum(axis=1).astype(np.uint8)[:count]
        return codes


BYTES, INT4, CODEBOOK4 = Kind("", 8), Kind("int4", 4), Kind("codebook4", 4)
CODEBOOKS = tuple(Kind(f"codebook{bits}", bits) for bits in range(1, packed.MOST_BITS + 1))


def nonzero(lines: Sequence[Array]) -> list[Array]:
    """The values of each line that are not 0."""
    return [line[line != 0] for line in lines]


def bitmap_bytes(bits: int) -> int:
    """Bytes of a bitmap."""
    return -(-bits // 8)


def marked_bytes(bitmaps: Sequence[Array]) -> int:
    """Bytes with a bit set."""
    return sum(int(np.count_nonzero(bitmap)) for bitmap in bitmaps)


def _bitmap(mask: Array) -> Array:
    return np.packbits(mask, bitorder="little")


def _mask(data: Array, count: int) -> Array:
    return np.unpackbits(data[: bitmap_bytes(count)], count=count, bitorder="little").astype(bool)


def _encode_bitmap(lines: Sequence[Array], *, kind: Kind) -> Layout | None:
    values = nonzero(lines)
    stored = sum(found.size for found in values)
    possible, table = kind.table(values) if stored else (kind.bits == 8, None)
    if not possible:
        return None
    bitmaps = [_bitmap(line != 0) for line in lines]
    chunks = [
        np.concatenate([bitmap, kind.pack(kind.codes(found, table))])
        for bitmap, found in zip(bitmaps, values, strict=True)
    ]
    # Bitmaps are read by words.
    reads = (
        max(chunk.size, 4 * -(-line.size // 32)) for chunk, line in zip(chunks, lines, strict=True)
    )
    return Layout(joined(chunks, reads), table, work(lines, stored, marked_bytes(bitmaps)))


def _bitmap_line(
    data: Array, at: int, count: int, table: Array | None, *, kind: Kind
) -> tuple[Array, int]:
    mask = _mask(data[at:], count)
    stored, at = int(mask.sum()), at + bitmap_bytes(count)
    line = np.zeros(count, np.int8)
    line[mask] = kind.values(kind.unpack(data[at:], stored), table)
    return line, at + kind.unit.size(stored)


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

    @property
    def bytes(self) -> int:
        """Bytes of the entries that share them."""
        return self.together * (self.bits + self.kind.bits) // 8

    def pack(self, gaps: Array, codes: Array) -> Array:
        """Entries as bytes."""
        if self.bits == 4 and self.kind.bits == 4:
            return np.bitwise_or(codes, gaps << 4)
        if self.together == 1:
            return np.stack([gaps, codes], axis=1).reshape(-1)
        odd = gaps.size % 2
        gaps, codes = np.pad(gaps, (0, odd)).reshape(-1, 2), np.pad(codes, (0, odd)).reshape(-1, 2)
        if self.bits == 4:
            both = gaps[:, 0] | (gaps[:, 1] << 4)
            packed = np.stack([both, codes[:, 0], codes[:, 1]], axis=1)
        else:
            both = codes[:, 0] | (codes[:, 1] << 4)
            packed = np.stack([both, gaps[:, 0], gaps[:, 1]], axis=1)
        return packed.reshape(-1)[: packed.size - odd]

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

    def size(self, entries: int) -> int:
        """Bytes of ``entries``."""
        return entries // self.together * self.bytes + entries % self.together * 2


def _encode_relative(lines: Sequence[Array], *, gaps: Gaps) -> Layout | None:
    places = [positions(line, 1 << gaps.bits) for line in lines]
    values = [line[at] for line, at in zip(lines, places, strict=True)]
    possible, table = gaps.kind.table(values)
    if not possible:
        return None
    chunks = [
        gaps.pack((np.diff(at, prepend=-1) - 1).astype(np.uint8), gaps.kind.codes(found, table))
        for at, found in zip(places, values, strict=True)
    ]
    stored = sum(at.size for at in places)
    return Layout(joined(chunks, (chunk.size for chunk in chunks)), table, work(lines, stored))


def _relative_line(
    data: Array, at: int, count: int, table: Array | None, *, gaps: Gaps
) -> tuple[Array, int]:
    steps, codes = gaps.unpack(data[at : at + gaps.size(count + count % 2)])
    places = np.cumsum(steps.astype(np.int64) + 1) - 1
    entries = int(np.searchsorted(places, count - 1)) + 1
    line = np.zeros(count, np.int8)
    line[places[:entries]] = gaps.kind.values(codes[:entries], table)
    return line, at + gaps.size(entries)


@dataclass(frozen=True)
class Blocks:
    """Blocks of ``values`` neighbours, of which those with a value other than 0 are stored."""

    values: int
    kind: Kind

    @property
    def bytes(self) -> int:
        """Bytes of a block."""
        return self.values * self.kind.bits // 8

    def split(self, line: Array) -> Array:
        """A line as rows of blocks, zeros at the end."""
        return np.pad(line, (0, -line.size % self.values)).reshape(-1, self.values)

    def pack(self, codes: Array) -> Array:
        """Rows of codes as bytes."""
        if self.kind.bits == 8:
            return codes.reshape(-1)
        if self.kind.name == "int4":
            half = self.values // 2
            # Codes of the high halves of bytes are those that a decoder stores in its second word
            # or, of blocks of four, in the word's upper half.
            return np.bitwise_or(codes[:, :half], codes[:, half:] << 4).reshape(-1)
        return packed.pack_bits(codes, 4).reshape(-1)

    def unpack(self, data: Array) -> Array:
        """The inverse of :meth:`pack`."""
        if self.kind.bits == 8:
            return data.reshape(-1, self.values)
        rows = data.reshape(-1, self.bytes)
        low, high = rows & 15, rows >> 4
        if self.kind.name == "int4":
            return np.concatenate([low, high], axis=1)
        return np.stack([low, high], axis=2).reshape(-1, self.values)


def _encode_blocks(lines: Sequence[Array], *, blocks: Blocks) -> Layout | None:
    split = [blocks.split(line) for line in lines]
    masks: list[Array] = [np.any(rows != 0, axis=1) for rows in split]
    kept = [rows[mask] for rows, mask in zip(split, masks, strict=True)]
    stored = sum(len(rows) for rows in kept)
    possible, table = blocks.kind.table(kept) if stored else (blocks.kind.bits == 8, None)
    if not possible:
        return None
    chunks = [
        np.concatenate([_bitmap(mask), blocks.pack(blocks.kind.codes(rows, table))])
        for mask, rows in zip(masks, kept, strict=True)
    ]
    return Layout(joined(chunks, (chunk.size for chunk in chunks)), table, work(lines, stored))


def _blocks_line(
    data: Array, at: int, count: int, table: Array | None, *, blocks: Blocks
) -> tuple[Array, int]:
    total = -(-count // blocks.values)
    mask = _mask(data[at:], total)
    at += bitmap_bytes(total)
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
    encode: Callable[[Sequence[Array]], Layout | None],
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
        ("bytes_from_word", *(("bytes_to_word",) if blocks.bytes >= 4 else ())),
        partial(_encode_blocks, blocks=blocks),
        partial(_blocks_line, blocks=blocks),
    )


SPARSE = (
    *(_bitmap_encoding(kind) for kind in (BYTES, INT4, *CODEBOOKS)),
    *(_relative_encoding(Gaps(bits, kind)) for bits in (4, 8) for kind in (BYTES, INT4, CODEBOOK4)),
    *(_blocks_encoding(Blocks(n, kind)) for n in (4, 8) for kind in (BYTES, INT4, CODEBOOK4)),
)
