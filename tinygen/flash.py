"""Putting firmware onto a board.

A vendor build goes through PlatformIO's own upload.  A system build goes through the command that
the board's facts give: the tool of the board's bootloader or debugger.  Serial bootloaders are
woken by the 1200-baud touch where the board wants it, and found again under their new name; drives
of UF2 bootloaders are found where the system mounts them.
"""

from __future__ import annotations

import getpass
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinygen import boards, platformio, project, serialport
from tinygen.boards import Board
from tinygen.errors import InputError, TinyGenError
from tinygen.serialport import Ports

_DRIVE_SECONDS = 15.0
_POLL_SECONDS = 0.2
_TOOL_SECONDS = 900.0
_SERIAL_UPLOADS = ("esptool", "sam-ba", "nrfutil")  # PlatformIO's protocols that need a port

# How each tool is installed.
_INSTALL = {
    "esptool": "python -m pip install 'tinygen[esp]'",
    "bossac": "install Arduino's bossac 1.9.1-arduino2 or later and put it on PATH",
    "picotool": "install Raspberry Pi's picotool, or hold BOOTSEL while you connect the board and "
    "copy firmware.uf2 onto the drive that appears",
    "st-flash": "apt-get install stlink-tools",
    "openocd": "apt-get install openocd",
    "teensy_loader_cli": "apt-get install teensy-loader-cli",
    "pio": "python -m pip install platformio",
}
# What each tool says when it has compared the chip's memory with the image.
_VERIFIED = re.compile(
    r"Hash of data verified|Verify successful|verified! jolly good|\*\* Verified OK \*\*"
    r"|OK$|verification successful",
    re.IGNORECASE | re.MULTILINE,
)


@dataclass(frozen=True)
class FlashResult:
    """What was written, with what, where to; ``verified`` says that the tool read it back."""

    project: str
    board: str
    image: str
    tool: str
    port: str
    verified: bool

    @property
    def message(self) -> str:
        where = f" at {self.port}" if self.port else ""
        check = "read back and equal" if self.verified else f"{self.tool} does not read back"
        return f"{self.project}: {self.image} is on the {self.board}{where} ({self.tool}; {check})"

    def document(self) -> dict[str, Any]:
        """The verb's JSON document."""
        return {
            "project": self.project,
            "board": self.board,
            "image": self.image,
            "tool": self.tool,
            "port": self.port,
            "verified": self.verified,
        }


def flash(folder: Path, port: str | None = None) -> FlashResult:
    """Put what was built in the project ``folder`` onto its board.

    ``port`` is a serial port, or the folder where a UF2 bootloader's drive is mounted; without it
    the board is found.  Raises :class:`InputError` when the project was not built, when its image
    is for an emulator alone, or when no port or several fit; :class:`TinyGenError` when a tool is
    missing or fails.
    """
    manifest = project.load(folder)
    board = boards.load(manifest.board)
    artifacts = {suffix: folder / path for suffix, path in manifest.artifacts.items()}
    if not artifacts or not all(path.is_file() for path in artifacts.values()):
        raise InputError(f"{folder}: nothing is built yet", "run `tinygen build` first")
    if not manifest.flashable:
        raise InputError(
            f"{folder}: the image built for {board.name} is for the emulator alone",
            "build with --toolchain vendor to get one for the board"
            if board.vendor
            else "`tinygen boards` lists the boards there are",
        )
    if manifest.toolchain == "vendor":
        return _by_platformio(folder, manifest.name, board, manifest.environment, port)
    return write(manifest.name, board, artifacts, port)


def write(
    name: str,
    board: Board,
    artifacts: Mapping[str, Path],
    port: str | None = None,
    available: Ports = serialport.ports,
    mounted: Callable[[], Sequence[Path]] = lambda: drives(),
) -> FlashResult:
    """Put a system build, its files given by suffix, onto ``board`` with the board's own tool."""
    command = board.system.upload if board.system else ()
    if not command:
        raise InputError(f"{board.name}: its facts name no tool that writes this image")
    tool, image = command[0], _image(command, artifacts)
    if tool == "cp" or (image.suffix == ".uf2" and not _program(tool)):
        drive = _drive(board, port, available, mounted)
        _copy(image, drive)
        return FlashResult(name, board.name, image.name, "copy", str(drive), False)
    program = _program(tool)
    if not program:
        raise TinyGenError(
            f"{tool}: not found; it writes firmware onto the {board.title}",
            _INSTALL.get(tool, f"install {tool} and put it on PATH"),
        )
    place = ""
    if any("{port" in word for word in command):
        place = serialport.find(board, port, available)
        if board.usb and board.usb.touch_1200:
            place = serialport.into_bootloader(place, board, available)
    elif board.usb and board.usb.touch_1200:
        _touch_if_there(board, port, available)
    places = {suffix: str(path) for suffix, path in artifacts.items()}
    places |= {"port": place, "port_name": place.rpartition("/")[2]}
    said = _run([*program, *(word.format(**places) for word in command[1:])], tool, board)
    return FlashResult(name, board.name, image.name, tool, place, bool(_VERIFIED.search(said)))


def _by_platformio(
    folder: Path, name: str, board: Board, environment: str, port: str | None
) -> FlashResult:
    """Upload a vendor build as the vendor's platform does it, the 1200-baud touch included."""
    serial = board.vendor is not None and board.vendor.upload in _SERIAL_UPLOADS
    place = serialport.find(board, port) if serial else port
    said = platformio.upload(folder, environment, place)
    verified = bool(_VERIFIED.search(said))
    return FlashResult(name, board.name, "firmware", "PlatformIO", place or "", verified)


def _image(command: Sequence[str], artifacts: Mapping[str, Path]) -> Path:
    """The file that ``command`` writes; :class:`TinyGenError` when the build did not make it."""
    words = " ".join(command)
    wanted = next((s for s in ("bin", "hex", "uf2", "elf") if f"{{{s}}}" in words), "")
    if wanted not in artifacts:
        raise TinyGenError(f"firmware.{wanted}: the build made none", "build the project again")
    return artifacts[wanted]


def _program(tool: str) -> list[str]:
    """How to start ``tool``; nothing when it is not installed."""
    if tool == "esptool" and importlib.util.find_spec("esptool"):
        return [sys.executable, "-m", "esptool"]
    found = shutil.which(tool)
    return [found] if found else []


def _run(command: Sequence[str], tool: str, board: Board) -> str:
    """Run a tool, with what it says on stderr as it comes; returns all of it."""
    said = bytearray()
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        watchdog = threading.Timer(_TOOL_SECONDS, process.kill)
        watchdog.start()
        try:
            assert process.stdout is not None
            while piece := os.read(process.stdout.fileno(), 4096):
                said += piece
                sys.stderr.write(piece.decode(errors="replace"))
                sys.stderr.flush()
        except BaseException:
            process.kill()
            raise
        finally:
            watchdog.cancel()
    text = said.decode(errors="replace")
    if process.returncode != 0:
        last = "\n  ".join(line.strip() for line in text.splitlines()[-3:] if line.strip())
        raise TinyGenError(
            f"{board.name}: {tool} failed with status {process.returncode}\n  {last}",
            "reset the board, check the cable and the port, and try again",
        )
    return text


# ---- UF2 bootloaders -----------------------------------------------------------------------------


def drives() -> list[Path]:
    """Where drives of UF2 bootloaders are mounted now; each has a file INFO_UF2.TXT."""
    if sys.platform == "win32":
        places = [Path(f"{letter}:/") for letter in "DEFGHIJKLMNOPQRSTUVWXYZ"]
    else:
        user = getpass.getuser()
        roots = (f"/media/{user}", f"/run/media/{user}", "/media", "/mnt", "/Volumes")
        places = [place for root in roots for place in sorted(Path(root).glob("*/"))]
    return [place for place in places if os.path.isfile(place / "INFO_UF2.TXT")]  # noqa: PTH113


def _drive(
    board: Board, port: str | None, available: Ports, mounted: Callable[[], Sequence[Path]]
) -> Path:
    """The drive of ``board``'s bootloader, which is started when the board can be reached."""
    if port is not None and Path(port).is_dir():
        return Path(port)
    if not mounted() and board.usb and board.usb.touch_1200:
        _touch_if_there(board, port, available)
    deadline = time.monotonic() + _DRIVE_SECONDS
    while not (found := mounted()) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    if len(found) == 1:
        return found[0]
    if found:
        listed = "\n".join(f"  {place}" for place in found)
        raise InputError(
            f"{board.title}: {len(found)} bootloader drives\n{listed}", "choose one with --port"
        )
    raise InputError(
        f"{board.title}: no drive of its bootloader is mounted",
        "start the bootloader (hold BOOTSEL while you connect the board, or press reset twice), "
        "mount the drive, and give its folder with --port if it is not found",
    )


def _touch_if_there(board: Board, port: str | None, available: Ports) -> None:
    """Send a running board into its bootloader; one that shows no port may be there already."""
    fitting = [p.device for p in available() if board.usb and p.usb_id in board.usb.ids]
    if port is not None or len(fitting) == 1:
        serialport.touch(port or fitting[0], available)


def _copy(image: Path, drive: Path) -> None:
    """Copy ``image`` onto ``drive``, which goes away as soon as the bootloader has it all."""
    try:
        with (drive / image.name).open("wb") as file:
            file.write(image.read_bytes())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if (drive / "INFO_UF2.TXT").exists():
            raise TinyGenError(
                f"{drive}: {error.strerror or error}", "reset the board twice and try again"
            ) from error
