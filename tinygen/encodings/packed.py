"""Every value in the same few bits: four-bit numbers, and indices into a codebook.

Values are taken by eights, which lie in as many bytes as a value has bits; a line ends with the
byte that its last value needs.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from tinygen.encodings.base import (
    GROUP,
    Encoding,
    Layout,
    Lines,
    ceil_divide,
    padded,
    readable,
    within,
)
from tinygen.graph import Array

MOST_BITS = 5


def fits_int4(distinct: Array) -> bool:
    """Whether all values are in -8..7."""
    return bool(np.all((distinct >= -8) & (distinct <= 7)))


def nibbles(values: Array) -> Array:
    """Values in -8..7 as 0..15."""
    return (values.astype(np.int16) + 8).astype(np.uint8)


def signed(codes: Array) -> Array:
    """The inverse of :func:`nibbles`."""
    return (codes.astype(np.int16) - 8).astype(np.int8)


def bits_for(distinct: Array) -> int:
    """Bits of an index into so many values."""
    return max(1, int(distinct.size - 1).bit_length())


def codebook(distinct: Array, bits: int) -> Array | None:
    """Up to ``2**bits`` values, the last one repeated to as many; None when there are more."""
    if bits_for(distinct) > bits:
        return None
    return np.concatenate([distinct, np.repeat(distinct[-1:], (1 << bits) - distinct.size)])


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


def int4_bytes(count: Array) -> Array:
    """Bytes of ``count`` four-bit numbers."""
    size: Array = count // GROUP * 4 + np.minimum(count % GROUP, 4)
    return size


def pack_int4(codes: Array, values: int) -> Array:
    """Rows of ``values`` codes 0..15 as rows of bytes, whose low halves hold the row's first."""
    rows = codes.reshape(-1, 2, values // 2)
    found: Array = rows[:, 0] | (rows[:, 1] << 4)
    return found


def unpack_int4(data: Array, values: int) -> Array:
    """The inverse of :func:`pack_int4`."""
    rows = data.reshape(-1, values // 2)
    return np.concatenate([rows & 15, rows >> 4], axis=1)


def _cut(rows: Array, counts: Array, sizes: Array) -> Array:
    """Of each line's ``counts`` bytes the first ``sizes``."""
    return rows.reshape(-1)[within(counts) < np.repeat(sizes, counts)]


def _encode_int4(lines: Lines) -> Layout | None:
    if not fits_int4(lines.distinct):
        return None
    codes, _ = padded(nibbles(lines.values), lines.lengths, GROUP)
    sizes = int4_bytes(lines.lengths)
    data = _cut(pack_int4(codes, GROUP), 4 * lines.groups, sizes)
    return Layout(readable(data, sizes, 4 * lines.groups), None, lines.work())


def _int4_line(data: Array, at: int, count: int, table: Array | None) -> tuple[Array, int]:
    codes = unpack_int4(data[at : at + 4 * -(-count // GROUP)], GROUP)
    return signed(codes.reshape(-1)[:count]), at + int(int4_bytes(np.array(count)))


def _encode_codebook(lines: Lines, *, bits: int, pairs: bool) -> Layout | None:
    book = codebook(lines.distinct, bits)
    if book is None or bits_for(lines.distinct) < bits:
        return None
    codes, _ = padded(indices(book, lines.values), lines.lengths, GROUP)
    sizes = ceil_divide(lines.lengths * bits, 8)
    data = _cut(pack_bits(codes.reshape(-1, GROUP), bits), bits * lines.groups, sizes)
    data = readable(data, sizes, bits * lines.groups)
    return Layout(data, pair_table(book) if pairs else book, lines.work())


def pair_table(book: Array) -> Array:
    """Two values for each pair of indices, the first of them in the low byte and low bits."""
    low, high = np.meshgrid(book.view(np.uint8), book.view(np.uint8))
    return (low.astype(np.uint16) | (high.astype(np.uint16) << 8)).reshape(-1)


def _codebook_line(
    data: Array, at: int, count: int, table: Array | None, *, bits: int, pairs: bool
) -> tuple[Array, int]:
    assert table is not None
    book = (table[: 1 << bits] & 0xFF).astype(np.uint8).view(np.int8) if pairs else table
    return book[unpack_bits(data[at:], bits, count)], at + -(-count * bits // 8)


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
