"""From a graph to a plan: the kernel of each layer, and the place of each tensor in the arena.

The arena holds inputs, outputs, intermediate tensors and kernels' scratch memory.  What RAM it
takes is traded for cycles only as far as the :class:`Goal` allows: layers whose tensors set the
peak are run row by row (``streams.py``) as long as that lowers the arena at no more than a given
cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from tinygen import placement, streams
from tinygen.errors import FitError, InputError
from tinygen.graph import Graph, Node
from tinygen.ops import BY_NAME
from tinygen.ops.base import Arg, Const, Function, Input, Kernel, Scratch, Variant
from tinygen.placement import Buffer, Sharing, aligned
from tinygen.streams import Stream

Optimize = Literal["speed", "balanced", "ram", "size"]
"""What the planner trades: never a cycle for RAM, a few, or as many as ``COST`` says; or cycles and
RAM for flash."""

COST: Mapping[Optimize, float] = {"speed": 1.0, "balanced": 1.03, "ram": 1.25, "size": 1.0}
"""Expected cycles allowed for RAM, as a multiple of those of the fastest plan."""

MOST_SEARCHED = 256
"""Layers of a network in which streams are looked for: the time goes with the square of it."""

BODY_BYTES = 250
"""What a kernel's function takes of flash, about: what doing without one is worth."""

WORTHWHILE = 4096, 1 / 8
"""Bytes, and part of the arena, that streams must save in a balanced plan; they take some flash."""


@dataclass(frozen=True)
class Goal:
    """What a plan is made for.  ``ram_limit`` is the most bytes that the arena may take."""

    optimize: Optimize = "balanced"
    ram_limit: int | None = None


@dataclass(frozen=True)
class Choice:
    """A kernel that could compute a step: its variant, its name, the cycles expected of it."""

    variant: str
    kernel: str
    cycles: int


@dataclass(frozen=True, eq=False)
class Step:
    """One kernel call, or several layers run row by row as one ``stream``.

    ``node`` is what the step looks like from outside.  ``scratch`` is the offset of its scratch
    memory, -1 without any.  ``alternatives`` are all kernels that apply, the chosen one among them,
    in the operator's order; none for a stream.
    """

    node: Node
    kernel: Kernel
    variant: str
    macs: int
    scratch: int = -1
    alternatives: tuple[Choice, ...] = ()
    stream: Stream | None = None


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything code generation needs to know."""

    graph: Graph
    steps: tuple[Step, ...]
    buffers: tuple[Buffer, ...]
    offsets: Mapping[int, int]
    """Arena offset in bytes of each tensor that lies in it."""
    arena_bytes: int
    shared: tuple[Sharing, ...] = ()
    """Buffers that may lie over each other although they meet."""
    small: bool = False
    """Made for little flash: to be compiled for size."""

    @property
    def compiler_level(self) -> str:
        """The compiler's option for the code made of this plan."""
        return "-Os" if self.small else "-O2"

    @property
    def macs(self) -> int:
        return sum(step.macs for step in self.steps)

    @property
    def cycles(self) -> int:
        """Cycles expected of an inference."""
        return sum(step.kernel.cycles for step in self.steps)

    @property
    def weight_bytes(self) -> int:
        """Bytes of constant arrays that kernels read: weights, biases, multipliers, tables."""
        return sum(c.data.nbytes for step in self.steps for c in step.kernel.constants)

    @property
    def lower_bound(self) -> int:
        """Bytes below which no placement of the same buffers can go."""
        return placement.lower_bound(self.buffers, self.shared)

    def live(self) -> list[int]:
        """Bytes in use while each step runs."""
        return placement.profile(self.buffers, self.shared, len(self.steps))


def make(graph: Graph, features: frozenset[str] = frozenset(), goal: Goal | None = None) -> Plan:
    """Plan ``graph`` for a core with ``features`` (such as ``{"dsp"}``), balanced by default.

    With a RAM limit the least saving ``optimize`` is taken, from the goal's on, whose plan meets
    it.  Raises :class:`InputError` when an output is a constant or an input is listed twice, and
    :class:`FitError` when no plan meets the limit.
    """
    _check_edges(graph)
    goal = goal or Goal()
    planner = Planner(graph, features, small=goal.optimize == "size")
    if goal.ram_limit is None:
        return planner.plan(goal.optimize)
    saving: list[Optimize] = ["speed", "balanced", "ram"]
    least = None
    for optimize in saving[0 if planner.small else saving.index(goal.optimize) :]:
        least = planner.plan(optimize)
        if least.arena_bytes <= goal.ram_limit:
            return least
    assert least is not None
    raise FitError(
        f"{graph.source}: needs an arena of {least.arena_bytes:,} bytes, which is more than the "
        f"limit of {goal.ram_limit:,}",
        f"the least that was found: --ram-limit {least.arena_bytes}",
    )


def _check_edges(graph: Graph) -> None:
    for index in graph.outputs:
        if graph.at(index).constant:
            raise InputError(f"{graph.source}: output tensor {index} is a constant")
    if len(set(graph.inputs)) != len(graph.inputs):
        raise InputError(f"{graph.source}: an input is listed twice")
    if any(graph.at(i).bytes == 0 for i in (*graph.inputs, *graph.outputs)):
        raise InputError(f"{graph.source}: an input or output has no elements")


Streamed = tuple[range, ...]
"""Positions of nodes that run as streams, in order, none in two."""


@dataclass(eq=False)
class Planner:
    """Plans of one graph for one core; what was lowered once is kept."""

    graph: Graph
    features: frozenset[str] = frozenset()
    small: bool = False
    _steps: dict[range, Step | None] = field(default_factory=dict)
    _rows: dict[streams.RowKey, tuple[Kernel, str]] = field(default_factory=dict)
    _peaks: dict[range, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._nodes = [n for n in self.graph.nodes if not BY_NAME[n.op].view]
        if self.small:
            found = [_kernels(self.graph, node, self.features) for node in self._nodes]
            for i, isa in enumerate(_fewest_bodies(found)):
                step = _step(self.graph, self._nodes[i], self.features, isa)
                self._steps[range(i, i + 1)] = step

    def plan(self, optimize: Optimize) -> Plan:
        """The plan with the lowest peak that costs no more than ``optimize`` allows."""
        whole, streamed = self.assemble(()), self._streamed(COST[optimize])
        if not streamed:
            return whole
        by_rows = self.assemble(streamed)
        least, part = WORTHWHILE if optimize == "balanced" else (1, 0)
        saved = whole.arena_bytes - by_rows.arena_bytes
        return by_rows if saved >= max(least, part * whole.arena_bytes) else whole

    def assemble(self, streamed: Streamed) -> Plan:
        """The plan in which the nodes at ``streamed`` run as streams, the others one by one."""
        steps = self._sequence(streamed)
        buffers, shared = _buffers(self.graph, steps)
        placed = placement.place(buffers, shared)
        scratch = {b.first: b.offset for b in placed if not b.tensors}
        return Plan(
            graph=self.graph,
            steps=tuple(replace(s, scratch=scratch.get(i, -1)) for i, s in enumerate(steps)),
            buffers=placed,
            offsets={t: b.offset for b in placed for t in b.tensors},
            arena_bytes=aligned(max((b.end for b in placed), default=0)),
            shared=shared,
            small=self.small,
        )

    def _streamed(self, cost: float) -> Streamed:
        """The streams whose plan has the lowest peak of all whose cycles stay within ``cost``.

        What is live while a step runs depends on no other step: tensors that pass it by, its own,
        and its scratch memory.  So the least cycles below a given peak are a shortest path over
        the layers, whose edges are steps; the peak goes down until that costs too much.
        """
        singles = [range(i, i + 1) for i in range(len(self._nodes))]
        chosen = singles
        if cost > 1 and len(singles) <= MOST_SEARCHED:
            limit = cost * sum(self._cycles(span) for span in singles)
            while chosen:
                path = self._path(max(self._live(span) for span in chosen))
                if path is None or sum(self._cycles(span) for span in path) > limit:
                    break
                chosen = path
        return tuple(span for span in chosen if len(span) > 1)

    def _path(self, peak: int) -> list[range] | None:
        """Steps for all layers that take the fewest cycles of those with less than ``peak`` bytes
        live, None when there are none."""
        reached: list[tuple[int, list[range]] | None] = [(0, [])]
        for stop in range(1, len(self._nodes) + 1):
            best = None
            for span in self._ending(stop, peak):
                before = reached[span.start]
                if before is not None and (
                    best is None or before[0] + self._cycles(span) < best[0]
                ):
                    best = before[0] + self._cycles(span), [*before[1], span]
            reached.append(best)
        return reached[-1][1] if reached[-1] is not None else None

    def possible(self) -> list[range]:
        """All nodes that could run as one stream, by their positions."""
        ends = range(2, len(self._nodes) + 1)
        spans = [s for end in ends for s in streams.candidates(self.graph, self._nodes, end)]
        return [span for span in spans if self._step(span) is not None]

    def _ending(self, stop: int, peak: int) -> Iterable[range]:
        """Spans before ``stop`` with less than ``peak`` bytes live: a layer alone, or a stream of
        layers one of which alone has more."""
        single = range(stop - 1, stop)
        if self._live(single) < peak:
            yield single
        for span in streams.candidates(self.graph, self._nodes, stop):
            if any(self._live(range(i, i + 1)) >= peak for i in span) and self._live(span) < peak:
                yield span

    def _cycles(self, span: range) -> int:
        step = self._step(span)
        assert step is not None
        return step.kernel.cycles

    def _live(self, span: range) -> int:
        """Bytes in use while the step for ``span`` runs; more than any arena when there is none."""
        if span not in self._peaks:
            alone = (span,) if len(span) > 1 else ()
            if self._step(span) is None:
                self._peaks[span] = 1 << 62
            else:
                steps = self._sequence(alone)
                buffers, shared = _buffers(self.graph, steps)
                self._peaks[span] = placement.profile(buffers, shared, len(steps))[span.start]
        return self._peaks[span]

    def _spans(self, streamed: Streamed) -> list[range]:
        """Positions of the nodes of each step."""
        starts = {r.start: r for r in streamed}
        spans, i = [], 0
        while i < len(self._nodes):
            spans.append(starts.get(i, range(i, i + 1)))
            i = spans[-1].stop
        return spans

    def _sequence(self, streamed: Streamed) -> list[Step]:
        steps = [self._step(span) for span in self._spans(streamed)]
        return [step for step in steps if step is not None]

    def _step(self, span: range) -> Step | None:
        """The step for the nodes at ``span``, None when they cannot be a stream."""
        if span not in self._steps:
            nodes = self._nodes[span.start : span.stop]
            single = len(nodes) == 1
            self._steps[span] = (
                _step(self.graph, nodes[0], self.features) if single else self._stream(nodes)
            )
        return self._steps[span]

    def _stream(self, nodes: Sequence[Node]) -> Step | None:
        stream = streams.make(self.graph, nodes, self._row)
        if stream is None:
            return None
        sections = [section for stage in stream.stages for section in stage.sections]
        constants = (c for section in sections for c in section.kernel.constants)
        kernel = Kernel(
            name="rows_of_" + "_".join(n.op.lower() for n in nodes),
            template="",
            params={},
            args=(Scratch(stream.scratch), *_distinct(constants)),
            overlap=stream.overlap,
            cycles=stream.cycles,
            bound=sum(s.kernel.bound * (s.end - s.first) for s in sections),
        )
        macs = sum(BY_NAME[n.op].macs(self.graph, n) for n in nodes)
        isa = "+".join(dict.fromkeys(section.variant for section in sections))
        return Step(stream.node, kernel, isa, macs, stream=stream)

    def _row(
        self, graph: Graph, node: Node, key: tuple[Node, tuple[int, int]]
    ) -> tuple[Kernel, str]:
        """The kernel for one output row, the layer and the rows it lacks being ``key``."""
        if key not in self._rows:
            step = _step(graph, node, self.features)
            self._rows[key] = step.kernel, step.variant
        return self._rows[key]


def _distinct(constants: Iterable[Const]) -> list[Const]:
    """Constants of equal bytes once."""
    return list({(str(c.data.dtype), c.data.tobytes()): c for c in constants}.values())


_Found = list[tuple[Variant, Kernel]]
"""The kernels that could compute a node, in the operator's order."""


def _kernels(graph: Graph, node: Node, features: frozenset[str]) -> _Found:
    usable = (v for v in BY_NAME[node.op].variants if v.features <= features)
    found = [(v, kernel) for v in usable if (kernel := v.lower(graph, node)) is not None]
    if not found:
        raise InputError(f"{graph.where(node)}: no kernel computes it")
    return found


def _step(graph: Graph, node: Node, features: frozenset[str], chosen: int | None = None) -> Step:
    """The call expected to take the fewest cycles, the first of several; or the ``chosen`` one."""
    found = _kernels(graph, node, features)
    variant, kernel = found[_fastest(found) if chosen is None else chosen]
    return Step(
        node=node,
        kernel=replace(kernel, args=tuple(_constant(graph, node, a) for a in kernel.args)),
        variant=variant.isa,
        macs=BY_NAME[node.op].macs(graph, node),
        alternatives=tuple(Choice(v.isa, k.name, k.cycles) for v, k in found),
    )


def _fastest(found: _Found) -> int:
    return min(range(len(found)), key=lambda i: found[i][1].cycles)


def _fewest_bodies(found: Sequence[_Found]) -> list[int]:
    """For each node which kernel to take, so that functions and constants take little flash.

    From the fastest kernels on, one function after another is done without, as long as the
    constants of those that its layers take instead leave a saving.
    """
    chosen = [_fastest(kernels) for kernels in found]
    while True:
        bodies = {
            b for kernels, i in zip(found, chosen, strict=True) for b in _bodies(kernels[i][1])
        }
        trials = [trial for b in sorted(bodies) if (trial := _without(found, chosen, b))]
        best = min(trials, key=lambda trial: _flash(found, trial), default=chosen)
        if _flash(found, best) >= _flash(found, chosen):
            return chosen
        chosen = best


def _without(found: Sequence[_Found], chosen: Sequence[int], body: str) -> list[int] | None:
    """``chosen`` with the smallest of other kernels where it uses ``body``; None without any."""
    result = []
    for kernels, taken in zip(found, chosen, strict=True):
        if body not in _bodies(kernels[taken][1]):
            result.append(taken)
            continue
        others = [i for i, (_, kernel) in enumerate(kernels) if body not in _bodies(kernel)]
        if not others:
            return None
        result.append(min(others, key=lambda i: (_constant_bytes(kernels[i][1]), i)))
    return result


def _flash(found: Sequence[_Found], chosen: Sequence[int]) -> int:
    """Bytes of functions (about) and constants."""
    kernels = [kernels[i][1] for kernels, i in zip(found, chosen, strict=True)]
    bodies = {body for kernel in kernels for body in _bodies(kernel)}
    return BODY_BYTES * len(bodies) + sum(_constant_bytes(kernel) for kernel in kernels)


def _bodies(kernel: Kernel) -> set[str]:
    """The functions that a call of ``kernel`` needs: its own, and those it is given."""
    own = f"{kernel.template} {sorted((k, repr(v)) for k, v in kernel.params.items())}"
    return {own, *(arg.name for arg in kernel.args if isinstance(arg, Function))}


def _constant_bytes(kernel: Kernel) -> int:
    return sum(constant.data.nbytes for constant in kernel.constants)


def _constant(graph: Graph, node: Node, arg: Arg) -> Arg:
    """``arg``, or the constant it stands for when it is an input that lies in flash."""
    if isinstance(arg, Input):
        tensor = graph.required(node, arg.position)
        if tensor.data is not None:
            return Const("constant", tensor.data.reshape(-1))
    return arg


def _buffers(graph: Graph, steps: Sequence[Step]) -> tuple[list[Buffer], tuple[Sharing, ...]]:
    """Buffers of all tensors in the arena and of scratch memory, and which may share memory."""
    views = _views(graph)
    first = dict.fromkeys(graph.inputs, -1)
    last = dict.fromkeys(graph.inputs, -1)
    for i, step in enumerate(steps):
        for t in step.node.outputs:
            first[t] = last[t] = i
        for t in step.node.inputs:
            root = views.get(t, t)
            if root in last:
                last[root] = i
    for t in graph.outputs:
        last[views.get(t, t)] = len(steps)
    seen: dict[int, list[int]] = {t: [t] for t in first}
    for view, root in views.items():
        if root in seen:
            seen[root].append(view)
    buffers = [Buffer(tuple(seen[t]), aligned(graph.at(t).bytes), first[t], last[t]) for t in first]
    home = {t: i for i, t in enumerate(first)}
    shared = [
        Sharing(home[root], home[step.node.outputs[0]], distance)
        for i, step in enumerate(steps)
        for position, distance in _sharings(step.kernel)
        for root in (views.get(step.node.inputs[position], step.node.inputs[position]),)
        if root in home and last[root] == i
    ]
    for i, step in enumerate(steps):
        if step.kernel.scratch:
            buffers.append(Buffer((), aligned(step.kernel.scratch), i, i))
    return buffers, tuple(shared)


def _sharings(kernel: Kernel) -> list[tuple[int, int | None]]:
    """Input positions whose memory the output may take, and how far below it must lie."""
    return [*((p, None) for p in kernel.in_place), *kernel.overlap.items()]


def _views(graph: Graph) -> dict[int, int]:
    """Tensors that are another tensor's memory under a new shape, and that tensor."""
    shared: dict[int, int] = {}
    for node in graph.nodes:
        if BY_NAME[node.op].view:
            source = node.inputs[0]
            shared[node.outputs[0]] = shared.get(source, source)
    return shared


def check(plan: Plan) -> None:
    """Raise AssertionError if two buffers that live together overlap without leave, or one leaves
    the arena."""
    placement.check(plan.buffers, plan.shared, plan.arena_bytes)
