"""Frequent values in fewer bits: canonical Huffman codes, of all values or of gaps and values.

A code's table is of uint16.  Its first word is ``w``, the bits that are looked up, and in the high
byte the length of the shortest code that is longer.  Then come ``2**w`` words, one for each
beginning of a code: its symbol (high byte) and its length; length 0 where the code is longer.  Then
for each of the longer lengths the greatest 16 bits that begin with a code of that length or a
shorter one, and what to add to a code to find its symbol behind them, in bytes from the table's
start.

Where most values are 0, two codes alternate: one of the number of zeros, one of the value behind
them.  Their tables follow a word that says where the second one starts.

Codes are at most 15 bits long.  Lengths are by package-merge: L. Larmore, D. Hirschberg, "A fast
algorithm for optimal length-limited Huffman codes", Journal of the ACM 37 (3), 1990.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np

from tinygen.encodings.base import Encoding, Layout, Lines, padded, readable, within
from tinygen.encodings.gaps import positions
from tinygen.graph import Array

LONGEST = 15
MOST_ZEROS = 255
_READ_AHEAD = 3


@dataclass(frozen=True, eq=False)
class Code:
    """A canonical code of byte symbols: ``lengths`` and ``codes`` (256,), length 0 for those that
    do not occur; ``order`` has the others by code."""

    lengths: Array
    codes: Array
    order: Array


def lengths(frequencies: Sequence[int], longest: int) -> Array:
    """Code lengths of at most ``longest`` bits that make the message the shortest; package-merge.

    ``frequencies`` are positive and at most ``2**longest`` many.
    """
    count = len(frequencies)
    if count == 1:
        return np.ones(1, np.int64)
    order = np.argsort(frequencies, kind="stable")
    weights = [int(frequencies[i]) for i in order]
    levels: list[list[bool]] = []
    packages: list[int] = []
    for _ in range(longest):
        merged = sorted([(w, False) for w in weights] + [(w, True) for w in packages])
        levels.append([package for _, package in merged])
        packages = [merged[i][0] + merged[i + 1][0] for i in range(0, len(merged) - 1, 2)]
    found = np.zeros(count, np.int64)
    wanted = 2 * count - 2
    for level in reversed(levels):
        pairs = sum(level[:wanted])
        found[order[: wanted - pairs]] += 1
        wanted = 2 * pairs
    return found


@lru_cache(maxsize=16)
def canonical(frequencies: tuple[int, ...], longest: int) -> Code:
    """The code for 256 ``frequencies`` whose codes ascend with their lengths."""
    symbols = np.flatnonzero(frequencies)
    sizes, codes = np.zeros(256, np.int64), np.zeros(256, np.int64)
    sizes[symbols] = lengths([frequencies[i] for i in symbols], longest)
    order = symbols[np.argsort(sizes[symbols], kind="stable")]
    code = length = 0
    for i in order:
        code <<= int(sizes[i]) - length
        length = int(sizes[i])
        codes[i] = code
        code += 1
    return Code(sizes, codes, order)


def make_table(code: Code, width: int) -> Array:
    """The decoder's table, which looks up ``width`` bits."""
    lookup = np.zeros(1 << width, np.uint16)
    sizes = code.lengths[code.order]
    for i in code.order[sizes <= width]:
        spare = width - int(code.lengths[i])
        first = int(code.codes[i]) << spare
        lookup[first : first + (1 << spare)] = (i << 8) | code.lengths[i]
    behind = code.order[sizes > width].astype(np.uint8)
    longest = max(width, int(sizes.max()))
    shortest = int(sizes[sizes > width].min(initial=longest + 1))
    levels: list[int] = []
    limit = int(np.sum(1 << (16 - sizes[sizes <= width]))) - 1
    place = 2 * (1 + lookup.size + 2 * (longest + 1 - shortest))
    for length in range(shortest, longest + 1):
        here = code.order[sizes == length]
        limit += here.size << (16 - length)
        first = int(code.codes[here[0]]) if here.size else 0
        levels += [limit, (place - first) & 0xFFFF]
        place += here.size
    symbols = np.pad(behind, (0, behind.size % 2)).view("<u2")
    return np.concatenate([[width | (shortest << 8)], lookup, levels, symbols]).astype(np.uint16)


def cheapest(symbols: Array, width: int) -> tuple[Code, Array]:
    """The code of uint8 ``symbols`` that takes the fewest bytes with its table, and the table."""
    frequencies = np.bincount(symbols, minlength=256)
    least = int(np.count_nonzero(frequencies) - 1).bit_length()
    made = []
    for longest in range(max(least, 9), LONGEST + 1, 2):
        code = canonical(tuple(frequencies.tolist()), longest)
        table = make_table(code, width)
        made.append((int(frequencies @ code.lengths) // 8 + table.nbytes, longest, code, table))
    *_, code, table = min(made, key=lambda each: each[:2])
    return code, table


def _streams(codes: Array, sizes: Array, counts: Array) -> tuple[Array, Array]:
    """Lines of ``counts`` codes each as bytes, one code after another from the highest bit on, and
    how many bytes each takes."""
    behind = np.repeat(sizes, sizes) - 1 - within(sizes)
    bits = ((np.repeat(codes, sizes) >> behind) & 1).astype(np.uint8)
    stream, wider = padded(bits, np.add.reduceat(sizes, np.cumsum(counts) - counts), 8)
    return np.packbits(stream), wider // 8


def _steps(code: Code, symbols: Array, width: int) -> int:
    """How many lengths are compared for the codes that are not looked up; what else these take is
    worth two comparisons."""
    longer = code.lengths[code.lengths > width]
    sizes = code.lengths[symbols]
    return int(np.sum(sizes[sizes > width] - longer.min(initial=LONGEST) + 3))


def _encode(lines: Lines, *, width: int) -> Layout | None:
    symbols = lines.values.view(np.uint8)
    code, table = cheapest(symbols, width)
    data, sizes = _streams(code.codes[symbols], code.lengths[symbols], lines.lengths)
    work = lines.work(symbols.size, _steps(code, symbols, width))
    return Layout(readable(data, sizes, sizes + _READ_AHEAD), table, work)


def _encode_gaps(lines: Lines, *, width: int) -> Layout | None:
    symbols, second, counts = _entries(lines)
    if not second.any():
        return None
    zeros, zeros_table = cheapest(symbols[~second], width)
    values, values_table = cheapest(symbols[second], width)
    lengths = np.where(second, values.lengths[symbols], zeros.lengths[symbols])
    codes = np.where(second, values.codes[symbols], zeros.codes[symbols])
    data, sizes = _streams(codes, lengths, counts)
    table = np.concatenate([[1 + zeros_table.size], zeros_table, values_table]).astype(np.uint16)
    steps = _steps(zeros, symbols[~second], width) + _steps(values, symbols[second], width)
    data = readable(data, sizes, sizes + _READ_AHEAD)
    return Layout(data, table, lines.work(symbols.size, steps))


def _entries(lines: Lines) -> tuple[Array, Array, Array]:
    """How many zeros, a value, how many zeros and so on; zeros may end a line without a value.

    With them which are values, and how many entries each line has.
    """
    places, counts = positions(lines, MOST_ZEROS + 1)
    zeros, values = np.diff(places, prepend=-1) - 1, lines.values[places].view(np.uint8)
    ends = np.cumsum(counts) - 1
    open_ended = np.zeros(places.size, bool)
    open_ended[ends] = (values[ends] == 0) & (zeros[ends] < MOST_ZEROS)
    entries = np.stack([zeros + open_ended, values], axis=1).astype(np.uint8).reshape(-1)
    second = np.arange(entries.size) % 2 == 1
    kept = ~(second & np.repeat(open_ended, 2))
    return entries[kept], second[kept], 2 * counts - open_ended[ends]


class _Reader:
    """Bits of a stream and tables to read codes with."""

    def __init__(self, data: Array) -> None:
        self._data, self.bit = data.tobytes(), 0

    def next(self, table: Sequence[int]) -> int:
        """The next symbol."""
        width, length, at = table[0] & 0xFF, table[0] >> 8, self.bit
        word = int.from_bytes(self._data[at // 8 : at // 8 + 3].ljust(3, b"\0"), "big")
        begin = (word >> (8 - at % 8)) & 0xFFFF
        entry = table[1 + (begin >> (16 - width))]
        if entry & 0xFF:
            self.bit += entry & 0xFF
            return entry >> 8
        level = 1 + (1 << width)
        while begin > table[level]:
            level, length = level + 2, length + 1
        self.bit += length
        place = ((begin >> (16 - length)) + table[level + 1]) & 0xFFFF
        return table[place // 2] >> place % 2 * 8 & 0xFF

    @property
    def bytes(self) -> int:
        """Bytes that the codes read so far have begun."""
        return -(-self.bit // 8)


def _line(data: Array, at: int, count: int, table: Array | None) -> tuple[Array, int]:
    assert table is not None
    reader, words = _Reader(data[at : at + 2 * count + 2]), table.tolist()
    line = np.array([reader.next(words) for _ in range(count)], np.uint8).view(np.int8)
    return line, at + reader.bytes


def _gaps_line(data: Array, at: int, count: int, table: Array | None) -> tuple[Array, int]:
    assert table is not None
    reader, words = _Reader(data[at : at + 4 * count + 4]), table.tolist()
    zeros, values = words[1 : words[0]], words[words[0] :]
    line, place = np.zeros(count, np.uint8), 0
    while place < count:
        place += reader.next(zeros)
        if place < count:
            line[place] = reader.next(values)
            place += 1
    return line.view(np.int8), at + reader.bytes


def _huffman(width: int) -> Encoding:
    return Encoding(
        "huffman",
        "decode_huffman",
        ("code_stream", "decode_huffman"),
        partial(_encode, width=width),
        _line,
        structured=False,
    )


def _gaps(width: int) -> Encoding:
    return Encoding(
        "huffman+gaps",
        "decode_huffman_gaps",
        ("bytes_from_word", "clear_line", "code_stream", "decode_huffman_gaps"),
        partial(_encode_gaps, width=width),
        _gaps_line,
        structured=False,
    )


ENTROPY = tuple(make(width) for make in (_huffman, _gaps) for width in (4, 6, 8))
"""Looking up more bits at once takes a larger table and fewer instructions."""
