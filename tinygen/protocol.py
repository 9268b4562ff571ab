"""The host's end of the serial protocol that TinyGen's firmware speaks.

Its commands and replies are MLPerf Tiny's, with some of our own; ``firmware/runtime/tinygen_dut.h``
describes them.  A :class:`Device` sends one command at a time and waits for ``m-ready``, so that no
receive buffer of a chip is ever overrun.  Whatever goes wrong is a :class:`TinyGenError` within a
known time: firmware that reports an error, falls silent, babbles, or dies.
"""

from __future__ import annotations

import re
import secrets
import time
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinygen.errors import InputError, TinyGenError

if TYPE_CHECKING:
    from tinygen.simulate import Transport

VERSION = "1"

_READY = "m-ready"
_REPLY_SECONDS = 5.0  # for commands that only move bytes
_SLOWEST = 500.0  # characters a second that a talking device manages at the least
_REPLY_LIMIT = 1 << 26  # characters of one reply
_LINE_LIMIT = 1 << 24
_ATTEMPTS = 3
_SMALLEST_COMMAND = 32


class DeviceError(TinyGenError):
    """The firmware answered a command with an error, in ``reason``."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class SilenceError(TinyGenError):
    """The firmware did not answer in time, or not in a way that makes sense."""


@dataclass(frozen=True)
class Info:
    """What the firmware says of the model that it runs; sizes in bytes."""

    model: str
    sha256: str
    models: int
    input_bytes: int
    output_bytes: int
    arena_bytes: int
    layers: int
    """Layers that :meth:`Device.layers` reports; 0 when the firmware was built without traces."""
    command: int
    """Characters of the longest command, without the closing ``%``."""
    count_unit: str
    """What :meth:`Device.count` counts: ``cycles``, ``instructions``, or ``none``."""


@dataclass(frozen=True)
class Inference:
    """The reply to ``infer``: real results of its first inference, time of all timed ones."""

    results: tuple[float, ...]
    microseconds: int
    spent: bool
    """There was no fresh input, so the results mean nothing."""


@dataclass(frozen=True)
class LayerTrace:
    """One layer's output on the device: CRC-32 as in zlib, size in bytes, count (see ``Info``)."""

    layer: int
    crc: int
    bytes: int
    count: int


class Device:
    """Firmware at the other end of ``transport``.

    ``name`` begins every message.  ``patience`` is how many seconds the first inference may take;
    later ones may take ten times as long as the slowest so far, and five seconds more.
    """

    def __init__(self, transport: Transport, name: str = "device", patience: float = 300.0) -> None:
        self.name = name
        self._transport = transport
        self._patience = patience
        self._slowest: float | None = None
        self._pending = bytearray()
        self._info: Info | None = None

    def connect(self, timeout: float = 30.0) -> Info:
        """Find the firmware's attention, whatever state its end of the line is in.

        A command that cannot exist ends what noise has begun; once the firmware complains about
        exactly that one, all earlier replies have been read.  Raises :class:`SilenceError` after
        ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        wait = 0.5
        while True:
            self._pending.clear()
            if self._synchronize(min(wait, deadline - time.monotonic())):
                self._info = None
                return self.info()
            if time.monotonic() >= deadline:
                raise SilenceError(
                    f"{self.name}: no answer within {timeout:g} s",
                    "check that TinyGen firmware runs there, at 115,200 baud, with its serial "
                    "protocol in src/main.cpp",
                )
            wait *= 2

    def _synchronize(self, timeout: float) -> bool:
        nonce = f"sync-{secrets.token_hex(6)}"
        self._transport.write(f"%{nonce}%".encode())
        deadline = time.monotonic() + max(timeout, 0.05)
        heard = False
        while (line := self._line(deadline)) is not None:
            heard = heard or nonce in line
            if heard and line.endswith(_READY):
                return True
        return False

    def command(self, text: str, timeout: float = _REPLY_SECONDS) -> list[str]:
        """Send ``text`` and return the reply's lines, without the closing ``m-ready``.

        Raises :class:`DeviceError` when one of them is an error, and :class:`SilenceError` when the
        reply is not complete ``timeout`` seconds (and a little for each character of it) from now.
        """
        self._transport.write(f"{text}%".encode())
        start = time.monotonic()
        received = 0
        lines: list[str] = []
        while True:
            line = self._line(start + timeout + received / _SLOWEST)
            if line is None:
                raise SilenceError(
                    f"{self.name}: no answer to '{_shortened(text)}' within {timeout:g} s",
                    "the firmware hangs, or the line is broken: reset the board and try again",
                )
            if line == _READY:
                break
            lines.append(line)
            received += len(line) + 2
            if received > _REPLY_LIMIT:
                raise SilenceError(f"{self.name}: endless answer to '{_shortened(text)}'")
        for line in lines:
            if line.startswith("e-["):
                reason = line[3:].rstrip("]")
                raise DeviceError(f"{self.name}: '{_shortened(text)}': {reason}", reason)
        return lines

    def info(self) -> Info:
        """What runs there.  Raises :class:`TinyGenError` when it is not TinyGen's firmware."""
        if self._info is None:
            self._info = self._read_info()
        return self._info

    def _read_info(self) -> Info:
        try:
            lines = self.command("info")
        except DeviceError as error:
            raise TinyGenError(
                f"{self.name}: speaks the protocol but is not TinyGen's firmware",
                "put the project's firmware on it with `tinygen flash`",
            ) from error
        facts = {m[1]: m[2] for m in map(_INFO.fullmatch, lines) if m}
        if facts.get("protocol") != VERSION:
            raise TinyGenError(
                f"{self.name}: speaks version {facts.get('protocol', 'unknown')} of the protocol, "
                f"not {VERSION}",
                "build the project again with this TinyGen and flash it",
            )
        try:
            info = Info(
                model=facts["model"],
                sha256=facts["sha256"],
                models=int(facts["models"]),
                input_bytes=int(facts["input"]),
                output_bytes=int(facts["output"]),
                arena_bytes=int(facts["arena"]),
                layers=int(facts["layers"]),
                command=int(facts["command"]),
                count_unit=facts["count"],
            )
        except (KeyError, ValueError) as error:
            raise SilenceError(f"{self.name}: garbled answer to 'info'") from error
        if info.command < _SMALLEST_COMMAND:
            raise TinyGenError(f"{self.name}: takes commands of {info.command} characters only")
        return info

    def select(self, model: str) -> Info:
        """Choose among several models in the firmware; :class:`InputError` when it lacks it."""
        named = {m[2]: m[1] for m in map(_MODELS.fullmatch, self.command("model")) if m}
        if model not in named:
            raise InputError(
                f"{self.name}: no model called '{model}' in the firmware",
                f"it has {', '.join(named) or 'none'}",
            )
        self.command(f"model {named[model]}")
        self._info = None
        return self.info()

    def load(self, data: bytes) -> None:
        """Fill the model's input: ``data`` is all inputs one after another, as they lie in memory.

        What arrived is checked by its CRC-32; a line that loses characters gets three attempts.
        Raises :class:`InputError` when the number of bytes is not the model's.
        """
        info = self.info()
        if len(data) != info.input_bytes:
            raise InputError(
                f"{self.name}: {len(data)} bytes for an input of {info.input_bytes} bytes"
            )
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._load_once(data, (info.command - len("db ")) // 2)
                return
            except (DeviceError, SilenceError):
                if attempt == _ATTEMPTS:
                    raise
                self.connect()

    def _load_once(self, data: bytes, chunk: int) -> None:
        self.command(f"db load {len(data)}")
        reply: list[str] = []
        for at in range(0, len(data), chunk):
            reply = self.command(f"db {data[at : at + chunk].hex()}")
        if self._hexadecimal(reply, "load-crc") != zlib.crc32(data):
            raise SilenceError(
                f"{self.name}: the input arrived changed", "check the cable and the baud rate"
            )

    def infer(self, times: int = 1, warmups: int = 0) -> Inference:
        """Run ``warmups`` inferences, then ``times`` timed ones."""
        slowest = self._slowest
        each = self._patience if slowest is None else 10 * slowest + _REPLY_SECONDS
        start = time.monotonic()
        lines = self.command(f"infer {times} {warmups}", each * (times + warmups))
        taken = (time.monotonic() - start) / (times + warmups)
        self._slowest = max(taken, slowest or 0.0)
        return self._inference(lines)

    def _inference(self, lines: list[str]) -> Inference:
        laps = [int(m[1]) for m in map(_LAP.fullmatch, lines) if m]
        results = [m[1] for m in map(_RESULTS.fullmatch, lines) if m]
        try:
            (values,) = results
            start, stop = laps
            return Inference(
                results=tuple(float(value) for value in values.split(",")),
                microseconds=stop - start,
                spent="m-input-spent" in lines,
            )
        except ValueError as error:
            raise SilenceError(f"{self.name}: garbled answer to 'infer'") from error

    def output(self) -> bytes:
        """All outputs one after another, after one inference on a fresh input."""
        for _ in range(_ATTEMPTS):
            lines = self.command("output")
            digits = "".join(m[1] for m in map(_OUTPUT.fullmatch, lines) if m)
            data = bytes.fromhex(digits) if len(digits) % 2 == 0 else b""
            if len(data) == self.info().output_bytes and self._hexadecimal(
                lines, "output-crc"
            ) == zlib.crc32(data):
                return data
        raise SilenceError(
            f"{self.name}: the outputs arrive damaged", "check the cable and the baud rate"
        )

    def run(self, data: bytes) -> bytes:
        """Outputs for the input ``data``: load, one inference, outputs."""
        self.load(data)
        self.infer()
        return self.output()

    def layers(self) -> tuple[LayerTrace, ...]:
        """One inference on a fresh input, and what each layer gave, in the order of execution.

        The firmware must have been compiled with ``TINYGEN_TRACE``.
        """
        lines = self.command("layers", self._patience)
        matches = (m for m in map(_LAYER.fullmatch, lines) if m)
        return tuple(LayerTrace(int(m[1]), int(m[2], 16), int(m[3]), int(m[4])) for m in matches)

    def count(self) -> int:
        """Cycles or instructions of the last inference; :attr:`Info.count_unit` says which."""
        return self._decimal("count")

    def stack_peak(self) -> int:
        """Most bytes of stack used since the firmware started; 0 when it does not know."""
        return self._decimal("stack")

    def reset(self) -> None:
        """Set a streaming model's state to its start."""
        self.command("reset")

    def _decimal(self, command: str) -> int:
        for line in self.command(command):
            if match := re.fullmatch(rf"m-{command}-\[(\d{{1,20}})\]", line):
                return int(match[1])
        raise SilenceError(f"{self.name}: garbled answer to '{command}'")

    def _hexadecimal(self, lines: list[str], key: str) -> int | None:
        matches = (re.fullmatch(rf"m-{key}-\[([0-9a-f]{{8}})\]", line) for line in lines)
        return next((int(m[1], 16) for m in matches if m), None)

    def _line(self, deadline: float) -> str | None:
        """The next line without its end, or None when none is complete by ``deadline``."""
        searched = 0
        while (end := self._pending.find(b"\n", searched)) < 0:
            searched = len(self._pending)
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            if searched > _LINE_LIMIT:
                raise SilenceError(f"{self.name}: sends no line ends; this is not the protocol")
            self._pending += self._transport.read(left)
        line = self._pending[:end]
        del self._pending[: end + 1]
        return line.decode("ascii", "replace").strip("\r\n\0")


_INFO = re.compile(r"m-info-(\w+)-\[(.*)\]")
_MODELS = re.compile(r"m-models-(\d+)-\[(.*)\]")
_LAP = re.compile(r"m-lap-us-(\d{1,20})")
_RESULTS = re.compile(r"m-results-\[(.*)\]")
_OUTPUT = re.compile(r"m-output-\[([0-9a-f]+)\]")
_LAYER = re.compile(r"m-layer-(\d{1,9})-\[([0-9a-f]{8}),(\d{1,20}),(\d{1,20})\]")


def _shortened(command: str) -> str:
    return command if len(command) <= 24 else f"{command[:21]}..."
