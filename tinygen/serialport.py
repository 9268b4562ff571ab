"""Serial ports of boards: finding the right one, waking its bootloader, a byte pipe through it."""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

import serial
from serial.tools import list_ports

from tinygen.boards import Board
from tinygen.errors import InputError, TinyGenError

BAUD = 115_200

_TOUCH_SECONDS = 10.0  # from the touch until the bootloader's port is there
_STAYS_SECONDS = 3.0  # a port that has not gone away by then never will
_POLL_SECONDS = 0.1
_WRITE_SECONDS = 10.0


@dataclass(frozen=True)
class Port:
    """A serial port of this machine; ``usb_id`` is ``vid:pid``, empty when it is not USB's."""

    device: str
    usb_id: str = ""
    description: str = ""

    def __str__(self) -> str:
        facts = " ".join(filter(None, (self.usb_id, self.description)))
        return f"{self.device} ({facts})" if facts else self.device


Ports = Callable[[], Sequence[Port]]


def ports() -> list[Port]:
    """The serial ports there are now."""
    return [
        Port(
            info.device,
            f"{info.vid:04x}:{info.pid:04x}" if info.vid is not None else "",
            info.description if info.description not in (None, "n/a") else "",
        )
        for info in sorted(list_ports.comports(), key=lambda info: str(info.device))
    ]


def find(board: Board | None, given: str | None = None, available: Ports = ports) -> str:
    """The device of ``board``'s port: ``given`` when there is one, else found by USB id.

    Without a board, the only USB port there is.  Raises :class:`InputError` when no port fits or
    several do, and lists what there is.
    """
    if given is not None:
        return given
    present = available()
    title = board.title if board else "a board"
    wanted = board.usb.ids if board and board.usb else ()
    if board and not wanted:
        raise InputError(f"{board.name}: has no USB serial port of its own", _which(present))
    fitting = [p for p in present if (p.usb_id in wanted if board else p.usb_id)]
    if not fitting:
        raise InputError(f"{title}: not found on any serial port", _which(present, wanted))
    if len(fitting) > 1:
        listed = "\n".join(f"  {port}" for port in fitting)
        raise InputError(f"{title}: {len(fitting)} ports fit\n{listed}", "choose one with --port")
    return fitting[0].device


def _which(present: Sequence[Port], wanted: Sequence[str] = ()) -> str:
    looked_for = f"looked for USB id {' or '.join(wanted)}; " if wanted else ""
    if not present:
        return f"{looked_for}no serial port at all: check cable, power and access rights"
    listed = ", ".join(map(str, present))
    return f"{looked_for}choose one with --port; there is {listed}"


def touch(device: str, available: Ports = ports) -> None:
    """Ask for the bootloader: open ``device`` at 1200 baud and hang up, then see it go away.

    A board that is in its bootloader already stays, and so does its port.
    """
    present = {port.device: port.usb_id for port in available()}
    try:
        with serial.Serial(device, 1200, exclusive=True) as line, contextlib.suppress(OSError):
            line.dtr = False
            time.sleep(_POLL_SECONDS)
    except (OSError, ValueError) as error:
        raise _cannot_open(device, error) from error
    deadline = time.monotonic() + _STAYS_SECONDS
    while time.monotonic() < deadline:
        now = {port.device: port.usb_id for port in available()}
        if now.get(device) != present.get(device):
            return
        time.sleep(_POLL_SECONDS)


def into_bootloader(device: str, board: Board, available: Ports = ports) -> str:
    """Touch the board at ``device`` and return its bootloader's port, maybe under another name.

    The last of several USB ids is the bootloader's; a board that shows it is not touched.
    Raises :class:`TinyGenError` when no port of the board comes back.
    """
    usb = board.usb
    assert usb is not None
    before = {port.device: port.usb_id for port in available()}
    bootloader = usb.ids[-1]
    if len(usb.ids) > 1 and before.get(device) == bootloader:
        return device
    others = {name for name, usb_id in before.items() if usb_id in usb.ids and name != device}
    touch(device, available)
    deadline = time.monotonic() + _TOUCH_SECONDS
    while time.monotonic() < deadline:
        back = [p for p in available() if p.usb_id in usb.ids and p.device not in others]
        if back:
            return min(back, key=lambda port: port.usb_id != bootloader).device
        time.sleep(_POLL_SECONDS)
    raise TinyGenError(
        f"{device}: {board.title} did not come back after asking for its bootloader",
        "press the reset button twice, then try again",
    )


class SerialTransport:
    """A byte pipe through a serial port, or through one of pyserial's URLs.

    Raises :class:`TinyGenError` when the port cannot be opened, and whenever it goes away.
    """

    def __init__(self, device: str, baud: int = BAUD) -> None:
        self.device = device
        try:
            self._line = serial.serial_for_url(
                device, baud, timeout=0, write_timeout=_WRITE_SECONDS, exclusive=True
            )
        except (OSError, ValueError) as error:
            raise _cannot_open(device, error) from error

    def write(self, data: bytes) -> None:
        try:
            self._line.write(data)
            self._line.flush()
        except OSError as error:
            raise self._gone() from error

    def read(self, timeout: float) -> bytes:
        """What has arrived; ``b""`` when nothing does for ``timeout`` seconds."""
        try:
            self._line.timeout = timeout
            first = self._line.read(1)
            return bytes(first + self._line.read(self._line.in_waiting)) if first else b""
        except (OSError, TypeError) as error:  # pyserial raises TypeError on a closed port
            raise self._gone() from error

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._line.close()

    def _gone(self) -> TinyGenError:
        return TinyGenError(
            f"{self.device}: the port went away or takes no data", "check cable and power"
        )

    def __enter__(self) -> SerialTransport:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()


def _cannot_open(device: str, error: Exception) -> InputError:
    reason = getattr(error, "strerror", None) or str(error)
    number = getattr(error, "errno", None)
    if number in (errno.EAGAIN, errno.EBUSY):
        hint = "another program has it open"
    elif number == errno.EACCES:
        hint = "you may not open it: join the group that owns it, often dialout"
    else:
        hint = _which(ports())
    return InputError(f"{device}: cannot be opened: {reason}", hint)
