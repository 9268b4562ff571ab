"""From a graph to a plan: the kernel of each layer, and the place of each tensor in the arena.

The arena holds inputs, outputs, intermediate tensors and kernels' scratch memory.  What RAM it
takes is traded for cycles only as far as the :class:`Goal` allows: layers whose tensors set the
peak are run row by row (``streams.py``) as long as that lowers the arena at no more than a given
cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from tinygen import placement, selection, streams
from tinygen.errors import FitError, InputError
from tinygen.graph import Graph, Node
from tinygen.ops import BY_NAME
from tinygen.ops.base import Arg, Const, Decoded, Kernel, Scratch
from tinygen.placement import Buffer, Sharing, aligned
from tinygen.selection import Limit, Option, Room
from tinygen.streams import Stream

Optimize = Literal["speed", "balanced", "ram", "size"]
"""What the planner trades: never a cycle for RAM, a few, or as many as ``COST`` says; or cycles and
RAM for flash."""

COST: Mapping[Optimize, float] = {"speed": 1.0, "balanced": 1.03, "ram": 1.25, "size": 1.0}
"""Expected cycles allowed for RAM, as a multiple of those of the fastest plan."""

RAM_WORTH: Mapping[Optimize, float] = {"speed": 0.5, "balanced": 0.5, "ram": 16, "size": 0.05}
"""Bytes of flash that must be saved for a byte of RAM that decoded weights take, unless a limit on
slow-down says that flash matters."""

MOST_ENCODED = 6
"""Plans with encoded weights that are tried, from the one that takes most of them on."""

PLAIN = Limit(1.0)
"""No cycle for encoded weights; those that make a layer faster are taken all the same."""

MOST_SEARCHED = 256
"""Layers of a network in which streams are looked for: the time goes with the square of it."""

SLOWDOWN: Mapping[Optimize, float] = {"speed": 1.0, "balanced": 1.2, "ram": 1.2, "size": 2.0}
"""Expected cycles allowed for encoded weights, as a multiple of those with plain ones."""

WORTHWHILE = 4096, 1 / 8
"""Bytes, and part of the arena, that streams must save in a balanced plan; they take some flash."""


@dataclass(frozen=True)
class Goal:
    """What a plan is made for.  ``ram_limit`` is the most bytes that the arena may take.

    ``slow_down`` is how much slower than with plain weights a network may become so that its
    weights take less flash, entropy coding included.  None: weights are encoded that were made for
    it, at the cost that ``optimize`` allows.
    """

    optimize: Optimize = "balanced"
    ram_limit: int | None = None
    slow_down: float | None = None

    @property
    def limit(self) -> Limit:
        """How much slower encoded weights may make a network."""
        if self.slow_down is None:
            return Limit(SLOWDOWN[self.optimize])
        return Limit(self.slow_down, any=True)

    @property
    def ram_worth(self) -> float:
        """Bytes of flash that a byte of RAM is worth."""
        asked = self.slow_down is not None and self.optimize != "ram"
        return RAM_WORTH["size" if asked else self.optimize]


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
    def flash_estimate(self) -> int:
        """Bytes of constant arrays and, about, of the functions that decode weights."""
        decoders = {d.decoder for step in self.steps for d in step.kernel.decoded}
        return self.weight_bytes + selection.BODY_BYTES * len(decoders)

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
    planner = Planner(graph, features, goal.optimize == "size")
    if goal.ram_limit is None:
        return _best(planner, goal, goal.optimize)
    saving: list[Optimize] = ["speed", "balanced", "ram"]
    least = None
    for optimize in saving[0 if planner.small else saving.index(goal.optimize) :]:
        least = _best(planner, goal, optimize)
        if least.arena_bytes <= goal.ram_limit:
            return least
    assert least is not None
    raise FitError(
        f"{graph.source}: needs an arena of {least.arena_bytes:,} bytes, which is more than the "
        f"limit of {goal.ram_limit:,}",
        f"the least that was found: --ram-limit {least.arena_bytes}",
    )


def _best(planner: Planner, goal: Goal, optimize: Optimize) -> Plan:
    """The plan with the least flash and RAM, as the goal weighs them; with a
    RAM limit that of those which meet it, if any does."""
    plain = planner.plan(optimize)
    if not planner.encodable(goal.limit):
        return plain
    drafts = [(planner, planner.plan(optimize, 0))]
    rooms = planner.rooms(plain.arena_bytes)
    for again in selection.AGAIN:
        drafts += planner.encoding(replace(goal.limit, again=again), optimize, rooms)

    def worth(draft: tuple[Planner, Plan]) -> tuple[int, float]:
        over = max(draft[1].arena_bytes - goal.ram_limit, 0) if goal.ram_limit is not None else 0
        return over, draft[1].flash_estimate + goal.ram_worth * draft[1].arena_bytes

    best, _ = min(drafts, key=worth)
    return plain if best is planner else best.plan(optimize)


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
    options: tuple[Option, ...] = ()
    """How each node that runs is computed; the fastest way when empty."""
    _found: Sequence[Sequence[Option]] = ()
    _steps: dict[range, Step | None] = field(default_factory=dict)
    _rows: dict[tuple[streams.RowKey, str], Option | None] = field(default_factory=dict)
    _peaks: dict[range, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._nodes = [n for n in self.graph.nodes if not BY_NAME[n.op].view]
        if not self._found:
            self._found = [selection.options(self.graph, n, self.features) for n in self._nodes]
        if not self.options:
            self.options = selection.select(self._found, self.features, PLAIN, self.small)
        for i, (node, found, chosen) in enumerate(
            zip(self._nodes, self._found, self.options, strict=True)
        ):
            self._steps[range(i, i + 1)] = _step(self.graph, node, found, chosen)

    def choosing(self, options: Sequence[Option]) -> Planner:
        """The planner of the same graph that computes its nodes as ``options`` say."""
        return replace(self, options=tuple(options), _steps={}, _peaks={})

    def encodable(self, limit: Limit) -> bool:
        """Whether weights could be encoded within ``limit``."""
        return selection.encodable(self._found, limit)

    def encoding(
        self, limit: Limit, optimize: Optimize, rooms: Sequence[Room]
    ) -> Iterator[tuple[Planner, Plan]]:
        """Planners with encoded weights, and drafts of their plans.

        The first saves as much flash as ``limit`` allows.  In each of the others one of the layers
        that set its peak has plain weights again.
        """
        chosen = selection.select(self._found, self.features, limit, self.small, rooms)
        for _ in range(MOST_ENCODED):
            planner = self.choosing(chosen)
            draft = planner.plan(optimize, 0)
            yield planner, draft
            peak = self._largest(draft, chosen)
            if peak is None:
                break
            chosen = (*chosen[:peak], self.options[peak], *chosen[peak + 1 :])

    def rooms(self, arena: int) -> list[Room]:
        """What RAM each node has for decoded weights where ``arena`` bytes are taken anyway."""
        rooms = []
        for i in range(len(self._nodes)):
            steps = self._sequence(())
            alone = replace(steps[i].kernel, overlap={}, in_place=())
            steps[i] = replace(steps[i], kernel=alone)
            buffers, shared = _buffers(self.graph, steps)
            apart = placement.profile(buffers, shared, len(steps))[i]
            live = self._live(range(i, i + 1))
            rooms.append(Room(arena - live, apart - live))
        return rooms

    def _largest(self, made: Plan, chosen: Sequence[Option]) -> int | None:
        """Position of the node with the most decoded weights of those that set the peak."""
        live = made.live()
        peaks = [s.node for s, at in zip(made.steps, live, strict=True) if at == max(live)]
        indices = {i for node in peaks for i in self._positions(node)}
        return max(
            (i for i in indices if chosen[i].kernel.decoded),
            key=lambda i: (chosen[i].kernel.scratch, i),
            default=None,
        )

    def _positions(self, node: Node) -> list[int]:
        """Positions of the nodes that ``node`` is, or that a stream of that look is made of."""
        last = next(i for i, n in enumerate(self._nodes) if n.outputs == node.outputs)
        count = node.op.count("+") + 1
        return list(range(last - count + 1, last + 1))

    def plan(self, optimize: Optimize, rounds: int = placement.ROUNDS) -> Plan:
        """The plan with the lowest peak that costs no more than ``optimize`` allows."""
        whole, streamed = self.assemble((), rounds), self._streamed(COST[optimize])
        if not streamed:
            return whole
        by_rows = self.assemble(streamed, rounds)
        least, part = WORTHWHILE if optimize == "balanced" else (1, 0)
        saved = whole.arena_bytes - by_rows.arena_bytes
        return by_rows if saved >= max(least, part * whole.arena_bytes) else whole

    def assemble(self, streamed: Streamed, rounds: int = placement.ROUNDS) -> Plan:
        """The plan in which the nodes at ``streamed`` run as streams, the others one by one.

        ``rounds`` bounds the search for places of tensors."""
        steps = self._sequence(streamed)
        buffers, shared = _buffers(self.graph, steps)
        placed = placement.place(buffers, shared, rounds)
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
            self._steps[span] = self._stream(self._nodes[span.start : span.stop])
        return self._steps[span]

    def _stream(self, nodes: Sequence[Node]) -> Step | None:
        stream = streams.make(self.graph, nodes, self._row)
        if stream is None:
            return None
        sections = [section for stage in stream.stages for section in stage.sections]
        args = [arg for section in sections for arg in section.kernel.args]
        constants = _distinct(arg for arg in args if isinstance(arg, Const))
        decoded = distinct_decoded(args)
        kernel = Kernel(
            name="rows_of_" + "_".join(n.op.lower() for n in nodes),
            template="",
            params={},
            args=(Scratch(stream.scratch), *constants, *decoded),
            overlap=stream.overlap,
            cycles=stream.cycles + sum(d.cycles for d in decoded),
            bound=sum(s.kernel.bound * (s.end - s.first) for s in sections),
            encoding=",".join(dict.fromkeys(d.encoding for d in decoded)) or "dense",
        )
        macs = sum(BY_NAME[n.op].macs(self.graph, n) for n in nodes)
        isa = "+".join(dict.fromkeys(section.variant for section in sections))
        return Step(stream.node, kernel, isa, macs, stream=stream)

    def _row(
        self, graph: Graph, node: Node, key: tuple[Node, tuple[int, int]]
    ) -> tuple[Kernel, str] | None:
        """The kernel for one output row, the layer and the rows it lacks being ``key``.

        Its weights lie in flash as they do for the layer; None when they cannot.
        """
        index = next(i for i, known in enumerate(self._nodes) if known is key[0])
        wanted = self.options[index].kernel
        known = (key, wanted.encoding)
        if known not in self._rows:
            found = selection.options(graph, node, self.features)
            self._rows[known] = selection.alike(found, wanted, self.features)
        option = self._rows[known]
        return None if option is None else (option.kernel, option.variant)


def _distinct(constants: Iterable[Const]) -> list[Const]:
    """Constants of equal bytes once."""
    return list({(str(c.data.dtype), c.data.tobytes()): c for c in constants}.values())


def distinct_decoded(args: Iterable[Arg]) -> list[Decoded]:
    """Decoded weights among ``args``, equal ones once."""
    return list({arg.key: arg for arg in args if isinstance(arg, Decoded)}.values())


def _step(graph: Graph, node: Node, options: Sequence[Option], chosen: Option) -> Step:
    """The call of the ``chosen`` one of the ``options``, or of one of them with other weights."""
    names = [Choice(o.variant, o.kernel.name, o.kernel.cycles) for o in options]
    if chosen not in options:
        encoded = f"{chosen.kernel.name}, {chosen.kernel.encoding}"
        names.append(Choice(chosen.variant, encoded, chosen.kernel.cycles))
    macs = BY_NAME[node.op].macs(graph, node)
    return Step(node, chosen.kernel, chosen.variant, macs, alternatives=tuple(names))


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
