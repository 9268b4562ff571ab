"""Instructions of Cortex-M4 and M7 that labwired does not have, written in ones that it has.

labwired 0.25 executes most of the DSP extension, but takes some of it for an instruction that does
nothing or something else, silently.  :func:`rewrite` puts a branch in the place of each such
instruction that TinyGen's kernels or compilers use, to code that computes the same; in the place
of the others, one that is undefined, so that a program which comes to it faults instead of going
on with wrong numbers.  Registers and flags end up as on the chip, except that saturating does not
set Q.

Encodings: Armv7-M Architecture Reference Manual, A5 and A7.7.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_UNDEFINED = (0xDE00, 0xDE00)  # UDF #0, twice; the wide UDF does nothing in labwired
_REACH = 1 << 24  # of B.W, either way

Instruction = tuple[int, int]  # both halfwords of a 32-bit instruction


@dataclass(frozen=True)
class Rewritten:
    """Code after :func:`rewrite`, and what its branches lead to."""

    code: bytes
    replacements: bytes


def rewrite(code: bytes, address: int, base: int) -> Rewritten:
    """Thumb ``code`` that lies at ``address`` without the instructions that labwired does not have.

    ``base`` is where the replacements will be; both addresses are even.
    """
    changed = bytearray(code)
    replacements = bytearray()
    for at, instruction, conditional in _wide(code):
        if not _lacking(instruction):
            continue
        here, there = address + at, base + len(replacements)
        body = None if conditional else _equivalent(instruction)
        if body is None or abs(there - here) > _REACH - 64:
            changed[at : at + 4] = struct.pack("<2H", *_UNDEFINED)
            continue
        changed[at : at + 4] = struct.pack("<2H", *_branch(here, there))
        back = _branch(there + 4 * len(body), here + 4)
        for halves in (*body, back):
            replacements += struct.pack("<2H", *halves)
    return Rewritten(bytes(changed), bytes(replacements))


def _wide(code: bytes) -> Iterator[tuple[int, Instruction, bool]]:
    """Offset and halfwords of each 32-bit instruction, and whether an IT instruction governs it."""
    at = governed = 0
    while at + 2 <= len(code):
        (first,) = struct.unpack_from("<H", code, at)
        if first >> 11 in (0b11101, 0b11110, 0b11111) and at + 4 <= len(code):
            (second,) = struct.unpack_from("<H", code, at + 2)
            yield at, (first, second), governed > 0
            at += 4
        else:
            at += 2
        governed = max(0, governed - 1)
        if first >> 8 == 0xBF and first & 15:  # IT: the lowest set bit of its mask ends the block
            governed = 4 - ((first & -first).bit_length() - 1)


def _lacking(instruction: Instruction) -> bool:
    """Whether labwired gets ``instruction`` wrong, as found by comparing with QEMU."""
    first, second = instruction
    group, shift = first & 0xFFF0, second & 0x70C0
    if group in (0xFA20, 0xFA30):  # SXTB16, SXTAB16, UXTB16, UXTAB16
        return second & 0xF080 == 0xF080
    if group == 0xEAC0:  # PKHBT, PKHTB
        return second & 0x8010 == 0 and (shift != 0 or second & 0x20 != 0)
    if group in (0xF300, 0xF320):  # SSAT, SSAT16
        return second & 0x8020 == 0
    if group in (0xF380, 0xF3A0):  # USAT, USAT16
        return second & 0x8020 == 0 and (shift != 0 or group == 0xF3A0)
    if group == 0xFA80 and second & 0xF0C0 == 0xF080:  # QADD, QDADD, QSUB, QDSUB
        return True
    if group in (0xFA80, 0xFAC0):  # parallel bytes, the saturating and halving ones
        return second & 0xF080 == 0xF000 and second >> 4 & 7 not in (0, 4)
    if group in (0xFAA0, 0xFAE0):  # exchange, then add and subtract
        return second & 0xF080 == 0xF000
    return group == 0xFB70  # USAD8, USADA8


def _equivalent(instruction: Instruction) -> tuple[Instruction, ...] | None:
    """The same in other instructions; None where nobody has needed it yet."""
    first, second = instruction
    n, d, m = first & 15, second >> 8 & 15, second & 15
    group, amount = first & 0xFFF0, second >> 10 & 0x1C | second >> 6 & 3
    spare = next(r for r in range(4) if r not in (n, d, m))
    match group:
        case 0xFA20 | 0xFA30 if n == 15:
            rotated = second >> 4 & 3
            extend = _sxtb if group == 0xFA20 else _uxtb
            upper, lower = extend(spare, m, rotated + 2 & 3), extend(d, m, rotated)
            return (_push(spare), upper, lower, _insert(d, spare, 16), _pop(spare))
        case 0xEAC0 if second & 0x20 == 0:  # PKHBT: the upper half is m's, shifted left
            shifted = _shift(spare, m, _LEFT, amount)
            return (_push(spare), shifted, _insert(spare, n, 0), _move(d, spare), _pop(spare))
        case 0xEAC0:  # PKHTB: the lower half is m's, shifted right
            shifted = _shift(spare, m, _RIGHT, amount)
            return (_push(spare), shifted, _move(d, n), _insert(d, spare, 0), _pop(spare))
        case 0xF300 | 0xF320 if group == 0xF300 or amount:
            return _signed_saturation(d, n, spare, second & 31, group == 0xF320, amount)
        case 0xF380 | 0xF3A0 if group == 0xF380 or amount:
            direction = _RIGHT if group == 0xF3A0 else _LEFT
            return (_shift(d, n, direction, amount), _usat(d, second & 31))
    return None


def _signed_saturation(
    d: int, n: int, spare: int, bits_less_one: int, right: bool, amount: int
) -> tuple[Instruction, ...]:
    """With x negative, ~x is not; and -2^k is ~(2^k - 1): so unsigned saturation does it."""
    return (
        _push(spare),
        _shift(d, n, _RIGHT if right else _LEFT, amount) if amount else _move(d, n),
        _shift(spare, d, _RIGHT, 31),  # all ones if negative
        _exclusive_or(d, d, spare),
        _usat(d, bits_less_one),
        _exclusive_or(d, d, spare),
        _pop(spare),
    )


# ---- Encodings -----------------------------------------------------------------------------------

_LEFT, _RIGHT = 0, 2  # LSL; ASR, where an amount of 0 means 32


def _branch(here: int, there: int) -> Instruction:
    offset = there - here - 4
    sign = offset >> 24 & 1
    j1, j2 = (offset >> bit & 1 ^ sign ^ 1 for bit in (23, 22))
    upper, lower = offset >> 12 & 0x3FF, offset >> 1 & 0x7FF
    return 0xF000 | sign << 10 | upper, 0x9000 | j1 << 13 | j2 << 11 | lower


def _push(r: int) -> Instruction:
    return 0xF84D, r << 12 | 0xD04


def _pop(r: int) -> Instruction:
    return 0xF85D, r << 12 | 0xB04


def _sxtb(d: int, m: int, rotated: int) -> Instruction:
    return 0xFA4F, 0xF080 | d << 8 | rotated << 4 | m


def _uxtb(d: int, m: int, rotated: int) -> Instruction:
    return 0xFA5F, 0xF080 | d << 8 | rotated << 4 | m


def _insert(d: int, n: int, lowest: int) -> Instruction:
    """BFI d, n, #lowest, #16."""
    return 0xF360 | n, (lowest & 0x1C) << 10 | d << 8 | (lowest & 3) << 6 | lowest + 15


def _shift(d: int, m: int, direction: int, amount: int) -> Instruction:
    """MOV d, m, with a shift."""
    return 0xEA4F, (amount & 0x1C) << 10 | d << 8 | (amount & 3) << 6 | direction << 4 | m


def _move(d: int, m: int) -> Instruction:
    return _shift(d, m, _LEFT, 0)


def _exclusive_or(d: int, n: int, m: int) -> Instruction:
    return 0xEA80 | n, d << 8 | m


def _usat(d: int, bits: int) -> Instruction:
    return 0xF380 | d, d << 8 | bits
