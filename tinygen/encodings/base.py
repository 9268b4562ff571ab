"""What an encoding is: a layout of lines of int8 values in flash, and a C function to read it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tinygen.encodings import costs
from tinygen.graph import Array

GROUP = 8
"""Decoders may write up to the next multiple of so many values."""


@dataclass(frozen=True)
class Work:
    """What a decoder's time depends on, over all lines.

    ``groups`` are eights of values begun, ``stored`` the values, blocks or codes that lie in flash,
    ``steps`` the bytes of bitmaps with a bit set, or lengths compared of codes that are too long to
    be looked up.
    """

    lines: int
    groups: int
    stored: int = 0
    steps: int = 0


@dataclass(frozen=True, eq=False)
class Encoded:
    """Lines of int8 values as they lie in flash.

    ``name`` is for reports, such as "int4", "codebook3", "bitmap+codebook4" or "huffman".  ``data``
    (uint8) holds the lines one after another, each starting at a byte, and behind them as many
    bytes as the decoder reads too many.  ``table`` is the one-dimensional array (int8 or uint16)
    that the decoder is given, None when it needs none.  ``decoder`` is the C function; it and what
    it calls are ``helpers`` under ``templates/kernels/helpers``.
    """

    name: str
    data: Array
    table: Array | None
    decoder: str
    helpers: tuple[str, ...]
    work: Work

    @property
    def bytes(self) -> int:
        """Bytes of flash: data and table."""
        return self.data.nbytes + (0 if self.table is None else self.table.nbytes)

    def cycles(self, isa: str) -> int:
        """Expected cycles to decode every line once; see :mod:`tinygen.encodings.costs`."""
        work = self.work
        parts = (work.lines, work.groups, work.stored, work.steps)
        return round(sum(a * b for a, b in zip(costs.of(self.decoder, isa), parts, strict=True)))


@dataclass(frozen=True, eq=False)
class Layout:
    """What an encoder makes of lines: the fields of :class:`Encoded` that depend on them."""

    data: Array
    table: Array | None
    work: Work


@dataclass(frozen=True)
class Encoding:
    """A way to lay out lines.

    ``encode`` gives None when it cannot hold the values.  ``line`` is the twin of the C function:
    it reads ``count`` values that begin at a byte of the data and says where the next line begins.
    """

    name: str
    decoder: str
    helpers: tuple[str, ...]
    encode: Callable[[Sequence[Array]], Layout | None]
    line: Callable[[Array, int, int, Array | None], tuple[Array, int]]
    structured: bool = True


def groups(count: int) -> int:
    """Eights of values that ``count`` values begin."""
    return -(-count // GROUP)


def work(lines: Sequence[Array], stored: int = 0, steps: int = 0) -> Work:
    """The work of decoding ``lines``."""
    return Work(len(lines), sum(groups(line.size) for line in lines), stored, steps)


def joined(chunks: Sequence[Array], reads: Iterable[int]) -> Array:
    """Lines one after another; ``reads`` is how many bytes a decoder looks at from each start.

    Zeros follow where that is more than there are.
    """
    at = needed = 0
    for chunk, read in zip(chunks, reads, strict=True):
        needed = max(needed, at + read)
        at += chunk.size
    return np.concatenate([*chunks, np.zeros(max(0, needed - at), np.uint8)]).astype(np.uint8)


def same_length(lines: Sequence[Array]) -> dict[int, list[int]]:
    """Positions of lines by their length, so that equally long ones are worked on together."""
    found: dict[int, list[int]] = {}
    for i, line in enumerate(lines):
        found.setdefault(line.size, []).append(i)
    return found
