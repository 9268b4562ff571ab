"""The serial protocol, both ends: the C firmware on the host and the Python client."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from dut_bench import RUNTIME, WARNINGS, Pipe, build
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinygen.errors import InputError, TinyGenError
from tinygen.protocol import Device, DeviceError, SilenceError


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("traced"), "-DTINYGEN_TRACE")


@pytest.fixture
def device(plain: Path) -> Iterator[Device]:
    with Pipe(plain) as pipe:
        connected = Device(pipe, "dut")
        connected.connect()
        yield connected


def talk(program: Path, text: bytes, *arguments: str) -> list[str]:
    """Lines with which the program answers ``text``, its greeting left out."""
    done = subprocess.run([program, *arguments], input=text, capture_output=True, timeout=30)
    assert done.returncode == 0, done.stderr.decode()
    _, _, reply = done.stdout.partition(b"m-init-done\r\nm-ready\r\n")
    return reply.decode("latin1").split("\r\n")[:-1]


def spender_input(a: tuple[int, ...], b: tuple[int, ...]) -> bytes:
    return struct.pack("<3b", *a) + struct.pack("<3h", *b)


# ---- the firmware --------------------------------------------------------------------------------


@pytest.mark.parametrize("compiler", ["gcc", "clang", "g++", "clang++"])
@pytest.mark.parametrize("define", ["-DTINYGEN_TRACE", "-DTINYGEN_DUT_REPLY=1"])
def test_compiles_clean_as_c_and_as_cpp(compiler: str, define: str, tmp_path: Path) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    standard = ["-x", "c++"] if compiler.endswith("++") else ["-std=c99"]
    options = [*standard, *WARNINGS, define, "-c", str(RUNTIME / "tinygen_dut.c")]
    subprocess.run([compiler, *options, "-o", str(tmp_path / "dut.o")], check=True)


@pytest.mark.skipif(not shutil.which("arm-none-eabi-nm"), reason="no Arm compiler on PATH")
def test_uses_no_heap_stdio_or_float(tmp_path: Path) -> None:
    target = tmp_path / "dut.o"
    options = [
        "-std=c99",
        "-mcpu=cortex-m0",
        "-mthumb",
        "-Os",
        "-c",
        str(RUNTIME / "tinygen_dut.c"),
    ]
    subprocess.run(["arm-none-eabi-gcc", *options, "-o", str(target)], check=True)
    listing = subprocess.run(
        ["arm-none-eabi-nm", "-u", str(target)], check=True, capture_output=True, text=True
    ).stdout
    undefined = {line.split()[-1] for line in listing.splitlines()}
    integers = r"__aeabi_(u?idiv|uidivmod|idivmod|uldivmod|lmul|ll?sl|llsr)|__gnu_thumb1_case_\w+"
    assert {n for n in undefined if not re.fullmatch(integers, n)} <= {"memcpy", "strcmp"}


def test_official_commands_answer_as_the_runner_expects(plain: Path) -> None:
    assert talk(plain, b"name%") == ["m-name-dut-[bench]", "m-ready"]
    profile = ["m-profile-[ULPMark for tinyML Firmware V0.0.1]", "m-model-[spender]", "m-ready"]
    assert talk(plain, b"profile%") == profile
    stamp, ready = talk(plain, b"timestamp%")
    assert stamp.startswith("m-lap-us-") and stamp[9:].isdigit() and ready == "m-ready"
    lines = talk(plain, b"db load 9%db 0102030400ff7f0080%infer 1 0%results%")
    results = "m-results-[1.000000,0.700000,1.000000,0.250000,0.500000,0.750000]"
    assert lines == [
        *("m-[Expecting 9 bytes]", "m-ready"),
        *("m-load-done", f"m-load-crc-[{zlib.crc32(bytes.fromhex('0102030400ff7f0080')):08x}]"),
        *("m-ready", "m-warmup-start-0", "m-warmup-done", "m-infer-start-1"),
        *("m-lap-us-6", "m-lap-us-259", "m-infer-done", results, "m-ready"),
        *(results, "m-ready"),
    ]


def test_greets_as_the_runner_expects(plain: Path) -> None:
    done = subprocess.run([plain], input=b"", capture_output=True, timeout=30)
    greeting = b"m-timestamp-mode-performance\r\nm-lap-us-3\r\nm-init-done\r\nm-ready\r\n"
    assert done.stdout.endswith(greeting)


def test_help_names_every_command(plain: Path) -> None:
    text = "\n".join(talk(plain, b"help%"))
    for command in (
        *("help", "name", "profile", "timestamp", "db load", "db HH", "db print", "infer"),
        *("results", "output", "layers", "count", "stack", "reset", "info", "model"),
    ):
        assert command in text
    header = (RUNTIME / "tinygen_dut.h").read_text()
    for command in ("output", "layers", "count", "stack", "reset", "info", "model"):
        assert f" *   {command}" in header


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("fly", "Unknown command: fly"),
        ("db", "Command 'db' requires a subcommand"),
        ("db load", "The input is 9 bytes"),
        ("db load 8", "The input is 9 bytes"),
        ("db load 10", "The input is 9 bytes"),
        ("db load -9", "The input is 9 bytes"),
        ("db load 4294967305", "The input is 9 bytes"),  # 9 + 2^32
        ("db load 9x", "The input is 9 bytes"),
        ("db 00", "No 'db load' under way"),
        ("db load 9%db 0g", "Invalid hex digit"),
        ("db load 9%db 000", "Insufficient number of hex digits"),
        ("db print x", "db print [N] [OFFSET]"),
        ("db print 1 10", "db print [N] [OFFSET]"),
        ("infer 0", "Inference iterations must be >0"),
        ("infer -1", "Inference iterations must be >0"),
        ("infer 99999999999", "Inference iterations must be >0"),
        ("infer 1 -1", "Inference warmup must be >=0"),
        ("results", "No inference since the last load"),
        ("output", "No inference since the last load"),
        ("layers", "Built without TINYGEN_TRACE"),
        ("model 3", "No such model"),
        ("model -1", "No such model"),
        ("x" * 81, "Command too long"),
        ("x" * 1000, "Command too long"),
    ],
)
def test_says_what_is_wrong_and_carries_on(plain: Path, text: str, reason: str) -> None:
    lines = talk(plain, f"{text}%name%".encode())
    assert lines[-4:] == [f"e-[{reason}]", "m-ready", "m-name-dut-[bench]", "m-ready"]


def test_longest_command_fits(plain: Path) -> None:
    assert talk(plain, b"x" * 80 + b"%") == [f"e-[Unknown command: {'x' * 80}]", "m-ready"]


def test_ignores_line_ends_and_empty_commands(plain: Path) -> None:
    assert talk(plain, b"\r\n na\r\nme \r\n%\r\n%%  %") == ["m-name-dut-[bench]", *["m-ready"] * 4]


def test_a_spoilt_line_of_digits_changes_nothing(plain: Path) -> None:
    lines = talk(plain, b"db load 9%db 0102%db 03zz%db 04050607080910%db print%")
    assert lines[-5:] == [
        *(f"m-load-crc-[{zlib.crc32(bytes.fromhex('010204050607080910')):08x}]", "m-ready"),
        *("m-buffer-01-02-04-05-06-07-08-09", "m-buffer-10", "m-ready"),
    ]


def test_surplus_digits_are_dropped(plain: Path) -> None:
    lines = talk(plain, b"db load 9%db 010203040506070809ffff%db print 2 7%")
    assert lines[-2:] == ["m-buffer-08-09", "m-ready"]
    assert talk(plain, b"db print 0%") == ["m-ready"]


def test_first_results_are_reported_and_later_ones_refused(plain: Path) -> None:
    load = b"db load 9%db 010203000000000000%"
    first = "m-results-[0.600000,0.800000,1.000000,0.250000,0.500000,0.750000]"
    lines = talk(plain, load + b"infer 3 2%results%output%")
    at = lines.index("m-warmup-start-2")
    assert lines[at : at + 3] == ["m-warmup-start-2", first, "m-warmup-done"]
    assert lines.count(first) == 1
    refused = "e-[The input was spent by an earlier inference: load it again]"
    assert lines[-4:] == [refused, "m-ready", refused, "m-ready"]
    lines = talk(plain, load + b"infer 3 0%")
    assert lines[lines.index("m-lap-us-6") + 1] == first
    assert "m-input-spent" not in lines


def test_an_inference_without_a_fresh_input_says_so(plain: Path) -> None:
    assert talk(plain, b"infer 1 0%")[0] == "m-input-spent"
    lines = talk(plain, b"db load 9%db 010203000000000000%infer 1 0%infer 1 0%")
    assert lines.count("m-input-spent") == 1


def test_a_new_load_makes_outputs_valid_again(plain: Path) -> None:
    load = b"db load 9%db 010203000000000000%"
    first = "m-results-[0.600000,0.800000,1.000000,0.250000,0.500000,0.750000]"
    assert talk(plain, load + b"infer 5 1%" + load + b"infer 1 0%results%")[-2] == first


def test_time_is_that_of_the_timed_inferences_and_survives_the_wrap(plain: Path) -> None:
    for fault in ("", "wraps"):
        lines = talk(plain, b"infer 4 3%", *([fault] if fault else []))
        laps = [int(line[9:]) for line in lines if line.startswith("m-lap-us-")]
        assert laps[1] - laps[0] == 4 * 253


def test_default_counts_are_the_runners(plain: Path) -> None:
    lines = talk(plain, b"infer%")
    assert "m-warmup-start-10" in lines and "m-infer-start-1" in lines


def test_failing_inference_is_an_error_and_clears_the_outputs(plain: Path) -> None:
    lines = talk(plain, b"model 1%db load 1%db 80%infer 1 0%results%")
    assert lines[-4:] == [
        *("e-[Inference failed with -7.000000]", "m-ready"),
        *("e-[No inference since the last load]", "m-ready"),
    ]


def test_layers_are_reported_only_when_asked(traced: Path) -> None:
    load = b"db load 9%db 010203000000000000%"
    assert not [line for line in talk(traced, load + b"infer 2 2%") if "layer" in line]
    lines = talk(traced, load + b"layers%output%")
    doubled, output = bytes([2, 4, 6]), bytes([2, 4, 6])
    assert lines[-6:-3] == [
        f"m-layer-0-[{zlib.crc32(doubled):08x},3,777]",
        f"m-layer-1-[{zlib.crc32(output):08x},3,23]",
        "m-ready",
    ]
    assert talk(traced, b"layers%") == ["e-[Load an input first]", "m-ready"]


# ---- both ends -----------------------------------------------------------------------------------


def test_connects_through_boot_noise_and_half_a_command(plain: Path) -> None:
    with Pipe(plain) as pipe:
        pipe.write(b"db load 99 \xff\xfe half a comm")
        assert Device(pipe).connect().model == "spender"


def test_connect_reads_away_replies_to_others(plain: Path) -> None:
    with Pipe(plain) as pipe:
        pipe.write(b"name%" * 50 + b"help%info%")
        device = Device(pipe)
        info = device.connect()
        assert (info.sha256[:4], info.models, info.input_bytes) == ("0123", 3, 9)
        assert (info.output_bytes, info.layers, info.command) == (15, 0, 80)
        assert info.count_unit == "ticks"
        assert device.command("name") == ["m-name-dut-[bench]"]


def test_run_gives_the_models_bytes(device: Device) -> None:
    output = device.run(spender_input((1, -2, 100), (1000, 2, -3)))
    sums = np.array([2 + 1000, -4 + 2, 200 - 3]).astype(np.int8)
    assert output == sums.tobytes() + np.array([0.25, -0.5, 25], np.float32).tobytes()


def test_fifty_inferences_do_not_drift(device: Device) -> None:
    data = spender_input((3, 4, -5), (6, -7, 8))
    assert len({device.run(data) for _ in range(50)}) == 1


def test_counts_stack_and_results(device: Device) -> None:
    device.load(spender_input((1, 2, 3), (0, 0, 0)))
    inference = device.infer(5, 3)
    assert inference.results == pytest.approx((0.6, 0.8, 1.0, 0.25, 0.5, 0.75))
    assert inference.microseconds == 5 * 253
    assert not inference.spent and device.infer().spent
    assert device.count() == 800
    assert device.stack_peak() == 1234


def test_selects_models_and_resets_their_state(device: Device) -> None:
    assert device.select("counter").input_bytes == 1
    assert [int.from_bytes(device.run(bytes([x])), "little") for x in (1, 2, 3)] == [1, 3, 6]
    device.reset()
    assert device.run(b"\4") == b"\4\0\0\0"
    assert device.select("spender").input_bytes == 9
    with pytest.raises(InputError, match="no model called 'other'"):
        device.select("other")


def test_output_longer_than_a_line(device: Device) -> None:
    device.select("wide")
    data = bytes(np.random.default_rng(1).integers(0, 256, 404, np.uint8))
    assert device.run(data) == data[4:404] + data[304:404]


def test_layers_with_crc_size_and_count(traced: Path) -> None:
    with Pipe(traced) as pipe:
        device = Device(pipe)
        assert device.connect().layers == 2
        device.load(spender_input((1, 2, 3), (1, 1, 1)))
        first, second = device.layers()
        assert (first.layer, first.bytes, first.count) == (0, 3, 777)
        assert (second.crc, second.count) == (zlib.crc32(bytes([3, 5, 7])), 23)
        assert device.output()[:3] == bytes([3, 5, 7])


def test_leaves_cleanly_at_the_end_of_input(plain: Path) -> None:
    with Pipe(plain) as pipe:
        Device(pipe).connect()
        assert pipe.finish() == 0


def _decimal(value: Fraction) -> str:
    """``value`` with six decimals, rounded half to even, by exact arithmetic."""
    scaled = round(abs(value) * 10**6)
    return f"{scaled // 10**6}.{scaled % 10**6:06d}"


def _checked(text: str, scale: np.float32, factor: int) -> None:
    """``text`` is ``scale * factor``: exact to six decimals, or to float32 where it is large."""
    if not np.isfinite(scale):
        wanted = float(scale) * (1 if factor >= 0 else -1)
        assert float(text) == wanted or (np.isnan(float(text)) and np.isnan(wanted))
        return
    exact = Fraction(float(scale)) * factor
    negative = bool(np.signbit(scale)) != (factor < 0)
    assert text.startswith("-") == negative
    if "." in text:
        assert text.lstrip("-") == _decimal(exact)
    elif "e" not in text:
        assert int(text) == exact
    else:
        assert abs(Fraction(text) - exact) <= abs(exact) / 2**50


FLOAT32 = st.integers(0, 2**32 - 1).map(lambda bits: bits.to_bytes(4, "little"))


@pytest.fixture(scope="module")
def printer(plain: Path) -> Iterator[Callable[[bytes], list[str]]]:
    """Prints the 404 input bytes of the model "wide" as real numbers."""
    with Pipe(plain) as pipe:
        device = Device(pipe)
        device.connect()
        device.select("wide")

        def texts(data: bytes) -> list[str]:
            device.load(data)
            (line,) = (x for x in device.command("infer 1 0") if x.startswith("m-results"))
            return line[11:-1].split(",")

        yield texts


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=400, max_size=400), FLOAT32)
@example(b"\x7f\x80\x00\x01" * 100, struct.pack("<f", 1 / 256))
@example(b"\x00\x00\x80\x7f" * 100, struct.pack("<f", 2.0**-149))
@example(b"\xff\xff\x7f\x7f" * 100, struct.pack("<f", 3.4028235e38))
@example(b"\x00\x00\x00\x80" * 100, struct.pack("<f", 2.0**-7))
@example(b"\x01\x02\x03\xbf" * 100, struct.pack("<f", 0.0))
def test_real_numbers_are_printed_exactly(
    printer: Callable[[bytes], list[str]], data: bytes, scale: bytes
) -> None:
    texts = iter(printer(scale + data))
    (shared,) = np.frombuffer(scale, np.float32)
    pieces = (data[:100], np.uint8, 3), (data[100:200], np.int8, -128), (data[200:300], np.int16, 0)
    for piece, dtype, zero in (*pieces, (data[300:], np.int32, 2**31 - 1)):
        for q in np.frombuffer(piece, dtype):
            text = next(texts)
            if scale == bytes(4):
                assert int(float(text)) == int(q)
            else:
                _checked(text, shared, int(q) - zero)
    for value in np.frombuffer(data[300:], np.float32):
        _checked(next(texts), value, 1)
    assert next(texts, None) is None


# ---- a bad far end -------------------------------------------------------------------------------


def test_far_end_that_dies_is_an_error_at_once(plain: Path) -> None:
    with Pipe(plain, "quits") as pipe:
        device = Device(pipe)
        device.connect()
        device.load(bytes(9))
        start = time.monotonic()
        with pytest.raises(TinyGenError, match="ended with status 3"):
            device.infer()
        assert time.monotonic() - start < 5


def test_inference_that_hangs_is_given_up(plain: Path) -> None:
    with Pipe(plain, "hangs") as pipe:
        device = Device(pipe, "bench", patience=0.5)
        device.connect()
        device.load(bytes(9))
        with pytest.raises(SilenceError, match=r"bench: no answer to 'infer 1 0' within 0.5 s"):
            device.infer()


def test_babbling_is_given_up(plain: Path) -> None:
    with Pipe(plain, "babbles") as pipe:
        start = time.monotonic()
        with pytest.raises(SilenceError, match="no answer within 1 s"):
            Device(pipe).connect(timeout=1)
        assert time.monotonic() - start < 5


class Scripted:
    """A transport that answers each write with what ``answer`` makes of it."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self._answer = answer
        self._waiting = b""
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)
        self._waiting += self._answer(data)

    def read(self, timeout: float) -> bytes:
        data, self._waiting = self._waiting[:7], self._waiting[7:]
        if not data:
            time.sleep(min(timeout, 0.01))
        return data

    def close(self) -> None:
        pass


def test_silence_is_an_error_with_a_hint() -> None:
    with pytest.raises(SilenceError, match=r"no answer within 0\.2 s") as caught:
        Device(Scripted(lambda data: b""), "/dev/ttyACM0").connect(timeout=0.2)
    assert "115,200" in caught.value.hint


def test_other_firmware_of_the_protocol_is_named() -> None:
    def answer(data: bytes) -> bytes:
        words = data.decode().strip("%").split("%")
        return b"".join(b"e-[Unknown command: %s]\r\nm-ready\r\n" % w.encode() for w in words)

    with pytest.raises(TinyGenError, match="not TinyGen's firmware"):
        Device(Scripted(answer)).connect()


class Noisy:
    """A pipe on which ``spoil`` changes what passes."""

    def __init__(
        self,
        pipe: Pipe,
        out: Callable[[bytes], bytes] = lambda data: data,
        back: Callable[[bytes], bytes] = lambda data: data,
    ) -> None:
        self._pipe, self._out, self._back = pipe, out, back

    def write(self, data: bytes) -> None:
        self._pipe.write(self._out(data))

    def read(self, timeout: float) -> bytes:
        return self._back(self._pipe.read(timeout))

    def close(self) -> None:
        self._pipe.close()


def once(spoil: Callable[[bytes], bytes], when: bytes) -> Callable[[bytes], bytes]:
    """Apply ``spoil`` to the first piece that contains ``when``."""
    left = [True]

    def change(data: bytes) -> bytes:
        if left[0] and when in data:
            left[0] = False
            return spoil(data)
        return data

    return change


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data.replace(b"01", b"03"),  # another byte arrives
        lambda data: data.replace(b"01", b"1"),  # a digit is lost
        lambda data: data.replace(b"01", b""),  # a whole byte is lost
        lambda data: data.replace(b"db ", b"dx "),
    ],
)
def test_a_spoilt_load_is_repeated(plain: Path, spoil: Callable[[bytes], bytes]) -> None:
    data = spender_input((1, 2, 3), (4, 5, 6))
    with Pipe(plain) as pipe:
        device = Device(Noisy(pipe, once(spoil, b"db 0102")))
        device.connect()
        assert device.run(data)[:3] == bytes([6, 9, 12])


def test_a_load_that_keeps_failing_is_an_error(plain: Path) -> None:
    with Pipe(plain) as pipe:
        device = Device(Noisy(pipe, lambda data: data.replace(b"db 0102", b"db 0103")))
        device.connect()
        with pytest.raises(SilenceError, match="the input arrived changed"):
            device.load(spender_input((1, 2, 3), (4, 5, 6)))


def test_a_spoilt_output_is_asked_for_again(plain: Path) -> None:
    flip = once(lambda data: data.replace(b"m-output-[06", b"m-output-[07"), b"m-output-[06")
    with Pipe(plain) as pipe:
        device = Device(Noisy(pipe, back=flip))
        device.connect()
        assert device.run(spender_input((1, 2, 3), (4, 5, 6)))[:3] == bytes([6, 9, 12])


def test_wrong_input_size_is_refused_before_anything_is_sent(device: Device) -> None:
    with pytest.raises(InputError, match="8 bytes for an input of 9 bytes"):
        device.load(bytes(8))


def test_device_errors_carry_the_reason(device: Device) -> None:
    with pytest.raises(DeviceError, match="dut: 'output': No inference") as caught:
        device.output()
    assert caught.value.reason == "No inference since the last load"
