"""What an encoding is: a layout of lines of int8 values in flash, and a C function to read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

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
class Lines:
    """int8 lines of ``lengths`` one after another in ``values``, none of them empty."""

    values: Array
    lengths: Array

    @cached_property
    def frequencies(self) -> Array:
        """How often each value occurs, from -128 on."""
        return np.bincount(self.values.astype(np.int16) + 128, minlength=256)

    @cached_property
    def distinct(self) -> Array:
        """The values that occur, ascending."""
        return (np.flatnonzero(self.frequencies) - 128).astype(np.int8)

    @cached_property
    def nonzero(self) -> Array:
        """Whether each value is not 0."""
        flags: Array = self.values != 0
        return flags

    @cached_property
    def groups(self) -> Array:
        """How many eights of values each line begins."""
        return ceil_divide(self.lengths, GROUP)

    def work(self, stored: int = 0, steps: int = 0) -> Work:
        """The work of decoding them."""
        return Work(self.lengths.size, int(self.groups.sum()), stored, steps)


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
    encode: Callable[[Lines], Layout | None]
    line: Callable[[Array, int, int, Array | None], tuple[Array, int]]
    structured: bool = True


def ceil_divide(values: Array, by: int) -> Array:
    """Quotients rounded up."""
    found: Array = -(-values // by)
    return found


def within(counts: Array) -> Array:
    """0, 1, 2, ... for each of ``counts``."""
    places: Array = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return places


def summed(flags: Array, counts: Array) -> Array:
    """How many of so many ``flags`` each are set."""
    found: Array = np.add.reduceat(flags, np.cumsum(counts) - counts, dtype=np.int64)
    return found


def padded(values: Array, counts: Array, multiple: int) -> tuple[Array, Array]:
    """Rows of ``counts`` values with zeros up to a multiple, and how many they are then."""
    wider = ceil_divide(counts, multiple) * multiple
    found = np.zeros(wider.sum(), values.dtype)
    found[np.repeat(np.cumsum(wider) - wider, counts) + within(counts)] = values
    return found, wider


def interleaved(first: Array, sizes: Array, second: Array, others: Array) -> Array:
    """For each line its ``sizes`` bytes of ``first``, and then its ``others`` of ``second``."""
    ends = np.cumsum(sizes + others)
    found = np.empty(first.size + second.size, np.uint8)
    found[np.repeat(ends - sizes - others, sizes) + within(sizes)] = first
    found[np.repeat(ends - others, others) + within(others)] = second
    return found


def readable(data: Array, sizes: Array, reads: Array) -> Array:
    """Lines of ``sizes`` bytes, and zeros behind them where decoders read beyond the end.

    ``reads`` is how many bytes they look at from the start of each line.
    """
    needed = int((np.cumsum(sizes) - sizes + reads).max())
    return np.pad(data, (0, max(0, needed - data.size))).astype(np.uint8)
