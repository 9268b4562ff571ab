"""Where buffers lie in the arena.

Two buffers that live at the same step lie apart, with one exception: a kernel's output may lie over
an input that dies with the call, as far as the kernel says (:class:`Sharing`).  An output that lies
below its input and runs ahead of it only where nothing will be read again is what "diagonal memory
optimisation" means (Blacker, Bridges and Hadfield, 2019); the same address is its special case.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

ALIGNMENT = 4
"""Bytes to which every buffer's offset is aligned: the widest element an operator reads."""


ROUNDS = 1500
"""Moves that are tried to place buffers lower, at most."""

MOST_MOVES = 150_000
"""Buffers placed in all moves of the hill climb together: what bounds its time."""


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
class Sharing:
    """Buffer ``target`` may lie over ``source`` (both by index), which dies when it begins.

    From ``distance`` bytes below the source's offset on down, or with None at its very offset.
    """

    source: int
    target: int
    distance: int | None

    def allows(self, source: Buffer, target: Buffer) -> bool:
        """Whether the offsets of both are as this says."""
        if self.distance is None:
            return source.offset == target.offset
        return source.offset - target.offset >= self.distance

    def saving(self, source: Buffer, target: Buffer) -> int:
        """The most bytes that both together can take less than apart."""
        lead = self.distance or 0
        return max(source.bytes + target.bytes - max(target.bytes, source.bytes + lead), 0)


def aligned(size: int) -> int:
    """``size`` rounded up to the alignment."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def profile(buffers: Sequence[Buffer], shared: Iterable[Sharing], steps: int) -> list[int]:
    """For each of ``steps`` the bytes below which no placement can go there."""
    change, largest = [0] * (steps + 2), [0] * (steps + 2)
    for buffer in buffers:
        first, last = max(buffer.first, 0), min(buffer.last, steps)
        change[first] += buffer.bytes
        change[last + 1] -= buffer.bytes
        for step in range(first, last + 1):
            largest[step] = max(largest[step], buffer.bytes)
    for sharing in _one_a_pair(buffers, shared):
        step = buffers[sharing.target].first
        saved = sharing.saving(buffers[sharing.source], buffers[sharing.target])
        change[step] -= saved
        change[step + 1] += saved
    live = accumulate(change)
    return [max(total, most) for total, most, _ in zip(live, largest, range(steps), strict=False)]


def _one_a_pair(buffers: Sequence[Buffer], shared: Iterable[Sharing]) -> list[Sharing]:
    """The sharing that saves most of each pair of buffers."""
    best: dict[tuple[int, int], Sharing] = {}
    for sharing in shared:
        source, target = buffers[sharing.source], buffers[sharing.target]
        known = best.get((sharing.source, sharing.target))
        if known is None or sharing.saving(source, target) > known.saving(source, target):
            best[sharing.source, sharing.target] = sharing
    return list(best.values())


def lower_bound(buffers: Sequence[Buffer], shared: Iterable[Sharing] = ()) -> int:
    """Bytes below which no placement can go: the most that lives at one step."""
    steps = max((b.last for b in buffers), default=0) + 1
    return max(profile(buffers, shared, steps), default=0)


def place(
    buffers: Sequence[Buffer], shared: Iterable[Sharing] = (), rounds: int = ROUNDS
) -> tuple[Buffer, ...]:
    """``buffers`` with offsets, in the order given, as low as they were found to go.

    First fit in several orders (by size, as in TFLM's greedy planner; by time, either way; by size
    times time), then a hill climb that moves one buffer to another place in the best order, until
    the lower bound is met or ``rounds`` moves were tried, fewer of many buffers.  Deterministic.
    """
    shared = tuple(shared)
    fitter = _Fitter(buffers, shared)
    bound = lower_bound(buffers, shared)
    indices = range(len(buffers))
    orders = [
        sorted(indices, key=lambda i: (-buffers[i].bytes, buffers[i].first)),
        sorted(indices, key=lambda i: (buffers[i].first, -buffers[i].bytes)),
        sorted(indices, key=lambda i: (-buffers[i].last, -buffers[i].bytes)),
        sorted(indices, key=lambda i: (-_area(buffers[i]), buffers[i].first)),
    ]
    height, best = min((fitter.height(order), order) for order in orders)
    chance = random.Random(0)
    for _ in range(min(rounds, MOST_MOVES // len(buffers)) if len(buffers) > 1 else 0):
        if height <= bound:
            break
        trial = list(best)
        trial.insert(chance.randrange(len(best)), trial.pop(chance.randrange(len(best))))
        reached = fitter.height(trial)
        if reached <= height:
            best, height = trial, reached
    offsets = fitter.fit(best)
    return tuple(replace(b, offset=offsets[i]) for i, b in enumerate(buffers))


def _area(buffer: Buffer) -> int:
    return buffer.bytes * (buffer.last - buffer.first + 1)


def _meeting(buffers: Sequence[Buffer]) -> Iterable[tuple[int, int]]:
    """Pairs of buffers that live at the same step, empty ones left out."""
    alive: list[int] = []
    for i in sorted(range(len(buffers)), key=lambda i: buffers[i].first):
        if buffers[i].bytes:
            alive = [j for j in alive if buffers[j].last >= buffers[i].first]
            yield from ((i, j) for j in alive)
            alive.append(i)


class _Fitter:
    """First fit: each buffer as low as those before it in an order let it."""

    def __init__(self, buffers: Sequence[Buffer], shared: Sequence[Sharing]) -> None:
        self._bytes = [b.bytes for b in buffers]
        self._met: list[list[_Relation]] = [[] for _ in buffers]
        given: dict[tuple[int, int], list[Sharing]] = {}
        for sharing in shared:
            given.setdefault((sharing.source, sharing.target), []).append(sharing)
        for i, j in _meeting(buffers):
            size_i, size_j = buffers[i].bytes, buffers[j].bytes
            over, under = given.get((j, i), []), given.get((i, j), [])
            self._met[i].append(_relation(j, size_i, size_j, over, under))
            self._met[j].append(_relation(i, size_j, size_i, under, over))

    def height(self, order: Sequence[int]) -> int:
        offsets = self.fit(order)
        return max((o + self._bytes[i] for i, o in offsets.items()), default=0)

    def fit(self, order: Sequence[int]) -> dict[int, int]:
        """Offset of each buffer."""
        offsets: dict[int, int] = {}
        for i in order:
            spans, points = [], []
            for other, low, high, same in self._met[i]:
                at = offsets.get(other)
                if at is not None:
                    spans.append((at + low, at + high, at if same else -1))
                    if same:
                        points.append(at)
            candidates = sorted({0, *(high for _, high, _ in spans if high > 0), *points})
            offsets[i] = next(
                c for c in candidates if all(not low < c < high or c == p for low, high, p in spans)
            )
        return offsets


_Relation = tuple[int, int, int, bool]
"""Another buffer; the open interval around its offset that is forbidden; whether its very offset is
allowed all the same."""


def _relation(
    other: int, own: int, size: int, over: Iterable[Sharing], under: Iterable[Sharing]
) -> _Relation:
    """What a buffer of ``own`` bytes must keep to towards ``other`` of ``size`` bytes.

    ``over`` lets this one, as a target, lie over the other; ``under`` the other over this one.
    """
    low, high, same = -own, size, False
    for sharing in over:
        same = same or sharing.distance is None
        if sharing.distance is not None:
            low = max(low, -aligned(sharing.distance))
    for sharing in under:
        same = same or sharing.distance is None
        if sharing.distance is not None:
            high = min(high, aligned(sharing.distance))
    return other, low, high, same


def check(buffers: Sequence[Buffer], shared: Iterable[Sharing], arena_bytes: int) -> None:
    """Raise AssertionError if buffers that live together overlap without leave, or one leaves the
    arena."""
    leave: dict[tuple[int, int], list[Sharing]] = {}
    for sharing in shared:
        leave.setdefault((sharing.source, sharing.target), []).append(sharing)
    for i, a in enumerate(buffers):
        assert a.offset >= 0 and a.end <= arena_bytes, a
        for j in range(i + 1, len(buffers)):
            b = buffers[j]
            apart = not a.meets(b) or a.end <= b.offset or b.end <= a.offset
            granted = any(s.allows(a, b) for s in leave.get((i, j), [])) or any(
                s.allows(b, a) for s in leave.get((j, i), [])
            )
            assert apart or granted or not a.bytes or not b.bytes, (a, b)
