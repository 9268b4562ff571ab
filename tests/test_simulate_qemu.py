"""QEMU's machines and this one: start-up code, ports, serial lines, counters, faults."""

from __future__ import annotations

import gc
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import emulated_c
import numpy as np
import pytest
from elftools.elf.elffile import ELFFile

from tinygen import boards, project, resources, simulate
from tinygen.boards import Board, Emulator
from tinygen.errors import InputError, TinyGenError
from tinygen.simulate import Transport, native, process, qemu

TESTS = Path(__file__).parent
PORT = resources.folder("firmware") / "port"
FAULT_STATUS = 139
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror")

MACHINES = [b for b in boards.load_all() if b.emulator and b.emulator.kind == "qemu"]
BY_NAME = {board.name: board for board in MACHINES}
HOST = boards.load("host")
EVERYWHERE = [*MACHINES, HOST]
RESOLUTION = {"microbit": 63, "mps2": 40, "mps3": 32, "virt": 0, "lx60": 25}
"""Instructions in a tick of the counter, by port, rounded up."""

Built = Callable[[Board], Path]


def compile_for(board: Board, source: Path, elf: Path) -> Path:
    """One C file and the port as a program for ``board``."""
    system = board.system
    assert system is not None
    compiler = shutil.which(f"{system.compiler}gcc")
    if compiler is None:
        pytest.skip(f"{system.compiler}gcc is not installed")
    command = [compiler, *system.flags, "-Os", "-std=gnu99", *WARNINGS]
    command += ["-ffunction-sections", "-fdata-sections", f"-I{PORT}"]
    command += [f"-DTINYGEN_CLOCK_HZ={board.clock_hz}UL", *(f"-D{d}" for d in system.defines)]
    command += [str(source)]
    command += [str(p) for f in system.folders for p in sorted((PORT / f).glob("*.[cS]"))]
    if not system.hosted:
        symbols = project.board_manifest(board)["tinygen"]["symbols"]
        command += ["-nostartfiles", f"-T{PORT / system.script}", f"-L{PORT}", "-Wl,--gc-sections"]
        command += [f"-Wl,--defsym,{name}={value:#x}" for name, value in symbols.items()]
    done = subprocess.run([*command, "-o", str(elf)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return elf


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Gives the probe for a board, compiled once, where its emulator is installed."""
    folder = tmp_path_factory.mktemp("probes")

    def built(board: Board) -> Path:
        if board in MACHINES and shutil.which(qemu.machine_of(board).program) is None:
            pytest.skip(f"{qemu.machine_of(board).program} is not installed")
        elf = folder / f"{board.name}.elf"
        return elf if elf.is_file() else compile_for(board, TESTS / "simulate_probe.c", elf)

    return built


def run(board: Board, elf: Path, ask: str, icount: bool = False) -> process.Finished:
    if board.name == "host":
        return native.run(board, elf, send=ask.encode(), timeout=20)
    return qemu.run(board, elf, send=ask.encode(), timeout=20, icount=icount)


def answers(board: Board, elf: Path, ask: str, icount: bool = False) -> list[list[str]]:
    """The probe's answers to ``ask``, a letter each, as words."""
    finished = run(board, elf, ask + "q", icount)
    assert finished.status == 7, finished
    return [line.split() for line in finished.output.decode().splitlines()]


def read_all(transport: Transport, count: int) -> bytes:
    got = bytearray()
    while len(got) < count:
        more = transport.read(10)
        assert more, f"silence after {len(got)} bytes"
        got += more
    return bytes(got)


def address(elf: Path, name: str) -> int:
    """Address of a function, without the bit that marks Thumb code."""
    with elf.open("rb") as file:
        image = ELFFile(file)
        symbol = image.get_section_by_name(".symtab").get_symbol_by_name(name)[0]
        value: int = symbol["st_value"]
        return value & ~1 if image["e_machine"] == "EM_ARM" else value


def gone(pid: int, patience: float = 10.0) -> bool:
    """Whether process ``pid`` ends in time; a zombie has ended."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


# ---- Start-up and ports --------------------------------------------------------------------------


def test_every_core_has_a_machine() -> None:
    cores = {board.core for board in MACHINES}
    arm = {"cortex-m0", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m55"}
    assert cores == arm | {"rv32imc", "xtensa-lx106"}


@pytest.mark.parametrize("board", EVERYWHERE, ids=lambda board: board.name)
def test_start_up_fills_memory_and_runs_constructors(board: Board, probe: Built) -> None:
    assert answers(board, probe(board), "d") == [["1", "1", "1234"]]


@pytest.mark.parametrize("board", EVERYWHERE, ids=lambda board: board.name)
def test_floating_point_is_ieee_754(board: Board, probe: Built) -> None:
    [got] = answers(board, probe(board), "f")
    pairs = np.float32([(1, 3), (2**24, 1), (-2.5e-30, 7.5e-12), (3e38, 1.5), (0.1, -0.3)])
    with np.errstate(over="ignore"):
        wanted = [(a + b, a - b, a * b, a / b) for a, b in pairs]
    assert got == [str(bits) for bits in np.float32(wanted).view(np.uint32).ravel()]


@pytest.mark.parametrize("board", EVERYWHERE, ids=lambda board: board.name)
def test_dot_product_with_the_vectors_of_the_core(board: Board, probe: Built) -> None:
    i = np.arange(64)
    total = int(np.int8(3 * i - 90).astype(int) @ (127 - 5 * i).astype(np.int8).astype(int))
    kind = "mve" if board.core == "cortex-m55" else "scalar"
    assert answers(board, probe(board), "v") == [[kind, str(total % 2**32)]]


@pytest.mark.parametrize("board", MACHINES, ids=lambda board: board.name)
def test_stack_peak_follows_the_stack(board: Board, probe: Built) -> None:
    assert board.system is not None
    [[before, after]] = answers(board, probe(board), "s")
    assert 50 < int(before) < 500
    assert 2000 <= int(after) < 2500 < board.system.stack


@pytest.mark.parametrize("board", MACHINES, ids=lambda board: board.name)
@pytest.mark.parametrize("mistake", ["b", "u"], ids=["bad pointer", "undefined instruction"])
def test_a_fault_says_where_and_ends_the_emulator(board: Board, mistake: str, probe: Built) -> None:
    elf = probe(board)
    finished = run(board, elf, mistake)
    assert finished.status == FAULT_STATUS
    found = re.fullmatch(rb"\nfault: cause 0x[0-9a-f]{8} at 0x([0-9a-f]{8})\n", finished.output)
    assert found and not finished.errors, finished
    main = address(elf, "main")
    assert abs(int(found[1], 16) - main) < 2048


@pytest.mark.parametrize("board", MACHINES, ids=lambda board: board.name)
def test_a_stack_overflow_is_a_fault(board: Board, probe: Built) -> None:
    finished = run(board, probe(board), "o")
    assert finished.status == FAULT_STATUS
    assert finished.output.startswith(b"\nfault: ")


def test_a_minimal_program_is_nearly_nothing(tmp_path: Path) -> None:
    """What is not used vanishes: no C library, no serial input, no counter."""
    source = tmp_path / "main.c"
    source.write_text("int main(void) { return 0; }\n")
    elf = compile_for(BY_NAME["qemu_m4"], source, tmp_path / "minimal.elf")
    with elf.open("rb") as file:
        image = ELFFile(file)
        sizes = {s.name: s["sh_size"] for s in image.iter_sections() if s["sh_flags"] & 2}
        names = {s.name for s in image.get_section_by_name(".symtab").iter_symbols()}
    assert sum(sizes.values()) < 700, sizes
    assert not names & {"memcpy", "memset", "tinygen_port_read", "tinygen_port_count"}


# ---- The serial line -----------------------------------------------------------------------------


@pytest.mark.parametrize("board", EVERYWHERE, ids=lambda board: board.name)
def test_no_byte_is_lost_on_the_way_in(board: Board, probe: Built) -> None:
    """Sent before the firmware can have started, and faster than any UART takes it."""
    data = bytes(range(1, 256)) * 8
    with simulate.start(board, probe(board)) as transport:
        transport.write(b"e" + data)
        assert read_all(transport, len(data)) == data


@pytest.mark.parametrize("board", EVERYWHERE, ids=lambda board: board.name)
def test_no_byte_is_lost_on_the_way_out(board: Board, probe: Built) -> None:
    """More than a pipe holds, while nobody reads."""
    line = bytes(ord("!") + i % 90 for i in range(99)) + b"\n"
    with simulate.start(board, probe(board)) as transport:
        transport.write(b"p")
        time.sleep(0.3)
        assert read_all(transport, 100_000) == line * 1000


def test_writing_and_reading_do_not_wait_for_each_other(probe: Built) -> None:
    """An echo of more than both pipes hold, written in one call."""
    data = bytes(range(1, 256)) * 1200
    with simulate.start(HOST, probe(HOST)) as transport:
        transport.write(b"e" + data)
        assert read_all(transport, len(data)) == data


def test_silence_is_no_bytes(probe: Built) -> None:
    with simulate.start(HOST, probe(HOST)) as transport:
        start = time.monotonic()
        assert transport.read(0.2) == b""
        assert 0.19 < time.monotonic() - start < 5


@pytest.mark.parametrize("name", ["qemu_m4", "host"])
def test_a_dead_program_is_an_error(name: str, probe: Built) -> None:
    board = boards.load(name)
    with simulate.start(board, probe(board)) as transport:
        transport.write(b"dq")
        assert read_all(transport, 10) == b"1 1 1234 \n"
        with pytest.raises(TinyGenError, match=rf"^{name}: the program has ended with status 7$"):
            while True:
                transport.read(10)
        with pytest.raises(TinyGenError, match="has ended"):
            transport.write(b"d" * 100_000)


def test_a_fault_is_told_to_who_reads(probe: Built) -> None:
    board = BY_NAME["qemu_rv32"]
    with simulate.start(board, probe(board)) as transport:
        transport.write(b"b")
        with pytest.raises(TinyGenError, match="status 139") as caught:
            while True:
                transport.read(10)
        assert caught.value.hint.startswith("fault: cause 0x00000007 at 0x8000")


# ---- Counting ------------------------------------------------------------------------------------


@pytest.mark.parametrize("board", MACHINES, ids=lambda board: board.name)
def test_the_counter_counts_instructions(board: Board, probe: Built) -> None:
    assert board.system is not None
    [[unit, counted]] = answers(board, probe(board), "c", icount=True)
    assert unit == "instructions"
    call = 100  # at most: of the loop and of the counter
    resolution = RESOLUTION[board.system.port]
    assert 20_000 - resolution <= int(counted) <= 20_000 + resolution + call


@pytest.mark.parametrize("board", MACHINES, ids=lambda board: board.name)
def test_without_icount_there_is_no_unit(board: Board, probe: Built) -> None:
    assert answers(board, probe(board), "c")[0][0] == "none"


@pytest.mark.parametrize("board", MACHINES, ids=lambda board: board.name)
def test_blocks_are_counted_exactly(board: Board, probe: Built) -> None:
    elf = probe(board)
    loop = address(elf, "probe_spin")
    counted = qemu.run_counted(board, elf, marks=[loop], send=b"nnq", timeout=30)
    assert counted.finished.status == 7
    assert [segment.mark for segment in counted.segments] == [None, loop, loop, loop, loop]
    turns = []
    for segment in counted.segments[1:]:
        repeated = [b for b in segment.blocks if loop <= b.address < loop + 16 and b.count == 2]
        assert len(repeated) == 1
        turns.append(repeated[0])
    # The first turn is run with what stands before the loop, and the last does not jump back.
    assert [block.executions for block in turns] == [999, 2999, 999, 2999]
    assert [block.jumps for block in turns] == [998, 2998, 998, 2998]


def test_the_plugin_and_the_counter_agree(probe: Built) -> None:
    """RISC-V counts instruction by instruction: twice the loop costs twice its instructions."""
    board = BY_NAME["qemu_rv32"]
    elf = probe(board)
    start, end = address(elf, "tinygen_riscv_instructions"), address(elf, "probe_spin")
    counted = qemu.run_counted(board, elf, marks=[start, end], send=b"cq", timeout=30)
    marks = [segment.mark for segment in counted.segments]
    begin = len(marks) - 1 - marks[::-1].index(end)
    between = counted.segments[begin - 1].instructions + counted.segments[begin].instructions
    [[_, by_core]] = answers(board, elf, "c", icount=True)
    assert marks[begin - 1 : begin + 2] == [start, end, start]
    # From one read of minstret to the next, the second instruction of the function that reads it.
    assert int(by_core) == between


def test_counts_over_a_serial_line(probe: Built, tmp_path: Path) -> None:
    board = BY_NAME["qemu_m4"]
    elf = probe(board)
    counting = qemu.Counting(tmp_path / "a, b" / "counts", (address(elf, "probe_spin"),))
    counting.file.parent.mkdir()
    with qemu.start(board, elf, counting=counting) as transport:
        transport.write(b"nd")
        read_all(transport, 9)
    assert len(qemu.read_counts(counting.file)) == 3
    counting.file.write_text(counting.file.read_text().removesuffix("end\n"))
    with pytest.raises(TinyGenError, match="ended before it wrote its counts"):
        qemu.read_counts(counting.file)


def test_the_plugin_is_compiled_once(
    probe: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINYGEN_HOME", str(tmp_path))
    board = BY_NAME["qemu_m0"]
    for _ in range(2):
        qemu.run_counted(board, probe(board), send=b"q", timeout=20)
    assert [path.suffix for path in (tmp_path / "qemu").iterdir()] == [".so"]


def test_too_many_marks(probe: Built) -> None:
    board = BY_NAME["qemu_m0"]
    with pytest.raises(InputError, match="65 marks"):
        qemu.run_counted(board, probe(board), marks=range(65))


def test_the_plugin_compiles_without_warnings(tmp_path: Path) -> None:
    source = TESTS.parent / "tinygen" / "simulate" / "block_counts.c"
    for compiler in ("gcc", "clang"):
        options = ("-std=gnu99", "-fsyntax-only", *WARNINGS, str(source))
        subprocess.run([compiler, *options], cwd=tmp_path, check=True)


# ---- Processes -----------------------------------------------------------------------------------


def test_nothing_is_left_running(probe: Built) -> None:
    board = BY_NAME["qemu_m0"]
    running = qemu.start(board, probe(board))
    running.close()
    running.close()
    assert gone(running.pid)
    with pytest.raises(TinyGenError, match="closed"):
        running.read(0)
    forgotten = qemu.start(board, probe(board))
    pid = forgotten.pid
    del forgotten
    gc.collect()
    assert gone(pid)


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed")
def test_nothing_is_left_running_when_python_is_killed(probe: Built) -> None:
    board = BY_NAME["qemu_m0"]
    code = (
        "import sys, time; from pathlib import Path; from tinygen import boards\n"
        "from tinygen.simulate import qemu\n"
        "running = qemu.start(boards.load(sys.argv[1]), Path(sys.argv[2]))\n"
        "running.write(b'd'); running.read(20)\n"
        "print(running.pid, flush=True); time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, board.name, probe(board)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    os.kill(parent.pid, signal.SIGKILL)
    parent.communicate()
    assert gone(pid)


@pytest.mark.parametrize("name", ["qemu_m3", "host"])
def test_a_program_without_end_is_stopped(name: str, probe: Built) -> None:
    board = boards.load(name)
    command = ["sleep", "30"] if board.name == "host" else qemu.command(board, probe(board))
    start = time.monotonic()
    with pytest.raises(TinyGenError, match=rf"^{name}: still running after 0.5 seconds"):
        process.run(command, name, timeout=0.5)
    assert time.monotonic() - start < 10


def test_a_program_that_ignores_the_signal_is_killed() -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True)"
    )
    running = process.Process([sys.executable, "-c", code + "; time.sleep(60)"], "deaf")
    running.read(10)
    running.close()
    assert gone(running.pid, 1)


def test_a_program_that_does_not_stop_talking_is_stopped() -> None:
    with pytest.raises(TinyGenError, match="does not stop talking"):
        process.run(["cat", "/dev/zero"], "cat", timeout=60)


def test_sanitizers_have_their_say(probe: Built) -> None:
    finished = run(HOST, probe(HOST), "b")
    assert finished.status not in (0, 7)
    assert "null" in finished.errors or "AddressSanitizer" in finished.errors
    with simulate.start(HOST, probe(HOST)) as transport:
        transport.write(b"b")
        with pytest.raises(TinyGenError) as caught:
            transport.read(20)
        assert "simulate_probe.c" in caught.value.hint


def test_missing_programs(probe: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elf = probe(BY_NAME["qemu_m4"])
    with pytest.raises(InputError, match=r"^nothing\.elf: no such file"):
        simulate.start(BY_NAME["qemu_m4"], tmp_path / "nothing.elf")
    with pytest.raises(InputError, match=r"^nothing: no such file"):
        simulate.start(HOST, tmp_path / "nothing")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TinyGenError, match=r"^host: cannot start .*: Permission denied"):
        process.Process([tmp_path], "host")
    for board in MACHINES:
        with pytest.raises(TinyGenError, match=r"^qemu-system-.*: not found") as caught:
            simulate.start(board, elf)
        package = "arm" if board.core.startswith("cortex") else "misc"
        assert caught.value.hint == f"apt-get install qemu-system-{package}"


def test_boards_without_an_emulator(tmp_path: Path) -> None:
    bare = BY_NAME["qemu_m4"].model_copy(update={"emulator": None})
    with pytest.raises(InputError, match=r"^qemu_m4: no emulator"):
        simulate.start(bare, tmp_path)
    other = bare.model_copy(update={"emulator": Emulator(kind="native")})
    with pytest.raises(InputError, match="QEMU has no machine"):
        qemu.start(other, tmp_path)


# ---- C -------------------------------------------------------------------------------------------


def test_the_missing_arithmetic_of_the_lx106(tmp_path: Path) -> None:
    program = tmp_path / "arithmetic_check"
    folder = PORT / "arch" / "xtensa"
    sanitize = ("-fsanitize=undefined", "-fno-sanitize-recover=all")
    options = ("-O2", "-std=c99", *WARNINGS, *sanitize, f"-I{folder}")
    source = str(TESTS / "arithmetic_check.c")
    subprocess.run(["gcc", *options, source, "-o", str(program), "-lm"], check=True)
    done = subprocess.run([program, "50000"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["qemu_m0", "qemu_m4", "qemu_m55"])
def test_memory_functions_of_cortex_m(name: str, tmp_path: Path) -> None:
    elf = emulated_c.build(BY_NAME[name], [TESTS / "chip_memory.c"], tmp_path)
    finished = qemu.run(BY_NAME[name], elf, timeout=60)
    assert (finished.status, finished.output) == (0, b"ok")


@pytest.mark.parametrize("board", MACHINES, ids=lambda board: board.name)
def test_ports_compile_as_cplusplus_guests(board: Board, tmp_path: Path) -> None:
    """Headers of the ports, included from C++."""
    assert board.system is not None
    headers = [PORT / "tinygen_port.h"]
    headers += [p for f in board.system.folders for p in sorted((PORT / f).glob("*.h"))]
    source = tmp_path / "headers.cpp"
    source.write_text("".join(f'#include "{path}"\n' for path in headers))
    compiler = f"{board.system.compiler}g++"
    options = (*board.system.flags, "-fsyntax-only", *WARNINGS, f"-I{PORT}", str(source))
    subprocess.run([compiler, *options], check=True)


@pytest.mark.parametrize("target", ["thumbv7em-none-eabi", "thumbv6m-none-eabi", "riscv32"])
def test_clang_has_nothing_to_say(target: str, tmp_path: Path) -> None:
    folders = {
        "thumbv7em": ("common", "arch/cortex_m", "mps2", "mps3"),
        "thumbv6m": ("common", "arch/cortex_m", "microbit"),
        "riscv32": ("common", "virt"),
    }[target.partition("-")[0]]
    options = (f"--target={target}", "-std=gnu99", "-ffreestanding", "-fsyntax-only", *WARNINGS)
    files = [str(p) for f in folders for p in sorted((PORT / f).glob("*.c"))]
    command = ["clang", *options, "-DTINYGEN_CLOCK_HZ=1000000UL", f"-I{PORT}", *files]
    subprocess.run(command, cwd=tmp_path, check=True)
