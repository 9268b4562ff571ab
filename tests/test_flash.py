"""Flashing: the image that arrives is the one that was built, on the board that was meant."""

from __future__ import annotations

import os
import pty
import re
import shutil
import socket
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import projects
import pytest
from esp32_mock_bootloader import mock_bootloader

from tinygen import boards, flash, platformio, project, serialport
from tinygen.boards import Board
from tinygen.errors import InputError, TinyGenError
from tinygen.serialport import Port, find, into_bootloader, touch

NANO = boards.load("nano33ble")
SKETCH, BOOTLOADER = NANO.usb.ids if NANO.usb else ("", "")


# ---- ESP chips: the real tool against a mock of the ROM ------------------------------------------


def read_back(url: str, chip: str, offset: int, size: int, target: Path) -> bytes:
    """What the chip's flash holds, by a second run of esptool."""
    command = [sys.executable, "-m", "esptool", "--chip", chip, "--port", url, "--no-stub"]
    command += ["--before", "no-reset", "--after", "no-reset"]
    command += ["read-flash", hex(offset), str(size), str(target)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return target.read_bytes()


@pytest.mark.skipif(
    not shutil.which("riscv64-unknown-elf-gcc"), reason="no RISC-V compiler on PATH"
)
def test_the_image_that_arrives_is_the_one_that_was_built(tmp_path: Path) -> None:
    folder = projects.write(tmp_path / "chain", "esp32c3")
    board = boards.load("esp32c3")
    platformio.build(folder, board, "system")
    image = (folder / "firmware" / "firmware.bin").read_bytes()
    assert len(image) > 8192
    with mock_bootloader(chip="esp32c3") as mock:
        result = flash.flash(folder, mock.url())
        assert (result.tool, result.verified, result.image) == ("esptool", True, "firmware.bin")
        assert "read back and equal" in result.message
        assert result.document()["verified"] is True
        assert read_back(mock.url(), "esp32c3", 0, len(image), tmp_path / "back") == image


def esp_board(chip: str, offset: str) -> Board:
    """A board that is flashed by the ROM's own loader, without compression."""
    words = ("esptool", "--chip", chip, "--port", "{port}", "--no-stub")
    words += ("--before", "no-reset", "--after", "no-reset")
    return with_upload(boards.load(chip), *words, "write-flash", "--no-compress", offset, "{bin}")


def with_upload(board: Board, *command: str) -> Board:
    assert board.system is not None
    system = board.system.model_copy(update={"upload": command})
    return board.model_copy(update={"system": system})


def esp_image(folder: Path, chip: str) -> Path:
    """An application image that esptool made from an ELF; its one segment is pseudo-random."""
    x, payload = 1, bytearray()
    for _ in range(9000):
        x = (x * 1664525 + 1013904223) % (1 << 32)
        payload.append(x >> 24)
    (folder / "data").write_bytes(payload)
    elf = folder / "a.elf"
    compiler = {"esp32": "xtensa-lx106-elf-", "esp32c3": "riscv64-unknown-elf-"}[chip]
    if shutil.which(f"{compiler}objcopy") is None:
        pytest.skip(f"{compiler}objcopy is not installed")
    source = folder / "a.s"
    source.write_text('.section .text\n.global _start\n_start:\n.incbin "data"\n')
    flags = ["-march=rv32imc", "-mabi=ilp32"] if chip == "esp32c3" else []
    address = {"esp32": "0x40080000", "esp32c3": "0x40380000"}[chip]
    subprocess.run(
        [
            f"{compiler}gcc",
            *flags,
            "-nostdlib",
            f"-Wl,-Ttext={address}",
            str(source),
            "-o",
            str(elf),
        ],
        check=True,
        cwd=folder,
    )
    image = folder / "firmware.bin"
    command = [sys.executable, "-m", "esptool", "--chip", chip, "elf2image", "-o", str(image)]
    subprocess.run([*command, str(elf)], check=True, capture_output=True)
    assert payload[100:8900] in image.read_bytes()
    return image


@pytest.mark.parametrize("chip", ["esp32", "esp32c3"])
def test_application_images_arrive_through_the_rom_loader(tmp_path: Path, chip: str) -> None:
    image = esp_image(tmp_path, chip)
    with mock_bootloader(chip=chip) as mock:
        board = esp_board(chip, "0x10000")
        result = flash.write("net", board, {"bin": image}, mock.url())
        assert result.verified
        size = image.stat().st_size
        back = read_back(mock.url(), chip, 0x10000, size, tmp_path / "back")
        assert back == image.read_bytes()


@contextmanager
def meddler(url: str, change: Callable[[bytes], bytes]) -> Iterator[str]:
    """A TCP relay to ``url`` that passes what the client sends through ``change``."""
    host, port = url.removeprefix("socket://").split(":")
    server = socket.create_server(("127.0.0.1", 0))
    lines: list[socket.socket] = []

    def pass_on(source: socket.socket, target: socket.socket, through: bool) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(change(data) if through else data)
        except OSError:
            pass

    def serve() -> None:
        try:
            client, _ = server.accept()
        except OSError:
            return
        upstream = socket.create_connection((host, int(port)))
        lines.extend((client, upstream))
        threading.Thread(target=pass_on, args=(upstream, client, False), daemon=True).start()
        pass_on(client, upstream, True)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"socket://127.0.0.1:{server.getsockname()[1]}"
    finally:
        for line in (*lines, server):
            line.close()


def test_an_image_that_changes_on_the_way_is_noticed(tmp_path: Path) -> None:
    image = esp_image(tmp_path, "esp32c3")
    data = image.read_bytes()
    special = {0xC0, 0xDB}  # SLIP writes these otherwise
    places = [
        data[at : at + 8]
        for at in range(1024, 8192, 64)
        if not special & set(data[at : at + 8]) and data[at] != data[at + 1]
    ]
    swapped: list[bytes] = []

    def swap(sent: bytes) -> bytes:
        """Exchange two bytes of the image, which its XOR checksum does not see."""
        for piece in places:
            if not swapped and piece in sent:
                swapped.append(piece)
                return sent.replace(piece, piece[1::-1] + piece[2:])
        return sent

    with (
        mock_bootloader(chip="esp32c3") as mock,
        meddler(mock.url(), swap) as url,
        pytest.raises(TinyGenError, match="esp32c3: esptool failed") as caught,
    ):
        flash.write("net", esp_board("esp32c3", "0x10000"), {"bin": image}, url)
    assert swapped
    assert "MD5" in caught.value.message


# ---- what may be flashed -------------------------------------------------------------------------


def built(folder: Path, board: str, **facts: object) -> Path:
    """A project with files in place of a build's."""
    made = projects.write(folder, board)
    (made / "firmware").mkdir()
    artifacts = {}
    for suffix in ("elf", "bin", "hex", "uf2"):
        (made / "firmware" / f"firmware.{suffix}").write_bytes(suffix.encode() * 300)
        artifacts[suffix] = f"firmware/firmware.{suffix}"
    known = {"toolchain": "system", "environment": f"{board}_sim", "flashable": True}
    project.record(made, artifacts=artifacts, **{**known, **facts})
    return made


def test_an_image_for_the_emulator_is_refused(tmp_path: Path) -> None:
    folder = built(tmp_path / "p", "esp32", flashable=False)
    with pytest.raises(InputError, match="for esp32 is for the emulator alone") as caught:
        flash.flash(folder, "/dev/null")
    assert caught.value.exit_code == 2
    assert "--toolchain vendor" in caught.value.hint
    folder = built(tmp_path / "q", "qemu_m4", flashable=False)
    with pytest.raises(InputError, match="for qemu_m4 is for the emulator alone"):
        flash.flash(folder)


def test_a_project_without_a_build_is_refused(tmp_path: Path) -> None:
    folder = projects.write(tmp_path / "p", "nano33ble")
    with pytest.raises(InputError, match="nothing is built yet"):
        flash.flash(folder)
    folder = built(tmp_path / "q", "nano33ble")
    (folder / "firmware" / "firmware.bin").unlink()
    with pytest.raises(InputError, match="nothing is built yet"):
        flash.flash(folder)


def test_a_vendor_build_goes_through_platformio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[object, ...]] = []

    def upload(*words: object) -> str:
        asked.append(words)
        return "Hash of data verified.\n"

    monkeypatch.setattr(platformio, "upload", upload)
    folder = built(tmp_path / "p", "esp32", toolchain="vendor", environment="esp32")
    result = flash.flash(folder, "/dev/ttyUSB7")
    assert asked == [(folder, "esp32", "/dev/ttyUSB7")]
    assert (result.tool, result.port, result.verified) == ("PlatformIO", "/dev/ttyUSB7", True)
    folder = built(tmp_path / "q", "nucleo_f446re", toolchain="vendor", environment="nucleo_f446re")
    flash.flash(folder)  # a debugger needs no serial port
    assert asked[-1] == (folder, "nucleo_f446re", None)


# ---- boards' own tools ---------------------------------------------------------------------------


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH."""
    place = tmp_path / "tools"
    place.mkdir()
    monkeypatch.setenv("PATH", str(place))
    return place


def tool(place: Path, name: str, says: str = "", status: int = 0) -> Path:
    """A program ``name`` that records its arguments, says something and ends; the record."""
    record = place / f"{name}.args"
    program = place / name
    program.write_text(
        f"#!{sys.executable}\nimport sys\n"
        f"open({str(record)!r}, 'w').write('\\n'.join(sys.argv[1:]))\n"
        f"print({says!r})\nsys.exit({status})\n"
    )
    program.chmod(0o755)
    return record


def test_a_debugger_writes_and_reads_back(tmp_path: Path, tools: Path) -> None:
    record = tool(tools, "st-flash", "Flash written and verified! jolly good!")
    folder = built(tmp_path / "p", "nucleo_f446re")
    result = flash.flash(folder)
    image = folder / "firmware" / "firmware.bin"
    assert record.read_text().split("\n") == ["--reset", "write", str(image), "0x08000000"]
    assert (result.tool, result.port, result.verified) == ("st-flash", "", True)


def test_a_tool_that_does_not_read_back_is_not_said_to(tmp_path: Path, tools: Path) -> None:
    tool(tools, "st-flash", "done")
    result = flash.flash(built(tmp_path / "p", "nucleo_f446re"))
    assert not result.verified and "st-flash does not read back" in result.message


def test_a_missing_tool_is_named_with_its_installation(tmp_path: Path, tools: Path) -> None:
    with pytest.raises(TinyGenError, match="st-flash: not found") as caught:
        flash.flash(built(tmp_path / "p", "nucleo_f446re"))
    assert caught.value.hint == "apt-get install stlink-tools"
    with pytest.raises(TinyGenError, match="bossac: not found"):
        flash.flash(built(tmp_path / "q", "nano33ble"))


def test_a_tool_that_fails_is_an_error_with_its_words(tmp_path: Path, tools: Path) -> None:
    tool(tools, "st-flash", "looking\nCouldn't find any ST-Link devices", 1)
    with pytest.raises(TinyGenError, match=r"st-flash failed with status 1\n.*\n.*any ST-Link"):
        flash.flash(built(tmp_path / "p", "nucleo_f446re"))


def test_every_flashable_board_names_a_tool_we_can_install() -> None:
    for board in boards.load_all():
        if board.system and board.system.flashable:
            assert board.system.upload[0] in {*flash._INSTALL, "cp"}, board.name
            assert re.search(r"\{(bin|hex|uf2)\}", " ".join(board.system.upload)), board.name


# ---- ports ---------------------------------------------------------------------------------------


def listing(*found: Port) -> Callable[[], Sequence[Port]]:
    return lambda: found


OTHER = Port("/dev/ttyS0")
KEYBOARD = Port("/dev/ttyACM9", "1234:5678", "a modem")
FIRST = Port("/dev/ttyACM0", SKETCH, "Nano 33 BLE")
SECOND = Port("/dev/ttyACM1", SKETCH, "Nano 33 BLE")


def test_the_board_is_found_by_its_usb_id() -> None:
    assert find(NANO, None, listing(OTHER, KEYBOARD, FIRST)) == "/dev/ttyACM0"
    in_bootloader = Port("/dev/ttyACM3", BOOTLOADER)
    assert find(NANO, None, listing(OTHER, in_bootloader)) == "/dev/ttyACM3"
    assert find(NANO, "/dev/mine", listing(FIRST, SECOND)) == "/dev/mine"
    assert find(None, None, listing(OTHER, KEYBOARD)) == "/dev/ttyACM9"


def test_several_fitting_ports_are_listed() -> None:
    with pytest.raises(InputError, match="Arduino Nano 33 BLE: 2 ports fit") as caught:
        find(NANO, None, listing(FIRST, SECOND, KEYBOARD))
    assert f"/dev/ttyACM0 ({SKETCH} Nano 33 BLE)\n  /dev/ttyACM1" in caught.value.message
    assert "modem" not in caught.value.message and "--port" in caught.value.hint


def test_no_fitting_port_says_what_was_sought_and_what_is_there() -> None:
    with pytest.raises(InputError, match="not found on any serial port") as caught:
        find(NANO, None, listing(KEYBOARD))
    assert f"{SKETCH} or {BOOTLOADER}" in caught.value.hint
    assert "/dev/ttyACM9 (1234:5678 a modem)" in caught.value.hint
    with pytest.raises(InputError, match="not found") as caught:
        find(None, None, listing(OTHER))
    with pytest.raises(InputError, match="not found") as caught:
        find(NANO, None, listing())
    assert "no serial port at all" in caught.value.hint
    with pytest.raises(InputError, match="has no USB serial port of its own"):
        find(boards.load("qemu_m4"), None, listing(KEYBOARD))


def test_ports_of_this_machine_can_be_listed() -> None:
    assert all(isinstance(port, Port) for port in serialport.ports())


class Plug:
    """A board on a pseudo-terminal, whose port changes once it has been opened at 1200 baud."""

    def __init__(self, *after: Sequence[Port], others: Sequence[Port] = ()) -> None:
        self._master, self._slave = pty.openpty()
        self.device = os.ttyname(self._slave)
        self._others = list(others)
        self._after = list(after)
        self.asked = 0

    def baud(self) -> int:
        return termios.tcgetattr(self._slave)[5]

    def __call__(self) -> list[Port]:
        if self.baud() != termios.B1200:
            return [Port(self.device, SKETCH), *self._others]
        self.asked += 1
        present = self._after[min(self.asked, len(self._after)) - 1]
        return [*present, *self._others]

    def __enter__(self) -> Plug:
        return self

    def __exit__(self, *details: object) -> None:
        os.close(self._master)
        os.close(self._slave)


def test_the_touch_opens_the_port_at_1200_baud() -> None:
    with Plug([]) as plug:
        assert plug.baud() != termios.B1200
        touch(plug.device, plug)
        assert plug.baud() == termios.B1200


def test_the_bootloader_is_found_under_another_name() -> None:
    back = Port("/dev/ttyACM5", BOOTLOADER)
    with Plug([], [], [back], others=[SECOND]) as plug:
        assert into_bootloader(plug.device, NANO, plug) == "/dev/ttyACM5"
        assert plug.asked >= 3


def test_the_bootloader_is_found_under_the_same_name() -> None:
    with Plug([]) as plug:
        plug._after = [[], [Port(plug.device, BOOTLOADER)]]
        assert into_bootloader(plug.device, NANO, plug) == plug.device


def test_a_port_that_stays_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serialport, "_STAYS_SECONDS", 0.3)
    with Plug([]) as plug:
        plug._after = [[Port(plug.device, SKETCH)]]
        assert into_bootloader(plug.device, NANO, plug) == plug.device


def test_a_board_in_its_bootloader_is_not_touched() -> None:
    with Plug([]) as plug:
        there = Port(plug.device, BOOTLOADER)
        assert into_bootloader(plug.device, NANO, listing(there)) == plug.device
        assert plug.baud() != termios.B1200


def test_a_board_that_does_not_come_back_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serialport, "_TOUCH_SECONDS", 0.3)
    with Plug([], others=[SECOND]) as plug:
        with pytest.raises(TinyGenError, match="did not come back") as caught:
            into_bootloader(plug.device, NANO, plug)
        assert "reset button twice" in caught.value.hint


def test_a_nano_is_touched_found_again_and_written(tmp_path: Path, tools: Path) -> None:
    record = tool(tools, "bossac", "Done in 0.5 seconds")
    folder = built(tmp_path / "p", "nano33ble")
    artifacts = {"bin": folder / "firmware" / "firmware.bin"}
    with Plug([], [Port("/dev/ttyACM5", BOOTLOADER)]) as plug:
        result = flash.write("chain", NANO, artifacts, None, available=plug)
    arguments = record.read_text().split("\n")
    assert arguments == ["--port=ttyACM5", "-U", "-i", "-e", "-w", str(artifacts["bin"]), "-R"]
    assert (result.port, result.tool, result.verified) == ("/dev/ttyACM5", "bossac", False)


# ---- drives of UF2 bootloaders -------------------------------------------------------------------


def drive(folder: Path, name: str) -> Path:
    place = folder / name
    place.mkdir()
    (place / "INFO_UF2.TXT").write_text("UF2 Bootloader\n")
    return place


PICO, XIAO = boards.load("pico"), boards.load("xiao_nrf52840")


def put(folder: Path, board: Board, port: str | None, *mounted: Path) -> flash.FlashResult:
    artifacts = {"uf2": folder / "firmware.uf2"}
    artifacts["uf2"].write_bytes(b"UF2\n" * 256)
    return flash.write(
        "chain", board, artifacts, port, available=listing(), mounted=lambda: list(mounted)
    )


def test_the_image_is_copied_onto_the_only_drive(tmp_path: Path, tools: Path) -> None:
    place = drive(tmp_path, "boot")
    result = put(tmp_path, XIAO, None, place)
    assert (place / "firmware.uf2").read_bytes() == b"UF2\n" * 256
    assert (result.tool, result.port, result.verified) == ("copy", str(place), False)


def test_a_drive_can_be_named(tmp_path: Path, tools: Path) -> None:
    one, other = drive(tmp_path, "one"), drive(tmp_path, "other")
    with pytest.raises(InputError, match="2 bootloader drives") as caught:
        put(tmp_path, XIAO, None, one, other)
    assert str(one) in caught.value.message and "--port" in caught.value.hint
    put(tmp_path, XIAO, str(other), one, other)
    assert (other / "firmware.uf2").is_file() and not (one / "firmware.uf2").exists()


def test_without_a_drive_the_way_into_the_bootloader_is_told(
    tmp_path: Path, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flash, "_DRIVE_SECONDS", 0.3)
    with pytest.raises(InputError, match="no drive of its bootloader is mounted") as caught:
        put(tmp_path, PICO, None)
    assert "BOOTSEL" in caught.value.hint


def test_a_pico_is_written_by_picotool_or_by_copying(tmp_path: Path, tools: Path) -> None:
    place = drive(tmp_path, "RPI-RP2")
    assert put(tmp_path, PICO, None, place).tool == "copy"
    record = tool(tools, "picotool", "Verifying Flash: [====] 100%\n  OK")
    result = put(tmp_path, PICO, None, place)
    assert (result.tool, result.verified) == ("picotool", True)
    assert record.read_text().split("\n") == ["load", "-v", "-x", str(tmp_path / "firmware.uf2")]


def test_drives_are_folders_with_the_bootloaders_file(tmp_path: Path) -> None:
    assert all((place / "INFO_UF2.TXT").is_file() for place in flash.drives())


def test_a_running_board_is_touched_and_its_drive_awaited(tmp_path: Path, tools: Path) -> None:
    place = drive(tmp_path, "boot")
    image = tmp_path / "firmware.uf2"
    image.write_bytes(b"image")
    assert XIAO.usb is not None
    with Plug([]) as plug:
        plug_ids = [Port(plug.device, XIAO.usb.ids[0])]

        def available() -> list[Port]:
            return plug_ids if plug.baud() != termios.B1200 else []

        def mounted() -> list[Path]:
            return [place] if plug.baud() == termios.B1200 else []

        flash.write("chain", XIAO, {"uf2": image}, None, available, mounted)
    assert (place / "firmware.uf2").read_bytes() == b"image"
