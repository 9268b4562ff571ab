"""Softmax, the operators that a table computes, changes of quantization and changes of shape.

Each case of ``CASES`` is one model: the numpy reference must give the bytes that TFLM gives, and
the generated C those of the reference.  Where a corner can be worked out by hand, its values stand
here as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
import tflite_builder as tb
from host_c import HostModels

from tinygen import emit, fixed_point, plan, reference
from tinygen.errors import InputError
from tinygen.graph import Array, Graph
from tinygen.importers import tflite
from tinygen.numerics import INT32_MAX
from tinygen.ops import lookup, softmax

Shape = tuple[int, ...]
Grid = tuple[float, int]
"""A scale and a zero point."""

EVERY = np.arange(-128, 128, dtype=np.int8)
FLOATS = np.array(
    [0.0, -0.0, 0.5, -0.5, 1.5, -1.5, 2.5, 0.49999997, -0.49999997, 126.5, 127.5, 128.5, -128.5,
     -129.5, 1e-45, 8388607.5, -8388607.5, 16777216.0, 2147483520.0, -2147483648.0],
    dtype=np.float32,
)  # fmt: skip
BEYOND = np.array(
    [np.nan, np.inf, -np.inf, 2147483648.0, -2147483904.0, 3.4e38, -3.4e38], dtype=np.float32
)
"""Floats that do not fit 32 bits."""


def tensor(shape: Shape, scale: float = 0.0, zero_point: int = 0, dtype: str = "int8") -> tb.Tensor:
    """A tensor, quantized when it has a scale."""
    return tb.Tensor(shape, dtype, *(((scale,), (zero_point,)) if scale else ()))


def model(op: str, *tensors: tb.Tensor, options: dict[str, Any] | None = None) -> tb.Model:
    """``op`` from all tensors but the last to the last; those without data are model inputs."""
    last = len(tensors) - 1
    given = tuple(i for i in range(last) if tensors[i].data is None)
    return tb.Model(tensors, (tb.Op(op, tuple(range(last)), (last,), options),), given, (last,))


def every(
    op: str, source: tuple[float, int], target: tuple[float, int], **options: Any
) -> tb.Model:
    """``op`` over every int8 value, from one scale and zero point to another."""
    ends = tensor((256,), *source), tensor((256,), *target)
    return model(op, *ends, options=options or None)


def logistic(scale: float, zero_point: int = 0) -> tb.Model:
    return every("LOGISTIC", (scale, zero_point), (1 / 256, -128))


def tanh(scale: float, zero_point: int = 0) -> tb.Model:
    return every("TANH", (scale, zero_point), (1 / 128, 0))


def softmax_of(shape: Shape, scale: float, beta: float = 1.0, wide: bool = False) -> tb.Model:
    target = (1 / 65536, -32768, "int16") if wide else (1 / 256, -128)
    ends = tensor(shape, scale, 3), tensor(shape, *target)
    return model("SOFTMAX", *ends, options={"Beta": beta})


def quantize(source: str, target: str, scales: tuple[float, float], zero_points: tuple[int, int],
             shape: Shape = (256,)) -> tb.Model:  # fmt: skip
    return model(
        "QUANTIZE",
        tensor(shape, scales[0], zero_points[0], source),
        tensor(shape, scales[1], zero_points[1], target),
    )


def from_float(target: str, scale: float, zero_point: int, values: Array = FLOATS) -> tb.Model:
    return quantize("float32", target, (0.0, scale), (0, zero_point), values.shape)


def axis(value: int, dtype: str = "int32", shape: Shape = ()) -> tb.Tensor:
    return tb.Tensor(shape, dtype, data=np.array(value, dtype))


CASES: dict[str, tb.Model] = {
    "softmax: usual": softmax_of((1, 12), 0.145),
    "softmax: rows, by table": softmax_of((2, 3, 10), 0.4),
    "softmax: many rows": softmax_of((64, 16), 0.05),
    "softmax: rank 1": softmax_of((7,), 0.1),
    "softmax: rows of one": softmax_of((5, 1), 0.1),
    "softmax: finest scale": softmax_of((2, 256), 2.0**-25),
    "softmax: scale leaves the largest alone": softmax_of((3, 40), 1e6),
    "softmax: beta": softmax_of((3, 40), 0.05, 2.5),
    "softmax: infinite beta": softmax_of((3, 40), 0.05, math.inf),
    "softmax: int16": softmax_of((3, 12), 0.2, wide=True),
    "softmax: int16 by table": softmax_of((3, 12), 0.9, wide=True),
    "softmax: int16, long row": softmax_of((4095,), 0.02, wide=True),
    "softmax: long row": softmax_of((511,), 0.03),
    "softmax: pairs": softmax_of((40, 2), 0.1),
    "softmax: int16 pairs": softmax_of((40, 2), 0.1, wide=True),
    "logistic: usual": logistic(0.05, 7),
    "logistic: coarse": logistic(1.0, -3),
    "logistic: only zero inside": logistic(15.0, 12),
    "logistic: nothing inside": logistic(16.0, 12),
    "logistic: finest": logistic(2.0**-28, -128),
    "logistic: output scale not looked at": every("LOGISTIC", (0.05, 7), (0.3, -128)),
    "tanh: usual": tanh(0.02, -7),
    "tanh: coarse": tanh(0.5, 127),
    "tanh: nothing inside": tanh(100.0),
    "tanh: finest": tanh(2.0**-28, -128),
    "tanh: output quantization not looked at": every("TANH", (0.05, 7), (0.3, 99)),
    "relu: same quantization": every("RELU", (0.1, -20), (0.1, -20)),
    "relu: other zero point": every("RELU", (0.1, -20), (0.1, -128)),
    "relu: other scale": every("RELU", (0.1, -20), (0.03, 5)),
    "relu: scales far apart": every("RELU", (1e6, 0), (1e-3, 127)),
    "relu: nothing left": every("RELU", (1e-20, 0), (1.0, 9)),
    "relu6: limits inside": every("RELU6", (0.05, -100), (0.05, -100)),
    "relu6: output quantization not looked at": every("RELU6", (0.05, -100), (0.7, 3)),
    "relu6: six beyond the range": every("RELU6", (0.001, 0), (0.001, 0)),
    "leaky_relu: usual": every("LEAKY_RELU", (0.1, 3), (0.09, -20), Alpha=0.3),
    "leaky_relu: negative alpha, ties": every("LEAKY_RELU", (1.0, 0), (1.0, 0), Alpha=-0.5),
    "leaky_relu: alpha above 1": every("LEAKY_RELU", (0.1, 100), (0.2, 0), Alpha=3.0),
    "leaky_relu: no options": every("LEAKY_RELU", (0.1, 3), (0.1, 3)),
    "hard_swish: usual": every("HARD_SWISH", (0.05, 3), (0.04, -118)),
    "hard_swish: coarse, gate saturates": every("HARD_SWISH", (3.0, 0), (3.0, 0)),
    "hard_swish: fine, gate shifts right": every("HARD_SWISH", (0.001, 0), (0.001, 0)),
    "hard_swish: a shift of 16 bits and more": every("HARD_SWISH", (1e-7, 0), (1e-7, 0)),
    "hard_swish: output much coarser": every("HARD_SWISH", (0.05, 3), (1e4, 0)),
    "quantize: int8, same scale": quantize("int8", "int8", (0.1, 0.1), (5, -5)),
    "quantize: int8, other scale": quantize("int8", "int8", (0.1, 0.037), (5, -5)),
    "quantize: int8 to uint8": quantize("int8", "uint8", (0.1, 0.1), (0, 128)),
    "quantize: uint8 to int8": quantize("uint8", "int8", (0.1, 0.1), (128, 0)),
    "quantize: uint8 to int8, other scale": quantize("uint8", "int8", (0.1, 0.3), (3, -4)),
    "quantize: int8 to int16": quantize("int8", "int16", (0.1, 0.0004), (5, 0)),
    "quantize: int8 to int32": quantize("int8", "int32", (0.1, 1e-8), (5, 77)),
    "quantize: int16 to int8": quantize("int16", "int8", (0.001, 0.2), (0, -9)),
    "quantize: int16 to int16": quantize("int16", "int16", (0.001, 0.0009), (0, 0)),
    "quantize: int16 to int32": quantize("int16", "int32", (0.1, 1e-6), (0, 0)),
    "quantize: int32 to int8": quantize("int32", "int8", (1e-8, 0.2), (0, 3)),
    "quantize: int32 to int16": quantize("int32", "int16", (1e-5, 0.9), (0, 3)),
    "quantize: int32 with a zero point wraps": quantize("int32", "int8", (1e-8, 0.2), (1000, 3)),
    "quantize: products wrap": quantize("int8", "int32", (1.0, 2.0**-28), (-128, 1 << 30)),
    "quantize: float to int8": from_float("int8", 1.0, 0),
    "quantize: float to int8, zero point": from_float("int8", 0.5, -100),
    "quantize: float to int16": from_float("int16", 0.0004, 0),
    "quantize: floats beyond, zero point 5": from_float("int8", 1.0, 5, BEYOND),
    "quantize: floats beyond, zero point -5": from_float("int8", 1.0, -5, BEYOND),
    "quantize: floats beyond, int16": from_float("int16", 1e-38, -1, BEYOND),
    "dequantize: int8": model(
        "DEQUANTIZE", tensor((256,), 0.1, -77), tensor((256,), dtype="float32")
    ),
    "dequantize: int16": model(
        "DEQUANTIZE", tensor((256,), 3e-5, 0, "int16"), tensor((256,), dtype="float32")
    ),
    "dequantize: uint8": model(
        "DEQUANTIZE", tensor((256,), 0.3, 128, "uint8"), tensor((256,), dtype="float32")
    ),
    "dequantize: products below the normal numbers": model(
        "DEQUANTIZE", tensor((256,), 1e-40, 1), tensor((256,), dtype="float32")
    ),
    "dequantize: products above the largest": model(
        "DEQUANTIZE", tensor((256,), 3e38, 0), tensor((256,), dtype="float32")
    ),
    "reshape: nothing says to what": model("RESHAPE", tensor((2, 3, 4), 0.1), tensor((6, 4), 0.1)),
    "reshape: -1 in the shape tensor": model(
        "RESHAPE", tensor((2, 3), 0.1), tb.Tensor((1,), "int32", data=np.array([-1], np.int32)),
        tensor((6,), 0.1),
    ),
    "reshape: a stale shape": model(
        "RESHAPE", tensor((2, 3), 0.1), tensor((1, 6), 0.1), options={"NewShape": (99, -1)}
    ),
    "reshape: float scalar": model(
        "RESHAPE", tensor((1, 1), dtype="float32"), tensor((), dtype="float32")
    ),
    "squeeze: all": model("SQUEEZE", tensor((1, 3, 1, 2), 0.1), tensor((3, 2), 0.1), options={}),
    "squeeze: some, from the end": model(
        "SQUEEZE", tensor((1, 3, 1, 2), 0.1), tensor((1, 3, 2), 0.1), options={"SqueezeDims": (-2,)}
    ),
    "squeeze: no options": model("SQUEEZE", tensor((1, 3), 0.1), tensor((3,), 0.1)),
    "expand_dims: first": model(
        "EXPAND_DIMS", tensor((3, 2), 0.1), axis(0), tensor((1, 3, 2), 0.1)
    ),
    "expand_dims: last, from the end": model(
        "EXPAND_DIMS", tensor((3, 2), 0.1), axis(-1, shape=(1,)), tensor((3, 2, 1), 0.1)
    ),
}  # fmt: skip


def inputs_of(name: str) -> list[Array]:
    """All int8 values where they fit; floats by name; otherwise random ones over the whole type."""
    source = CASES[name].tensors[0]
    shape = source.shape or ()
    if source.dtype == "float32":
        values = BEYOND if "beyond" in name else FLOATS
        return [np.resize(values, shape)]
    if shape == (256,) and source.dtype in ("int8", "uint8"):
        return [EVERY.view(source.dtype)]
    limits = np.iinfo(source.dtype)
    random = np.random.default_rng(len(name))
    drawn = random.integers(limits.min, int(limits.max) + 1, shape, dtype=source.dtype)
    if drawn.size > 4:
        drawn.reshape(-1)[:4] = (limits.min, limits.max, 0, 1)
    return [drawn]


def run(built: tb.Model, values: Any) -> list[Any]:
    """The reference's first output, flat."""
    graph = tflite.load(built.bytes)
    source = graph.at(graph.inputs[0])
    given = np.array(values, source.dtype).reshape(source.shape)
    flat: list[Any] = reference.run(graph, [given])[0].reshape(-1).tolist()
    return flat


@pytest.mark.parametrize("name", CASES)
def test_reference_gives_the_bytes_of_tflm(name: str) -> None:
    inputs = inputs_of(name)
    (want,) = oracle.shared().run(CASES[name].bytes, inputs)
    (got,) = reference.run(tflite.load(CASES[name].bytes), inputs)
    assert got.tobytes() == want.tobytes()


def joined(graphs: Sequence[Graph]) -> Graph:
    """One graph of several that have nothing to do with each other; it compiles faster."""
    whole = graphs[0]
    for graph in graphs[1:]:
        base = len(whole.tensors)

        def moved(indices: tuple[int, ...], base: int = base) -> tuple[int, ...]:
            return tuple(i + base for i in indices)

        nodes = [replace(n, inputs=moved(n.inputs), outputs=moved(n.outputs)) for n in graph.nodes]
        whole = replace(
            whole,
            tensors=whole.tensors + graph.tensors,
            nodes=(*whole.nodes, *nodes),
            inputs=whole.inputs + moved(graph.inputs),
            outputs=whole.outputs + moved(graph.outputs),
        )
    return whole


def test_c_gives_the_bytes_of_the_reference(tmp_path: Path) -> None:
    names = list(CASES)
    groups = [names[i : i + 8] for i in range(0, len(names), 8)]
    graphs = [joined([tflite.load(CASES[name].bytes) for name in group]) for group in groups]
    flags = ("-O1", "-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all")
    with HostModels(graphs, tmp_path, flags=flags) as host:
        for i, group in enumerate(groups):
            inputs = [array for name in group for array in inputs_of(name)]
            outputs, _ = host.run(f"m{i}", inputs)
            wanted = reference.run(graphs[i], inputs)
            for name, got, want in zip(group, outputs, wanted, strict=True):
                assert got.tobytes() == want.tobytes(), name


SWEPT: dict[str, Callable[[float, int], tb.Model]] = {
    "LOGISTIC": logistic,
    "TANH": tanh,
    "RELU": lambda s, z: every("RELU", (s, z), (s * 0.8, z)),  # many halves
    "RELU6": lambda s, z: every("RELU6", (s, z), (s, z)),
    "LEAKY_RELU": lambda s, z: every("LEAKY_RELU", (s, z), (s * 0.8, -z - 1), Alpha=0.11),
    "HARD_SWISH": lambda s, z: every("HARD_SWISH", (s, z), (s * 0.6, -z - 1)),
    "QUANTIZE": lambda s, z: quantize("int8", "int8", (s, s * 0.9), (z, -z - 1)),
    "SOFTMAX": lambda s, z: softmax_of((256,), s),
}


@pytest.mark.parametrize("op", SWEPT)
def test_every_value_over_many_scales(op: str) -> None:
    random = np.random.default_rng(len(op))
    for exponent in np.arange(-12, 4, 0.5):
        scale, zero_point = float(2**exponent), int(random.integers(-128, 128))
        built = SWEPT[op](scale * float(random.uniform(1, 1.4)), zero_point)
        (want,) = oracle.shared().run(built.bytes, [EVERY])
        (got,) = reference.run(tflite.load(built.bytes), [EVERY])
        assert got.tobytes() == want.tobytes(), (scale, zero_point)


def test_softmax_of_a_few_rows() -> None:
    assert run(softmax_of((1, 4), 0.1), [5, 5, 5, 5]) == [-64] * 4
    assert run(softmax_of((1, 2), 0.1), [127, -128]) == [127, -128]
    assert run(softmax_of((2, 1), 0.1), [-128, 127]) == [127, 127]
    assert run(softmax_of((1, 2), 0.1, wide=True), [9, 9]) == [0, 0]


def test_softmax_of_a_long_flat_row_is_nothing(tmp_path: Path) -> None:
    """TFLM aborts when a row sums to 512 or more; every output rounds to 0 then."""
    built = softmax_of((2, 1000), 0.1)
    graph = tflite.load(built.bytes)
    flat, peak = np.zeros(1000, np.int8), np.full(1000, -128, np.int8)
    peak[77] = 127
    rows = np.stack([flat, peak])
    with pytest.raises(oracle.CrashedError):
        oracle.shared().run(built.bytes, [rows])
    want = np.full((2, 1000), -128, np.int8)
    want[1, 77] = 127
    assert np.array_equal(reference.run(graph, [rows])[0], want)
    with HostModels({"m": graph}, tmp_path) as host:
        assert np.array_equal(host.run("m", [rows])[0][0], want)


def test_softmax_takes_a_table_where_that_is_smaller() -> None:
    tables = {}
    for shape, scale in (((1, 12), 0.4), ((1, 12), 0.1), ((64, 16), 0.1)):
        (step,) = plan.make(tflite.load(softmax_of(shape, scale).bytes)).steps
        tables[shape, scale] = sum(c.data.nbytes for c in step.kernel.constants)
    assert 0 < tables[(1, 12), 0.4] <= softmax.EXP_CODE_BYTES
    assert tables[(1, 12), 0.1] == 0
    for scale, kernel in ((0.012, "softmax_pair"), (0.025, "softmax_int8")):
        (step,) = plan.make(tflite.load(softmax_of((1, 2), scale).bytes)).steps
        assert step.kernel.name == kernel
    assert softmax.EXP_CODE_BYTES < tables[(64, 16), 0.1] <= 1024


PAIRS = {1e-6: True, 0.012: True, 0.025: False, 0.2: False, 1e6: False}
"""By scale: whether one of two outputs is always the other's negative."""


def test_softmax_of_all_pairs(tmp_path: Path) -> None:
    first, second = np.meshgrid(EVERY, EVERY)
    rows = np.stack([first.reshape(-1), second.reshape(-1)], axis=1)
    graphs = [tflite.load(softmax_of(rows.shape, scale).bytes) for scale in PAIRS]
    with HostModels(graphs, tmp_path) as host:
        for i, (graph, mirrored) in enumerate(zip(graphs, PAIRS.values(), strict=True)):
            (step,) = plan.make(graph).steps
            assert step.kernel.params == {"mirrored": mirrored}
            (want,) = reference.run(graph, [rows])
            assert np.array_equal(host.run(f"m{i}", [rows])[0][0], want)


def test_logistic_and_tanh_at_zero_and_at_their_ends() -> None:
    assert run(logistic(0.5, 3), EVERY)[128 + 3] == 0
    assert run(tanh(0.5, 3), EVERY)[128 + 3] == 0
    coarse = run(logistic(0.5), EVERY)  # saturates at 15 / 0.5 from the zero point on
    assert coarse[128 - 30] == -128 and coarse[128 + 30] == 127
    odd = run(tanh(0.1), EVERY)
    assert [-v for v in odd[129 + 127 : 128 : -1]] == [max(v, -127) for v in odd[1:128]]


def test_relu_and_kin() -> None:
    assert run(every("RELU6", (0.05, -100), (0.7, 3)), EVERY)[0] == -100
    assert run(every("RELU6", (0.05, -100), (0.7, 3)), EVERY)[255] == 20
    ties = run(every("LEAKY_RELU", (1.0, 0), (1.0, 0), Alpha=-0.5), EVERY)
    assert ties[127] == 0 and ties[125] == 1  # 0.5 and 1.5: -0.5 and -1.5 go up, then are negated
    assert run(every("LEAKY_RELU", (1.0, 0), (1.0, 0), Alpha=0.5), EVERY)[125] == -1


def test_floats_round_away_from_zero_and_wrap_where_tflm_wraps() -> None:
    values = np.resize(np.float32([0.5, -0.5, 1.5, -1.5, 0.49999997, 300, -300]), FLOATS.shape)
    assert run(from_float("int8", 1.0, 0), values)[:7] == [1, -1, 2, -2, 0, 127, -128]
    assert run(from_float("int8", 1.0, 5, BEYOND), BEYOND) == [-128] * 7
    assert run(from_float("int8", 1.0, -5, BEYOND), BEYOND) == [127] * 7


def test_wide_axes_and_any_type_expand() -> None:
    """TFLM takes int32 axes and three types alone; nothing else about the others is different."""
    built = model(
        "EXPAND_DIMS",
        tensor((2,), dtype="int32"),
        axis(1, "int64"),
        tensor((2, 1), dtype="int32"),
    )
    assert run(built, [5, -6]) == [5, -6]


def test_tables_that_only_add_and_limit_are_not_kept() -> None:
    for name, want in (
        ("relu: same quantization", "limits"),
        ("relu: other zero point", "limits"),
        ("relu: other scale", "lookup"),
        ("relu6: limits inside", "limits"),
        ("quantize: int8, same scale", "limits"),
        ("quantize: uint8 to int8", "limits"),
        ("leaky_relu: usual", "lookup"),
    ):
        (step,) = plan.make(tflite.load(CASES[name].bytes)).steps
        assert step.kernel.name == want, name
    x = EVERY.astype(np.int64)
    assert lookup.shift_of(x, np.clip(x + 300, -128, 127)) is not None
    assert lookup.shift_of(x, np.clip(x - 7, -3, 9)) == -7
    assert lookup.shift_of(x, np.where(x == 5, 6, x)) is None
    assert lookup.shift_of(x, -x) is None


def test_equal_tables_are_stored_once_and_their_code_too() -> None:
    tensors = [tensor((64,), 0.1, 0) for _ in range(4)]
    ops = tuple(tb.Op("HARD_SWISH", (i,), (i + 1,)) for i in range(3))
    graph = tflite.load(tb.Model(tensors, ops, (0,), (3,)).bytes)
    text = emit.sources(plan.make(graph), "m")
    assert text["src/m.c"].count("static void lookup(") == 1
    assert text["src/m_weights.h"].count("_table[256]") == 1
    assert plan.make(graph).arena_bytes == 64  # in place


def test_powers_of_e_are_the_nearest() -> None:
    for power, factor in fixed_point.EXP_MINUS_POWERS.items():
        assert factor == round(math.exp(-(2.0**power)) * 2**31)
    assert round(math.exp(-1 / 8) * 2**31) == fixed_point.EXP_MINUS_EIGHTH
    assert int(fixed_point.exp_on_negative_values(0, 5)) == INT32_MAX
    assert int(fixed_point.logistic(0, 4)) == 1 << 30
    assert int(fixed_point.tanh(0, 4)) == 0


def test_a_wrong_constant_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fixed_point.EXP_MINUS_POWERS, 0, 790015084 + (1 << 24))
    for name in ("softmax: many rows", "logistic: usual", "tanh: usual"):
        inputs = inputs_of(name)
        (want,) = oracle.shared().run(CASES[name].bytes, inputs)
        assert not np.array_equal(reference.run(tflite.load(CASES[name].bytes), inputs)[0], want)


REFUSED: dict[str, tuple[Callable[[], tb.Model], str, bool]] = {
    # What the model is, the message it must give, and whether TFLM refuses or crashes on it too.
    "output scale of SOFTMAX": (
        lambda: model("SOFTMAX", tensor((4,), 0.1), tensor((4,), 0.1, -128), options={"Beta": 1.0}),
        "needs output of scale 1/256", True,
    ),
    "output type of SOFTMAX": (
        lambda: model(
            "SOFTMAX", tensor((4,), 0.1), tensor((4,), 1 / 256, 0, "uint8"), options={"Beta": 1.0}
        ),
        "has int8 and uint8", True,
    ),
    "beta of SOFTMAX": (lambda: softmax_of((4,), 0.1, 0.0), "beta 0.0 is too small", True),
    "beta of SOFTMAX, no number": (
        lambda: softmax_of((4,), 0.1, math.nan), "beta nan is too small", True
    ),
    "options of SOFTMAX": (
        lambda: model("SOFTMAX", tensor((4,), 0.1), tensor((4,), 1 / 256, -128)),
        "beta 0.0 is too small", True,
    ),
    "row of SOFTMAX": (lambda: softmax_of((4096,), 0.1), "rows of 1 to 4095 values", True),
    "rank of SOFTMAX": (lambda: softmax_of((), 0.1), "rows of 1 to 4095 values", True),
    "zero point of LOGISTIC": (
        lambda: every("LOGISTIC", (0.1, 0), (1 / 256, 0)), "zero point of -128, has 0", True
    ),
    "scale of LOGISTIC": (lambda: logistic(1e-20), "e-21 is out of all proportion", False),
    "scale of TANH": (lambda: tanh(2.0**36), "is out of all proportion", False),
    "scale of RELU": (
        lambda: every("RELU", (1.0, 0), (1e-30, 0)), "is too large for output scale", False
    ),
    "scale of RELU6": (lambda: every("RELU6", (1e-9, 0), (1e-9, 0)), "is too small", False),
    "alpha of LEAKY_RELU": (
        lambda: every("LEAKY_RELU", (1.0, 0), (1.0, 0), Alpha=math.inf),
        "with alpha inf is too large", False,
    ),
    "scale of HARD_SWISH": (
        lambda: every("HARD_SWISH", (1.0, 0), (0.001, 0)), "is too large for output scale", True
    ),
    "types of QUANTIZE": (
        lambda: quantize("float32", "int32", (0.0, 1.0), (0, 0)),
        "cannot turn float32 into int32", True,
    ),
    "scale of QUANTIZE": (
        lambda: quantize("int8", "int16", (1.0, 1e-12), (0, 0)), "is too large for output", False
    ),
    "no scale for QUANTIZE": (
        lambda: model("QUANTIZE", tensor((256,), dtype="float32"), tensor((256,))),
        "needs one scale and a zero point", True,
    ),
    "zero point of QUANTIZE": (
        lambda: quantize("int8", "uint8", (1.0, 1.0), (0, -1)),
        "a zero point is no value of uint8", False,
    ),
    "types of DEQUANTIZE": (
        lambda: model("DEQUANTIZE", tensor((4,), 0.1, 0, "int32"), tensor((4,), dtype="float32")),
        "has int32 and float32", True,
    ),
    "elements of RESHAPE": (
        lambda: model("RESHAPE", tensor((2, 3), 0.1), tensor((7,), 0.1)),
        "cannot reshape (2, 3) to (7,)", True,
    ),
    "type of RESHAPE": (
        lambda: model("RESHAPE", tensor((4,), 0.1), tensor((4,), dtype="int16")),
        "turns int8 into int16", True,
    ),
    "axis of SQUEEZE": (
        lambda: model(
            "SQUEEZE", tensor((2, 1), 0.1), tensor((1,), 0.1), options={"SqueezeDims": (0,)}
        ),
        "cannot squeeze axes (0,) of (2, 1)", True,
    ),
    "too many axes of SQUEEZE": (
        lambda: model(
            "SQUEEZE", tensor((1,), 0.1), tensor((), 0.1), options={"SqueezeDims": (0,) * 7}
        ),
        "cannot squeeze 7 axes", False,
    ),
    "axis of EXPAND_DIMS": (
        lambda: model("EXPAND_DIMS", tensor((2,), 0.1), axis(2), tensor((2, 1), 0.1)),
        "needs a constant axis within the rank", True,
    ),
    "axis of EXPAND_DIMS at run time": (
        lambda: model(
            "EXPAND_DIMS", tensor((2,), 0.1), tensor((), dtype="int32"), tensor((2, 1), 0.1)
        ),
        "needs a constant axis", True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_with_a_reason(name: str) -> None:
    make, message, tflm_too = REFUSED[name]
    built = make()
    with pytest.raises(InputError) as caught:
        tflite.load(built.bytes)
    assert message in str(caught.value)
    if tflm_too:
        tensors = [built.tensors[i] for i in built.inputs]
        with pytest.raises(oracle.RefusedError):
            oracle.shared().run(built.bytes, [np.zeros(t.shape or (), t.dtype) for t in tensors])
