"""Whole chips in labwired: ports, memory maps, serial lines, and what goes onto a real chip."""

from __future__ import annotations

import gc
import importlib.util
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from test_simulate_qemu import FAULT_STATUS, PORT, WARNINGS, compile_for, gone

from tinygen import boards, simulate
from tinygen.boards import Board
from tinygen.errors import InputError, TinyGenError
from tinygen.simulate import labwired, qemu, thumb

TESTS = Path(__file__).parent
CHIPS = [b for b in boards.load_all() if b.emulator and b.emulator.kind == "labwired"]
BY_NAME = {board.name: board for board in CHIPS}
CORTEX_M = [board for board in CHIPS if board.core.startswith("cortex-m")]
SERIAL = bytes(range(1, 256))  # the probe's echo ends with a zero

Built = Callable[[Board], Path]
each_chip = pytest.mark.parametrize("board", CHIPS, ids=lambda board: board.name)
pytestmark = [
    pytest.mark.xdist_group("chips"),
    pytest.mark.skipif(not labwired.available(), reason="labwired is not installed"),
]


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Gives the probe for a chip, compiled once."""
    folder = tmp_path_factory.mktemp("probes")

    def built(board: Board) -> Path:
        elf = folder / f"{board.name}.elf"
        if not elf.is_file():
            compile_for(board, TESTS / "simulate_probe.c", elf)
        return elf

    return built


def ask(machine: labwired.Machine, letters: str, lines: int = 1) -> list[list[str]]:
    """The probe's answers, as words."""
    machine.write(letters.encode())
    got = b""
    while got.count(b"\n") < lines:
        more = machine.read(20)
        assert more, f"silence after {got!r}"
        got += more
    return [line.split() for line in got.decode().splitlines()]


def echoed(machine: labwired.Machine, data: bytes) -> bytes:
    machine.write(b"e" + data)
    got = bytearray()
    while len(got) < len(data):
        more = machine.read(20)
        assert more, f"silence after {len(got)} bytes"
        got += more
    machine.write(b"\0")
    return bytes(got)


def words(machine: labwired.Machine, *addresses: int) -> list[int]:
    return [int.from_bytes(machine.memory(at, 4), "little") for at in addresses]


# ---- Ports ---------------------------------------------------------------------------------------


@each_chip
def test_a_port_starts_computes_counts_and_ends(board: Board, probe: Built) -> None:
    with labwired.start(board, probe(board)) as machine:
        data, (unit, counted), floats, (_, product), (before, after) = ask(machine, "dcfvs", 5)
        assert data == ["1", "1", "1234"]  # initialised data, zeroed bss, constructors in order
        assert unit == "cycles"
        assert 20_000 <= int(counted) <= 20_050  # of a loop of 20,000 instructions
        assert floats[:4] == ["1082130432", "3221225472", "1077936128", "1051372203"]
        assert int(product) - 2**32 == sum(
            (3 * i - 90) * ((127 - 5 * i + 128) % 256 - 128) for i in range(64)
        )
        assert int(before) < 1000 and int(after) >= 2000  # the probe uses 2,000 bytes in between
        assert machine.stack_peak() == int(after)
        machine.write(b"q")
        while machine.status is None:
            assert machine.read(5) == b""
        assert machine.status == 7
        assert machine.cycles > 20_000


@each_chip
def test_the_serial_line_carries_every_byte_both_ways(board: Board, probe: Built) -> None:
    data = SERIAL * 8
    with labwired.start(board, probe(board)) as machine:
        assert echoed(machine, data) == data
        assert echoed(machine, data[::-1]) == data[::-1]


@pytest.mark.wide
@each_chip
def test_thirty_kilobytes_come_back_as_they_went(board: Board, probe: Built) -> None:
    data = (SERIAL * 120)[:30_000]
    with labwired.start(board, probe(board)) as machine:
        assert echoed(machine, data) == data


BAUD = {
    # registers, and the rate that they mean by the chip's manual with the clock that the port sets
    "nrf52840": ((0x40002524,), lambda rate: rate * 16e6 / 2**32),
    "rp2040": ((0x40034024, 0x40034028), lambda whole, part: 12e6 / 16 / (whole + part / 64)),
    "stm32l4": ((0x4000800C,), lambda divisor: 256 * 16e6 / divisor),
    "stm32f4": ((0x40004408,), lambda divisor: 180e6 / 4 / divisor),
    "stm32f7": ((0x4001100C,), lambda divisor: 16e6 / divisor),
}


@pytest.mark.parametrize(
    "board", [b for b in CHIPS if b.system and b.system.port in BAUD], ids=lambda board: board.name
)
def test_the_line_runs_at_115200_baud(board: Board, probe: Built) -> None:
    assert board.system
    registers, rate = BAUD[board.system.port]
    with labwired.start(board, probe(board)) as machine:
        ask(machine, "d")
        assert rate(*words(machine, *registers)) == pytest.approx(115_200, rel=0.005)


def test_the_esp32c3_line_is_slow_on_the_chip_and_fast_in_the_emulator(probe: Built) -> None:
    board = BY_NAME["esp32c3"]
    with labwired.start(board, probe(board)) as machine:
        ask(machine, "d")
        assert words(machine, 0x60000014) == [1]
    source = (PORT / "esp32c3" / "port.c").read_text()
    found = re.search(r"UART_CLKDIV_115200 \((\d+)u \| \((\d+)u << 20\)\)", source)
    assert found
    whole, sixteenths = map(int, found.groups())
    assert 40e6 / (whole + sixteenths / 16) == pytest.approx(115_200, rel=0.005)


@pytest.mark.parametrize("name", ["pico", "nucleo_l4r5zi", "nucleo_f446re", "disco_f746ng"])
def test_a_port_refuses_another_clock_than_it_sets(name: str, tmp_path: Path) -> None:
    slow = BY_NAME[name].model_copy(update={"clock_hz": 1_000_000})
    with pytest.raises(AssertionError, match="the board's clock_hz must say so"):
        compile_for(slow, TESTS / "simulate_probe.c", tmp_path / "slow.elf")


INTERRUPTS = {"nrf52840": 2, "rp2040": 20, "stm32l4": 70, "stm32f4": 38, "stm32f7": 37}


@pytest.mark.parametrize("board", CORTEX_M, ids=lambda board: board.name)
def test_what_arrives_while_a_program_is_busy_waits_for_it(board: Board, tmp_path: Path) -> None:
    assert board.system
    number = INTERRUPTS[board.system.port]
    defines = (*board.system.defines, f"PROBE_INTERRUPT={number}u")
    system = board.system.model_copy(update={"defines": defines})
    busy = board.model_copy(update={"system": system})
    elf = compile_for(busy, TESTS / "chip_interrupt.c", tmp_path / "busy.elf")
    with labwired.start(busy, elf) as machine:
        machine.write(b"while busy")
        assert machine.read(20)[:1] == b"!"
        put, taken = words(machine, at := machine.symbol("received"), at + 4)
        assert put == len(b"while busy")  # the interrupt's handler has put them there
        assert taken <= put
        machine.write(b", and after")
        got = b""
        while not got.endswith(b"after"):
            got += machine.read(20)
        assert b"while busy, and after".endswith(got)


def test_the_clock_is_right_over_wraps_and_silences(tmp_path: Path) -> None:
    program = tmp_path / "clock"
    command = ["gcc", "-std=c99", *WARNINGS, "-fsanitize=undefined", f"-I{PORT}"]
    subprocess.run([*command, TESTS / "chip_clock.c", "-o", program], check=True)
    assert subprocess.run([program], check=False).returncode == 0


@pytest.mark.wide
def test_the_pico_counts_cycles_beyond_24_bits(probe: Built) -> None:
    """Its counter is SysTick, whose interrupt carries."""
    board = BY_NAME["pico"]
    with labwired.start(board, probe(board)) as machine:
        ask(machine, "d")
        while machine.cycles < 3 << 24:
            machine.read(1)
        ask(machine, "c")
        low, high = words(machine, at := machine.symbol("time_now"), at + 4)
        counted = high << 32 | low
        assert machine.cycles - 40_000 < counted <= machine.cycles


# ---- Images for real chips -----------------------------------------------------------------------


def flash(elf: Path, tmp_path: Path, compiler: str) -> bytes:
    """The image as it goes into flash."""
    image = tmp_path / "image.bin"
    subprocess.run([f"{compiler}objcopy", "-O", "binary", elf, image], check=True)
    return image.read_bytes()


def vectors(image: bytes) -> tuple[int, int]:
    return int.from_bytes(image[:4], "little"), int.from_bytes(image[4:8], "little")


@pytest.mark.parametrize(
    ("name", "vectors_at"),
    [
        ("nano33ble", 0x10000),
        ("xiao_nrf52840", 0x27000),
        ("pico", 0x10000100),
        ("nucleo_l4r5zi", 0x08000000),
        ("nucleo_f446re", 0x08000000),
        ("disco_f746ng", 0x08000000),
    ],
)
def test_a_cortex_m_image_begins_where_its_board_starts_it(
    name: str, vectors_at: int, probe: Built, tmp_path: Path
) -> None:
    board = BY_NAME[name]
    assert board.system
    elf = probe(board)
    image = flash(elf, tmp_path, board.system.compiler)
    stack, reset = vectors(image[vectors_at - board.system.flash_origin :])
    assert stack == board.system.ram_origin + board.system.stack
    assert reset % 2 == 1  # Thumb
    assert board.system.flash_origin <= reset < board.system.flash_origin + len(image)
    with elf.open("rb") as file:
        lowest = min(s["p_paddr"] for s in ELFFile(file).iter_segments("PT_LOAD") if s["p_filesz"])
    assert lowest == board.system.flash_origin


def test_the_pico_image_has_the_checksum_that_the_rom_wants(probe: Built, tmp_path: Path) -> None:
    def crc(data: bytes) -> int:
        value = 0xFFFFFFFF
        for byte in data:
            value ^= byte << 24
            for _ in range(8):
                value = (value << 1 ^ (0x04C11DB7 if value >> 31 else 0)) & 0xFFFFFFFF
        return value

    assert crc(b"123456789") == 0x0376E6E7  # CRC-32/MPEG-2, as in the catalogue
    image = flash(probe(BY_NAME["pico"]), tmp_path, "arm-none-eabi-")
    assert crc(image[:252]) == int.from_bytes(image[252:256], "little")


def test_the_esp32c3_image_boots_directly(probe: Built, tmp_path: Path) -> None:
    board = BY_NAME["esp32c3"]
    assert board.system
    origin, constants = board.system.flash_origin, board.system.memory["constants_origin"]
    elf = probe(board)
    image = flash(elf, tmp_path, board.system.compiler)
    assert image[:8] == bytes.fromhex("1d04dbae1d04dbae")
    with elf.open("rb") as file:
        program = ELFFile(file)
        assert program["e_entry"] == origin + 8
        segments = list(program.iter_segments("PT_LOAD"))
        for segment in segments:
            at = segment["p_paddr"] - origin
            assert image[at : at + segment["p_filesz"]] == segment.data()
        read_only = [s for s in segments if s["p_vaddr"] >> 24 == constants >> 24]
        assert len(read_only) == 1
        # flash shows up at both places, so a constant's place among them says where it is in flash
        assert read_only[0]["p_vaddr"] - constants == read_only[0]["p_paddr"] - origin


# ---- Instructions that labwired lacks ------------------------------------------------------------

DSP = [board for board in CHIPS if "dsp" in board.features]


@pytest.mark.parametrize("board", DSP[:1], ids=lambda board: board.name)
def test_the_dsp_extension_computes_what_it_should(board: Board, tmp_path: Path) -> None:
    elf = compile_for(board, TESTS / "chip_dsp.c", tmp_path / "dsp.elf")
    ended = labwired.run(board, elf, send=b"a")
    assert (ended.output, ended.status) == (b"right\n", 0)
    untouched = labwired._Image.of(elf)
    assert labwired._rewritten(untouched, 0x80_0000)[0] != untouched.file  # else nothing was tested


def test_an_instruction_without_a_replacement_faults(tmp_path: Path) -> None:
    elf = compile_for(DSP[0], TESTS / "chip_dsp.c", tmp_path / "dsp.elf")
    ended = labwired.run(DSP[0], elf, send=b"q")
    assert ended.status == FAULT_STATUS
    assert ended.output.startswith(b"\nfault: cause 0x00000003 at ")


def test_the_dsp_program_is_right_where_nothing_is_replaced(tmp_path: Path) -> None:
    board = boards.load("qemu_m4")
    if shutil.which(qemu.machine_of(board).program) is None:
        pytest.skip("QEMU is not installed")
    elf = compile_for(board, TESTS / "chip_dsp.c", tmp_path / "dsp.elf")
    for letter in (b"a", b"q"):
        ended = qemu.run(board, elf, send=letter, timeout=20)
        assert (ended.output, ended.status) == (b"right\n", 0)


def test_instructions_under_a_condition_are_not_branched_from() -> None:
    sxtb16 = bytes.fromhex("2ffa81f0")
    it_eq, ite_eq, nop = bytes.fromhex("08bf"), bytes.fromhex("0cbf"), bytes.fromhex("00bf")
    undefined = bytes.fromhex("00de00de")
    plain = thumb.rewrite(nop + sxtb16, 0x100, 0x80_0000)
    assert plain.code[:2] == nop and plain.code[2:] not in (sxtb16, undefined)
    assert plain.replacements
    for block in (it_eq + sxtb16, ite_eq + nop + sxtb16):
        rewritten = thumb.rewrite(block, 0x100, 0x80_0000)
        assert rewritten.code == block.replace(sxtb16, undefined)
        assert rewritten.replacements == b""
    after = thumb.rewrite(it_eq + nop + sxtb16, 0x100, 0x80_0000)
    assert after.replacements == thumb.rewrite(nop + nop + sxtb16, 0x100, 0x80_0000).replacements
    far = thumb.rewrite(sxtb16, 0x2000_0000, 0x80_0000)
    assert far.code == undefined


# ---- The emulator --------------------------------------------------------------------------------


def test_simulate_picks_labwired(probe: Built) -> None:
    board = BY_NAME["nano33ble"]
    with simulate.start(board, probe(board)) as transport:
        transport.write(b"d")
        assert transport.read(20) == b"1 1 1234 \n"


def test_the_same_commands_take_the_same_instructions(probe: Built) -> None:
    def instructions() -> int:
        with labwired.start(BY_NAME["nano33ble"], probe(BY_NAME["nano33ble"])) as machine:
            ask(machine, "dcs", 3)
            time.sleep(0.2)  # nobody listens: the machine stands still
            ask(machine, "d")
            return machine.cycles

    assert instructions() == instructions()


def test_input_before_the_start_is_not_lost(probe: Built) -> None:
    for name in ("nano33ble", "esp32"):  # by the serial line, by the mailbox
        ended = labwired.run(BY_NAME[name], probe(BY_NAME[name]), send=b"dq")
        assert (ended.status, ended.output) == (7, b"1 1 1234 \n")


@pytest.mark.parametrize("board", CORTEX_M, ids=lambda board: board.name)
def test_a_fault_ends_the_program_and_says_where(board: Board, probe: Built) -> None:
    with labwired.start(board, probe(board)) as machine:
        machine.write(b"b")
        output = b""
        while machine.status is None:
            output += machine.read(5)
        assert machine.status == FAULT_STATUS
        assert re.fullmatch(rb"\nfault: cause 0x0000000\d at 0x[0-9a-f]{8}\n", output)
        for use in (lambda: machine.read(1), lambda: machine.write(b"d")):
            with pytest.raises(TinyGenError, match="ended with status 139") as failure:
                use()
            assert failure.value.hint == output.decode().strip()


@each_chip
def test_runaway_programs_are_stopped(board: Board, probe: Built) -> None:
    with labwired.start(board, probe(board)) as machine:
        machine.write(b"o")  # recursion without end
        with pytest.raises(TinyGenError, match=rf"^{board.name}: labwired has stopped: "):
            for _ in range(100):
                machine.read(5)


def test_silence_is_not_waited_for(probe: Built) -> None:
    with labwired.start(BY_NAME["nano33ble"], probe(BY_NAME["nano33ble"])) as machine:
        start = time.monotonic()
        assert machine.read(0.3) == b""
        assert machine.read(0) == b""
        assert time.monotonic() - start < 5
        with pytest.raises(TinyGenError, match=r"still running after 0\.5 seconds"):
            labwired.run(BY_NAME["nano33ble"], probe(BY_NAME["nano33ble"]), timeout=0.5)


def running(machine: labwired.Machine) -> int:
    return machine._child._popen.pid


def test_no_process_is_left_behind(probe: Built) -> None:
    board = BY_NAME["nano33ble"]
    machine = labwired.start(board, probe(board))
    pid = running(machine)
    machine.close()
    machine.close()
    assert gone(pid)
    machine = labwired.start(board, probe(board))
    pid = running(machine)
    del machine
    gc.collect()
    assert gone(pid)


def test_an_emulator_that_dies_is_noticed(probe: Built) -> None:
    with labwired.start(BY_NAME["nano33ble"], probe(BY_NAME["nano33ble"])) as machine:
        machine._child._popen.kill()
        with pytest.raises(TinyGenError, match=r"^nano33ble: the program has ended with signal"):
            machine.read(5)


def test_nothing_of_labwired_reaches_standard_output(
    probe: Built, capfd: pytest.CaptureFixture[str]
) -> None:
    with labwired.start(BY_NAME["esp32"], probe(BY_NAME["esp32"])) as machine:
        ask(machine, "d")
    assert capfd.readouterr().out == ""


def test_what_is_missing_or_unfit_is_said(
    probe: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = BY_NAME["nano33ble"]
    elf = probe(board)
    assert board.emulator
    odd = board.model_copy(
        update={"emulator": board.emulator.model_copy(update={"machine": "z80"})}
    )
    with pytest.raises(TinyGenError, match="no description of the chip 'z80'") as failure:
        labwired.start(odd, elf)
    assert "nrf52840" in failure.value.hint

    text = tmp_path / "text.elf"
    text.write_text("not a program")
    for unfit in (text, tmp_path / "missing.elf"):
        with pytest.raises(InputError, match="cannot be read as an ELF file"):
            labwired.start(board, unfit)
    with pytest.raises(InputError, match="no symbol 'tinygen_vectors'"):
        labwired.start(board, probe(BY_NAME["esp32c3"]))
    with (
        labwired.start(board, elf) as machine,
        pytest.raises(InputError, match="no symbol 'nonsense'"),
    ):
        machine.symbol("nonsense")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TinyGenError, match="emulates this board, is not installed") as failure:
        labwired.start(board, elf)
    assert failure.value.hint == 'pip install "tinygen[sim]"'
