"""The oracle gives TFLM's bytes, says when TFLM refuses, and outlives its crashes."""

from __future__ import annotations

import os
import signal
import time
import zlib

import numpy as np
import oracle
import pytest
import shared_models
import tflite
import tflite_builder as tb
from oracle import CrashedError, Oracle, RefusedError


def add_one(zero_point: int = 0) -> tb.Model:
    """y = x + 1 on two int8 values."""
    return tb.Model(
        tensors=(
            tb.Tensor((1, 2), scale=(1.0,), zero_point=(0,)),
            tb.Tensor((1, 1), scale=(1.0,), zero_point=(0,), data=np.array([[1]], dtype=np.int8)),
            tb.Tensor((1, 2), scale=(1.0,), zero_point=(zero_point,)),
        ),
        ops=(tb.Op("ADD", (0, 1), (2,), {}),),
        inputs=(0,),
        outputs=(2,),
    )


INPUT = np.array([[5, -7]], dtype=np.int8)


@shared_models.needed
@pytest.mark.parametrize("model", [*shared_models.SUPPORTED, shared_models.STATEFUL])
def test_reference_models_give_their_goldens(model: str) -> None:
    data = shared_models.path(model).read_bytes()
    subgraph = tflite.Model.GetRootAsModel(data, 0).Subgraphs(0)
    operators = [subgraph.Operators(i) for i in range(subgraph.OperatorsLength())]
    indices = [int(t) for op in operators for t in op.OutputsAsNumpy()]
    golden = shared_models.goldens(model)[0]
    (output,) = oracle.shared().run(data, [golden.input])
    assert output.dtype == golden.output.dtype
    assert np.array_equal(output, golden.output)
    tensors = oracle.shared().tensors(data, [golden.input], indices)
    assert tuple(zlib.crc32(tensors[i].tobytes()) for i in indices) == golden.layer_crc32


def test_a_built_model_runs() -> None:
    (output,) = oracle.shared().run(add_one().bytes, [INPUT])
    assert output.tolist() == [[6, -6]]
    (output,) = oracle.shared().run(add_one(zero_point=100).bytes, [INPUT])
    assert output.tolist() == [[106, 94]]


def test_a_refusal_says_why() -> None:
    model = tb.Model(
        tensors=(tb.Tensor((1, 2), "int32"), tb.Tensor((1, 2), "int32")),
        ops=(tb.Op("LOGISTIC", (0,), (1,)),),
        inputs=(0,),
        outputs=(1,),
    )
    with pytest.raises(RefusedError, match="INT32"):
        oracle.shared().run(model.bytes, [INPUT.astype(np.int32)])


@pytest.mark.parametrize("data", [b"", b"not a model", bytes(4000)])
def test_no_model_is_refused(data: bytes) -> None:
    with pytest.raises(RefusedError):
        oracle.shared().run(data, [INPUT])


def test_a_crash_is_reported_and_the_next_model_runs() -> None:
    upside_down = tb.Model(
        tensors=(
            tb.Tensor((1, 2), scale=(1.0,), zero_point=(0,)),
            tb.Tensor((1, 2), scale=(1 / 256,), zero_point=(-128,)),
        ),
        ops=(tb.Op("SOFTMAX", (0,), (1,), {"Beta": -1.0}),),
        inputs=(0,),
        outputs=(1,),
    )
    with pytest.raises(CrashedError):  # it checks that the scaling is positive, and aborts
        oracle.shared().run(upside_down.bytes, [INPUT])
    (output,) = oracle.shared().run(add_one().bytes, [INPUT])
    assert output.tolist() == [[6, -6]]


def test_a_hanging_child_is_replaced() -> None:
    own = Oracle()
    own.run(add_one().bytes, [INPUT])
    assert own.child.pid is not None
    os.kill(own.child.pid, signal.SIGSTOP)
    own.child.timeout = 0.5
    began = time.monotonic()
    with pytest.raises(CrashedError, match="no answer"):
        own.run(add_one().bytes, [INPUT])
    assert time.monotonic() - began < 5
    own.child.timeout = oracle.TIMEOUT_SECONDS
    (output,) = own.run(add_one().bytes, [INPUT])
    assert output.tolist() == [[6, -6]]
    own.child.close()
