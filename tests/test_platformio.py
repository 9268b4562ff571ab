"""PlatformIO's part: its parser takes what we write, its builds work offline and leave no trace."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import projects
import pytest
from elftools.elf.elffile import ELFFile

from tinygen import boards, platformio, project, sizes
from tinygen.boards import Board
from tinygen.errors import FitError, InputError, TinyGenError
from tinygen.resources import folder as resource

ALL = boards.load_all()
ARDUINO_API = Path(__file__).parent / "arduino_api"
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror")
NOWHERE = "http://127.0.0.1:9"  # a proxy that refuses every connection


def every(board: Board) -> str:
    return board.name


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of the test's own, where nothing may appear, and no network."""
    place = tmp_path / "home"
    place.mkdir()
    for name in list(os.environ):
        if name.startswith("PLATFORMIO_") or name.lower() == "no_proxy":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.setenv("TINYGEN_HOME", str(tmp_path / "tinygen"))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, NOWHERE)
        monkeypatch.setenv(name.upper(), NOWHERE)
    yield place
    assert list(place.iterdir()) == []


@pytest.fixture(scope="module")
def m4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project for qemu_m4, built."""
    folder = projects.write(tmp_path_factory.mktemp("m4") / "p", "qemu_m4")
    platformio.build(folder, boards.load("qemu_m4"))
    return folder


# ---- what PlatformIO reads ---------------------------------------------------------------------


@pytest.mark.parametrize("board", ALL, ids=every)
def test_platformio_reads_every_ini(
    board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from platformio.project.config import ProjectConfig

    folder = projects.write(tmp_path / "p", board.name)
    monkeypatch.chdir(folder)
    assert ProjectConfig.lint("platformio.ini") == {"errors": [], "warnings": []}
    config = ProjectConfig("platformio.ini")
    config.validate()
    assert tuple(config.envs()) == board.environments
    assert config.default_envs() == [board.environments[0]]
    for environment in config.envs():
        options = config.items(env=environment, as_dict=True)
        if board.vendor and environment == board.name:
            assert options["platform"] == board.vendor.platform
            assert options["board"] == board.vendor.board
            assert options["framework"] == [board.vendor.framework]
            assert options.get("upload_protocol", "") == board.vendor.upload
        else:
            assert options["platform"] == f"symlink://{folder}/platforms/tinygen"
            assert Path(f"platforms/tinygen/boards/{options['board']}.json").is_file()


def test_partition_table_and_libraries_reach_the_ini(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from platformio.project.config import ProjectConfig

    libraries = ("spaziochirale/Chirale_TensorFLowLite@2.0.0", "another@1.0.0")
    made = replace(projects.contents(), weight_bytes=2_000_000, lib_deps=libraries)
    project.write(tmp_path / "p", boards.load("esp32"), made)
    monkeypatch.chdir(tmp_path / "p")
    config = ProjectConfig("platformio.ini")
    assert config.get("env:esp32", "board_build.partitions") == "huge_app.csv"
    assert tuple(config.get("env:esp32", "lib_deps")) == libraries
    assert config.get("env:esp32_sim", "lib_deps") == []


def test_local_settings_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from platformio.project.config import ProjectConfig

    folder = projects.write(tmp_path / "p", "nano33ble")
    (folder / "platformio_local.ini").write_text("[env:nano33ble]\nupload_protocol = jlink\n")
    monkeypatch.chdir(folder)
    assert ProjectConfig("platformio.ini").get("env:nano33ble", "upload_protocol") == "jlink"


MANIFESTS = """
import json, sys
from platformio.platform.factory import PlatformFactory
for folder, name in zip(sys.argv[1::2], sys.argv[2::2]):
    config = PlatformFactory.new(folder + "/platforms/tinygen").board_config(name)
    print(json.dumps([config.get_brief_data(), config.get("upload.maximum_size")]))
"""


def test_board_manifests_are_platformios(tmp_path: Path) -> None:
    built = [board for board in ALL if board.system]
    words = [
        word
        for board in built
        for word in (str(projects.write(tmp_path / board.name, board.name)), board.name)
    ]
    done = subprocess.run(
        [sys.executable, "-c", MANIFESTS, *words],
        env=platformio._environment(tmp_path / "core", tmp_path / "build", ()),
        check=True,
        capture_output=True,
    )
    for board, line in zip(built, done.stdout.splitlines(), strict=True):
        brief, flash = json.loads(line)
        assert (brief["id"], brief["name"]) == (board.name, board.title)
        assert (brief["rom"], brief["ram"], flash) == (flash, board.ram, board.flash_limit)


# ---- what compilers read -----------------------------------------------------------------------


@pytest.mark.parametrize("board", ALL, ids=every)
@pytest.mark.parametrize("standard", ["gnu++11", "gnu++17"])
def test_main_compiles_against_arduinos_interface(
    board: Board, standard: str, tmp_path: Path
) -> None:
    """As a vendor's core would compile it, with the compiler for the board's architecture."""
    folder = projects.write(tmp_path / "p", board.name)
    simulated = boards.simulated_by(board)
    assert simulated is not None and simulated.system is not None
    system = simulated.system
    includes = [ARDUINO_API, *(folder / path for path in ("include", "lib/chain/src"))]
    includes.append(folder / "lib/tinygen/src")
    subprocess.run(
        [
            *(f"{system.compiler}g++", f"-std={standard}", *system.flags, *WARNINGS),
            *("-fno-exceptions", "-fno-rtti", "-fsyntax-only"),
            *(f"-I{path}" for path in includes),
            str(folder / "src/main.cpp"),
        ],
        check=True,
    )


@pytest.mark.parametrize("compiler", ["g++", "clang++", "arm-none-eabi-g++ -mcpu=cortex-m0"])
def test_our_arduino_layer_is_clean(compiler: str) -> None:
    firmware = resource("firmware")
    subprocess.run(
        [
            *(*compiler.split(), "-std=gnu++17", *WARNINGS, "-fno-exceptions", "-fsyntax-only"),
            *(f"-I{firmware / 'port'}", str(firmware / "arduino" / "arduino.cpp")),
        ],
        check=True,
    )


@pytest.mark.parametrize(
    ("macro", "value", "complaint"),
    [("RAM", 4096, "more than the board's RAM"), ("FLASH", 200, "more than the board's flash")],
)
def test_sizes_are_checked_at_compile_time(
    m4: Path, tmp_path: Path, macro: str, value: int, complaint: str
) -> None:
    folder = shutil.copytree(m4, tmp_path / "p")
    header = folder / "include/tinygen_board.h"
    header.write_text(re.sub(rf"(BOARD_{macro}) \d+", rf"\1 {value}", header.read_text()))
    with pytest.raises(platformio.BuildError) as caught:
        platformio.make(folder, "qemu_m4_sim")
    assert complaint in caught.value.message


# ---- what the Arduino layer does ---------------------------------------------------------------

PRINTS = r"""
#include <Arduino.h>
void setup() {
  Serial.begin(115200);
  Serial.println(0); Serial.println(-123); Serial.println(4000000000u); Serial.println(255, HEX);
  Serial.println(-1L, BIN == 2 ? DEC : HEX); Serial.println('x'); Serial.println("text");
  Serial.println(3.14159, 3); Serial.println(-0.256); Serial.println(1e20);
  Serial.println(0.0 / 0.0); Serial.println(2.5, 0); Serial.println(F("flash"));
  Serial.println(5, BIN);
  const unsigned long start = millis();
  delay(20);
  const unsigned long passed = millis() - start;
  Serial.println(passed >= 20 && passed < 2000);
  while (!Serial.available()) {}
  Serial.println(Serial.peek() == 'a' && Serial.peek() == 'a' && Serial.read() == 'a');
  tinygen_port_exit(0);
}
void loop() {}
"""


def test_arduino_layer_prints_as_arduino_does(tmp_path: Path) -> None:
    folder = projects.write(tmp_path / "p", "host")
    (folder / "src/main.cpp").write_text(PRINTS)
    elf = platformio.make(folder, "host")
    done = subprocess.run([elf], input=b"a", capture_output=True, check=True)
    assert done.stdout.decode().split("\r\n") == [
        *("0", "-123", "4000000000", "FF", "-1", "x", "text", "3.142", "-0.26", "ovf", "nan"),
        *("3", "flash", "101", "1", "1", ""),
    ]


# ---- builds ------------------------------------------------------------------------------------


def test_built_firmware_answers_in_qemu(m4: Path) -> None:
    elf = m4 / "firmware/firmware-emulation-only.elf"
    command = ["qemu-system-arm", "-M", "mps2-an386", "-display", "none", "-serial", "stdio"]
    with subprocess.Popen(
        [*command, "-semihosting", "-kernel", elf], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin and process.stdout
        process.stdin.write(b"name%")
        process.stdin.flush()
        lines = []
        while "m-name-dut-[qemu_m4]" not in lines:
            line = process.stdout.readline()
            assert line
            lines.append(line.decode().strip())
        process.kill()
    assert "m-init-done" in lines


def test_what_a_build_makes(m4: Path) -> None:
    manifest = project.load(m4)
    assert manifest.artifacts == {
        suffix: f"firmware/firmware-emulation-only.{suffix}" for suffix in ("elf", "bin", "hex")
    }
    assert (manifest.toolchain, manifest.environment) == ("system", "qemu_m4_sim")
    assert manifest.flashable is False
    assert {path.name for path in (m4 / "firmware").iterdir()} == {
        Path(path).name for path in manifest.artifacts.values()
    }


def test_sizes_add_up(m4: Path) -> None:
    elf = m4 / "firmware/firmware-emulation-only.elf"
    found = sizes.of(elf, "chain", boards.load("qemu_m4"))
    listing = subprocess.run(
        ["arm-none-eabi-size", elf], capture_output=True, text=True, check=True
    ).stdout
    text, data, bss = (int(word) for word in listing.splitlines()[1].split()[:3])
    assert found.flash.total == text + data
    assert found.ram.total == data + bss
    assert found.flash.weights >= projects.WEIGHT_BYTES
    assert found.flash.weights < projects.WEIGHT_BYTES + 400
    assert 200 < found.flash.code < 2000
    header = (m4 / "lib/chain/src/chain.h").read_text()
    assert found.ram.arena == int(re.findall(r"CHAIN_ARENA_BYTES (\d+)", header)[0])
    assert found.ram.stack == 8192
    assert found.flash.rest > 0 and found.ram.rest > 0 and found.fits


def test_sizes_say_what_does_not_fit(m4: Path) -> None:
    elf = m4 / "firmware/firmware-emulation-only.elf"
    small = boards.load("qemu_m4").model_copy(update={"ram": 8192})
    assert not sizes.of(elf, "chain", small).fits
    with pytest.raises(TinyGenError, match="ELF"):
        sizes.of(m4 / "platformio.ini", "chain", small)


@pytest.mark.parametrize("name", ["with space/ünïcode", "at@home=x"])
def test_the_place_does_not_matter(m4: Path, tmp_path: Path, name: str) -> None:
    """The same bytes from every folder, also when an earlier project's platform is registered."""
    folder = projects.write(tmp_path / name, "qemu_m4")
    shutil.copytree(m4 / ".pio" / "core", folder / ".pio" / "core")
    elf = platformio.make(folder, "qemu_m4_sim")
    assert elf.read_bytes() == (m4 / "firmware" / elf.name).read_bytes()
    assert str(folder).encode() not in elf.read_bytes()


def test_one_core_folder_serves_several_projects(m4: Path, tmp_path: Path) -> None:
    """As when a person runs `pio` in one project after the other."""
    core = tmp_path / "core"
    platformio._prepare(core)
    for i in (0, 1):
        folder = projects.write(tmp_path / str(i), "qemu_m4")
        (folder / "platforms/tinygen/arduino/which.cpp").write_text(
            f"int which_{i}() {{return 0;}}"
        )
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, "-m", "platformio", "run", "-v", "-e", "qemu_m4_sim"],
                env=platformio._environment(core, folder / ".pio" / "build", ()),
                cwd=folder,
                check=True,
                capture_output=True,
                text=True,
            )
        assert f"{folder}/platforms" in done.stdout
        names = ELFFile.load_from_path(
            str(next((folder / ".pio/build/qemu_m4_sim/platform").rglob("which.o")))
        ).get_section_by_name(".symtab")
        assert any(f"which_{i}" in symbol.name for symbol in names.iter_symbols())


def test_flags_build_apart(m4: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(m4, tmp_path / "p")
    plain = platformio.make(folder, "qemu_m4_sim")
    traced = platformio.make(folder, "qemu_m4_sim", ("-DTINYGEN_TRACE",))
    assert plain.is_file() and traced != plain
    table = ELFFile.load_from_path(str(traced)).get_section_by_name(".symtab")
    assert table.get_symbol_by_name("tinygen_on_layer")
    table = ELFFile.load_from_path(str(plain)).get_section_by_name(".symtab")
    assert not table.get_symbol_by_name("tinygen_on_layer")


def test_compiler_errors_are_shown(m4: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(m4, tmp_path / "p")
    (folder / "src/main.cpp").write_text("int main() { return nonsense; }")
    with pytest.raises(platformio.BuildError) as caught:
        platformio.build(folder, boards.load("qemu_m4"))
    assert "src/main.cpp:1:21: error: 'nonsense' was not declared" in caught.value.message
    assert len(caught.value.message.splitlines()) < 6
    log = Path(caught.value.hint.rpartition(" ")[2])
    assert log.is_file() and log.is_relative_to(folder)


def test_too_big_is_a_matter_of_fit(tmp_path: Path) -> None:
    small = boards.load("qemu_m4").model_copy(update={"flash": 3000})
    folder = project.write(tmp_path / "p", small, projects.contents()).folder
    with pytest.raises(FitError, match=r"too big for qemu_m4_sim by [\d,]+ bytes of FLASH"):
        platformio.build(folder, small)
    assert not (folder / "firmware").exists()


def test_the_environment_of_the_user_does_not_leak_in(
    m4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLATFORMIO_BUILD_FLAGS", "-DSOMETHING -O0")
    monkeypatch.setenv("PLATFORMIO_SRC_DIR", str(tmp_path))
    folder = projects.write(tmp_path / "p", "qemu_m4")
    elf = platformio.make(folder, "qemu_m4_sim")
    assert elf.read_bytes() == (m4 / "firmware" / elf.name).read_bytes()


# ---- which toolchain ---------------------------------------------------------------------------


def install(core: Path, name: str, version: str, uri: str | None = None) -> Path:
    """A PlatformIO core folder with a platform and a package in it."""
    place = core / "platforms" / name
    place.mkdir(parents=True)
    (place / "platform.json").write_text(json.dumps({"name": name, "version": version}))
    (place / ".piopm").write_text(json.dumps({"spec": {"uri": uri}}))
    (core / "packages" / "toolchain").mkdir(parents=True)
    return core


def test_without_network_the_system_builds_at_once() -> None:
    start = time.monotonic()
    choice = platformio.choose(boards.load("nano33ble"), "auto")
    assert time.monotonic() - start < 2 * platformio.PROBE_SECONDS
    assert (choice.toolchain, choice.environment) == ("system", "nano33ble_sim")
    assert choice.flashable
    assert "nordicnrf52@10.11.0 is neither installed nor within reach" in choice.reason


def test_insisting_on_the_vendor_needs_it() -> None:
    with pytest.raises(TinyGenError, match="not installed and cannot be fetched") as caught:
        platformio.choose(boards.load("nano33ble"), "vendor")
    assert "--toolchain vendor" in caught.value.hint
    with pytest.raises(InputError, match="qemu_m4: no vendor"):
        platformio.choose(boards.load("qemu_m4"), "vendor")


def test_an_installed_platform_is_used_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = install(tmp_path / "core", "nordicnrf52", "10.11.0")
    before = projects.snapshot(core)
    monkeypatch.setenv("PLATFORMIO_CORE_DIR", str(core))
    choice = platformio.choose(boards.load("nano33ble"), "auto")
    assert (choice.toolchain, choice.environment) == ("vendor", "nano33ble")
    ours = tmp_path / "tinygen" / "platformio"
    assert (ours / "platforms" / "nordicnrf52").resolve() == core / "platforms" / "nordicnrf52"
    assert (ours / "packages" / "toolchain").resolve() == core / "packages" / "toolchain"
    assert projects.snapshot(core) == before
    assert platformio.choose(boards.load("nano33ble"), "vendor") == choice
    assert platformio.choose(boards.load("nano33ble"), "system").toolchain == "system"


def test_another_version_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "PLATFORMIO_CORE_DIR", str(install(tmp_path / "core", "nordicnrf52", "10.10.0"))
    )
    assert platformio.choose(boards.load("nano33ble"), "auto").toolchain == "system"


def test_a_platform_from_an_address_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = boards.load("xiao_nrf52840")
    assert board.vendor
    core = install(tmp_path / "core", "nordicnrf52", "10.1.0", f"git+{board.vendor.platform}")
    monkeypatch.setenv("PLATFORMIO_CORE_DIR", str(core))
    assert platformio.choose(board, "auto").toolchain == "vendor"


def test_when_fetching_fails_the_system_builds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(folder: Path, environment: str) -> Path:
        if environment == "nano33ble":
            raise platformio.BuildError("failed", "", log)
        return really_make(folder, environment)

    really_make = platformio.make
    monkeypatch.setattr(platformio, "make", make)
    monkeypatch.setattr(platformio, "_within_reach", lambda vendor: True)
    said: list[str] = []
    board = boards.load("nano33ble")
    folder = projects.write(tmp_path / "p", board.name)
    log = "src/main.cpp:1:1: error: expected declaration"
    with pytest.raises(platformio.BuildError):
        platformio.build(folder, board)
    log = "HTTPClientError: Max retries exceeded"
    with pytest.raises(platformio.BuildError):
        platformio.build(folder, board, "vendor")
    made = platformio.build(folder, board, say=said.append)
    assert (made.toolchain, made.environment) == ("system", "nano33ble_sim")
    assert made.elf.name == "firmware.elf" and made.flashable
    assert "could not be fetched" in made.message
    assert len(said) == 2


@pytest.mark.wide
def test_a_failed_fetch_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PlatformIO itself finds no network, after a minute of trying."""
    monkeypatch.setattr(platformio, "_within_reach", lambda vendor: True)
    folder = projects.write(tmp_path / "p", "nano33ble")
    assert platformio.build(folder, boards.load("nano33ble")).toolchain == "system"


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TinyGenError) as caught:
        platformio.choose(boards.load("qemu_m4"), "auto")
    assert caught.value.message == "qemu_m4: arm-none-eabi-gcc is not on PATH"
    assert caught.value.hint.startswith("apt-get install gcc-arm-none-eabi libnewlib")


def test_stand_ins_say_so() -> None:
    choice = platformio.choose(boards.load("teensy41"), "system")
    assert "qemu_m7, which stands in for it" in choice.reason
    assert not choice.flashable


# ---- products ----------------------------------------------------------------------------------


def test_uf2_carries_the_image(tmp_path: Path) -> None:
    """Every loadable byte is in a block, at its address, with the family's number."""
    folder = projects.write(tmp_path / "p", "pico")
    elf = platformio.make(folder, "pico_sim")
    data = elf.with_suffix(".uf2").read_bytes()
    assert len(data) % 512 == 0
    memory = {}
    for number in range(len(data) // 512):
        block = data[512 * number : 512 * (number + 1)]
        head = struct.unpack("<8I", block[:32])
        assert head[:3] == (0x0A324655, 0x9E5D5157, 0x2000)
        assert head[4:] == (256, number, len(data) // 512, 0xE48BFF56)
        assert struct.unpack("<I", block[508:]) == (0x0AB16F30,)
        memory[head[3]] = block[32:288]
    raw = elf.with_suffix(".bin").read_bytes()
    image = b"".join(memory[address] for address in sorted(memory))
    assert sorted(memory) == [0x10000000 + 256 * i for i in range(len(memory))]
    assert image[: len(raw)] == raw
    assert not image[len(raw) :].strip(b"\0")


def test_uploading_what_is_not_for_a_board_fails(m4: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(m4, tmp_path / "p")
    with pytest.raises(platformio.BuildError, match="not on a board"):
        platformio.upload(folder, "qemu_m4_sim")


def test_upload_runs_the_boards_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    fake = tools / "st-flash"
    fake.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    folder = projects.write(tmp_path / "p", "nucleo_f446re")
    platformio.upload(folder, "nucleo_f446re_sim")
    words = (tmp_path / "arguments").read_text().split()
    assert words == [
        *("--reset", "write", f"{folder}/.pio/build/nucleo_f446re_sim/firmware.bin", "0x08000000")
    ]


SYSTEM = [board for board in ALL if board.system and not board.system.hosted]


@pytest.mark.wide
@pytest.mark.parametrize("board", SYSTEM, ids=every)
def test_every_system_board_builds(board: Board, tmp_path: Path) -> None:
    made = platformio.build(projects.write(tmp_path / "p", board.name), board, "system")
    assert board.system
    assert made.sizes.fits
    assert made.flashable == board.system.flashable
    assert ("emulation-only" in made.elf.name) == (not made.flashable)
