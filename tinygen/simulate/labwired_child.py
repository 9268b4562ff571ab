"""The process that labwired runs in; ``labwired.py`` starts it and talks to it.

Run as a script, it needs nothing of TinyGen.  It reads one JSON object a line and answers each with
one; when its input ends, so does it.  It is a process of its own because labwired prints to the
standard output of whatever process it is in.

The first request describes the machine:

- ``elf``, ``system``: paths of the program and of labwired's description of the machine
- ``slice``: seconds of emulated time between two looks at the outside
- ``words``: what to write before the start, ``[[address, word], …]``
- ``ended``: address of the word that is not zero once the program has ended
- ``mailbox``: address of the ``tinygen_mailbox`` that takes the input (see
  firmware/port/common/chip.h), or null when the serial line does

Then come any number of ``{"run": seconds, "input": hex}``, which runs until there is output, the
program has ended, or time is up, and ``{"read": [address, count]}``, which reads memory.  Answers
have ``output``, ``ended`` and ``cycles``, or ``bytes``; or ``error`` when something failed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any, TextIO

_BYTES_A_SLICE = 512  # to the serial line: more than programs can take meanwhile


class Chip:
    """A program on an emulated chip, from its first instruction on."""

    def __init__(self, request: dict[str, Any]) -> None:
        import labwired

        self._sim = labwired.Sim(request["elf"], system=request["system"])
        self._slice: float = request["slice"]
        self._ended: int = request["ended"]
        self._mailbox: int | None = request["mailbox"]
        self._pending = bytearray()
        for address, word in request["words"]:
            self._sim.write_u32(address, word)

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """What the request asks for."""
        if "read" in request:
            return {"bytes": self._memory(*request["read"]).hex()}
        self._pending += bytes.fromhex(request["input"])
        output = self._run(request["run"])
        ended = self._sim.read_u32(self._ended)
        if ended and not output:
            self._step()  # the last bytes are on their way
            output = self._sim.read_uart_bytes()
        return {"output": output.hex(), "ended": ended, "cycles": self._sim.cycles}

    def _memory(self, address: int, count: int) -> bytes:
        """Read by words, which registers of peripherals insist on."""
        first = address // 4 * 4
        words = (self._sim.read_u32(at) for at in range(first, address + count, 4))
        return b"".join(word.to_bytes(4, "little") for word in words)[address - first :][:count]

    def _run(self, seconds: float) -> bytes:
        deadline = time.monotonic() + seconds
        while True:
            self._feed()
            self._step()
            output: bytes = self._sim.read_uart_bytes()
            if output or self._sim.read_u32(self._ended) or time.monotonic() >= deadline:
                return output

    def _step(self) -> None:
        stopped = self._sim.run_for(self._slice)
        if stopped.kind != "reached":
            at = "" if stopped.pc is None else f" at {stopped.pc:#010x}"
            raise RuntimeError(f"{stopped.kind}{at}")

    def _feed(self) -> None:
        if not self._pending:
            return
        if self._mailbox is None:
            self._sim.send_bytes(bytes(self._pending[:_BYTES_A_SLICE]))
            del self._pending[:_BYTES_A_SLICE]
        else:
            self._post(self._mailbox)

    def _post(self, mailbox: int) -> None:
        """Put what fits into the ring: bytes first, then their number."""
        room, put, taken = (self._sim.read_u32(mailbox + at) for at in (0, 4, 8))
        posted = self._pending[: room and room - (put - taken) % 2**32]
        if not posted:
            return
        del self._pending[: len(posted)]
        ring = bytearray(self._memory(mailbox + 12, room))
        changed = set()
        for i, byte in enumerate(posted, put):
            ring[i % room] = byte
            changed.add(i % room // 4 * 4)
        for at in changed:
            word = int.from_bytes(ring[at : at + 4], "little")
            self._sim.write_u32(mailbox + 12 + at, word)
        self._sim.write_u32(mailbox + 4, (put + len(posted)) % 2**32)


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer ``requests`` until they end; a failure is an answer, too."""

    chip: Chip | None = None
    for line in requests:
        request = json.loads(line)
        answer: dict[str, Any] = {}
        try:
            if chip is None:
                chip = Chip(request)
            else:
                answer = chip.answer(request)
        except Exception as error:
            answer = {"error": str(error) or type(error).__name__}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main() -> None:
    """Serve on the standard streams, which labwired's own output is kept off."""
    answers = os.fdopen(os.dup(1), "w")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
