"""Encodings of weights: what goes in comes out, in numpy and in C."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shared_models
from encoded_c import DECODERS, HostDecoders, all_functions
from host_c import SANITIZERS, WARNINGS
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import encodings as measure
from tinygen import boards, encodings, importers
from tinygen.encodings import ENCODINGS, Encoded, Encoding
from tinygen.errors import InputError, MismatchError
from tinygen.graph import Array

LENGTHS = (1, 2, 3, 7, 8, 9, 15, 16, 17, 27, 31, 32, 33, 63, 64, 65, 120, 257, 500)

ALPHABETS: tuple[tuple[int, ...], ...] = (
    (0,),
    (-128,),
    (127,),
    (-128, 127),
    (0, -5, 9, -7),
    tuple(range(-8, 8)),
    tuple(range(-7, 8)),
    tuple(range(0, 64, 8)),
    tuple(range(-120, 121, 16)),
    tuple(range(-31, 32, 2)),
    tuple(range(-128, 128)),
)


ISA_PARAMETERS = [
    pytest.param(isa, marks=pytest.mark.xdist_group(f"encodings-{isa}")) for isa in measure.BOARDS
]
"""Instruction sets, each measured in one process."""


@st.composite
def some_lines(draw: st.DrawFn) -> list[Array]:
    """Lines of like values: few distinct ones, many zeros, zeros in runs, or anything."""
    alphabet = draw(st.sampled_from(ALPHABETS))
    lengths = draw(st.lists(st.sampled_from(LENGTHS), min_size=1, max_size=5))
    density = draw(st.sampled_from([0.01, 0.1, 0.3, 0.7, 1.0]))
    run = draw(st.sampled_from([1, 4, 8, 20]))
    skew = draw(st.sampled_from([0.0, 0.4, 1.5]))
    random = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    chance = np.exp(-skew * np.arange(len(alphabet)))
    return [
        _line(random, np.array(alphabet), chance / chance.sum(), length, density, run)
        for length in lengths
    ]


def _line(
    random: np.random.Generator,
    alphabet: Array,
    chance: Array,
    length: int,
    density: float,
    run: int,
) -> Array:
    values = random.choice(alphabet, length, p=chance)
    keep = np.repeat(random.random(-(-length // run)) < density, run)[:length]
    return np.where(keep, values, 0).astype(np.int8)


def encoded(lines: Sequence[Array]) -> list[tuple[Encoding, Encoded]]:
    """``lines`` in all encodings that hold them."""
    made = [(encoding, encodings.encode(encoding, lines)) for encoding in ENCODINGS]
    return [(encoding, each) for encoding, each in made if each is not None]


def lengths_of(lines: Sequence[Array]) -> list[int]:
    return [line.size for line in lines]


def equal(one: Sequence[Array], other: Sequence[Array]) -> bool:
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostDecoders]:
    with HostDecoders(tmp_path_factory.mktemp("decoders")) as program:
        yield program


@settings(max_examples=150, deadline=None)
@given(some_lines(), st.integers(0, 3))
def test_what_goes_in_comes_out(host: HostDecoders, lines: list[Array], offset: int) -> None:
    """In numpy, and in C that address and undefined-behaviour sanitizers watch."""
    for encoding, each in encoded(lines):
        assert equal(encodings.decode(each, lengths_of(lines)), lines), encoding.decoder
        assert equal(host.decode(each, lengths_of(lines), offset), lines), encoding.decoder


@functools.cache
def measured(isa: str) -> tuple[list[measure.Case], list[measure.Cost]]:
    """Lines of many lengths and kinds in all encodings, decoded on an emulated core."""
    random = np.random.default_rng(6)
    cases = []
    for i, alphabet in enumerate(ALPHABETS):
        chance = np.full(len(alphabet), 1 / len(alphabet))
        lengths = (LENGTHS, (512, 512), (96,) * 6)[i % 3]
        lines = [_line(random, np.array(alphabet), chance, n, 0.3, 1 + i % 5) for n in lengths]
        cases += [measure.Case(encoding, each, tuple(lines)) for encoding, each in encoded(lines)]
    return cases, measure.measure(boards.load(measure.BOARDS[isa]), cases)


@pytest.mark.parametrize("isa", ISA_PARAMETERS)
def test_emulated_cores_decode_the_same(isa: str) -> None:
    """The measurement compares every value."""
    cases, _ = measured(isa)
    assert {each.encoded.decoder for each in cases} == set(DECODERS)


@pytest.mark.parametrize("isa", ISA_PARAMETERS)
def test_expected_cycles_are_near_the_measured(isa: str) -> None:
    """Of lines of 96 and 512 values; where instructions are not cycles, the model of cycles."""
    for case, cost in zip(*measured(isa), strict=True):
        if min(line.size for line in case.lines) >= 64:
            taken, expected = cost.best, case.encoded.cycles(isa)
            assert abs(expected - taken) <= 0.2 * taken, (case.encoding.decoder, expected, taken)


def test_wrong_values_from_a_core_are_seen() -> None:
    case = measure.case(ENCODINGS[0], [np.arange(-8, 8).astype(np.int8)])
    assert case is not None
    spoilt = replace(case, encoded=replace(case.encoded, data=case.encoded.data ^ 1))
    with pytest.raises(MismatchError):
        measure.measure(boards.load("qemu_m4"), [case, spoilt])


PLAIN = ("-O1", "-DLOADS_ANYWHERE=0", "-DFINDS_BITS=0", *SANITIZERS)
"""What cores run that cannot find a bit, or load a word from any address."""


@pytest.mark.parametrize(
    ("compiler", "flags"),
    [("gcc", PLAIN), ("clang", ("-O2",)), ("g++", ("-O2",)), ("clang++", ("-O2",))],
)
def test_other_compilers(compiler: str, flags: tuple[str, ...], tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    with HostDecoders(tmp_path, compiler, flags) as program:
        for alphabet in ALPHABETS:
            chance = np.full(len(alphabet), 1 / len(alphabet))
            lines = [_line(random, np.array(alphabet), chance, n, 0.4, 1) for n in LENGTHS]
            for encoding, each in encoded(lines):
                assert equal(program.decode(each, lengths_of(lines)), lines), encoding.decoder


@pytest.mark.parametrize("flags", [(), ("-DLOADS_ANYWHERE=0", "-DFINDS_BITS=0")])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_a_decoder_needs_its_helpers_alone(compiler: str, flags: tuple[str, ...]) -> None:
    """As in a model that has one encoding; nothing is left unused or undefined."""
    for encoding in {encoding.decoder: encoding for encoding in ENCODINGS}.values():
        text = measure.functions(encoding.helpers)
        text += (
            f"\nextern decode_line *const used;\ndecode_line *const used = {encoding.decoder};\n"
        )
        command = [compiler, "-x", "c", "-std=c99", "-fsyntax-only", *flags, *WARNINGS, "-"]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (encoding.decoder, done.stderr)


def test_a_fault_is_seen(host: HostDecoders, tmp_path: Path) -> None:
    """A bit that flips in the data or the table changes what is decoded, in numpy and in C alike; a
    decoder that is wrong differs."""
    random = np.random.default_rng(1)
    book = np.array(range(-120, 121, 16))
    lines = [_line(random, book, np.full(16, 1 / 16), 64, 1.0, 1) for _ in range(3)]
    each = encodings.encode(next(e for e in ENCODINGS if e.decoder == "decode_codebook4"), lines)
    assert each is not None and each.table is not None
    for spoilt in (
        replace(each, data=each.data ^ (np.arange(each.data.size) == 5).astype(np.uint8)),
        replace(each, table=np.roll(each.table, 1)),
    ):
        there = encodings.decode(spoilt, [64] * 3)
        assert not equal(there, lines)
        assert equal(host.decode(spoilt, [64] * 3), there)
    text = all_functions()
    wrong = text.replace("(word >> 12) & 15u", "(word >> 12) & 7u")
    assert wrong != text
    with HostDecoders(tmp_path, text=wrong) as program:
        assert not equal(program.decode(each, [64] * 3), lines)


def test_every_decoder_is_tested() -> None:
    """The drawn values reach all encodings."""
    random = np.random.default_rng(2)
    reached = set()
    for alphabet in ALPHABETS:
        chance = np.full(len(alphabet), 1 / len(alphabet))
        lines = [_line(random, np.array(alphabet), chance, 257, 0.2, 1)]
        reached |= {encoding.decoder for encoding, _ in encoded(lines)}
    assert reached == set(DECODERS)


def test_lines_that_are_none() -> None:
    for lines in ([], [np.zeros(0, np.int8)], [np.zeros(3, np.int16)], [np.zeros((2, 2), np.int8)]):
        with pytest.raises(InputError):
            encodings.candidates(lines)


def test_candidates_are_small_and_not_beaten() -> None:
    random = np.random.default_rng(3)
    book = np.array(range(-120, 121, 16))
    lines = [_line(random, book, np.full(16, 1 / 16), 512, 0.2, 1) for _ in range(64)]
    found = encodings.candidates(lines)
    assert [each.bytes for each in found] == sorted(each.bytes for each in found)
    assert found[0].bytes < 512 * 64
    for i, each in enumerate(found):
        for other in found[:i]:
            faster = [each.cycles(isa) < other.cycles(isa) for isa in encodings.ISAS]
            assert any(faster) or encodings.structured(each) > encodings.structured(other)


def test_incompressible_lines_have_no_candidate() -> None:
    random = np.random.default_rng(4)
    assert encodings.candidates([random.integers(-128, 128, 4096).astype(np.int8)]) == []


def test_entropy_coding_is_told_from_the_rest() -> None:
    lines = [np.repeat(np.arange(-8, 8), 40).astype(np.int8)]
    for encoding, each in encoded(lines):
        assert encodings.structured(each) == ("huffman" not in encoding.name)


def test_a_published_model_takes_a_quarter_less() -> None:
    """Entropy coding alone, of weights that nobody compressed; rows decode to what they were."""
    file = shared_models.FOLDER / "ad01_int8.tflite"
    if not file.is_file():
        pytest.skip(f"reference models not at {shared_models.FOLDER.name}")
    tensors = [t for t in importers.load(file).tensors if t.data is not None and t.dtype == "int8"]
    kept = 0
    for tensor in tensors:
        assert tensor.data is not None
        lines = list(tensor.data)
        least = encodings.candidates(lines)[0]
        kept += least.bytes
        assert equal(encodings.decode(least, lengths_of(lines[:3])), lines[:3])
    assert sum(tensor.elements for tensor in tensors) - kept > 0.32 * 272_924


def test_sparse_and_few_values_take_less_than_two_bits() -> None:
    """80 % zeros and 16 values: the entropy is 1.52 bits."""
    random = np.random.default_rng(5)
    book = np.array([v for v in range(-120, 121, 15) if v])
    lines = [_line(random, book, np.full(16, 1 / 16), 256, 0.2, 1) for _ in range(128)]
    found = reversed(encodings.candidates(lines))
    bits = {each.name: 8 * each.bytes / (256 * 128) for each in found}
    assert bits["bitmap+codebook4"] < 1.85
    assert bits["huffman+gaps"] < 1.62
