"""The tflm engine: what it reads of a model, the arena it measures, the tree it copies from."""

from __future__ import annotations

import importlib.util
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import oracle
import pytest
import shared_models
from tflite_builder import Model, Op, Tensor

from tinygen import boards, platformio, project, protocol, resources, tflm
from tinygen import compile as compiler
from tinygen.errors import InputError, TinyGenError
from tinygen.simulate import start
from tinygen.tflm import tree
from tinygen.tflm.arena import LIMIT
from tinygen.tflm.ops import BUILTIN, CUSTOM
from tinygen.tflm.summary import summarize

DIGITS = resources.folder("examples") / "digits" / "digits_int8.tflite"
ALL = (*shared_models.SUPPORTED, shared_models.STATEFUL)

TREE = os.environ.get("TINYGEN_TFLM_DIR", "")
tree_needed = pytest.mark.skipif(not TREE, reason="TINYGEN_TFLM_DIR names no TFLM tree")


def chain(op: str, dtype: str = "int8", shape: tuple[int, ...] = (1, 4)) -> Model:
    """A model of one operator without options."""
    given = Tensor(shape, dtype, (0.5,), (3,), name="in")
    made = Tensor(shape, dtype, (0.25,), (-3,), name="out")
    return Model((given, made), (Op(op, (0,), (1,)),), (0,), (1,))


# ---- Summary ------------------------------------------------------------------------------------


def test_summary_of_the_bundled_model() -> None:
    found = summarize(DIGITS.read_bytes(), "folder/digits_int8.tflite")
    assert found.source == "digits_int8.tflite"
    assert found.methods == tuple((BUILTIN | CUSTOM)[name] for name in found.operators)
    assert "AddConv2D" in found.methods
    assert [t.shape for t in found.inputs] == [(1, 8, 8, 1)]
    assert [t.shape for t in found.outputs] == [(1, 10)]
    assert found.layers[-1].bytes == 10
    assert [layer.node for layer in found.layers] == list(range(found.nodes))
    assert 0 < found.weight_bytes < DIGITS.stat().st_size


@shared_models.needed
@pytest.mark.parametrize("model", ALL)
def test_summary_of_the_shared_models(model: str) -> None:
    found = summarize(shared_models.path(model).read_bytes(), model)
    golden = shared_models.goldens(model)[0]
    assert [t.shape for t in found.inputs] == [golden.input.shape]
    assert [t.dtype for t in found.inputs] == [str(golden.input.dtype)]
    assert [t.shape for t in found.outputs] == [golden.output.shape]
    assert len(found.layers) == len(golden.layer_crc32)
    assert found.resource_variables == 0


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (chain("HASHTABLE"), r"m\.tflite: node 0 HASHTABLE: TFLM has no such operator"),
        (chain("RELU", shape=(1, 0)), r"m\.tflite: input 0: shape \(1, 0\)"),
        (chain("RELU", dtype="int64"), r"m\.tflite: input 0: element type"),
        (chain("RELU", shape=(1 << 15, 1 << 15)), r"m\.tflite: input 0: .* more than"),
    ],
)
def test_models_without_a_place_in_firmware_are_refused(model: Model, message: str) -> None:
    with pytest.raises(InputError, match=message):
        summarize(model.bytes, "m.tflite")


def test_no_input_or_a_tensor_that_is_not_there_is_refused() -> None:
    sound = chain("RELU")
    for inputs, message in [((), "has no input"), ((7,), "tensor 7 does not exist")]:
        broken = Model(sound.tensors, sound.ops, inputs, sound.outputs)
        with pytest.raises(InputError, match=message):
            summarize(broken.bytes)


def test_damaged_files_give_a_summary_or_an_input_error() -> None:
    sound = DIGITS.read_bytes()
    draw = random.Random(7)
    refused = 0
    for case in range(400):
        data = bytearray(sound)
        if case % 4 == 0:
            del data[draw.randrange(len(data)) :]
        else:
            for _ in range(draw.randrange(1, 8)):
                # The tables stand at the file's end; damage in the weights is no damage.
                data[-draw.randrange(1, 3000)] ^= 1 << draw.randrange(8)
        try:
            summarize(bytes(data), "m.tflite")
        except InputError as error:
            assert error.message.startswith("m.tflite: ")
            refused += 1
    assert refused > 100


# ---- Arena --------------------------------------------------------------------------------------


def fits(model: bytes, arena: int) -> bool:
    """TFLM initialises the model in ``arena`` bytes, seen from a process that may die of it."""
    program = (
        "import sys\n"
        "from tflite_micro.python.tflite_micro import runtime\n"
        "runtime.Interpreter.from_bytes(sys.stdin.buffer.read(), arena_size=int(sys.argv[1]))\n"
    )
    command = [sys.executable, "-c", program, str(arena)]
    return subprocess.run(command, input=model, capture_output=True, check=False).returncode == 0


def test_the_arena_is_the_smallest_that_does() -> None:
    model = DIGITS.read_bytes()
    arena = tflm.arena_bytes(model)
    assert arena % 16 == 0
    assert fits(model, arena)
    assert not fits(model, arena - 16)


def test_the_arena_is_enough_for_an_inference() -> None:
    model = DIGITS.read_bytes()
    given = np.arange(64, dtype=np.int8).reshape(1, 8, 8, 1)
    (tight,) = oracle.shared().run(model, [given], arena=tflm.arena_bytes(model))
    (generous,) = oracle.shared().run(model, [given])
    np.testing.assert_array_equal(tight, generous, strict=True)


def test_what_tflm_refuses_or_crashes_on_is_an_input_error() -> None:
    unsupported = chain("CONV_2D")  # a convolution without a filter
    for data in (unsupported.bytes, b"\x1c\0\0\0TFL3" + bytes(range(64)) * 4):
        with pytest.raises(InputError, match=r"^m\.tflite: TFLM does not run this model"):
            tflm.arena_bytes(data, "m.tflite")


def test_a_model_larger_than_any_arena_is_an_input_error() -> None:
    model = chain("RELU", shape=(1, LIMIT))
    with pytest.raises(InputError, match="TFLM does not run this model"):
        tflm.arena_bytes(model.bytes)


def test_without_the_runtime_the_message_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TinyGenError, match="not installed") as caught:
        tflm.arena_bytes(DIGITS.read_bytes())
    assert "pip install" in caught.value.hint


# ---- Generated sources --------------------------------------------------------------------------


def defines(header: str) -> dict[str, str]:
    return dict(re.findall(r"^#define (DIGITS_\w+) (.+)$", header, re.MULTILINE))


def test_both_engines_give_the_same_model_header() -> None:
    made = tflm.generate(DIGITS.read_bytes(), DIGITS.name, "digits")
    compiled = compiler.compile_model(DIGITS, boards.load("host"), "digits")
    stock = defines(made.sources["src/digits.h"])
    own = defines(compiler.emit.sources(compiled.plan, "digits")["src/digits.h"])
    engines = {"DIGITS_ARENA_BYTES", "DIGITS_WEIGHT_BYTES", "DIGITS_LAYER_COUNT", "DIGITS_MACS"}
    assert {k: v for k, v in stock.items() if k not in engines} == {
        k: v for k, v in own.items() if k not in engines
    }
    assert stock.keys() == own.keys()
    assert int(stock["DIGITS_ARENA_BYTES"]) == made.arena_bytes


def test_generation_is_repeatable_and_holds_the_model_whole() -> None:
    model = DIGITS.read_bytes()
    once, again = (tflm.generate(model, DIGITS.name, "digits") for _ in range(2))
    assert once.sources == again.sources
    text = once.sources["src/digits_model_data.cpp"]
    assert bytes(int(b, 16) for b in re.findall(r"0x([0-9a-f]{2}),", text)) == model
    assert once.runtime == {}


def test_the_resolver_has_exactly_the_models_operators() -> None:
    made = tflm.generate(DIGITS.read_bytes(), DIGITS.name, "digits")
    text = made.sources["src/digits.cpp"]
    assert tuple(re.findall(r"^    (Add\w+)\(\);", text, re.MULTILINE)) == made.summary.methods
    assert f"MicroMutableOpResolver<{len(made.summary.methods)}>" in text


def test_libraries_with_optimized_kernels_get_room_for_them(tmp_path: Path) -> None:
    model = DIGITS.read_bytes()
    reference = tflm.generate(model, DIGITS.name, "digits", fake_tree(tmp_path)).arena_bytes
    assert reference == tflm.arena_bytes(model)
    scratch = summarize(model).scratch_bytes
    assert scratch > 0
    vendor = tflm.generate(model, DIGITS.name, "digits").arena_bytes
    assert scratch <= vendor - reference < scratch + 16


# ---- Trees --------------------------------------------------------------------------------------

KERNELS = "tensorflow/lite/micro/kernels"
REST = ("AVERAGE_POOL_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "RESHAPE")
FAKE = {
    "LICENSE": "tflm licence",
    "tensorflow/lite/micro/micro_interpreter.h": '#include "flatbuffers/flatbuffers.h"\n'
    '#include "tensorflow/lite/micro/allocator.h"\n#include <cstdint>\n',
    "tensorflow/lite/micro/micro_interpreter.cc": '#include "micro_interpreter.h"\n',
    "tensorflow/lite/micro/allocator.h": "",
    "tensorflow/lite/micro/allocator_common.cc": "",
    "tensorflow/lite/micro/unused.h": "",
    "tensorflow/lite/micro/unused.cc": "",
    "tensorflow/lite/micro/micro_mutable_op_resolver.h": "\n".join(
        f"TfLiteStatus {BUILTIN[name]}(const TFLMRegistration& r = Register_{name}()) {{ }}"
        for name in ("CONV_2D", *REST, "SOFTMAX", "COS")
    )
    + f'\n#include "{KERNELS}/softmax.h"\n',
    **{
        path: ""
        for path in tree.HEADERS
        if not path.endswith(("micro_interpreter.h", "micro_mutable_op_resolver.h"))
    },
    f"{KERNELS}/conv.cc": "// see Register_SOFTMAX()\n"
    f'#include "{KERNELS}/conv.h"\n  #  include "{KERNELS}/xtensa/conv.h"\n'
    "TFLMRegistration Register_CONV_2D() {\n",
    f"{KERNELS}/conv.h": '#include "fixedpoint/fixedpoint.h"\n#include "not/in/the/tree.h"\n',
    f"{KERNELS}/conv_common.cc": "",
    f"{KERNELS}/conv_test.cc": "TFLMRegistration Register_CONV_2D() { }",
    f"{KERNELS}/xtensa/conv.h": "",
    f"{KERNELS}/xtensa/conv.cc": "",
    f"{KERNELS}/cmsis_nn/cos.cc": "TFLMRegistration Register_COS() {",
    f"{KERNELS}/softmax.h": "",
    f"{KERNELS}/softmax.cc": "TFLMRegistration Register_SOFTMAX() {",
    f"{KERNELS}/rest.cc": "".join(f"TFLMRegistration Register_{name}() {{ }}" for name in REST),
}
THIRD_PARTY = {
    "flatbuffers/LICENSE": "flatbuffers licence",
    "flatbuffers/include/flatbuffers/flatbuffers.h": '#include "base.h"',
    "flatbuffers/include/flatbuffers/base.h": "",
    "gemmlowp/fixedpoint/fixedpoint.h": '#include "../internal/detect_platform.h"',
    "gemmlowp/internal/detect_platform.h": "",
    "ruy/ruy/profiler/instrumentation.h": "",
    "ruy/ruy/profiler/instrumentation.cc": "",
}
CHECKOUT, EXPORT = "tensorflow/lite/micro/tools/make/downloads", "third_party"


def fake_tree(root: Path, third_party: str = CHECKOUT) -> tree.Tree:
    """A tree that is laid out like TFLM's and holds next to nothing."""
    files = FAKE | {f"{third_party}/{path}": text for path, text in THIRD_PARTY.items()}
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return tree.check_tree(root)


@pytest.mark.parametrize("layout", [CHECKOUT, EXPORT])
def test_a_tree_gives_what_the_operators_need_and_no_more(tmp_path: Path, layout: str) -> None:
    got = tree.files(fake_tree(tmp_path, layout), ["AddConv2D"])
    assert {path for path in got if path not in tree.HEADERS} == {
        "LICENSE.tflm",
        "LICENSE.flatbuffers",
        "fixedpoint/fixedpoint.h",
        "flatbuffers/base.h",
        "flatbuffers/flatbuffers.h",
        "internal/detect_platform.h",
        "tensorflow/lite/micro/allocator.h",
        "tensorflow/lite/micro/allocator_common.cc",
        "tensorflow/lite/micro/micro_interpreter.cc",
        f"{KERNELS}/conv.cc",
        f"{KERNELS}/conv.h",
        f"{KERNELS}/conv_common.cc",
        f"{KERNELS}/softmax.h",
    }
    assert set(tree.HEADERS) <= got.keys()
    assert got["LICENSE.flatbuffers"] == b"flatbuffers licence"


def test_the_runtime_library_compiles_release_and_traces(tmp_path: Path) -> None:
    made = tflm.generate(DIGITS.read_bytes(), DIGITS.name, "digits", fake_tree(tmp_path))
    assert f"src/{KERNELS}/conv.cc" in made.runtime
    assert "LICENSE.tflm" in made.runtime
    config = made.runtime["src/tinygen_tflm_config.h"]
    for flags, expected in [([], True), (["-DTINYGEN_TRACE"], False)]:
        text = subprocess.run(
            ["gcc", "-dM", "-E", *flags, "-x", "c", "-"],
            input=config if isinstance(config, bytes) else config.encode(),
            capture_output=True,
            check=True,
        ).stdout.decode()
        assert ("TF_LITE_STRIP_ERROR_STRINGS" in text) is expected
        assert "TF_LITE_STATIC_MEMORY" in text


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: shutil.rmtree(root / "tensorflow"), "not a TensorFlow Lite Micro tree"),
        (lambda root: shutil.rmtree(root / EXPORT / "gemmlowp"), "lacks the headers of gemmlowp"),
    ],
)
def test_a_folder_that_is_no_whole_tree_is_refused(
    tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    fake_tree(tmp_path, EXPORT)
    spoil(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        tree.check_tree(tmp_path)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("method", "message"),
    [("AddSvdf", "this TFLM has no AddSvdf"), ("AddCos", "no reference kernel defines")],
)
def test_operators_that_a_tree_lacks_are_named(tmp_path: Path, method: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tree.files(fake_tree(tmp_path), [method])


# ---- Builds -------------------------------------------------------------------------------------


@pytest.mark.parametrize("board", ["qemu_m4", "host"])
def test_a_build_without_tflm_at_hand_says_so_before_it_writes(board: str, tmp_path: Path) -> None:
    given = {"board": board, "engine": "tflm", "output": tmp_path / "project"}
    with pytest.raises(InputError, match=r"^--engine tflm: ") as caught:
        compiler.build(compiler.request(tmp_path, given))
    assert "--tflm-dir" in caught.value.hint
    assert not (tmp_path / "project").exists()


def test_a_compiler_without_the_c_plus_plus_library_is_told_of(tmp_path: Path) -> None:
    tflm.check_compiler("arm-none-eabi-")
    bare = tmp_path / "bare-g++"
    bare.write_text("#!/bin/sh\nexit 1\n")
    bare.chmod(0o755)
    with pytest.raises(TinyGenError, match="comes without the C\\+\\+ library"):
        tflm.check_compiler(f"{tmp_path}/bare-")
    with pytest.raises(TinyGenError, match="cannot be run"):
        tflm.check_compiler(f"{tmp_path}/none-")


# ---- With a real tree ---------------------------------------------------------------------------


@tree_needed
def test_the_operators_are_those_of_tflm() -> None:
    header = (Path(TREE) / "tensorflow/lite/micro/micro_mutable_op_resolver.h").read_text()
    methods = set(re.findall(r"TfLiteStatus (Add\w+)\(", header))
    assert set(BUILTIN.values()) | set(CUSTOM.values()) == methods - {
        "AddBuiltin",
        "AddCustom",
        "AddEthosU",
    }
    for name, method in BUILTIN.items():
        assert re.search(rf"\b{method}\((?:(?!TfLiteStatus Add).)*BuiltinOperator_{name}\b", header,
                         re.DOTALL), name  # fmt: skip
    for name, method in CUSTOM.items():
        assert re.search(rf'\b{method}\((?:(?!TfLiteStatus Add).)*"{name}"', header, re.DOTALL)


@tree_needed
def test_a_real_tree_has_every_operator() -> None:
    found = tree.check_tree(Path(TREE))
    for name, method in BUILTIN.items():
        got = tree.files(found, [method])
        kernels = [path for path in got if path.startswith(f"{KERNELS}/") and path.endswith(".cc")]
        assert any(f"Register_{name}()".encode() in got[path] for path in kernels)
        assert not any("_test" in path or "/xtensa/" in path for path in got)


@pytest.mark.wide
@tree_needed
@shared_models.needed
@pytest.mark.parametrize("model", ["hello_world_int8", "person_detect", shared_models.STATEFUL])
def test_tflm_on_the_emulated_cortex_m4_gives_the_goldens(model: str, tmp_path: Path) -> None:
    board = boards.load("qemu_m4")
    wanted = compiler.request(
        tmp_path,
        {
            "model": shared_models.path(model),
            "board": board.name,
            "engine": "tflm",
            "tflm_dir": Path(TREE),
            "output": tmp_path / "project",
        },
    )
    compiler.build(wanted)
    manifest = project.load(wanted.output)
    for flags in ((), ("-DTINYGEN_TRACE",)):
        elf = platformio.make(wanted.output, f"{board.name}_sim", flags)
        for golden in shared_models.goldens(model):
            with start(board, elf) as transport:
                device = protocol.Device(transport)
                device.connect()
                assert device.run(golden.input.tobytes()) == golden.output.tobytes()
                if flags:
                    device.reset()
                    device.load(golden.input.tobytes())
                    crcs = tuple(layer.crc for layer in device.layers())
                    assert crcs == golden.layer_crc32
                    assert len(crcs) == len(manifest.layers)
