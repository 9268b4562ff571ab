"""Microsoft's UF2 container: what boards that show up as a drive take.

An image is a row of 512-byte blocks, each carrying 256 bytes of flash contents, its address, and
the chip family's number.  The layout is the one of https://github.com/microsoft/uf2.
"""

import struct
from pathlib import Path

from elftools.elf.elffile import ELFFile

BLOCK = 256
MAGIC = (0x0A324655, 0x9E5D5157)
MAGIC_END = 0x0AB16F30
FAMILY_PRESENT = 0x2000


def from_elf(path: Path, family: int) -> bytes:
    """The loadable segments of the ELF file at ``path``, at their load addresses, as UF2."""
    blocks: dict[int, bytearray] = {}
    with path.open("rb") as file:
        for segment in ELFFile(file).iter_segments("PT_LOAD"):
            start = segment["p_paddr"]
            for offset, value in enumerate(segment.data()):
                address = start + offset
                block = blocks.setdefault(address - address % BLOCK, bytearray(BLOCK))
                block[address % BLOCK] = value
    return b"".join(
        struct.pack(
            "<8I476sI",
            *MAGIC,
            FAMILY_PRESENT,
            address,
            BLOCK,
            number,
            len(blocks),
            family,
            bytes(blocks[address]),
            MAGIC_END,
        )
        for number, address in enumerate(sorted(blocks))
    )
