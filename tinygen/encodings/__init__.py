"""How int8 weights lie in flash, and how many cycles it takes to read them.

An encoding holds lines of int8 values: what a kernel decodes at a time.  Each has a C function
(``templates/kernels/helpers/decode_*.c.j2``) with the signature ``decode_line``, and here the numpy
twin of it.  Every encoding gives back exactly the values that went in.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinygen.encodings.base import Encoded, Encoding, Lines, Work
from tinygen.encodings.costs import ISAS
from tinygen.encodings.entropy import ENTROPY
from tinygen.encodings.packed import PACKED
from tinygen.encodings.sparse import SPARSE
from tinygen.errors import InputError
from tinygen.graph import Array

ENCODINGS: tuple[Encoding, ...] = (*PACKED, *SPARSE, *ENTROPY)

_BY_DECODER = {encoding.decoder: encoding for encoding in ENCODINGS}


def encode(encoding: Encoding, lines: Sequence[Array]) -> Encoded | None:
    """``lines`` in one encoding, None when it cannot hold them.

    ``lines`` are one-dimensional int8 arrays, none of them empty; raises :class:`InputError`
    otherwise.
    """
    return _encode(encoding, _lines(lines))


def named(name: str, lines: Sequence[Array]) -> Encoded | None:
    """``lines`` in the encoding called ``name``, the fewest bytes of several of that name."""
    found = [made for e in ENCODINGS if e.name == name and (made := encode(e, lines))]
    return min(found, key=lambda made: made.bytes, default=None)


def candidates(lines: Sequence[Array], entropy: bool = True) -> list[Encoded]:
    """Encodings that hold ``lines`` in fewer bytes than they have values, fewest bytes first.

    With ``entropy`` coding among them.
    None among them is beaten by another that takes no more bytes and, on all instruction sets, no
    more cycles; entropy coding beats only entropy coding.  Raises :class:`InputError` like
    :func:`encode`.
    """
    together = _lines(lines)
    found = [
        made
        for each in ENCODINGS
        if (entropy or each.structured) and (made := _encode(each, together)) is not None
    ]
    return _best([made for made in found if made.bytes < together.values.size])


def _lines(lines: Sequence[Array]) -> Lines:
    if not lines:
        raise InputError("encodings: no lines to encode")
    for line in lines:
        if line.dtype != np.int8 or line.ndim != 1 or not line.size:
            raise InputError(f"encodings: a line is {line.dtype} {line.shape}, not int8 values")
    return Lines(np.concatenate(lines), np.array([line.size for line in lines]))


def _encode(encoding: Encoding, lines: Lines) -> Encoded | None:
    made = encoding.encode(lines)
    if made is None:
        return None
    return Encoded(
        encoding.name, made.data, made.table, encoding.decoder, encoding.helpers, made.work
    )


def decode(encoded: Encoded, lengths: Sequence[int]) -> list[Array]:
    """The lines in ``encoded``, int8 arrays of ``lengths``: what the C decoders do."""
    lines, at = [], 0
    for length in lengths:
        line, at = _BY_DECODER[encoded.decoder].line(encoded.data, at, length, encoded.table)
        lines.append(line)
    return lines


def structured(encoded: Encoded) -> bool:
    """Whether every value takes a fixed number of bits: False for entropy coding."""
    return _BY_DECODER[encoded.decoder].structured


def _best(found: Sequence[Encoded]) -> list[Encoded]:
    """Those that no other beats in bytes and cycles."""
    kept: list[Encoded] = []
    for each in sorted(found, key=lambda encoded: (encoded.bytes, _cycles(encoded))):
        if not any(_beats(other, each) for other in kept):
            kept.append(each)
    return kept


def _cycles(encoded: Encoded) -> tuple[int, ...]:
    return tuple(encoded.cycles(isa) for isa in ISAS)


def _beats(one: Encoded, other: Encoded) -> bool:
    """Whether ``one``, which takes no more bytes, takes no more cycles either."""
    if structured(other) and not structured(one):
        return False
    return all(a <= b for a, b in zip(_cycles(one), _cycles(other), strict=True))


__all__ = [
    "ENCODINGS",
    "ISAS",
    "Encoded",
    "Encoding",
    "Work",
    "candidates",
    "decode",
    "encode",
    "named",
    "structured",
]
