"""TFLM's interface over generated code: sketches written for TFLM, compiled as they are."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import oracle
import pytest
import shared_models
from host_c import SANITIZERS, WARNINGS

from tinygen import boards, emit, platformio, resources, simulate
from tinygen import compile as compiler
from tinygen.tflm import dropin
from tinygen.tflm.ops import BUILTIN, CUSTOM

HERE = Path(__file__).parent
RUNTIME = resources.folder("firmware") / "runtime"
INTERFACE = resources.folder("firmware") / "runtime_tflm" / "src"
DIGITS = resources.folder("examples") / "digits" / "digits_int8.tflite"
HEADERS = sorted(path.relative_to(INTERFACE).as_posix() for path in INTERFACE.rglob("*.h"))
LOOPS = 70  # more than any sketch has use for

COMPILERS = (
    ("g++", "-std=gnu++11"),
    ("g++", "-std=c++20"),
    ("clang++", "-std=c++14"),
    ("arm-none-eabi-g++", "-mcpu=cortex-m4", "-mthumb", "-fno-exceptions", "-fno-rtti"),
)

TREE = os.environ.get("TINYGEN_TFLM_DIR", "")
tree_needed = pytest.mark.skipif(not TREE, reason="TINYGEN_TFLM_DIR names no TFLM tree")


def run(*command: str | Path, text: str = "") -> str:
    """What ``command`` prints, on both streams; fails when it does."""
    done = subprocess.run(
        [str(word) for word in command],
        input=text.encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    output = done.stdout.decode()
    assert done.returncode == 0, output
    return output


def model_library(model: Path, folder: Path, name: str = "net") -> Path:
    """Generated code of ``model`` in ``folder``, with the stand-in for its array; compiled too."""
    made = compiler.compile_model(model, boards.load("host"), name)
    stand_in = dropin.header(name, made.graph.source, made.graph.sha256)
    for path, text in (emit.sources(made.plan, name) | stand_in).items():
        (folder / Path(path).name).write_text(text)
    run("gcc", "-std=c99", "-O1", *WARNINGS, *SANITIZERS, f"-I{folder}", f"-I{RUNTIME}",
        "-c", folder / f"{name}.c", "-o", folder / f"{name}.o")  # fmt: skip
    return folder


def program(source: Path, folder: Path, *flags: str) -> Path:
    """A sanitized program of ``source``, the interface and the model in ``folder``."""
    made = folder / source.stem
    run("g++", "-std=gnu++17", "-O1", *WARNINGS, *SANITIZERS, *flags, f"-I{folder}",
        f"-I{RUNTIME}", f"-I{INTERFACE}", source, INTERFACE / "tinygen_tflm.cpp",
        *folder.glob("*.o"), "-o", made)  # fmt: skip
    return made


def sketch(name: str, model: Path, folder: Path, *flags: str) -> list[str]:
    """The lines that ``sketches/<name>.cpp`` prints when it runs ``model``."""
    whole = folder / f"{name}.cpp"
    whole.write_text(
        f'#include "{HERE}/sketches/{name}.cpp"\n'
        f"int main() {{ setup(); for (int i = 0; i < {LOOPS}; ++i) loop(); return 0; }}\n"
    )
    array = ('-DMODEL_HEADER="net_model_data.h"', "-DTINYGEN_MODEL_ARRAY=g_model")
    return run(program(whole, model_library(model, folder), *array, *flags)).splitlines()


def snippet(folder: Path, body: str, head: str = "") -> list[str]:
    """What a program around the bundled model prints whose ``main`` is ``body``."""
    source = folder / "snippet.cpp"
    source.write_text(
        '#include "net_model_data.h"\n'
        '#include "tensorflow/lite/micro/all_ops_resolver.h"\n'
        '#include "tensorflow/lite/micro/micro_interpreter.h"\n'
        f"{head}\nint main() {{\n{body}\nreturn 0; }}\n"
    )
    return run(program(source, model_library(DIGITS, folder))).splitlines()


# ---- Headers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("compiler_line", COMPILERS, ids=" ".join)
def test_every_header_stands_alone_and_is_clean(compiler_line: Sequence[str]) -> None:
    for header in HEADERS:
        run(*compiler_line, *WARNINGS, f"-I{INTERFACE}", f"-I{RUNTIME}", "-fsyntax-only",
            "-x", "c++", "-", text=f'#include "{header}"\n#include "{header}"\n')  # fmt: skip


@pytest.mark.parametrize("compiler_line", COMPILERS, ids=" ".join)
def test_the_library_is_clean_and_uses_no_heap(
    compiler_line: Sequence[str], tmp_path: Path
) -> None:
    made = tmp_path / "tinygen_tflm.o"
    run(*compiler_line, *WARNINGS, f"-I{INTERFACE}", f"-I{RUNTIME}",
        "-c", INTERFACE / "tinygen_tflm.cpp", "-o", made)  # fmt: skip
    needed = set(run("nm", "-u", made).split()) - {"U", "w"}
    assert "memcmp" in needed
    assert not {n for n in needed if re.search(r"alloc|^free$|^_Zn|^_Zd|throw|guard", n)}


@pytest.mark.parametrize("language", ["c", "c++"])
def test_the_stand_in_for_the_array_is_clean_in_both_languages(
    language: str, tmp_path: Path
) -> None:
    model_library(DIGITS, tmp_path)
    text = '#define TINYGEN_MODEL_ARRAY g_model\n#include "net_model_data.h"\n'
    text += "const unsigned char *of(void);\nconst unsigned char *of(void) { return g_model; }\n"
    for name in ("gcc", "clang"):
        run(name, *WARNINGS, f"-I{tmp_path}", f"-I{RUNTIME}", f"-I{INTERFACE}",
            "-fsyntax-only", "-x", language, "-", text=text)  # fmt: skip


def test_resolvers_take_every_operator_that_tflm_has() -> None:
    names = sorted({*BUILTIN.values(), *CUSTOM.values(), "AddEthosU"})
    calls = "".join(f"resolver.{name}();\n" for name in names)
    registrations = "".join(f"(void)tflite::Register_{name}();\n" for name in BUILTIN)
    run("g++", *WARNINGS, f"-I{INTERFACE}", f"-I{RUNTIME}", "-fsyntax-only", "-x", "c++", "-",
        text='#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"\n'
        f"void f(); void f() {{ tflite::MicroMutableOpResolver<2> resolver;\n{calls}"
        f"{registrations} }}\n")  # fmt: skip


@tree_needed
def test_every_registration_in_tflms_headers_is_here() -> None:
    kernels = Path(TREE) / "tensorflow/lite/micro/kernels"
    names: set[str] = set()
    for header in kernels.glob("*.h"):
        names |= set(re.findall(r"^TFLMRegistration (Register_\w+)\(\)", header.read_text(), re.M))
    calls = "".join(f"(void)tflite::{name}();\n" for name in sorted(names - {"Register_DECODE"}))
    run("g++", f"-I{INTERFACE}", f"-I{RUNTIME}", "-fsyntax-only", "-x", "c++", "-",
        text='#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"\n'
        f"void f() {{\n{calls}}}\n")  # fmt: skip


# ---- Sketches -----------------------------------------------------------------------------------


def classic_lines() -> list[str]:
    """What ``sketches/classic.cpp`` prints with the bundled model, as TFLM has it."""
    lines = []
    for step in range(3):
        given = (np.arange(64) * (step + 3) % 256 - 128).astype(np.int8).reshape(1, 8, 8, 1)
        (output,) = oracle.shared().run(DIGITS.read_bytes(), [given])
        lines += [f"{step} {i} {value}" for i, value in enumerate(output.ravel())]
    return lines


def test_a_classic_sketch_gives_tflms_bytes(tmp_path: Path) -> None:
    """All operators, an error reporter, messages; any message but the outputs is a failure."""
    assert sketch("classic", DIGITS, tmp_path) == classic_lines()


@shared_models.needed
def test_a_sine_sketch_gives_tflms_bytes(tmp_path: Path) -> None:
    model = shared_models.path("hello_world_int8")
    head, *lines = sketch("sine", model, tmp_path)
    assert head == "input INT8, rank 2, 1 bytes"
    assert len(lines) == 64
    for line in lines:
        found = re.match(r"\d+: (-?\d+) -> (-?\d+) = ", line)
        assert found is not None
        given = np.array([[int(found[1])]], dtype=np.int8)
        (output,) = oracle.shared().run(model.read_bytes(), [given])
        assert int(found[2]) == output.item()


@shared_models.needed
def test_a_person_detection_sketch_gives_the_goldens(tmp_path: Path) -> None:
    lines = sketch("person", shared_models.path("person_detect"), tmp_path)
    goldens = {golden.name: golden.output for golden in shared_models.goldens("person_detect")}
    expected = []
    for seed in (1, 2, 3):
        scores = goldens[f"lcg{seed}"].ravel()
        as_bytes = scores.view(np.uint8)
        expected.append(
            f"seed {seed}: {scores[0]} {scores[1]}, as bytes {as_bytes[0]} {as_bytes[1]}"
        )
    assert lines == expected


def test_messages_can_be_stripped(tmp_path: Path) -> None:
    assert sketch("classic", DIGITS, tmp_path, "-DTF_LITE_STRIP_ERROR_STRINGS") == []


def test_a_sketch_is_a_project_s_program(tmp_path: Path) -> None:
    """PlatformIO finds the interface by the sketch's includes; messages go to Serial."""
    wanted = compiler.request(
        tmp_path, {"model": DIGITS, "board": "host", "output": tmp_path / "p", "name": "net"}
    )
    compiler.build(wanted)
    text = (HERE / "sketches" / "classic.cpp").read_text()
    (wanted.output / "src" / "main.cpp").write_text(
        "#include <Arduino.h>\n#define TINYGEN_MODEL_ARRAY g_model\n"
        + text.replace("MODEL_HEADER", '"net_model_data.h"')
    )
    said = b""
    with simulate.start(wanted.board, platformio.make(wanted.output, "host")) as transport:
        while said.count(b"\r\n") < 30:
            said += transport.read(10.0)
    assert said.decode().splitlines() == classic_lines()


# ---- What is refused ----------------------------------------------------------------------------


def test_a_flatbuffer_is_told_from_a_generated_model(tmp_path: Path) -> None:
    head = (
        "alignas(16) static const unsigned char flatbuffer[] = {28, 0, 0, 0, 'T', 'F', 'L', '3'};"
    )
    lines = snippet(
        tmp_path,
        """
        static uint8_t arena[1000];
        tflite::AllOpsResolver resolver;
        const tflite::Model *wrong = tflite::GetModel(flatbuffer);
        const tflite::Model *right = tflite::GetModel(g_net_model_data);
        tflite::MicroInterpreter one(wrong, resolver, arena, sizeof arena);
        MicroPrintf("%d %d", (int)wrong->version(), (int)right->version());
        MicroPrintf("%d %d %d", one.AllocateTensors(), one.Invoke(), (int)one.inputs_size());
        MicroPrintf("%d", one.input(0) == nullptr);
        """,
        head,
    )
    assert lines[0] == "0 3"
    assert "Not a model that TinyGen generated: include its <name>_model_data.h" in lines
    assert lines[-2:] == ["1 1 0", "1"]


def test_an_arena_of_any_size_and_alignment_is_safe(tmp_path: Path) -> None:
    """Too small ones are refused, the size that arena_used_bytes gives suffices."""
    lines = snippet(
        tmp_path,
        """
        static uint8_t arena[1000];
        tflite::AllOpsResolver resolver;
        const tflite::Model *model = tflite::GetModel(g_net_model_data);
        tflite::MicroInterpreter whole(model, resolver, arena + 1, sizeof arena - 1);
        const TfLiteStatus status = whole.AllocateTensors();
        const size_t used = whole.arena_used_bytes();
        MicroPrintf("%d %u", status, (unsigned)used);
        int refused = 0;
        for (size_t size = 0; size < used; ++size) {
          tflite::MicroInterpreter small(model, resolver, arena + 1, size);
          refused += small.AllocateTensors() == kTfLiteError && small.output(0) == nullptr;
        }
        tflite::MicroInterpreter exact(model, resolver, arena + 1, used);
        MicroPrintf("%d of %u, %d", refused, (unsigned)used, exact.AllocateTensors());
        """,
    )
    found = re.match(r"0 (\d+)$", lines[0])
    assert found is not None
    used = int(found[1])
    assert 0 < used < 500
    assert lines[-1] == f"{used} of {used}, 0"


def test_tensors_tell_all_that_the_model_says(tmp_path: Path) -> None:
    lines = snippet(
        tmp_path,
        """
        static uint8_t arena[1000];
        tflite::AllOpsResolver resolver;
        tflite::MicroProfiler profiler;
        tflite::MicroInterpreter net(tflite::GetModel(g_net_model_data), resolver, arena,
                                     sizeof arena, nullptr, &profiler);
        net.AllocateTensors();
        const TfLiteTensor *in = net.input(0);
        const auto *affine = static_cast<const TfLiteAffineQuantization *>(in->quantization.params);
        MicroPrintf("%d %d %d %d", in->dims->size, in->dims->data[1], in->dims->data[3],
                    tflite::ElementCount(*in->dims));
        MicroPrintf("%d %d %d", affine->scale->data[0] == NET_INPUT0_SCALE,
                    affine->zero_point->data[0] == NET_INPUT0_ZERO_POINT,
                    in->params.scale == NET_INPUT0_SCALE);
        MicroPrintf("%d %d %d", net.typed_input_tensor<int8_t>(0) == in->data.int8,
                    net.typed_input_tensor<float>(0) == nullptr, net.input(1) == nullptr);
        MicroPrintf("%d %d %d", net.Invoke(), net.Reset(), net.initialization_status());
        profiler.Log();
        MicroPrintf("%d %d %d", tflite::FloatToQuantizedType<int8_t>(0.75f, 0.5f, 3),
                    tflite::FloatToQuantizedType<int8_t>(-1e9f, 0.5f, 3),
                    tflite::FloatToQuantizedType<uint8_t>(1e9f, 0.5f, 3));
        """,
        '#include "tensorflow/lite/micro/micro_profiler.h"\n'
        '#include "tensorflow/lite/micro/micro_utils.h"',
    )
    assert lines == [
        "4 8 1 64",
        "1 1 1",
        "1 1 1",
        "0 0 0",
        "net took 0 ticks in 1 inferences",
        "5 -128 255",
    ]


def test_older_and_recording_interfaces_are_there(tmp_path: Path) -> None:
    """Every constructor that sketches use, literal null pointers among their arguments."""
    lines = snippet(
        tmp_path,
        """
        static uint8_t arena[2000];
        tflite::AllOpsResolver resolver;
        tflite::ErrorReporter *reporter = tflite::GetMicroErrorReporter();
        const tflite::Model *model = tflite::GetModel(g_net_model_data);
        tflite::MicroInterpreter a(model, resolver, arena, sizeof arena, reporter);
        tflite::MicroInterpreter b(model, resolver, arena, sizeof arena, nullptr);
        tflite::MicroInterpreter c(model, resolver, arena, sizeof arena, reporter, nullptr);
        auto *allocator = tflite::RecordingMicroAllocator::Create(arena, sizeof arena);
        tflite::RecordingMicroInterpreter d(model, resolver, allocator,
                                            tflite::MicroResourceVariables::Create(allocator, 4));
        MicroPrintf("%d %d %d %d", a.AllocateTensors(), b.AllocateTensors(), c.AllocateTensors(),
                    d.AllocateTensors());
        d.GetMicroAllocator().PrintAllocations();
        TF_LITE_REPORT_ERROR(reporter, "%s %d", "reported", 7);
        """,
        '#include "tensorflow/lite/micro/micro_error_reporter.h"\n'
        '#include "tensorflow/lite/micro/recording_micro_interpreter.h"',
    )
    assert lines[0] == "0 0 0 0"
    assert re.match(r"\[RecordingMicroAllocator\] Arena allocation total \d+ bytes$", lines[1])
    assert lines[2] == "reported 7"
