"""Every value in the same few bits: four-bit numbers, and indices into a codebook.

Values are taken by eights, which lie in as many bytes as a value has bits; a line ends with the
byte that its last value needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from tinygen.encodings.base import (
    GROUP,
    Encoding,
    Layout,
    groups,
    joined,
    same_length,
    work,
)
from tinygen.graph import Array

MOST_BITS = 5


def fits_int4(lines: Sequence[Array]) -> bool:
    """Whether all values are in -8..7."""
    return all(bool(np.all((line >= -8) & (line <= 7))) for line in lines)


def nibbles(values: Array) -> Array:
    """Values in -8..7 as 0..15."""
    return (values.astype(np.int16) + 8).astype(np.uint8)


def signed(codes: Array) -> Array:
    """The inverse of :func:`nibbles`."""
    return (codes.astype(np.int16) - 8).astype(np.int8)


def distinct(lines: Sequence[Array]) -> Array:
    """The values that occur, in ascending order."""
    return np.unique(np.concatenate([np.unique(line) for line in lines]))


def codebook(lines: Sequence[Array], bits: int) -> Array | None:
    """The values that occur, the last repeated up to ``2**bits``; None when there are more."""
    found = distinct(lines)
    if found.size > 1 << bits:
        return None
    return np.concatenate([found, np.repeat(found[-1:], (1 << bits) - found.size)])


def indices(book: Array, values: Array) -> Array:
    """Where ``values`` stand in a codebook."""
    place = np.zeros(256, np.uint8)
    place[book.astype(np.int16)[::-1] + 128] = np.arange(book.size, dtype=np.uint8)[::-1]
    return place[values.astype(np.int16) + 128]


def pack_bits(codes: Array, bits: int) -> Array:
    """Rows of codes as rows of bytes: the lowest bits of the first byte are the first code."""
    planes = (codes[..., None] >> np.arange(bits, dtype=np.uint8)) & 1
    return np.packbits(
        planes.reshape(*codes.shape[:-1], codes.shape[-1] * bits), axis=-1, bitorder="little"
    )


def unpack_bits(data: Array, bits: int, count: int) -> Array:
    """The first ``count`` codes in ``data``."""
    planes = np.unpackbits(data, count=count * bits, bitorder="little").reshape(count, bits)
    codes: Array = (planes << np.arange(bits, dtype=np.uint8)).sum(axis=1).astype(np.uint8)
    return codes


def _in_groups(rows: Array) -> Array:
    """Rows of equal length with zeros up to a multiple of eight."""
    return np.pad(rows, ((0, 0), (0, -rows.shape[1] % GROUP)))


def int4_bytes(count: int) -> int:
    """Bytes of ``count`` four-bit numbers."""
    return count // GROUP * 4 + min(count % GROUP, 4)


def pack_int4(codes: Array) -> Array:
    """Rows of codes 0..15; byte i of a group holds its codes i (low) and i + 4."""
    count = codes.shape[1]
    grouped = _in_groups(codes).reshape(len(codes), -1, 2, 4)
    packed: Array = grouped[:, :, 0] | (grouped[:, :, 1] << 4)
    return packed.reshape(len(codes), -1)[:, : int4_bytes(count)]


def unpack_int4(data: Array, count: int) -> Array:
    """The inverse of :func:`pack_int4` for one row; ``data`` holds whole groups."""
    words = data[: groups(count) * 4].reshape(-1, 4)
    return np.concatenate([words & 15, words >> 4], axis=1).reshape(-1)[:count]


def packed_bytes(count: int, bits: int) -> int:
    """Bytes of ``count`` indices of ``bits`` bits."""
    return -(-count * bits // 8)


def _encode_int4(lines: Sequence[Array]) -> Layout | None:
    if not fits_int4(lines):
        return None
    chunks: list[Array] = [np.empty(0)] * len(lines)
    for places in same_length(lines).values():
        rows = pack_int4(nibbles(np.stack([lines[i] for i in places])))
        for place, row in zip(places, rows, strict=True):
            chunks[place] = row
    return Layout(joined(chunks, (4 * groups(line.size) for line in lines)), None, work(lines))


def _int4_line(data: Array, at: int, count: int, table: Array | None) -> tuple[Array, int]:
    return signed(unpack_int4(data[at:], count)), at + int4_bytes(count)


def _encode_codebook(lines: Sequence[Array], *, bits: int, pairs: bool) -> Layout | None:
    book = codebook(lines, bits)
    if book is None:
        return None
    chunks: list[Array] = [np.empty(0)] * len(lines)
    for count, places in same_length(lines).items():
        codes = indices(book, np.stack([lines[i] for i in places]))
        rows = pack_bits(_in_groups(codes), bits)[:, : packed_bytes(count, bits)]
        for place, row in zip(places, rows, strict=True):
            chunks[place] = row
    data = joined(chunks, (bits * groups(line.size) for line in lines))
    return Layout(data, pair_table(book) if pairs else book, work(lines))


def pair_table(book: Array) -> Array:
    """Two values for each pair of indices, the first of them in the low byte and low bits."""
    low, high = np.meshgrid(book.view(np.uint8), book.view(np.uint8))
    return (low.astype(np.uint16) | (high.astype(np.uint16) << 8)).reshape(-1)


def _codebook_line(
    data: Array, at: int, count: int, table: Array | None, *, bits: int, pairs: bool
) -> tuple[Array, int]:
    assert table is not None
    book = (table[: 1 << bits] & 0xFF).astype(np.uint8).view(np.int8) if pairs else table
    return book[unpack_bits(data[at:], bits, count)], at + packed_bytes(count, bits)


def _codebook(bits: int, pairs: bool) -> Encoding:
    decoder = f"decode_codebook{bits}{'_pairs' if pairs else ''}"
    words = {
        1: ("bytes_from_word",),
        2: ("bytes_from_half",) if pairs else (),
        3: ("bytes_from_half",) if pairs else (),
        4: ("bytes_from_half", "bytes_to_word") if pairs else ("bytes_to_word",),
        5: ("bytes_to_word",),
    }
    return Encoding(
        f"codebook{bits}",
        decoder,
        (*words[bits], decoder),
        partial(_encode_codebook, bits=bits, pairs=pairs),
        partial(_codebook_line, bits=bits, pairs=pairs),
    )


INT4 = Encoding(
    "int4",
    "decode_int4",
    ("bytes_from_word", "bytes_to_word", "decode_int4"),
    _encode_int4,
    _int4_line,
)

PACKED = (
    INT4,
    *(_codebook(bits, pairs=False) for bits in range(1, MOST_BITS + 1)),
    *(_codebook(bits, pairs=True) for bits in (2, 3, 4)),
)
"""Pairs of indices looked up together take fewer instructions and a larger table."""
