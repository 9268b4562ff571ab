"""The serial port as a pipe, and the monitor on it, over pseudo-terminals."""

from __future__ import annotations

import io
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from dut_bench import build

from tinygen.errors import InputError, TinyGenError
from tinygen.monitor import monitor
from tinygen.protocol import Device
from tinygen.serialport import SerialTransport


class Line:
    """A pseudo-terminal: the board's end as a file descriptor, the port's end by name."""

    def __init__(self) -> None:
        self.board, self._slave = pty.openpty()
        self.port = os.ttyname(self._slave)

    def hang_up(self) -> None:
        """Take the board away; the port's end then has nobody to talk to."""
        for descriptor in (self.board, self._slave):
            if descriptor >= 0:
                os.close(descriptor)
        self.board = self._slave = -1

    def heard(self, wanted: bytes, timeout: float = 10) -> bytes:
        """What the board receives, up to and with ``wanted``."""
        data, deadline = b"", time.monotonic() + timeout
        while wanted not in data and time.monotonic() < deadline:
            if select.select([self.board], [], [], 0.1)[0]:
                data += os.read(self.board, 1024)
        return data


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    yield made
    made.hang_up()


# ---- the port as a pipe --------------------------------------------------------------------------


def test_bytes_pass_unchanged_both_ways(line: Line) -> None:
    everything = bytes(range(256))
    with SerialTransport(line.port) as transport:
        os.write(line.board, everything)
        received = b""
        while len(received) < 256:
            received += transport.read(1.0)
        assert received == everything
        transport.write(everything)
        assert line.heard(everything[-1:]) == everything


def test_reading_gives_up_after_its_time(line: Line) -> None:
    with SerialTransport(line.port) as transport:
        start = time.monotonic()
        assert transport.read(0.2) == b""
        assert 0.1 < time.monotonic() - start < 2


def test_a_port_that_goes_away_is_an_error(line: Line) -> None:
    with SerialTransport(line.port) as transport:
        line.hang_up()
        with pytest.raises(TinyGenError, match="the port went away"):
            transport.read(5)
        with pytest.raises(TinyGenError, match="the port went away"):
            transport.write(b"%")


def test_a_port_is_opened_once(line: Line) -> None:
    with SerialTransport(line.port):
        with pytest.raises(InputError, match="cannot be opened") as caught:
            SerialTransport(line.port)
        assert caught.value.hint == "another program has it open"


def test_a_port_that_is_not_there_is_an_error() -> None:
    with pytest.raises(InputError, match="/dev/ttyNOWHERE: cannot be opened"):
        SerialTransport("/dev/ttyNOWHERE")


def test_firmware_speaks_the_protocol_through_a_port(line: Line, tmp_path: Path) -> None:
    program = build(tmp_path)
    with SerialTransport(line.port) as transport:
        firmware = subprocess.Popen([program], stdin=line.board, stdout=line.board)
        try:
            device = Device(transport, line.port)
            assert device.connect().model == "spender"
            device.select("wide")
            data = bytes(range(256)) + bytes(148)
            assert device.run(data) == data[4:404] + data[304:404]
        finally:
            firmware.kill()
            firmware.wait()


# ---- the monitor ---------------------------------------------------------------------------------


def watch(line: Line, typed: str = "") -> tuple[threading.Thread, io.StringIO, list[Exception]]:
    """The monitor in a thread; what it shows, and the error it ends with."""
    shown, ended = io.StringIO(), []

    def run() -> None:
        try:
            monitor(None, line.port, typed=io.StringIO(typed), shown=shown)
        except TinyGenError as error:
            ended.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, shown, ended


def until(condition: str, shown: io.StringIO, timeout: float = 10) -> str:
    deadline = time.monotonic() + timeout
    while condition not in shown.getvalue() and time.monotonic() < deadline:
        time.sleep(0.02)
    return shown.getvalue()


def test_shows_what_the_board_says_and_sends_what_is_typed(line: Line) -> None:
    thread, shown, ended = watch(line, "help%\n")
    assert line.heard(b"\n") == b"help%\n"
    os.write(line.board, b"m-ready\r\nh\xc3\xa9")
    os.write(line.board, b"llo \xff \xf0\x9f")
    os.write(line.board, b"\x99\x82\r\n")
    assert until("\U0001f642\n", shown) == "m-ready\nh\u00e9llo \ufffd \U0001f642\n"
    line.hang_up()
    thread.join(10)
    assert not thread.is_alive()
    assert "the port went away" in str(ended[0])


def test_ctrl_c_leaves_cleanly(line: Line) -> None:
    command = [sys.executable, "-m", "tinygen", "monitor", "--port", line.port, "--baud", "9600"]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # As a terminal starts it, also when the tests run in the background.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None and process.stderr is not None
    try:
        greeting = process.stderr.readline()
        assert greeting.decode().strip() == f"{line.port} at 9,600 baud; Ctrl-C ends"
        os.write(line.board, b"m-ready\r\n")
        assert process.stdout.readline() == b"m-ready\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, out) == (0, b"")
    assert b"Traceback" not in err and err.strip() == b""


def test_without_a_project_a_port_must_be_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serial.tools.list_ports.comports", list)
    with pytest.raises(InputError, match="not found on any serial port"):
        monitor()


def test_a_project_says_whose_port_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a TinyGen project"):
        monitor(tmp_path, "/dev/null")
