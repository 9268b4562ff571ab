"""Boards: facts in ``boards/<name>.toml``, checked here and nowhere else.

A :class:`Board` says what hardware there is and how firmware for it is built, put onto it and run
without it.  It holds no logic of any one board.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from tinygen.errors import InputError, TinyGenError
from tinygen.resources import folder

Core = Literal[
    "cortex-m0",
    "cortex-m0plus",
    "cortex-m3",
    "cortex-m4",
    "cortex-m7",
    "cortex-m55",
    "rv32imc",
    "xtensa-lx6",
    "xtensa-lx7",
    "xtensa-lx106",
    "host",
]
_FEATURES = {
    "cortex-m0": frozenset({"armv6m"}),
    "cortex-m0plus": frozenset({"armv6m"}),
    "cortex-m3": frozenset({"armv7m"}),
    "cortex-m4": frozenset({"dsp"}),
    "cortex-m7": frozenset({"dsp"}),
    "cortex-m55": frozenset({"dsp", "mve"}),
    "rv32imc": frozenset({"rv32m"}),
    "xtensa-lx6": frozenset({"xtensa"}),
    "xtensa-lx7": frozenset({"xtensa"}),
    "xtensa-lx106": frozenset({"xtensa"}),
}
Bytes = Annotated[int, Field(gt=0)]
Address = Annotated[int, Field(ge=0, lt=1 << 32)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
UsbId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{4}:[0-9a-f]{4}$")]


class _Facts(BaseModel):
    """A table of a board file: unknown keys are errors, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Usb(_Facts):
    """How the board's serial port shows up on a host."""

    ids: Annotated[tuple[UsbId, ...], Field(strict=False)]
    touch_1200: bool = False  # opening the port at 1200 baud starts the bootloader


class Partitions(_Facts):
    """A partition table that gives the application more flash than the default one."""

    file: str
    flash: Bytes


class Vendor(_Facts):
    """PlatformIO's own way to build for the board."""

    platform: str  # pinned: name@version, or an address with a commit
    board: str
    framework: str
    tflm: Annotated[tuple[str, ...], Field(strict=False)] = ()  # lib_deps of the tflm engine
    upload: str = ""  # upload_protocol; empty leaves PlatformIO's default
    framework_flash: int = 0  # about what the framework itself takes, in bytes (estimate)
    partitions: Partitions | None = None


class System(_Facts):
    """How compilers from PATH build for the board."""

    compiler: str  # prefix of gcc, g++, objcopy, size; empty for the host's own
    flags: Annotated[tuple[str, ...], Field(strict=False)] = ()  # to compile and to link
    defines: Annotated[tuple[str, ...], Field(strict=False)] = ()
    port: Name  # folder under firmware/port
    script: str = ""  # linker script under firmware/port; none for the host
    flash_origin: Address = 0
    ram_origin: Address = 0
    stack: int = 0  # bytes kept for the stack
    memory: dict[Name, Address] = {}  # further symbols for the linker script
    flashable: bool  # false: the image is for emulation alone
    esp_chip: str = ""  # writes an application image for this chip's boot loader
    uf2_family: Address = 0  # writes a .uf2 for this family
    # Command; {bin}, {hex}, {uf2} stand for the image, {port}, {port_name} for the serial port.
    upload: Annotated[tuple[str, ...], Field(strict=False)] = ()

    @property
    def hosted(self) -> bool:
        """The program runs under this machine's operating system."""
        return self.port == "host"

    @property
    def folders(self) -> tuple[str, ...]:
        """Folders under firmware/port whose sources make the port."""
        shared = () if self.hosted else ("common", f"arch/{Path(self.script).stem}")
        return (self.port, *shared)


class Emulator(_Facts):
    """What runs the system build without hardware: an emulator, or another board's."""

    kind: Literal["", "qemu", "labwired", "native"] = ""
    machine: str = ""
    cpu: str = ""
    options: Annotated[tuple[str, ...], Field(strict=False)] = ()  # further ones of QEMU
    stands_in: str = ""  # the board whose system build and emulator are used instead

    @model_validator(mode="after")
    def _one_of_both(self) -> Emulator:
        if bool(self.kind) == bool(self.stands_in):
            raise ValueError("give either kind or stands_in")
        return self


class Board(_Facts):
    """One board, whole.  Sizes are bytes, the clock is in hertz."""

    name: Name
    title: str
    mcu: str
    core: Core
    clock_hz: Annotated[int, Field(ge=0)]
    flash: Bytes  # what an application may use
    ram: Bytes
    usb: Usb | None = None
    vendor: Vendor | None = None
    system: System | None = None
    emulator: Emulator | None = None

    @model_validator(mode="after")
    def _buildable(self) -> Board:
        if self.vendor is None and self.system is None:
            raise ValueError("neither [vendor] nor [system]: nothing could build for it")
        if self.emulator and self.emulator.kind and self.system is None:
            raise ValueError("an emulator runs the system build: [system] is missing")
        return self

    @property
    def flash_limit(self) -> int:
        """Bytes an application may use with the partition table that gives it the most."""
        partitions = self.vendor.partitions if self.vendor else None
        return max(self.flash, partitions.flash if partitions else 0)

    @property
    def features(self) -> frozenset[str]:
        """What kernels may be written for: "dsp" (16-bit SIMD of Arm's DSP extension), "mve"
        (vectors), or the instruction set of a scalar core."""
        return _FEATURES.get(self.core, frozenset())

    @property
    def environments(self) -> tuple[str, ...]:
        """PlatformIO environments of a project for this board, the preferred one first."""
        vendor = (self.name,) if self.vendor else ()
        simulated = (f"{self.name}_sim",) if self.core != "host" and self.emulator else ()
        return (*vendor, *simulated, "host")


def names() -> list[str]:
    """Names of all boards, sorted."""
    return sorted(path.stem for path in folder("boards").glob("*.toml"))


def load(name: str) -> Board:
    """The board called ``name``.

    Raises :class:`InputError` for a name that is not known, with the nearest ones as hint, and
    :class:`TinyGenError` for a board file that does not hold together.
    """
    known = names()
    if name not in known:
        near = difflib.get_close_matches(re.sub(r"[\W_]+", "_", name.lower()), known, 3, 0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"boards: {', '.join(known)}"
        raise InputError(f"{name}: no board of that name", hint)
    return read(folder("boards") / f"{name}.toml")


def read(path: Path) -> Board:
    """The board that a TOML file describes; :class:`TinyGenError` says what is wrong with it."""
    try:
        facts = tomllib.loads(path.read_text(encoding="utf-8"))
        board = Board.model_validate(facts)
    except tomllib.TOMLDecodeError as error:
        raise TinyGenError(f"{path.name}: {error}", "mend the board file") from error
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in item['loc']) or 'board'}: {item['msg']}"
            for item in error.errors()
        ]
        raise TinyGenError(f"{path.name}: {'; '.join(lines)}", "mend the board file") from error
    if board.name != path.stem:
        raise TinyGenError(
            f"{path.name}: the board calls itself '{board.name}'", "rename the file or the board"
        )
    return board


def load_all() -> list[Board]:
    """All boards, sorted by name."""
    return [load(name) for name in names()]


def simulated_by(board: Board) -> Board | None:
    """The board whose system build and emulator run programs for ``board``: often itself."""
    if board.emulator is None:
        return None
    return load(board.emulator.stands_in) if board.emulator.stands_in else board
