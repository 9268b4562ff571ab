"""All decoders in a sanitized C program of this machine, fed over pipes."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from host_c import SANITIZERS, WARNINGS

from benchmarks.encodings import functions
from tinygen.encodings import ENCODINGS, Encoded
from tinygen.graph import Array

DECODERS = tuple(dict.fromkeys(encoding.decoder for encoding in ENCODINGS))

_HOST = """
#include <stdio.h>
#include <stdlib.h>
static decode_line *const decoders[] = {%s};
int main(void)
{
  uint32_t head[5];
  while (fread(head, 4, 5, stdin) == 5) {
    const uint32_t decoder = head[0], offset = head[1], bytes = head[2], table_bytes = head[3];
    uint8_t *const data = (uint8_t *)malloc(offset + bytes);
    void *const table = malloc(table_bytes + (table_bytes == 0));
    const uint8_t *from = data + offset;
    if (fread(data + offset, 1, bytes, stdin) != bytes) return 2;
    if (fread(table, 1, table_bytes, stdin) != table_bytes) return 2;
    for (uint32_t i = 0; i < head[4]; ++i) {
      uint32_t count;
      int8_t *to;
      if (fread(&count, 4, 1, stdin) != 1) return 2;
      to = (int8_t *)malloc((count + 7) / 8 * 8);
      memset(to, 0x55, (count + 7) / 8 * 8);
      from = decoders[decoder](from, to, (int)count, table);
      fwrite(to, 1, count, stdout);
      free(to);
    }
    fflush(stdout);
    free(data);
    free(table);
  }
  return 0;
}
"""


def all_functions() -> str:
    """The C text of every decoder."""
    return functions([name for each in ENCODINGS for name in each.helpers])


class HostDecoders:
    """All decoders in one sanitized program of this machine."""

    def __init__(
        self,
        folder: Path,
        compiler: str = "gcc",
        flags: Sequence[str] = ("-O1", *SANITIZERS),
        text: str | None = None,
    ) -> None:
        source = folder / ("decoders.cpp" if "++" in compiler else "decoders.c")
        source.write_text((text or all_functions()) + _HOST % ", ".join(DECODERS))
        language = () if "++" in compiler else ("-std=c99",)
        command = [compiler, *language, *flags, *WARNINGS, str(source), "-o"]
        built = subprocess.run(
            [*command, str(folder / "decoders")], capture_output=True, text=True, check=False
        )
        assert built.returncode == 0, built.stderr[:6000]
        self._process = subprocess.Popen(
            [folder / "decoders"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __enter__(self) -> HostDecoders:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        assert self._process.wait(timeout=10) == 0

    def decode(self, encoded: Encoded, lengths: Sequence[int], offset: int = 0) -> list[Array]:
        """The lines in ``encoded``, whose data lies ``offset`` bytes behind an aligned address."""
        table = b"" if encoded.table is None else encoded.table.tobytes()
        decoder = DECODERS.index(encoded.decoder)
        head = (decoder, offset, encoded.data.size, len(table), len(lengths))
        request = struct.pack("<5I", *head) + encoded.data.tobytes() + table
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(request + struct.pack(f"<{len(lengths)}I", *lengths))
        self._process.stdin.flush()
        data = self._process.stdout.read(sum(lengths))
        assert len(data) == sum(lengths), f"the program ended with {self._process.wait()}"
        return np.split(np.frombuffer(data, np.int8), np.cumsum(lengths)[:-1])
