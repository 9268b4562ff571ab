"""Exact passes: what they rewrite, what they must leave alone, and that no byte changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shared_models
from graphs import activation, constant, convolution, random_inputs
from host_c import HostModels
from strategies import Case
from test_networks import draw

from tinygen import importers, passes, plan, reference, verify
from tinygen.graph import Array, Graph, Node, Quant
from tinygen.importers import tflite
from tinygen.ops import (
    BY_NAME,
    concatenation,
    conv2d,
    depthwise_conv2d,
    elementwise,
    fully_connected,
    macs,
    mean,
    pooling,
)
from tinygen.ops.common import bias_of
from tinygen.ops.dsp import FEATURES as DSP
from tinygen.passes import known
from tinygen.passes.drop_channels import drop_channels
from tinygen.passes.drop_dead import drop_dead
from tinygen.passes.drop_identities import drop_identities
from tinygen.passes.fold_channels import fold_channels
from tinygen.passes.fold_constants import fold_constants
from tinygen.passes.fuse_activation import fuse_activation
from tinygen.passes.fuse_pad import fuse_pad
from tinygen.passes.merge_equal import merge_equal
from tinygen.passes.regroup import regroup
from tinygen.passes.settle_constant_channels import settle_constant_channels
from tinygen.report import inspect


def same_results(before: Graph, after: Graph, folder: Path | None = None) -> None:
    """Outputs of both graphs agree, and with ``folder`` those of the compiled C."""
    after.check()
    for seed in range(3):
        inputs = random_inputs(before, seed)
        want = reference.run(before, inputs)
        assert all(
            np.array_equal(a, b) for a, b in zip(want, reference.run(after, inputs), strict=True)
        )
        if folder is not None:
            with HostModels({"m": after}, folder) as host:
                assert np.array_equal(host.run("m", inputs)[0][0], want[0])


def padded_convolution(fill: int | None = None, zero_point: int = 7) -> Graph:
    """PAD of 1, 2 rows and 0, 1 columns before a VALID convolution."""
    graph = convolution((8, 8, 2), (3, 3, 3), conv2d.Attrs(padding="VALID"))
    image = replace(activation("image", 1, 5, 7, 2, scale=0.05), quant=graph.at(0).quant)
    amounts = np.array([[0, 0], [1, 2], [0, 1], [0, 0]], dtype=np.int32)
    graph, at = graph.add_tensor(image)
    graph, pads = graph.add_tensor(constant("pads", amounts))
    given = (at, pads)
    if fill is not None:
        value = constant("value", np.array([fill], dtype=np.int8), 0.05)
        value = replace(value, quant=graph.at(0).quant)
        graph, index = graph.add_tensor(value)
        given = (*given, index)
    pad = Node("PAD" if fill is None else "PADV2", given, (0,), None, 0)
    return replace(graph, nodes=(pad, *graph.nodes), inputs=(at,))


def test_padding_moves_into_the_convolution(tmp_path: Path) -> None:
    graph = padded_convolution()
    fused = fuse_pad(graph)
    assert [node.op for node in fused.nodes] == ["CONV_2D"]
    same_results(graph, fused, tmp_path)


def test_other_padding_values_stay() -> None:
    graph = padded_convolution(fill=-100)
    assert len(fuse_pad(graph).nodes) == 2
    same_results(graph, fuse_pad(graph))


def test_padding_that_is_an_output_stays() -> None:
    graph = padded_convolution()
    graph = replace(graph, outputs=(0, *graph.outputs))
    assert len(fuse_pad(graph).nodes) == 2


def test_padding_before_a_padding_convolution_stays() -> None:
    graph = padded_convolution()
    conv = graph.nodes[1]
    same = replace(conv, attrs=replace(conv.attrs, padding="SAME"))
    graph = replace(graph, nodes=(graph.nodes[0], same)).with_tensor(3, shape=(1, 8, 8, 3))
    assert len(fuse_pad(graph).nodes) == 2


def convolution_then(op: str, **quant: float) -> Graph:
    graph = convolution()
    last = graph.outputs[0]
    out = replace(graph.at(last), name="activated")
    if quant:
        out = replace(activation("activated", *out.shape, scale=0.2, zero_point=3))
    graph, index = graph.add_tensor(out)
    node = Node(op, (last,), (index,), None, 1)
    return replace(graph, nodes=(*graph.nodes, node), outputs=(index,))


@pytest.mark.parametrize("op", ["RELU", "RELU6"])
def test_activation_moves_into_the_convolution(op: str, tmp_path: Path) -> None:
    graph = convolution_then(op)
    fused = fuse_activation(graph)
    assert [node.op for node in fused.nodes] == ["CONV_2D"]
    assert fused.nodes[0].attrs.activation == op
    same_results(graph, fused, tmp_path)


def test_activation_that_rescales_stays() -> None:
    graph = convolution_then("RELU", scale=0.2)
    assert len(fuse_activation(graph).nodes) == 2
    same_results(graph, fuse_activation(graph))


def test_constants_are_folded() -> None:
    graph = convolution()
    data = random_inputs(graph)[0]
    graph, index = graph.add_tensor(activation("given", *graph.at(3).shape, scale=0.1))
    total, final = graph.add_tensor(replace(graph.at(3), name="sum"))
    frozen = total.with_tensor(0, data=data)
    add = Node("ADD", (3, index), (final,), elementwise.Attrs(), 1)
    frozen = replace(frozen, nodes=(*frozen.nodes, add), inputs=(index,), outputs=(final,))
    folded = fold_constants(frozen)
    assert [node.op for node in folded.nodes] == ["ADD"]
    same_results(frozen, folded)


def test_dead_nodes_go() -> None:
    graph = convolution()
    graph, index = graph.add_tensor(replace(graph.at(3), name="unused"))
    graph = replace(graph, nodes=(*graph.nodes, replace(graph.nodes[0], outputs=(index,))))
    assert len(drop_dead(graph).nodes) == 1
    assert len(passes.run(graph).nodes) == 1


@pytest.mark.parametrize("bias", [1 << 30, -(1 << 30), 12345, 0, (1 << 31) - 1])
def test_dead_channels_get_plain_numbers(bias: int, tmp_path: Path) -> None:
    graph = convolution()
    weights, biases, quant = graph.at(1).data, graph.at(2).data, graph.at(1).quant
    assert weights is not None
    assert biases is not None
    assert quant is not None
    weights, biases = weights.copy(), biases.copy()
    weights[1], biases[1] = 0, bias
    scales = (quant.scale[0], 1e-9, *quant.scale[2:])
    graph = graph.with_tensor(1, data=weights, quant=replace(quant, scale=scales))
    graph = graph.with_tensor(2, data=biases)
    settled = settle_constant_channels(graph)
    assert abs(int(bias_of(settled, settled.nodes[0], 4)[1])) <= 2048
    same_results(graph, settled, tmp_path)
    assert plan.make(settled, DSP).steps[0].variant == "dsp"


@pytest.mark.filterwarnings("error")
def test_dead_channels_beyond_any_scale_stay() -> None:
    """What float32 cannot hold is left alone, without a warning on the user's terminal."""
    graph = convolution()
    weights = graph.at(1).data
    assert weights is not None
    weights = weights.copy()
    weights[1] = 0
    graph = graph.with_tensor(1, data=weights)
    for index, scale in ((0, 1e-30), (3, 1e30)):
        graph = graph.with_tensor(index, quant=Quant((scale,), (0,)))
    assert settle_constant_channels(graph) is graph


def test_live_channels_stay() -> None:
    graph = convolution()
    assert settle_constant_channels(graph) is graph


# ---- what need not run ---------------------------------------------------------------------------


def clamped(activation: str = "RELU") -> Graph:
    """A convolution with RELU fused, and ``activation`` after it."""
    graph = convolution_then(activation)
    first = replace(graph.nodes[0], attrs=conv2d.Attrs(activation="RELU"))
    return replace(graph, nodes=(first, *graph.nodes[1:]))


def test_limits_that_nothing_reaches_go() -> None:
    graph = clamped()
    assert [node.op for node in drop_identities(graph).nodes] == ["CONV_2D"]
    same_results(graph, drop_identities(graph))
    graph = conv(clamped(), 2, 1)
    after = drop_identities(graph)
    assert [node.op for node in after.nodes] == ["CONV_2D", "CONV_2D"]
    same_results(graph, after)


def test_limits_that_something_reaches_stay() -> None:
    for graph in (
        convolution_then("RELU"),
        clamped("RELU6"),
        convolution_then("QUANTIZE", scale=1),
    ):
        assert drop_identities(graph) is graph


def test_identities_between_input_and_output_stay() -> None:
    graph = convolution_then("QUANTIZE")
    both = replace(graph, outputs=(*graph.outputs, graph.nodes[0].outputs[0]))
    assert drop_identities(both) is both
    alone = replace(graph, nodes=graph.nodes[1:], inputs=graph.nodes[1].inputs)
    assert drop_identities(alone) is alone


def test_padding_by_nothing_and_windows_of_one_pixel_go() -> None:
    graph = convolution()
    shape = graph.at(3).shape
    graph = then(graph, "PAD", None, shape, np.zeros((4, 2), dtype=np.int32))
    graph = then(graph, "MAX_POOL_2D", pooling.Attrs((1, 1), (1, 1), "SAME"), shape)
    graph = then(graph, "CONCATENATION", concatenation.Attrs(1), shape)
    after = drop_identities(conv(graph, 2, 1))
    assert [node.op for node in after.nodes] == ["CONV_2D", "CONV_2D"]
    same_results(conv(graph, 2, 1), after)
    shifted = then(convolution(), "PAD", None, shape, np.eye(4, 2, dtype=np.int32) * 0)
    assert len(drop_identities(shifted).nodes) == 1


def twice(**changes: object) -> Graph:
    """Two convolutions of the same image, equal but for ``changes``, and their sum."""
    graph = convolution()
    weights_again = graph.at(1).data
    assert weights_again is not None
    graph, filters = graph.add_tensor(replace(graph.at(1), data=weights_again.copy()))
    graph, second = graph.add_tensor(replace(graph.at(3), name="again"))
    attrs = replace(graph.nodes[0].attrs, **changes)
    node = Node("CONV_2D", (0, filters, 2), (second,), attrs, 1)
    graph, total = graph.add_tensor(activation("sum", *graph.at(3).shape))
    add = Node("ADD", (3, second), (total,), elementwise.Attrs(), 2)
    return replace(graph, nodes=(*graph.nodes, node, add), outputs=(total,))


def test_what_is_equal_is_computed_once(tmp_path: Path) -> None:
    merged = merge_equal(twice())
    assert [node.op for node in merged.nodes] == ["CONV_2D", "ADD"]
    same_results(twice(), merged, tmp_path)


def test_what_differs_is_computed_twice() -> None:
    other = twice(activation="RELU")
    assert merge_equal(other) is other
    graph = twice()
    shown = replace(graph, outputs=(*graph.outputs, graph.nodes[1].outputs[0]))
    assert merge_equal(shown) is shown
    coarse = graph.with_tensor(graph.nodes[1].outputs[0], quant=activation("", scale=0.3).quant)
    assert merge_equal(coarse) is coarse


# ---- operators -----------------------------------------------------------------------------------


def multiplied(depth: int, multiplier: int) -> Graph:
    """A depthwise convolution with strides, dilation and padding."""
    attrs = depthwise_conv2d.Attrs((2, 1), (1, 2), "SAME", "RELU")
    graph = convolution((7, 9, 3), (depth * multiplier, 3, 2), conv2d.Attrs(**vars_of(attrs)))
    filters = weights(1, 3, 2, depth * multiplier)
    scales = graph.at(1).quant
    assert scales is not None
    quant = replace(scales, axis=3)
    graph = graph.with_tensor(1, shape=filters.shape, data=filters, quant=quant)
    graph = graph.with_tensor(0, shape=(1, 7, 9, depth))
    node = replace(graph.nodes[0], op="DEPTHWISE_CONV_2D", attrs=attrs)
    return replace(graph, nodes=(node,))


def vars_of(attrs: conv2d.Attrs) -> dict[str, Any]:
    return {name: getattr(attrs, name) for name in ("stride", "dilation", "padding", "activation")}


@pytest.mark.parametrize("channels", [1, 8])
def test_one_channel_is_convolved_as_an_image(channels: int, tmp_path: Path) -> None:
    graph = multiplied(1, channels)
    changed = regroup(graph)
    assert [node.op for node in changed.nodes] == ["CONV_2D"]
    same_results(graph, changed, tmp_path)


def test_groups_of_one_channel_are_depthwise(tmp_path: Path) -> None:
    graph = multiplied(4, 2)
    assert regroup(graph) is graph
    filters = graph.at(1).data
    assert filters is not None
    grouped = np.swapaxes(filters, 0, 3)
    quant = replace(graph.at(1).quant, axis=0)
    node = replace(
        graph.nodes[0], op="CONV_2D", attrs=conv2d.Attrs(**vars_of(graph.nodes[0].attrs))
    )
    graph = graph.with_tensor(1, shape=grouped.shape, data=grouped, quant=quant)
    graph = replace(graph, nodes=(node,))
    changed = regroup(graph)
    assert [node.op for node in changed.nodes] == ["DEPTHWISE_CONV_2D"]
    same_results(graph, changed, tmp_path)


# ---- known channels ------------------------------------------------------------------------------


def with_data(graph: Graph, index: int, change: Callable[[Array], None]) -> Graph:
    """``graph`` with ``change`` done to a copy of constant ``index``."""
    data = graph.at(index).data
    assert data is not None
    data = data.copy()
    change(data)
    return graph.with_tensor(index, data=data)


def dead(graph: Graph, channels: slice, bias: int) -> Graph:
    """``graph`` whose convolution 0 has zero filters in ``channels`` and ``bias`` there."""
    graph = with_data(graph, 1, lambda data: data.__setitem__(channels, 0))
    return with_data(graph, 2, lambda data: data.__setitem__(channels, bias))


def then(graph: Graph, op: str, attrs: object, shape: tuple[int, ...], *constants: Array) -> Graph:
    """``graph`` with one operator more, on its output and ``constants``."""
    (last,) = graph.outputs
    inputs = [last]
    for data in constants:
        scales = (0.01,) * (data.dtype == np.int8)
        graph, index = graph.add_tensor(constant(f"c{len(graph.tensors)}", data, *scales))
        inputs.append(index)
    quant = graph.at(last).quant if op not in LAYERS else activation("", scale=0.2).quant
    tensor = replace(activation(f"after{len(graph.nodes)}", *shape), quant=quant)
    graph, out = graph.add_tensor(tensor)
    node = Node(op, tuple(inputs), (out,), attrs, len(graph.nodes))
    graph = replace(graph, nodes=(*graph.nodes, node), outputs=(out,))
    assert BY_NAME[op].shapes(graph, node) == (shape,)
    return graph


LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def weights(*shape: int, seed: int = 1) -> Array:
    return np.random.default_rng(seed).integers(-127, 128, shape).astype(np.int8)


def conv(graph: Graph, channels: int, kernel: int, padding: str = "VALID") -> Graph:
    """``graph`` with a convolution of square windows more."""
    _, rows, columns, depth = graph.at(graph.outputs[0]).shape
    around = 0 if padding == "SAME" else kernel - 1
    attrs = conv2d.Attrs(padding=padding)
    taps = weights(channels, kernel, kernel, depth)
    return then(graph, "CONV_2D", attrs, (1, rows - around, columns - around, channels), taps)


def depthwise(graph: Graph, padding: str = "SAME") -> Graph:
    shape = graph.at(graph.outputs[0]).shape
    attrs = depthwise_conv2d.Attrs(padding=padding)
    return then(graph, "DEPTHWISE_CONV_2D", attrs, shape, weights(1, 3, 3, shape[3]))


def dropped(graph: Graph, folder: Path | None = None) -> list[int]:
    """Channels that folding and dropping leave behind each node, after checking the bytes."""
    after = drop_channels(fold_channels(graph), 1)
    same_results(graph, after)
    same_results(graph, passes.run(graph), folder)
    return [after.output(node).shape[-1] for node in after.nodes]


ZERO, ELSEWHERE = 0, 4000
"""Biases that make a channel the zero point, and another value."""


def image(channels: int = 12, bias: int = ELSEWHERE) -> Graph:
    """A convolution half of whose ``channels`` are dead."""
    graph = convolution((7, 7, 3), (channels, 3, 3))
    return dead(graph, slice(0, channels // 2), bias)


@pytest.mark.parametrize("bias", [ZERO, ELSEWHERE, 1 << 30, -(1 << 31)])
def test_dead_channels_are_folded_into_the_next_layer(bias: int, tmp_path: Path) -> None:
    assert dropped(conv(image(bias=bias), 3, 1), tmp_path) == [6, 3]
    assert dropped(conv(image(bias=bias), 3, 3)) == [6, 3]


@pytest.mark.parametrize("wanted", [-128, -127, -9, 40, 126, 127])
def test_constant_outputs_come_from_small_accumulators(wanted: int) -> None:
    """A clamped output has accumulators up to 2^30, which fit no kernel but the portable one."""
    graph = convolution()
    scaling = conv2d.requant_of(graph, graph.nodes[0])
    found = known.accumulators_for(scaling, np.full(4, wanted))
    assert (scaling.apply(found) == wanted).all()
    assert not (np.sign(found) * scaling.apply(found - np.sign(found)) == wanted).any()
    assert np.abs(found).max() < 1 << 16


def test_padding_keeps_channels_that_are_not_the_zero_point(tmp_path: Path) -> None:
    assert dropped(conv(image(bias=ZERO), 3, 3, "SAME"), tmp_path) == [6, 3]
    assert dropped(conv(image(), 3, 3, "SAME"), tmp_path) == [12, 3]


def test_taps_that_padding_never_skips_are_folded() -> None:
    graph = conv(image(), 3, 3, "SAME")
    graph = with_data(graph, graph.nodes[1].inputs[1], lambda data: _only_centre(data[..., :6]))
    assert dropped(graph) == [6, 3]


def _only_centre(taps: Array) -> None:
    centre = taps[:, 1, 1].copy()
    taps[:] = 0
    taps[:, 1, 1] = centre


def test_depthwise_channels_fold_where_their_border_is_even(tmp_path: Path) -> None:
    assert dropped(conv(depthwise(image(bias=ZERO)), 5, 1), tmp_path) == [6, 6, 5]
    assert dropped(conv(depthwise(image()), 5, 1)) == [12, 12, 5]
    # Averages of an uneven image are even again.
    pooled = then(
        depthwise(image()), "MEAN", mean.Attrs(), (1, 12), np.array([1, 2], dtype=np.int32)
    )
    graph = then(pooled, "FULLY_CONNECTED", fully_connected.Attrs(), (1, 2), weights(2, 12))
    assert dropped(graph) == [6, 6, 6, 2]


def test_channels_fold_through_operators_that_keep_them_apart(tmp_path: Path) -> None:
    graph = image()
    attrs = pooling.Attrs((2, 2), (1, 1), "SAME")
    graph = then(graph, "AVERAGE_POOL_2D", attrs, (1, 7, 7, 12))
    graph = then(graph, "RELU", None, (1, 7, 7, 12))
    graph = then(graph, "ADD", elementwise.Attrs(), (1, 7, 7, 12), weights(12))
    (last,) = graph.outputs
    graph = then(graph, "HARD_SWISH", None, (1, 7, 7, 12))
    (other,) = graph.outputs
    graph = then(graph, "CONCATENATION", concatenation.Attrs(-1), (1, 7, 7, 12))
    node = replace(graph.nodes[-1], inputs=(last, other))
    graph = replace(graph, nodes=(*graph.nodes[:-1], node))
    graph = graph.with_tensor(graph.outputs[0], shape=(1, 7, 7, 24))
    graph = then(graph, "RESHAPE", None, (1, 7 * 7 * 24))
    graph = then(graph, "FULLY_CONNECTED", fully_connected.Attrs(), (1, 3), weights(3, 7 * 7 * 24))
    assert dropped(graph, tmp_path) == [6, 6, 6, 6, 6, 12, 49 * 12, 3]


def test_saturated_channels_are_known() -> None:
    """A filter that is not zero, whose every sum is clamped to the same value."""
    graph = with_data(convolution((7, 7, 3), (4, 3, 3)), 1, lambda data: data[1:3].fill(1))
    graph = with_data(graph, 2, lambda data: data[1:3].fill(1 << 20))
    graph = replace(graph, nodes=(replace(graph.nodes[0], attrs=conv2d.Attrs(activation="RELU")),))
    values = known.analyse(graph)[graph.outputs[0]]
    assert values.even.tolist() == [False, True, True, False]
    assert dropped(conv(graph, 3, 1)) == [2, 3]


def test_outputs_and_inputs_keep_their_channels() -> None:
    assert dropped(image()) == [12]
    graph = with_data(convolution((7, 7, 6), (4, 3, 3)), 1, lambda data: data[..., :3].fill(0))
    after = drop_channels(graph, 1)
    assert after is graph


def test_channels_that_another_layer_reads_stay() -> None:
    graph = conv(image(), 3, 1)
    middle = graph.nodes[0].outputs[0]
    assert dropped(replace(graph, outputs=(*graph.outputs, middle))) == [12, 3]


def test_channels_are_filled_up_with_empty_ones(tmp_path: Path) -> None:
    graph = conv(dead(convolution((7, 7, 3), (12, 3, 3)), slice(0, 7), ELSEWHERE), 3, 1)
    after = drop_channels(fold_channels(graph), 4)
    assert [after.output(node).shape[-1] for node in after.nodes] == [8, 3]
    filters = after.required(after.nodes[0], 1).data
    assert filters is not None
    assert np.count_nonzero(filters.any(axis=(1, 2, 3))) == 5
    same_results(graph, after, tmp_path)


def test_cores_with_vectors_get_channels_in_fours() -> None:
    graph = conv(dead(convolution((7, 7, 3), (12, 3, 3)), slice(0, 7), ELSEWHERE), 3, 1)
    for features, channels in ((frozenset(), 5), (DSP, 8), (frozenset({"mve"}), 8)):
        after = passes.run(graph, features)
        assert after.output(after.nodes[0]).shape[-1] == channels


def test_a_network_of_dead_channels_alone_still_runs(tmp_path: Path) -> None:
    graph = conv(dead(convolution((7, 7, 3), (5, 3, 3)), slice(0, 5), ELSEWHERE), 3, 1)
    assert dropped(graph, tmp_path) == [1, 3]


def fed(case: Case, graph: Graph) -> list[tuple[Array, ...]]:
    """The case's own inputs, and all that are made without end, extremes among them."""
    made = [c.inputs for c, _ in zip(verify.generated(graph), range(4), strict=False)]
    return [case.inputs, *made]


def check_network(case: Case) -> int:
    """Passes change no output, and analysis holds; returns how many values went."""
    graph = tflite.load(case.model.bytes)
    said, narrow = known.analyse(graph), drop_channels(fold_channels(graph), 1)
    for inputs in fed(case, graph):
        values = reference.run_all(graph, inputs)
        for index in said.keys() & values.keys():
            assert (said[index].low <= values[index]).all()
            assert (said[index].high >= values[index]).all()
            assert (said[index].image == values[index])[..., said[index].known].all()
        for rewritten in (narrow, passes.run(graph)):
            results = reference.run(rewritten, inputs)
            for index, result in zip(graph.outputs, results, strict=True):
                np.testing.assert_array_equal(values[index], result, strict=True)
    return sum(t.elements - narrow.at(i).elements for i, t in enumerate(graph.tensors))


def test_random_networks_stay_the_same() -> None:
    went = [check_network(case) for case in draw(240)[::6]]  # neighbours are alike
    assert any(went)


@pytest.mark.wide
def test_random_networks_stay_the_same_widely() -> None:
    for case in draw(2000):
        check_network(case)


def test_folding_without_regard_to_padding_would_be_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = known.taps_of

    def forgetful(graph: Graph, node: Node) -> known.Taps | None:
        taps = honest(graph, node)
        return taps and replace(taps, seen=np.ones_like(taps.seen))

    monkeypatch.setattr(known, "taps_of", forgetful)
    with pytest.raises(AssertionError):
        dropped(conv(image(), 3, 3, "SAME"))


def test_dropping_a_channel_too_many_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = drop_channels.__globals__["_uses"]

    def careless(graph: Graph, node: Node) -> known.Mask:
        uses: known.Mask = honest(graph, node)
        uses[:, np.flatnonzero(uses.any(axis=0))[:1]] = False
        return uses

    monkeypatch.setitem(drop_channels.__globals__, "_uses", careless)
    with pytest.raises(AssertionError):
        dropped(conv(image(), 3, 1))


@shared_models.needed
def test_half_dead_network_is_halved() -> None:
    graph = importers.load(shared_models.path("vww_96_int8"))
    after = drop_channels(fold_channels(graph), 1)
    assert macs(after) <= 3_733_073
    layers = [node for node in after.nodes if node.op in LAYERS]
    assert sum(after.required(node, 1).bytes for node in layers) <= 29_286
    facts = inspect.document(graph, plan.make(passes.run(graph)))
    assert (facts["macs"], facts["macs_nominal"]) == (macs(passes.run(graph)), 7_489_664)
    assert inspect.nominal(facts) and not inspect.nominal({**facts, "macs": 7_489_664})
    for golden in shared_models.goldens("vww_96_int8"):
        for passed in (after, passes.run(graph)):
            (output,) = reference.run(passed, [golden.input])
            np.testing.assert_array_equal(output, golden.output, strict=True)
