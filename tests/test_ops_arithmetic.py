"""ADD, SUB, MUL, pooling, MEAN, CONCATENATION and PAD at the corners of their arithmetic.

Each case of ``CASES`` is one model: the numpy reference must give the bytes that TFLM gives, and
the generated C those of the reference.  Where a corner can be worked out by hand, its values stand
here as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
import tflite_builder as tb
from host_c import HostModels

from tinygen import placement, plan, reference
from tinygen.errors import InputError
from tinygen.graph import Array
from tinygen.importers import tflite
from tinygen.ops.elementwise import Loop, loops
from tinygen.ops.mean import Run, runs
from tinygen.ops.pad import Level, levels

Shape = tuple[int, ...]

EVERY = np.arange(-128, 128, dtype=np.int8)
PAIRS = np.repeat(EVERY, 256), np.tile(EVERY, 256)
"""Every pair of int8 values."""

FINEST = float(np.nextafter(np.float32(2.0**-19), np.float32(1)))
"""Smallest output scale that ADD takes for operands of scale 1."""

PRECISE = (0.0645972192287445, 0.07565469294786453, 0.11785250157117844)
"""Scales of two operands and an output for which single and double precision part."""


def real(shape: Shape, scale: float = 1.0, zero_point: int = 0, data: Any = None) -> tb.Tensor:
    """An int8 tensor, a constant when it has ``data``."""
    values = None if data is None else np.array(data, dtype=np.int8).reshape(shape)
    return tb.Tensor(shape, "int8", (scale,), (zero_point,), data=values)


def plain(data: Any, dtype: str = "int32") -> tb.Tensor:
    """A constant without quantization."""
    values = np.array(data, dtype=dtype)
    return tb.Tensor(values.shape, dtype, data=values)


def model(op: str, *tensors: tb.Tensor, **options: Any) -> tb.Model:
    """``op`` from all tensors but the last to the last; those without data are model inputs."""
    last = len(tensors) - 1
    given = tuple(i for i in range(last) if tensors[i].data is None)
    return tb.Model(tensors, (tb.Op(op, tuple(range(last)), (last,), options),), given, (last,))


def binary(
    op: str,
    first: tb.Tensor,
    second: tb.Tensor,
    scale: float,
    zero_point: int = 0,
    activation: int = tb.NONE,
) -> tb.Model:
    shape = np.broadcast_shapes(first.shape, second.shape)  # type: ignore[arg-type]
    target = real(shape, scale, zero_point)
    return model(op, first, second, target, FusedActivationFunction=activation)


def pairs(op: str, scales: Sequence[float], zero_points: Sequence[int] = (0, 0, 0)) -> tb.Model:
    """``op`` over every pair of values."""
    first, second = (real((65536,), scales[i], zero_points[i]) for i in (0, 1))
    return binary(op, first, second, scales[2], zero_points[2])


def pool(
    op: str,
    image: Shape,
    output: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    padding: int = tb.VALID,
    activation: int = tb.NONE,
    source: tuple[float, int] = (0.1, 3),
    target: tuple[float, int] = (0.1, 3),
) -> tb.Model:
    return model(
        op,
        real(image, *source),
        real((image[0], *output, image[3]), *target),
        Padding=padding,
        StrideH=stride[0],
        StrideW=stride[1],
        FilterHeight=kernel[0],
        FilterWidth=kernel[1],
        FusedActivationFunction=activation,
    )


def mean(source: tb.Tensor, axes: Sequence[int], target: tb.Tensor, keep: bool = False) -> tb.Model:
    return model("MEAN", source, plain(axes), target, KeepDims=keep)


def pad(
    shape: Shape,
    amounts: Sequence[tuple[int, int]],
    value: tb.Tensor | None = None,
    dtype: str = "int8",
    wide: str = "int32",
) -> tb.Model:
    """PAD, or PADV2 when there is a ``value``; the amounts are of type ``wide``."""
    output = tuple(before + n + after for n, (before, after) in zip(shape, amounts, strict=True))
    source, target = (
        real(s, 0.5, -9) if dtype == "int8" else tb.Tensor(s, dtype) for s in (shape, output)
    )
    if value is None:
        return model("PAD", source, plain(amounts, wide), target)
    return model("PADV2", source, plain(amounts, wide), value, target)


CASES: dict[str, tb.Model] = {
    "add: a usual residual": pairs("ADD", (0.0471, 0.0235, 0.0522), (-128, 4, -128)),
    "add: equal scales": pairs("ADD", (0.5, 0.5, 0.7), (127, -128, 5)),
    "add: second scale larger": pairs("ADD", (0.003, 0.9, 1.1), (1, 2, 3)),
    "add: a scale that vanishes": pairs("ADD", (1e-10, 1.0, 1.5)),
    "add: a scale at the last bit": pairs("ADD", (2.0**-31, 1.0, 1.0)),
    "add: a half in the last place": pairs("ADD", (0.7641415596008301, 1.0, 2.4438602924346924)),
    "add: finest output scale": pairs("ADD", (1.0, 1.0, FINEST)),
    "sub: scales far apart": pairs("SUB", (1e-30, 1e30, 1e30)),
    "add: coarsest output scale": pairs("ADD", (1e-4, 1e-4, 1e4)),
    "sub: double precision": pairs("SUB", PRECISE),
    "sub: second scale larger": pairs("SUB", (0.01, 0.03, 0.02), (127, -128, 127)),
    "sub: first scale larger": pairs("SUB", (0.03, 0.01, 0.02), (-128, 127, -128)),
    "mul: a usual product": pairs("MUL", (0.02, 0.03, 0.05), (-128, 127, 9)),
    "mul: halves": pairs("MUL", (1.0, 1.0, 2.0)),
    "mul: product wraps": pairs("MUL", (1.0, 1.0, 2.0**-20), (-128, -128, 77)),
    "mul: sum with the zero point wraps": pairs(
        "MUL", (1 + 2.0**-14, 1 - 2.0**-14, 2.0**-17), (0, 0, -128)
    ),
    "mul: nothing left": pairs("MUL", (1e-20, 1e-20, 1.0), (0, 0, -77)),
    "add: relu": binary("ADD", real((7,), 0.1, 3), real((7,), 0.2, -3), 0.1, -20, tb.RELU),
    "add: relu6": binary("ADD", real((300,), 0.1), real((300,), 0.2), 0.1, 100, tb.RELU6),
    "sub: relu_n1_to_1": binary(
        "SUB", real((300,), 0.1), real((300,), 0.2), 0.1, 1, tb.RELU_N1_TO_1
    ),
    "mul: relu6": binary("MUL", real((300,), 0.1), real((300,), 0.2), 0.05, -128, tb.RELU6),
    "add: rank 0": binary("ADD", real(()), real((), 2.0), 3.0),
    "add: a constant scalar": binary("ADD", real((2, 5), 0.3), real((), 0.1, 7, -99), 0.3),
    "sub: from a constant scalar": binary("SUB", real((1,), 0.1, 7, [-99]), real((2, 5), 0.3), 0.3),
    "mul: channels": binary("MUL", real((1, 3, 3, 5), 0.1), real((5,), 0.1, 3, range(5)), 0.05),
    "mul: a value a pixel": binary("MUL", real((3, 3, 1), 0.1, 4), real((3, 3, 5), 0.1), 0.05),
    "sub: outer difference": binary("SUB", real((6, 1), 0.1, 4), real((1, 7), 0.2, -4), 0.3),
    "add: rank 6, taking turns": binary(
        "ADD", real((2, 1, 3, 1, 2, 1)), real((1, 2, 1, 3, 1, 2)), 2.5
    ),
    "add: rank 6 and 3": binary("ADD", real((2, 1, 2, 3, 1, 2)), real((3, 2, 1)), 2.5),
    "average: 2x2": pool("AVERAGE_POOL_2D", (1, 6, 6, 5), (3, 3), (2, 2), (2, 2)),
    "average: the window leaves the image": pool(
        "AVERAGE_POOL_2D", (2, 5, 3, 4), (5, 3), (4, 5), padding=tb.SAME
    ),
    "average: a window larger than the image": pool(
        "AVERAGE_POOL_2D", (1, 2, 2, 3), (1, 1), (9, 11), (2, 2), tb.SAME
    ),
    "average: all of it": pool("AVERAGE_POOL_2D", (1, 7, 9, 6), (1, 1), (7, 9), (3, 3)),
    "average: whole rows": pool("AVERAGE_POOL_2D", (2, 7, 4, 3), (3, 1), (2, 4), (2, 5)),
    "average: stride above the window": pool(
        "AVERAGE_POOL_2D", (1, 9, 8, 1), (3, 2), (2, 1), (3, 5), tb.SAME
    ),
    "average: relu6": pool("AVERAGE_POOL_2D", (1, 4, 4, 9), (3, 3), (2, 2), activation=tb.RELU6),
    "average: scales nearly equal": pool(
        "AVERAGE_POOL_2D", (1, 4, 4, 1), (3, 3), (2, 2), target=(0.1 + 9e-7, 3)
    ),
    "max: the window leaves the image": pool(
        "MAX_POOL_2D", (2, 5, 3, 7), (3, 2), (4, 3), (2, 2), tb.SAME
    ),
    "max: all of it": pool("MAX_POOL_2D", (1, 7, 9, 6), (1, 1), (7, 9)),
    "max: relu_n1_to_1": pool(
        "MAX_POOL_2D", (1, 4, 4, 9), (3, 3), (2, 2), activation=tb.RELU_N1_TO_1
    ),
    "mean: image": mean(real((1, 5, 7, 6), 0.1, 9), [1, 2], real((1, 6), 0.07, -8)),
    "mean: kept, negative and twice": mean(
        real((2, 3, 4, 5), 0.1, -128), [-1, 3, 1, -3], real((2, 1, 4, 1), 0.1, 127), keep=True
    ),
    "mean: every other axis": mean(real((3, 2, 3, 2, 3), 0.1), [1, 3], real((3, 3, 3), 0.02)),
    "mean: every other axis, from the first": mean(
        real((3, 2, 3, 2, 3)), [0, 2, 4], real((2, 2), 0.3)
    ),
    "mean: everything": mean(real((3, 4, 5), 0.1, 127), [0, 1, 2], real((), 0.001, 3)),
    "mean: of one": mean(real((1, 1, 4), 0.1, 7), [0], real((1, 4), 0.05)),
    "mean: a tiny ratio, shift at its end": mean(
        real((1024, 3), 2.0**-25), [0], real((3,), 1.0, 5)
    ),
    "mean: a ratio that vanishes": mean(real((8, 3), 1e-12), [0], real((3,), 1.0, 5)),
    "mean: a large ratio": mean(real((7, 3), 1e6, 100), [0], real((3,), 1.0, 5)),
    "concatenation: last axis": model(
        "CONCATENATION", real((2, 3, 1)), real((2, 3, 4)), real((2, 3, 5)), Axis=-1
    ),
    "concatenation: first axis, a constant": model(
        "CONCATENATION", real((1, 3)), real((2, 3), data=range(6)), real((3, 3)), Axis=0
    ),
    "concatenation: int32": model(
        "CONCATENATION", *(tb.Tensor((2, n, 2), "int32") for n in (1, 2, 3)), Axis=1
    ),
    "pad: image": pad((1, 3, 4, 2), [(0, 0), (1, 2), (2, 1), (0, 0)]),
    "pad: nothing": pad((2, 3), [(0, 0), (0, 0)]),
    "pad: every side of rank 5": pad((2, 1, 3, 1, 2), [(1, 0), (0, 1), (1, 2), (2, 1), (1, 1)]),
    "pad: batches and channels": pad((2, 2, 2, 3), [(1, 1), (0, 0), (0, 0), (1, 0)]),
    "pad: int32": pad((2, 3), [(1, 0), (0, 2)], dtype="int32"),
    "padv2: lowest": pad((3, 3), [(1, 1), (1, 1)], real((), 0.5, -9, -128)),
    "padv2: int32": pad((3, 3), [(1, 1), (0, 4)], plain([-70000]), "int32"),
    "padv2: float": pad((2, 3), [(1, 1), (1, 1)], plain(1.5, "float32"), "float32"),
}  # fmt: skip


def inputs_of(name: str) -> list[Array]:
    """Every pair of values for the models that take them, random ones for the others."""
    tensors = [CASES[name].tensors[i] for i in CASES[name].inputs]
    if [t.shape for t in tensors] == [(65536,), (65536,)]:
        return list(PAIRS)
    random = np.random.default_rng(len(name))
    return [random.integers(-128, 128, t.shape or ()).astype(t.dtype) for t in tensors]


def run(built: tb.Model, *inputs: Any) -> Array:
    """The reference's first output, flat; ``inputs`` are int8 values in any shape."""
    graph = tflite.load(built.bytes)
    shapes = [graph.at(i).shape for i in graph.inputs]
    arrays = [np.array(x, np.int8).reshape(s) for x, s in zip(inputs, shapes, strict=True)]
    return reference.run(graph, arrays)[0].reshape(-1)


@pytest.mark.parametrize("name", CASES)
def test_reference_gives_the_bytes_of_tflm(name: str) -> None:
    inputs = inputs_of(name)
    (want,) = oracle.shared().run(CASES[name].bytes, inputs)
    (got,) = reference.run(tflite.load(CASES[name].bytes), inputs)
    assert got.tobytes() == want.tobytes()


def test_c_gives_the_bytes_of_the_reference(tmp_path: Path) -> None:
    graphs = [tflite.load(built.bytes) for built in CASES.values()]
    with HostModels(graphs, tmp_path) as host:
        for i, name in enumerate(CASES):
            inputs = inputs_of(name)
            (got,), _ = host.run(f"m{i}", inputs)
            (want,) = reference.run(graphs[i], inputs)
            assert got.tobytes() == want.tobytes(), name


def test_c_computes_over_its_own_inputs(tmp_path: Path) -> None:
    """A chain of sums and products, each of which may take the memory of what it reads."""
    wide, row = (4, 6), (1, 6)
    tensors = (
        real(wide, 0.1, 3),
        real(row, 0.2, -3),
        real(wide, 0.2, 5),  # t2 = t0 + t1
        real(wide, 0.5, -5),  # t3 = t2 * t2
        real(wide, 0.3, 1),  # t4 = t1 - t3
        real((4, 1), 0.05, 9, [1, -2, 3, -4]),
        real(wide, 0.4, -8),  # t6 = t4 + t5
        real(wide, 0.4, 8),  # t7 = t6 - t4
    )
    chain = {
        2: ("ADD", 0, 1),
        3: ("MUL", 2, 2),
        4: ("SUB", 1, 3),
        6: ("ADD", 4, 5),
        7: ("SUB", 6, 4),
    }
    ops = tuple(tb.Op(name, (a, b), (out,), {}) for out, (name, a, b) in chain.items())
    built = tb.Model(tensors, ops, (0, 1), (7,))
    graph = tflite.load(built.bytes)
    made = plan.make(graph)
    assert made.arena_bytes < placement.lower_bound(made.buffers)  # without leave to overlap
    random = np.random.default_rng(0)
    with HostModels({"m": graph}, tmp_path) as host:
        for _ in range(5):
            inputs = [random.integers(-128, 128, s).astype(np.int8) for s in (wide, row)]
            (want,) = oracle.shared().run(built.bytes, inputs)
            assert np.array_equal(reference.run(graph, inputs)[0], want)
            assert np.array_equal(host.run("m", inputs)[0][0], want)


def test_sums_round_halves_away_from_zero() -> None:
    add = binary("ADD", real((4,)), real((4,)), 2.0)
    assert run(add, [1, -1, 3, -3], [0, 0, 0, 0]).tolist() == [1, -1, 2, -2]
    assert run(add, [127, -128, 127, 5], [127, -128, -128, -5]).tolist() == [127, -128, -1, 0]


def test_scales_are_divided_in_double_precision() -> None:
    first, second, target = PRECISE
    operands = real((1,), first), real((1,), second)
    assert run(binary("SUB", *operands, target), -27, 93).tolist() == [-75]  # in single: -74
    assert run(binary("ADD", *operands, target), -27, -93).tolist() == [-75]


def test_products_round_twice() -> None:
    half = binary("MUL", real((4,)), real((4,)), 2.0)  # no shift: halves go up
    assert run(half, [1, -1, 3, -3], [1, 1, 1, 1]).tolist() == [1, 0, 2, -1]
    quarter = binary("MUL", real((4,)), real((4,)), 4.0)  # halves up, then away from zero
    assert run(quarter, [2, -2, 1, -1], [1, 1, 1, 1]).tolist() == [1, -1, 1, 0]


def test_averages_round_away_from_zero_and_means_do_not() -> None:
    values = [1, 2, -1, -2, 1, 0, -1, 0]
    average = pool("AVERAGE_POOL_2D", (4, 1, 2, 1), (1, 1), (1, 2))
    assert run(average, values).tolist() == [2, -2, 1, -1]
    assert run(mean(real((4, 2)), [1], real((4,))), values).tolist() == [2, -1, 1, 0]


def test_averages_count_only_the_image() -> None:
    same = pool("AVERAGE_POOL_2D", (1, 2, 2, 1), (2, 2), (2, 2), padding=tb.SAME)
    assert run(same, [10, 20, 30, 40]).tolist() == [25, 30, 35, 40]


def test_wide_amounts_of_padding_mean_what_they_say() -> None:
    """TFLM misreads int64 amounts; converters write them all the same."""
    amounts = [(1, 0), (0, 2)]
    narrow, wide = (run(pad((1, 2), amounts, wide=t), [5, 6]) for t in ("int32", "int64"))
    assert narrow.tolist() == wide.tolist() == [-9, -9, -9, -9, 5, 6, -9, -9]


REFUSED: dict[str, tuple[Callable[[], tb.Model], str, bool]] = {
    # What the model is, the message it must give, and whether TFLM refuses or crashes on it too.
    "output scale of ADD": (
        lambda: pairs("ADD", (1.0, 0.5, 2.0**-19)),
        "output scale 1.9073486328125e-06 is too small for operands of scales 1.0 and 0.5", True,
    ),
    "output scale of SUB": (lambda: pairs("SUB", (1.0, 1.0, 1e-30)), "is too small", True),
    "left shift of MUL": (
        lambda: pairs("MUL", (1.0, 1.0, 2.0**-31)), "output scale 4.656612873077393e-10", False
    ),
    "operands of ADD": (
        lambda: model("ADD", *(tb.Tensor((2,), "int32"),) * 3),
        "needs operands and output all int8, or all int16 with zero points of 0, with one scale "
        "each, has int32, int32 and int32", False,
    ),
    "shapes of MUL": (
        lambda: model("MUL", real((2, 3)), real((3, 2)), real((3, 3))),
        "operands of shapes (2, 3) and (3, 2) do not go together", False,
    ),
    "activation of ADD": (
        lambda: binary("ADD", real((2,)), real((2,)), 1.0, 0, 4), "activation 4", False
    ),
    "scale of a pool": (
        lambda: pool("MAX_POOL_2D", (1, 2, 2, 1), (1, 1), (2, 2), target=(0.2, 3)),
        "input scale 0.10000000149011612 and zero point 3 are not the output's, 0.2", True,
    ),
    "zero point of a pool": (
        lambda: pool("AVERAGE_POOL_2D", (1, 2, 2, 1), (1, 1), (2, 2), target=(0.1, 4)),
        "and zero point 3 are not the output's", True,
    ),
    "stride of a pool": (
        lambda: pool("AVERAGE_POOL_2D", (1, 2, 2, 1), (1, 1), (2, 2), (0, 1)),
        "window (2, 2) with stride (0, 1) does not fit", False,
    ),
    "window of a pool": (
        lambda: pool("AVERAGE_POOL_2D", (1, 2, 2, 1), (1, 1), (3, 2)),
        "window (3, 2) with stride (1, 1) does not fit input (1, 2, 2, 1)", False,
    ),
    "output of a pool": (
        lambda: pool("MAX_POOL_2D", (1, 2, 2, 1), (2, 2), (2, 2)),
        "the model says its output is (1, 2, 2, 1), its inputs make it (1, 1, 1, 1)", False,
    ),
    "axis of MEAN": (
        lambda: mean(real((2, 3)), [2], real((2,))), "within the input's rank", False
    ),
    "axes of MEAN at run time": (
        lambda: model("MEAN", real((2, 3)), tb.Tensor((1,), "int32"), real((2,)), KeepDims=False),
        "needs constant int32 axes", False,
    ),
    "quantization of CONCATENATION": (
        lambda: model("CONCATENATION", real((1,)), real((1,), 2.0), real((2,)), Axis=0),
        "needs inputs of its output's element type int8 and quantization", True,
    ),
    "activation of CONCATENATION": (
        lambda: model(
            "CONCATENATION", real((1,)), real((1,)), real((2,)), Axis=0, FusedActivationFunction=1
        ),
        "activation 1", True,
    ),
    "axis of CONCATENATION": (
        lambda: model("CONCATENATION", real((1,)), real((1,)), real((2,)), Axis=-2),
        "cannot be joined along axis -2", False,
    ),
    "negative PAD": (
        lambda: pad((3, 3), [(-1, 0), (1, 0)]), "for each axis, none negative", False
    ),
    "rank of PAD": (lambda: pad((1,) * 6, [(0, 1)] * 6), "cannot pad int8 of shape", True),
    "scale of PADV2's value": (
        lambda: pad((3,), [(1, 1)], real((), 0.25, -9, 0)), "needs one constant value", True
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_with_a_reason(name: str) -> None:
    make, message, tflm_too = REFUSED[name]
    built = make()
    tensors = [built.tensors[i] for i in built.inputs]
    inputs = [np.zeros(t.shape or (), t.dtype) for t in tensors]
    with pytest.raises(InputError) as caught:
        reference.run(tflite.load(built.bytes), inputs)
    assert message in str(caught.value)
    if tflm_too:
        with pytest.raises(oracle.RefusedError):
            oracle.shared().run(built.bytes, inputs)


def test_loops_are_as_few_as_can_be() -> None:
    assert loops((4, 5), (1, 4, 5)) == (Loop(20, 1, 1),)
    assert loops((), ()) == (Loop(1, 1, 1),)
    assert loops((2, 3, 4, 5), (5,)) == (Loop(24, 5, 0), Loop(5, 1, 1))
    assert loops((2, 3, 1, 1), (1, 3, 4, 5)) == (Loop(2, 3, 0), Loop(3, 1, 20), Loop(20, 0, 1))
    assert runs((2, 3, 4, 1, 5), (1, 2)) == (Run(2, 60, False), Run(12, 5, True), Run(5, 1, False))
    assert runs((1, 1), (0,)) == ()
    image = ((0, 0), (1, 2), (3, 4), (0, 0))
    assert levels((1, 8, 9, 2), image, 1) == (Level(8, 32, 64), Level(18, 6, 8))
    assert levels((6, 7), ((0, 0), (0, 0)), 4) == (Level(168, 0, 0),)
