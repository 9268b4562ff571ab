"""Chains of layers run row by row, so that the tensors between them need a few rows of memory.

A stream computes its last layer's output a row at a time; each layer before it runs ahead by just
the rows that its readers' windows reach.  These are the patches of MCUNetV2 (Lin et al., 2021) made
rows: each is computed once and kept while it is needed, so nothing is computed twice.  A residual
sum at the end of a stream adds a row as soon as the convolution has made it.

All layers go at fixed rates: before row t of the last layer, a layer must have made
``ahead * t + lead`` rows, or all there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tinygen.graph import Graph, Node
from tinygen.ops import BY_NAME
from tinygen.ops.base import Kernel
from tinygen.ops.common import Pads
from tinygen.placement import aligned

MAX_LAYERS = 8
"""Most layers of a stream."""


@dataclass(frozen=True)
class Reach:
    """Rows of its input that an output row of a layer reads: from ``stride * row - top`` on,
    ``extent`` of them, those outside the image left out."""

    extent: int = 1
    stride: int = 1
    top: int = 0

    def first(self, row: int) -> int:
        """First row that exists of those read for output ``row``."""
        return max(self.stride * row - self.top, 0)

    def pads(self, row: int, height: int) -> tuple[int, int]:
        """Rows above and below an image of ``height`` rows that output ``row`` reaches."""
        start = self.stride * row - self.top
        return max(-start, 0), max(start + self.extent - height, 0)


@dataclass(frozen=True)
class Section:
    """Output rows from ``first`` to before ``end``, all computed by the same ``kernel`` call, whose
    window reaches ``pads`` rows beyond the image's top and bottom."""

    first: int
    end: int
    kernel: Kernel
    variant: str


@dataclass(frozen=True, eq=False)
class Stage:
    """A layer of a stream.

    ``lines`` is the number of rows that its output's line buffer holds, at ``offset`` in the
    stream's scratch memory; both are 0 for the last layer, which writes to its own tensor.
    """

    node: Node
    reach: Reach
    sections: tuple[Section, ...]
    rows: int
    row_bytes: int
    ahead: int
    lead: int
    lines: int = 0
    offset: int = 0


@dataclass(frozen=True, eq=False)
class Stream:
    """Layers run row by row: ``node`` is what all of them together look like from outside.

    ``scratch`` is bytes of line buffers and of the kernels' own scratch memory behind them.
    ``overlap`` is as in :class:`tinygen.ops.base.Kernel`.
    """

    node: Node
    stages: tuple[Stage, ...]
    scratch: int
    overlap: Mapping[int, int]
    cycles: int

    @property
    def own_scratch(self) -> int:
        """Offset of the kernels' scratch memory in the stream's."""
        return sum(stage.lines * stage.row_bytes for stage in self.stages)


RowKey = tuple[Node, tuple[int, int]]
"""A layer, and the rows that a row's window lacks above and below the image: what makes rows of a
layer alike."""

Choose = Callable[[Graph, Node, RowKey], tuple[Kernel, str] | None]
"""The kernel for a layer of one row, and what its variant is called; None when there is none."""


def candidates(graph: Graph, nodes: Sequence[Node], stop: int) -> Iterable[range]:
    """Ranges of ``nodes`` that end before ``stop`` and could be a stream, the shorter first."""
    for start in range(stop - 1, max(stop - MAX_LAYERS, 0) - 1, -1):
        if reach(graph, nodes[start]) is None:
            return
        if stop - start > 1 and _closed(graph, nodes[start:stop]):
            yield range(start, stop)


def _closed(graph: Graph, nodes: Sequence[Node]) -> bool:
    """Whether nothing but ``nodes`` reads what they compute, the last one's output aside."""
    inside = {id(node) for node in nodes}
    return all(
        output not in graph.outputs
        and all(id(n) in inside for n in graph.consumers(output))
        and graph.consumers(output)
        for node in nodes[:-1]
        for output in node.outputs
    )


def reach(graph: Graph, node: Node) -> Reach | None:
    """How ``node`` reads rows, None when it cannot run row by row."""
    out = graph.output(node)
    images = [graph.at(i) for i in _activations(graph, node)]
    if not images or any(len(t.shape) != 4 or t.shape[0] != 1 for t in (*images, out)):
        return None
    types = {t.dtype for t in (*images, out)}
    if types not in ({"int8"}, {"int16"}) or any(t.bytes // t.shape[1] % 4 for t in (*images, out)):
        return None
    window = BY_NAME[node.op].rows(graph, node)
    if window is None:
        return None
    height, width = images[0].shape[1:3]
    extent = (window.kernel[0] - 1) * window.dilation[0] + 1
    found = Reach(extent, window.stride[0], window.resolve(height, width).top)
    # A window wholly outside the image reads no row at all.
    inside = all(sum(found.pads(row, height)) < extent for row in range(out.shape[1]))
    return found if inside else None


def _activations(graph: Graph, node: Node) -> list[int]:
    """Inputs of ``node`` that are computed at run time."""
    return [i for i in node.inputs if i >= 0 and not graph.at(i).constant]


def make(graph: Graph, nodes: Sequence[Node], choose: Choose) -> Stream | None:
    """The stream of ``nodes``, None when the readers of a tensor go at different rates, or a layer
    has no kernel for a row."""
    rates = _rates(graph, nodes)
    if rates is None:
        return None
    stages = []
    for node, (ahead, lead) in zip(nodes, rates, strict=True):
        found = reach(graph, node)
        assert found is not None
        sections = _sections(graph, node, found, choose)
        if sections is None:
            return None
        out = graph.output(node)
        stages.append(
            Stage(node, found, sections, out.shape[1], out.bytes // out.shape[1], ahead, lead)
        )
    lines = _lines(stages)
    offset, placed = 0, []
    for stage, count in zip(stages, lines, strict=True):
        placed.append(replace(stage, lines=count, offset=offset if count else 0))
        offset += aligned(count * stage.row_bytes)
    outside = _outside(graph, nodes)
    node = Node(
        op="+".join(n.op for n in nodes),
        inputs=outside,
        outputs=nodes[-1].outputs,
        index=nodes[-1].index,
    )
    kernels = [section.kernel for stage in placed for section in stage.sections]
    return Stream(
        node=node,
        stages=tuple(placed),
        scratch=offset + max(aligned(kernel.own_scratch) for kernel in kernels),
        overlap={
            position: _distance(graph, placed, tensor) for position, tensor in enumerate(outside)
        },
        cycles=sum(_cycles(stage) for stage in placed),
    )


def _outside(graph: Graph, nodes: Sequence[Node]) -> tuple[int, ...]:
    """Tensors that the stream reads, each once."""
    made = {o for node in nodes for o in node.outputs}
    read = (i for node in nodes for i in _activations(graph, node) if i not in made)
    return tuple(dict.fromkeys(read))


def _rates(graph: Graph, nodes: Sequence[Node]) -> list[tuple[int, int]] | None:
    """(ahead, lead) of each node."""
    rates: dict[int, tuple[int, int]] = {nodes[-1].outputs[0]: (1, 1)}
    for node in reversed(nodes):
        rate = rates.get(node.outputs[0])
        found = reach(graph, node)
        if rate is None or found is None:
            return None
        ahead, lead = rate
        needed = (ahead * found.stride, (lead - 1) * found.stride - found.top + found.extent)
        for i in _activations(graph, node):
            known = rates.get(i, needed)
            if known[0] != needed[0]:
                return None
            rates[i] = (needed[0], max(known[1], needed[1]))
    return [rates[node.outputs[0]] for node in nodes]


def _sections(graph: Graph, node: Node, found: Reach, choose: Choose) -> tuple[Section, ...] | None:
    """One kernel for each run of rows whose windows hang over the image's edges alike."""
    height = graph.required(node, _image_position(graph, node)).shape[1]
    rows = graph.output(node).shape[1]
    sections: list[Section] = []
    first = 0
    while first < rows:
        pads = found.pads(first, height)
        end = first + 1
        while end < rows and found.pads(end, height) == pads:
            end += 1
        chosen = choose(*row_of(graph, node, found, pads), (node, pads))
        if chosen is None:
            return None
        sections.append(Section(first, end, *chosen))
        first = end
    return tuple(sections)


def _image_position(graph: Graph, node: Node) -> int:
    return next(p for p, i in enumerate(node.inputs) if i >= 0 and not graph.at(i).constant)


def row_of(graph: Graph, node: Node, found: Reach, pads: tuple[int, int]) -> tuple[Graph, Node]:
    """The layer that computes one output row, ``pads`` rows of its window above and below."""
    tensors = list(graph.tensors)
    present = found.extent - sum(pads)
    for i in _activations(graph, node):
        shape = tensors[i].shape
        tensors[i] = replace(tensors[i], shape=(1, present, *shape[2:]))
    window = BY_NAME[node.op].rows(graph, node)
    assert window is not None
    if hasattr(node.attrs, "pads"):
        across = window.resolve(*graph.required(node, 0).shape[1:3])
        edges = Pads(*pads, across.left, across.right)
        node = replace(node, attrs=replace(node.attrs, padding="EXPLICIT", pads=edges))
    out = tensors[node.outputs[0]]
    tensors[node.outputs[0]] = replace(out, shape=(1, 1, *out.shape[2:]))
    return replace(graph, tensors=tuple(tensors)), node


def schedule(stages: Sequence[Stage]) -> Iterable[tuple[int, int]]:
    """(stage, row) in the order in which a stream computes them."""
    done = [0] * len(stages)
    for tick in range(stages[-1].rows):
        for i, stage in enumerate(stages):
            while done[i] < min(stage.ahead * tick + stage.lead, stage.rows):
                yield i, done[i]
                done[i] += 1


def _lines(stages: Sequence[Stage]) -> list[int]:
    """Rows that each stage's line buffer must hold; 0 for the last stage."""
    readers = [
        [j for j, reader in enumerate(stages) if stage.node.outputs[0] in reader.node.inputs]
        for stage in stages
    ]
    most, done = [0] * len(stages), [0] * len(stages)
    for i, _ in schedule(stages):
        done[i] += 1
        kept = [stages[j].reach.first(done[j]) for j in readers[i] if done[j] < stages[j].rows]
        most[i] = max(most[i], done[i] - min(kept, default=done[i] - 1))
    return [*most[:-1], 0]


def _distance(graph: Graph, stages: Sequence[Stage], tensor: int) -> int:
    """How far below ``tensor`` the stream's output must lie to take its memory."""
    image = graph.at(tensor)
    row_bytes = image.bytes // image.shape[1]
    readers = [j for j, stage in enumerate(stages) if tensor in stage.node.inputs]
    last, out_bytes = len(stages) - 1, stages[-1].row_bytes
    done, distance = [0] * len(stages), 0
    for i, row in schedule(stages):
        done[i] += 1
        if i != last:
            continue
        kept = [stages[j].reach.first(done[j]) for j in readers if done[j] < stages[j].rows]
        if kept:
            distance = max(distance, done[last] * out_bytes - min(kept) * row_bytes)
        if last in readers:
            allowed = _allowed(stages[last], row, tensor)
            start = stages[last].reach.first(row) * row_bytes
            distance = max(distance, allowed + row * out_bytes - start)
    return distance


def _allowed(stage: Stage, row: int, tensor: int) -> int:
    """How far below its input's address a row's output must lie in the call for ``row``."""
    kernel = next(s.kernel for s in stage.sections if s.first <= row < s.end)
    positions = [p for p, i in enumerate(stage.node.inputs) if i == tensor]
    return max(kernel.overlap.get(p, stage.row_bytes) for p in positions)


def _cycles(stage: Stage) -> int:
    """Cycles of all rows, and of moving the line buffer's rows."""
    rows = sum((s.end - s.first) * (s.kernel.cycles + 30) for s in stage.sections)
    moved = max(stage.lines - 1, 0) * stage.row_bytes * max(stage.rows - stage.lines, 0)
    return rows + moved // 2
