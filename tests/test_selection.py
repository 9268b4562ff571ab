"""Encoded weights: any encoding before any kernel, some channels at a time, and what is chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import emulated_c
import numpy as np
import pytest
from graphs import convolution, dense_chain, random_inputs
from host_c import HostModels
from test_scalar import depthwise

from tinygen import boards, encodings, plan, reference, selection
from tinygen.encodings import Encoded
from tinygen.graph import Array, Graph
from tinygen.ops import conv2d, depthwise_conv2d
from tinygen.ops.base import Channels, Kernel
from tinygen.plan import Goal, Plan
from tinygen.selection import Limit, Option, Room

ISAS = ("dsp", "mve", "armv7m", "armv6m", "rv32m", "xtensa")
PIXEL = conv2d.Attrs(padding="VALID")
SHAPES: dict[str, Callable[[], Graph]] = {
    "row_of_16": lambda: dense_chain(40, 16),
    "row_of_21": lambda: dense_chain(24, 21),
    "ragged_row": lambda: dense_chain(27, 12),
    "pixels": lambda: convolution((3, 5, 12), (10, 1, 1), PIXEL),
    "odd_pixels": lambda: convolution((3, 3, 8), (9, 1, 1), PIXEL),
    "window": lambda: convolution((5, 6, 8), (14, 3, 3)),
    "ragged_window": lambda: convolution((6, 5, 3), (8, 3, 3), conv2d.Attrs(stride=(2, 2))),
    "planes": lambda: depthwise((1, 8, 8, 6), (3, 3), 1, depthwise_conv2d.Attrs()),
}
"""Layers by their shapes, and by what kernels have for them."""


def four_bits(weights: Array) -> Array:
    return (weights // 18).astype(np.int8)


def few_values(weights: Array) -> Array:
    table = np.array([-127, -77, -31, -9, 0, 4, 17, 38, 66, 127])
    return np.asarray(table[np.abs(weights) % 10], dtype=np.int8)


def sparse(weights: Array) -> Array:
    kept = np.random.default_rng(1).random(weights.shape) < 0.2
    return np.where(kept, weights, 0).astype(np.int8)


def in_blocks(weights: Array) -> Array:
    kept = np.random.default_rng(2).random(-(-weights.size // 8)) < 0.3
    return np.where(np.repeat(kept, 8)[: weights.size].reshape(weights.shape), weights, 0).astype(
        np.int8
    )


STRUCTURES = (four_bits, few_values, sparse, in_blocks)


def shaped(graph: Graph, structure: Callable[[Array], Array]) -> Graph:
    """``graph`` with filters of a ``structure``."""
    for node in graph.nodes:
        if node.op in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            filters = graph.at(node.inputs[1]).data
            assert filters is not None
            graph = graph.with_tensor(node.inputs[1], data=structure(filters))
    return graph


def forced(
    monkeypatch: pytest.MonkeyPatch,
    graph: Graph,
    features: frozenset[str],
    pick: Callable[[list[Kernel]], Kernel],
    goal: Goal | None = None,
) -> Plan:
    """The plan in which every kernel that reads weights reads encoded ones, as ``pick`` chooses."""

    def select(
        found: Sequence[Sequence[Option]],
        features: frozenset[str],
        limit: Limit,
        small: bool = False,
        rooms: Sequence[Room] | None = None,
    ) -> tuple[Option, ...]:
        chosen = []
        for options in found:
            option = selection.fastest(selection.plain(options))
            encoded = selection.encode(option.kernel, features, entropy=True)
            chosen.append(replace(option, kernel=pick(encoded)) if encoded else option)
        return tuple(chosen)

    with monkeypatch.context() as patch:
        patch.setattr(selection, "select", select)
        return plan.make(graph, features, goal)


def plans(monkeypatch: pytest.MonkeyPatch, isa: str, every: int = 1) -> dict[str, Plan]:
    """Shapes with structures in the encodings that these have, ``every`` so many of them."""
    monkeypatch.setattr(encodings, "candidates", all_encodings)
    features = frozenset({isa, "dsp"} if isa == "mve" else {isa})
    made: dict[str, Plan] = {}
    count = 0
    for shape, make in SHAPES.items():
        for structure in STRUCTURES:
            graph = shaped(make(), structure)
            found = selection.options(graph, graph.nodes[0], features)
            kernel = selection.fastest(selection.plain(found)).kernel
            tile = kernel.channels * (count % 3)
            for encoded in selection.encode(kernel, features, entropy=True, tile=tile):
                count += 1
                if count % every == 0:
                    name = f"{shape}_{structure.__name__}_{count}"
                    made[name] = forced(
                        monkeypatch, graph, features, lambda _, kernel=encoded: kernel
                    )
    return made


def all_encodings(lines: Sequence[Array], entropy: bool = True) -> list[Encoded]:
    """Those that save nothing, too."""
    assert entropy
    made = (encodings.encode(encoding, lines) for encoding in encodings.ENCODINGS)
    return [encoded for encoded in made if encoded is not None]


def check(made: Plan, run: Callable[[Sequence[Array]], Sequence[Array]]) -> None:
    graph = made.graph
    given = [random_inputs(graph, seed) for seed in range(2)]
    given.append([np.full(graph.at(graph.inputs[0]).shape, -128, dtype=np.int8)])
    for inputs in given:
        assert np.array_equal(run(inputs)[0], reference.run(graph, inputs)[0])


@pytest.mark.wide
@pytest.mark.parametrize("isa", ["dsp", "xtensa"])
def test_every_encoding_before_every_kernel(
    isa: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plans(monkeypatch, isa, 11)
    assert len({step.kernel.encoding for p in made.values() for step in p.steps}) >= 12
    assert any(step.kernel.tile for p in made.values() for step in p.steps)
    with HostModels(made, tmp_path, features=frozenset({isa})) as host:
        for name, p in made.items():
            check(p, lambda inputs, name=name: host.run(name, inputs)[0])


@pytest.mark.wide
@pytest.mark.parametrize("isa", ISAS)
def test_every_encoding_before_every_kernel_of_all_cores(
    isa: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plans(monkeypatch, isa, 5)
    with HostModels(made, tmp_path, features=frozenset({isa})) as host:
        for name, p in made.items():
            check(p, lambda inputs, name=name: host.run(name, inputs)[0])


@pytest.mark.parametrize(
    ("board", "isa"),
    [
        ("qemu_m4", "dsp"),
        pytest.param("qemu_m3", "armv7m", marks=pytest.mark.wide),
        ("qemu_m0", "armv6m"),
        pytest.param("qemu_rv32", "rv32m", marks=pytest.mark.wide),
        pytest.param("qemu_xtensa", "xtensa", marks=pytest.mark.wide),
        pytest.param("qemu_m55", "mve", marks=pytest.mark.wide),
    ],
)
def test_encodings_on_emulated_cores(
    board: str, isa: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = list(plans(monkeypatch, isa, 23).values())
    emulated_c.check(boards.load(board), made, tmp_path)


def chain_of_images(structure: Callable[[Array], Array]) -> Graph:
    """Two convolutions with a large image between them, so that they run row by row."""
    first, second = convolution((24, 24, 4), (24, 3, 3)), convolution((24, 24, 24), (4, 3, 3))
    middle, at = first.outputs[0], len(first.tensors)
    tensors = [*first.tensors, *second.tensors[1:]]
    tensors[middle] = replace(tensors[middle], quant=second.at(0).quant)
    node = replace(second.nodes[0], inputs=(middle, at, at + 1), outputs=(at + 2,), index=1)
    nodes = (*first.nodes, node)
    return shaped(replace(first, tensors=tuple(tensors), nodes=nodes, outputs=(at + 2,)), structure)


@pytest.mark.parametrize("isa", ["dsp", "armv6m"])
def test_layers_row_by_row_decode_their_weights_once(
    isa: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {
        structure.__name__: forced(
            monkeypatch,
            chain_of_images(structure),
            frozenset({isa}),
            lambda kernels: kernels[0],
            Goal("ram"),
        )
        for structure in STRUCTURES
    }
    streamed = [step for p in made.values() for step in p.steps if step.stream]
    assert len(streamed) >= 2
    assert all(step.kernel.decoded for step in streamed)
    with HostModels(made, tmp_path, features=frozenset({isa})) as host:
        for name, p in made.items():
            check(p, lambda inputs, name=name: host.run(name, inputs)[0])


def test_a_wrong_code_gives_wrong_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = shaped(SHAPES["window"](), few_values)
    right = forced(monkeypatch, graph, frozenset({"dsp"}), lambda kernels: kernels[0])
    decoded = right.steps[0].kernel.decoded[0]
    codes = decoded.data.data.copy()
    codes[len(codes) // 2] ^= 1
    wrong = replace(decoded, data=replace(decoded.data, data=codes))
    args = tuple(wrong if arg is decoded else arg for arg in right.steps[0].kernel.args)
    step = replace(right.steps[0], kernel=replace(right.steps[0].kernel, args=args))
    inputs = random_inputs(graph)
    with HostModels({"m": replace(right, steps=(step,))}, tmp_path) as host:
        found = host.run("m", inputs)[0][0]
    assert not np.array_equal(found, reference.run(graph, inputs)[0])


# ---- what is chosen ------------------------------------------------------------------------------

M4 = frozenset({"dsp"})
WIDE = ((12, 12, 32), (32, 3, 3))


def test_weights_without_structure_lie_in_flash_as_they_are() -> None:
    made = plan.make(convolution(*WIDE), M4)
    assert {step.kernel.encoding for step in made.steps} == {"dense"}


@pytest.mark.parametrize("structure", STRUCTURES)
def test_structure_saves_flash(structure: Callable[[Array], Array]) -> None:
    graph = shaped(convolution(*WIDE), structure)
    made = plan.make(graph, M4, Goal(slow_down=1.2))
    dense = plan.make(convolution(*WIDE), M4)
    assert made.steps[0].kernel.encoding != "dense"
    assert made.weight_bytes < 0.7 * dense.weight_bytes
    assert made.cycles <= 1.2 * dense.cycles


def test_a_limit_is_kept_and_more_of_it_never_takes_more_flash() -> None:
    graph = shaped(dense_chain(200, 100, 100, 40), few_values)
    plain = plan.make(graph, M4, Goal(slow_down=1.0))
    made = [plan.make(graph, M4, Goal(slow_down=limit)) for limit in (1.0, 1.5, 3.0, 10.0)]
    for limit, p in zip((1.0, 1.5, 3.0, 10.0), made, strict=True):
        assert p.cycles <= limit * plain.cycles
    sizes = [p.weight_bytes for p in made]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 0.6 * sizes[0]


def test_flash_is_saved_by_default_where_there_is_room() -> None:
    graph = shaped(dense_chain(900, 64, 64), sparse)
    made = plan.make(graph, frozenset({"armv6m"}))
    assert all(step.kernel.encoding != "dense" for step in made.steps)


def test_entropy_coding_is_taken_when_asked_for() -> None:
    def peaked(weights: Array) -> Array:
        return np.clip(np.random.default_rng(0).normal(0, 9, weights.shape), -127, 127).astype(
            np.int8
        )

    graph = shaped(convolution(*WIDE), peaked)
    assert plan.make(graph, M4).steps[0].kernel.encoding == "dense"
    assert plan.make(graph, M4, Goal(slow_down=3.0)).steps[0].kernel.encoding == "huffman"


def test_a_ram_limit_is_met_with_plain_weights_when_need_be() -> None:
    graph = shaped(convolution((4, 4, 64), (64, 3, 3)), few_values)
    encoded = plan.make(graph, M4, Goal(slow_down=20.0))
    plain = plan.make(graph, M4, Goal(slow_down=1.0))
    assert plain.arena_bytes < encoded.arena_bytes
    assert plan.make(graph, M4, Goal(slow_down=20.0, ram_limit=plain.arena_bytes)) is not None


def test_channels_are_told_apart_from_other_numbers() -> None:
    kernel = plan.make(convolution(*WIDE), M4).steps[0].kernel
    assert [arg.count for arg in kernel.args if isinstance(arg, Channels)] == [32]
