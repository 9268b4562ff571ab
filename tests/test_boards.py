"""The board files: complete, consistent with each other, and refused when they are not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tinygen import boards
from tinygen.boards import Board
from tinygen.errors import InputError, TinyGenError
from tinygen.resources import folder

ALL = boards.load_all()
EXPECTED = {
    *("disco_f746ng", "esp32", "esp32c3", "esp32s3", "nano33ble", "nucleo_f446re"),
    *("nucleo_l4r5zi", "pico", "teensy41", "xiao_nrf52840"),
    *("qemu_m0", "qemu_m3", "qemu_m4", "qemu_m7", "qemu_m55", "qemu_rv32", "qemu_xtensa", "host"),
}

MINIMAL = """
name = "thing"
title = "A thing"
mcu = "X1"
core = "cortex-m4"
clock_hz = 1
flash = 1
ram = 1
"""
SYSTEM = """
[system]
compiler = "arm-none-eabi-"
port = "mps2"
flashable = false
"""


def every(board: Board) -> str:
    return board.name


def test_all_boards_are_there() -> None:
    assert {board.name for board in ALL} >= EXPECTED


@pytest.mark.parametrize("board", ALL, ids=every)
def test_vendor_platform_is_pinned(board: Board) -> None:
    if board.vendor:
        pin = r"[a-z0-9]+@\d+\.\d+\.\d+|https://\S+\.git#[0-9a-f]{40}"
        assert re.fullmatch(pin, board.vendor.platform)
        assert all(re.search(r"@\d+\.\d+\.\d+$", library) for library in board.vendor.tflm)


@pytest.mark.parametrize("board", ALL, ids=every)
def test_every_board_can_be_simulated(board: Board) -> None:
    simulated = boards.simulated_by(board)
    assert simulated is not None
    assert simulated.system is not None
    assert simulated.emulator is not None and simulated.emulator.kind


@pytest.mark.parametrize("board", ALL, ids=every)
def test_system_build_has_its_files(board: Board) -> None:
    if board.system:
        port = folder("firmware") / "port"
        assert all((port / name).is_dir() for name in board.system.folders)
        assert board.system.hosted or (port / board.system.script).is_file()
        assert bool(board.system.upload) == board.system.flashable
        assert board.system.hosted or board.system.stack >= 1024


@pytest.mark.parametrize("board", ALL, ids=every)
def test_stand_ins_share_the_architecture(board: Board) -> None:
    simulated = boards.simulated_by(board)
    assert simulated is not None
    assert simulated.core.partition("-")[0] == board.core.partition("-")[0]


def test_partition_table_lifts_the_limit() -> None:
    esp32 = boards.load("esp32")
    assert (esp32.flash, esp32.flash_limit) == (1_310_720, 3_145_728)
    assert boards.load("nano33ble").flash_limit == 983_040


def test_environments() -> None:
    assert boards.load("nano33ble").environments == ("nano33ble", "nano33ble_sim", "host")
    assert boards.load("qemu_m4").environments == ("qemu_m4_sim", "host")
    assert boards.load("host").environments == ("host",)


def test_features_follow_the_core() -> None:
    assert boards.load("qemu_m3").features == {"armv7m"}
    assert boards.load("nano33ble").features == {"dsp"}
    assert boards.load("qemu_m55").features == {"dsp", "mve"}


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("nano33", "nano33ble"),
        ("ESP-32", "esp32"),
        ("quemu_m4", "qemu_m4"),
        ("../../etc/passwd", "boards: "),
        ("", "boards: "),
    ],
)
def test_unknown_board(wrong: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        boards.load(wrong)
    assert caught.value.message.startswith(f"{wrong}: no board")
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (MINIMAL, "neither [vendor] nor [system]"),
        (MINIMAL.replace("cortex-m4", "6502") + SYSTEM, "core"),
        (MINIMAL.replace("ram = 1", "ram = 0") + SYSTEM, "ram"),
        (MINIMAL.replace("flash = 1", "flash = '1'") + SYSTEM, "flash"),
        (MINIMAL + "colour = 'red'\n" + SYSTEM, "colour"),
        (MINIMAL + SYSTEM + "voltage = 3\n", "system.voltage"),
        (MINIMAL + SYSTEM + "[usb]\nids = ['2341-805a']\n", "usb.ids.0"),
        (MINIMAL + SYSTEM + "[emulator]\nmachine = 'x'\n", "either kind or stands_in"),
        (MINIMAL.replace('"thing"', '"other"') + SYSTEM, "calls itself 'other'"),
        (MINIMAL + "[system", "Expected ']'"),
    ],
)
def test_broken_board_file_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "thing.toml"
    path.write_text(text)
    with pytest.raises(TinyGenError) as caught:
        boards.read(path)
    assert caught.value.message.startswith("thing.toml: ")
    assert complaint in caught.value.message


def test_a_minimal_board_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "thing.toml"
    path.write_text(MINIMAL + SYSTEM)
    assert boards.read(path).name == "thing"
