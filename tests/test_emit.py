"""Generated C: exact, clean under every compiler, the same everywhere, safe from hostile names."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from graphs import convolution, dense_chain, random_inputs
from host_c import WARNINGS, HostModels
from hypothesis import given
from hypothesis import strategies as st

from tinygen import emit, plan, reference, resources
from tinygen.graph import Graph
from tinygen.ops import conv2d
from tinygen.ops.common import Pads


def generate(graph: Graph, name: str = "m") -> dict[str, str]:
    return emit.sources(plan.make(graph), name)


def test_generated_c_equals_the_reference(tmp_path: Path) -> None:
    graphs = {
        "dense": dense_chain(24, 17, 4, 9),
        "same": convolution(),
        "valid": convolution(attrs=conv2d.Attrs(padding="VALID", stride=(2, 1))),
        "dilated": convolution((9, 11, 2), (5, 3, 2), conv2d.Attrs(dilation=(2, 3))),
        "explicit": convolution(
            attrs=conv2d.Attrs(padding="EXPLICIT", pads=Pads(0, 3, 2, 0), stride=(2, 2))
        ),
    }
    with HostModels(graphs, tmp_path) as host:
        for name, graph in graphs.items():
            for seed in range(5):
                inputs = random_inputs(graph, seed)
                outputs, _ = host.run(name, inputs)
                for got, want in zip(outputs, reference.run(graph, inputs), strict=True):
                    assert np.array_equal(got, want), (name, seed)


def test_a_flipped_weight_shows(tmp_path: Path) -> None:
    graph = dense_chain(24, 17)
    weights = graph.at(1).data
    assert weights is not None
    wrong = weights.copy()
    wrong[3, 5] ^= 0x40
    inputs = random_inputs(graph)
    with HostModels({"m": graph.with_tensor(1, data=wrong)}, tmp_path) as host:
        outputs, _ = host.run("m", inputs)
    assert not np.array_equal(outputs[0], reference.run(graph, inputs)[0])


@pytest.mark.parametrize("compiler", ["gcc", "clang", "g++", "clang++"])
def test_compiles_without_a_warning(compiler: str, tmp_path: Path) -> None:
    for path, text in generate(convolution()).items():
        (tmp_path / Path(path).name).write_text(text)
    language = ["-x", "c++", "-std=c++17"] if "++" in compiler else ["-std=c99", "-pedantic"]
    runtime = resources.folder("firmware") / "runtime"
    for level in ("-O0", "-O3"):
        subprocess.run(
            [compiler, *language, level, *WARNINGS, f"-I{runtime}", "-c", "m.c", "-o", "m.o"],
            cwd=tmp_path,
            check=True,
        )


def test_same_bytes_in_every_process() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from graphs import *; "
        "from tinygen import emit, plan; "
        "print(emit.sources(plan.make(convolution()), 'm'))"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", code, str(Path(__file__).parent)],
            env=os.environ | {"PYTHONHASHSEED": seed},
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed, folder in (("0", "/"), ("1", Path(__file__).parent), ("77", "/usr"))
    }
    assert len(texts) == 1


def test_says_nothing_of_the_machine() -> None:
    text = "".join(generate(convolution()).values())
    assert str(Path.cwd()) not in text
    assert os.uname().nodename not in text
    assert not re.search(r"20\d\d-\d\d-\d\d", text)


@given(st.text(max_size=80))
def test_c_identifier(text: str) -> None:
    name = emit.c_identifier(text)
    assert re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name)
    assert emit.c_identifier(name) == name


@pytest.mark.parametrize(
    "text, name",
    [
        ("KWS ref-Model", "kws_ref_model"),
        ("9lives", "model_9lives"),
        ("int", "model_int"),
        ("", "model"),
    ],
)
def test_c_identifier_examples(text: str, name: str) -> None:
    assert emit.c_identifier(text) == name


@given(st.text(max_size=200))
def test_comment_text_cannot_end_a_comment(text: str) -> None:
    clean = emit.comment_text(text)
    assert re.fullmatch(r"[A-Za-z0-9._:/-]{0,48}", clean)
    assert "*" not in clean and "//" not in clean and "\\" not in clean


def test_hostile_names_stay_out_of_the_code(tmp_path: Path) -> None:
    graph = convolution()
    evil = '*/ #include "/etc/passwd" \n??/ "); system("reboot'
    tensors = tuple(replace(t, name=evil) for t in graph.tensors)
    graph = replace(graph, tensors=tensors, source=evil, name=evil)
    for path, text in generate(graph).items():
        assert "reboot" not in re.sub(r"/\*.*?\*/|\"[\w.:/-]*\"", "", text, flags=re.DOTALL), path
    with HostModels({"m": graph}, tmp_path) as host:
        inputs = random_inputs(graph)
        assert np.array_equal(host.run("m", inputs)[0][0], reference.run(graph, inputs)[0])


def test_equal_layers_share_code_and_weights() -> None:
    once = generate(dense_chain(16, 16))["src/m.c"]
    often = generate(dense_chain(16, *[16] * 9))["src/m.c"]
    assert often.count("static void ") == once.count("static void ") == 1
    graph = dense_chain(16, 16, 16)
    graph = graph.with_tensor(3, data=graph.at(1).data)
    assert generate(graph)["src/m_weights.h"].count("_weights[256]") == 1


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_c_float_reads_back(value: float) -> None:
    assert np.float32(emit.c_float(value).removesuffix("f")) == np.float32(value)
