"""From a graph to a plan: the kernel of each layer, and the place of each tensor in the arena.

The arena holds inputs, outputs, intermediate tensors and kernels' scratch memory.  Tensors that
share memory (views, and outputs computed in place) form one buffer; two buffers may overlap in
address only if they never live at the same time.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tinygen.errors import InputError
from tinygen.graph import Graph, Node
from tinygen.ops import BY_NAME
from tinygen.ops.base import Arg, Const, Input, Kernel

ALIGNMENT = 4
"""Bytes to which every buffer's offset is aligned: the widest element an operator reads."""


@dataclass(frozen=True)
class Buffer:
    """A piece of the arena that lives from step ``first`` to step ``last``, both included.

    ``tensors`` share it; a kernel's scratch memory has none.
    """

    tensors: tuple[int, ...]
    bytes: int
    first: int
    last: int
    offset: int = 0

    @property
    def end(self) -> int:
        return self.offset + self.bytes

    def meets(self, other: Buffer) -> bool:
        """Whether both live at some step."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Choice:
    """A kernel that could compute a step: its variant, its name, the cycles expected of it."""

    variant: str
    kernel: str
    cycles: int


@dataclass(frozen=True, eq=False)
class Step:
    """One kernel call.  ``scratch`` is the offset of its scratch memory, -1 without any.

    ``alternatives`` are all kernels that apply, the chosen one among them, in the operator's
    order.
    """

    node: Node
    kernel: Kernel
    variant: str
    macs: int
    scratch: int = -1
    alternatives: tuple[Choice, ...] = ()


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything code generation needs to know."""

    graph: Graph
    steps: tuple[Step, ...]
    buffers: tuple[Buffer, ...]
    offsets: Mapping[int, int]
    """Arena offset in bytes of each tensor that lies in it."""
    arena_bytes: int

    @property
    def macs(self) -> int:
        return sum(step.macs for step in self.steps)

    @property
    def weight_bytes(self) -> int:
        """Bytes of constant arrays that kernels read: weights, biases, multipliers, tables."""
        return sum(c.data.nbytes for step in self.steps for c in step.kernel.constants)


def make(graph: Graph, features: frozenset[str] = frozenset()) -> Plan:
    """Plan ``graph`` for a core with ``features`` (such as ``{"dsp"}``).

    Raises :class:`InputError` when an output is a constant or an input is listed twice.
    """
    _check_edges(graph)
    steps = [_step(graph, node, features) for node in graph.nodes if not BY_NAME[node.op].view]
    buffers = place([*_tensor_buffers(graph, steps), *_scratch_buffers(steps)])
    scratch = {b.first: b.offset for b in buffers if not b.tensors}
    return Plan(
        graph=graph,
        steps=tuple(replace(s, scratch=scratch.get(i, -1)) for i, s in enumerate(steps)),
        buffers=buffers,
        offsets={t: b.offset for b in buffers for t in b.tensors},
        arena_bytes=_aligned(max((b.end for b in buffers), default=0)),
    )


def _check_edges(graph: Graph) -> None:
    for index in graph.outputs:
        if graph.at(index).constant:
            raise InputError(f"{graph.source}: output tensor {index} is a constant")
    if len(set(graph.inputs)) != len(graph.inputs):
        raise InputError(f"{graph.source}: an input is listed twice")
    if any(graph.at(i).bytes == 0 for i in (*graph.inputs, *graph.outputs)):
        raise InputError(f"{graph.source}: an input or output has no elements")


def _step(graph: Graph, node: Node, features: frozenset[str]) -> Step:
    """The call expected to take the fewest cycles; the first of several."""
    op = BY_NAME[node.op]
    found = [
        (kernel.cycles, order, variant.isa, kernel)
        for order, variant in enumerate(op.variants)
        if variant.features <= features
        for kernel in (variant.lower(graph, node),)
        if kernel is not None
    ]
    if not found:
        raise InputError(f"{graph.where(node)}: no kernel computes it")
    alternatives = tuple(Choice(isa, kernel.name, cycles) for cycles, _, isa, kernel in found)
    _, _, isa, kernel = min(found, key=lambda entry: entry[:2])
    kernel = replace(kernel, args=tuple(_constant(graph, node, a) for a in kernel.args))
    return Step(node, kernel, isa, op.macs(graph, node), alternatives=alternatives)


def _constant(graph: Graph, node: Node, arg: Arg) -> Arg:
    """``arg``, or the constant it stands for when it is an input that lies in flash."""
    if isinstance(arg, Input):
        tensor = graph.required(node, arg.position)
        if tensor.data is not None:
            return Const("constant", tensor.data.reshape(-1))
    return arg


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _tensor_buffers(graph: Graph, steps: Sequence[Step]) -> list[Buffer]:
    """Buffers of all tensors in the arena, views and in-place outputs merged."""
    shared = _views(graph)
    first = dict.fromkeys(graph.inputs, -1)
    last = dict.fromkeys(graph.inputs, -1)
    for i, step in enumerate(steps):
        for t in step.node.outputs:
            first[t] = last[t] = i
        for t in step.node.inputs:
            root = shared.get(t, t)
            if root in last:
                last[root] = i
    for t in graph.outputs:
        last[shared.get(t, t)] = len(steps)

    home: dict[int, int] = {}  # tensor -> tensor in whose buffer it is computed
    for i, step in enumerate(steps):
        out = step.node.outputs[0]
        for position in (
            *step.kernel.in_place,
            *(p for p, d in step.kernel.overlap.items() if d == 0),
        ):
            source = step.node.inputs[position]
            root = shared.get(source, source)
            if root in last and last[root] == i and graph.at(root).bytes >= graph.at(out).bytes:
                home[out] = home.get(root, root)
                break
    groups: dict[int, list[int]] = {}
    for t in first:
        groups.setdefault(home.get(t, t), []).append(t)
    views: dict[int, list[int]] = {}
    for view, root in shared.items():
        views.setdefault(root, []).append(view)
    return [
        Buffer(
            tensors=tuple(v for t in members for v in (t, *views.get(t, ()))),
            bytes=_aligned(max(graph.at(t).bytes for t in members)),
            first=min(first[t] for t in members),
            last=max(last[t] for t in members),
        )
        for members in groups.values()
    ]


def _views(graph: Graph) -> dict[int, int]:
    """Tensors that are another tensor's memory under a new shape, and that tensor."""
    shared: dict[int, int] = {}
    for node in graph.nodes:
        if BY_NAME[node.op].view:
            source = node.inputs[0]
            shared[node.outputs[0]] = shared.get(source, source)
    return shared


def _scratch_buffers(steps: Sequence[Step]) -> list[Buffer]:
    return [
        Buffer((), _aligned(step.kernel.scratch), i, i)
        for i, step in enumerate(steps)
        if step.kernel.scratch
    ]


def lower_bound(buffers: Iterable[Buffer]) -> int:
    """Bytes below which no placement can go: the most that lives at one step."""
    buffers = list(buffers)
    times = {b.first for b in buffers}
    return max((sum(b.bytes for b in buffers if b.first <= t <= b.last) for t in times), default=0)


def place(buffers: Sequence[Buffer], rounds: int = 2000) -> tuple[Buffer, ...]:
    """Offsets for ``buffers``, none overlapping in both time and address.

    First fit in several orders (by size, as in TFLM's greedy planner; by time; by size times
    time), then a hill climb that swaps two in the best order, until the lower bound is met or
    ``rounds`` swaps were tried.  Deterministic.
    """
    bound = lower_bound(buffers)
    orders = [
        sorted(buffers, key=lambda b: (-b.bytes, b.first)),
        sorted(buffers, key=lambda b: (b.first, -b.bytes)),
        sorted(buffers, key=lambda b: (-b.bytes * (b.last - b.first + 1), b.first)),
    ]
    best = min(orders, key=lambda order: _height(_first_fit(order)))
    height = _height(_first_fit(best))
    chance = random.Random(0)
    for _ in range(rounds if len(buffers) > 1 else 0):
        if height == bound:
            break
        i, j = chance.sample(range(len(best)), 2)
        trial = list(best)
        trial[i], trial[j] = trial[j], trial[i]
        reached = _height(_first_fit(trial))
        if reached <= height:
            best, height = trial, reached
    return tuple(sorted(_first_fit(best), key=lambda b: (b.first, b.last, b.offset)))


def _height(placed: Sequence[Buffer]) -> int:
    return max((b.end for b in placed), default=0)


def _first_fit(order: Sequence[Buffer]) -> list[Buffer]:
    """Each buffer at the lowest offset that no earlier one occupies while it lives."""
    placed: list[Buffer] = []
    for buffer in order:
        offset = 0
        for other in sorted((b for b in placed if b.meets(buffer)), key=lambda b: b.offset):
            if offset + buffer.bytes <= other.offset:
                break
            offset = max(offset, other.end)
        placed.append(replace(buffer, offset=offset))
    return placed


def check(plan: Plan) -> None:
    """Raise AssertionError if two buffers that live together overlap, or one leaves the arena."""
    for i, a in enumerate(plan.buffers):
        assert a.offset >= 0 and a.end <= plan.arena_bytes
        for b in plan.buffers[i + 1 :]:
            assert not a.meets(b) or a.end <= b.offset or b.end <= a.offset, (a, b)
