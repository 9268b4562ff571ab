"""Layers whose weights lie in flash without zeros, and are computed from there: in C, and for cores
without SIMD.

A nonzero weight is an entry: its value, and how many taps it lies behind the entry before it, each
a byte.  Where nothing lies within 255 taps an entry of value 0 goes there.  Kernels read one stream
of entries, channel by channel; ``counts`` says how many each channel has.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from tinygen.graph import Array
from tinygen.numerics import Int64Array, wrap32
from tinygen.ops import scalar
from tinygen.ops.base import Arg, Const, Input, Kernel, Output
from tinygen.ops.common import overlap
from tinygen.ops.convolution import Convolution, Lower

FURTHEST = 255
"""Taps from an entry to the next, at most."""

LEAST_ZEROS = 0.4
"""Share of weights that are zero from which on a layer is looked at."""

MOST_ENTRIES = (1 << 15) - 1
"""Entries of a channel, at most: they are counted in 16 bits."""

FEATURES: frozenset[str] = frozenset()


@dataclass(frozen=True, eq=False)
class Entries:
    """Weights as entries, channel by channel: ``values`` (int8), ``gaps`` and ``counts``."""

    values: Array
    gaps: Int64Array
    counts: Int64Array

    def weights(self, taps: int) -> Array:
        """The weights (channels, taps), int8, as kernels see them."""
        dense = np.zeros((len(self.counts), taps), dtype=np.int64)
        rows = np.repeat(np.arange(len(self.counts)), self.counts)
        ends = np.cumsum(self.gaps)
        before = np.concatenate([[0], ends])[np.cumsum(self.counts) - self.counts]
        np.add.at(dense, (rows, ends - before[rows]), self.values)
        return dense.astype(np.int8)


def entries(weights: Array, furthest: int = FURTHEST, together: int = 1) -> Entries:
    """Entries of ``weights`` (channels, taps), int8.

    Each channel gets a multiple of ``together`` entries, those of value 0 that are missing at its
    end with a gap of 0.
    """
    rows, columns = np.nonzero(weights)
    first = np.diff(rows, prepend=-1) > 0
    distance = columns - np.where(first, 0, np.concatenate([[0], columns[:-1]]))
    steps = np.maximum(distance - 1, 0) // furthest + 1
    found = np.bincount(rows, weights=steps, minlength=len(weights)).astype(np.int64)
    counts = -(-found // together) * together
    ends = np.cumsum(steps)
    # What a channel lacks comes behind its entries: later channels move on by as much.
    lacking = np.cumsum(counts - found) - (counts - found)
    last = ends - 1 + lacking[rows]
    values = np.zeros(int(counts.sum()), dtype=np.int8)
    gaps = np.zeros(values.size, dtype=np.int64)
    fillers = np.arange(int(steps.sum())) + np.repeat(lacking[rows], steps)
    gaps[fillers] = furthest
    values[last] = weights[rows, columns]
    gaps[last] = distance - furthest * (steps - 1)
    return Entries(values, gaps, counts)


@lru_cache(maxsize=4)
def entries_of(conv: Convolution) -> Entries:
    """The entries of a layer, kept for the next kernel that is looked at."""
    return entries(conv.taps)


def sparse(conv: Convolution, least_zeros: float = LEAST_ZEROS) -> bool:
    """Whether so many weights are zero that it is worth looking."""
    return bool(np.count_nonzero(conv.taps) <= (1 - least_zeros) * conv.taps.size)


def counted(counts: Int64Array) -> Array | None:
    """Counts in the smallest type, uint8 or int16; None when there is none."""
    most = int(counts.max(initial=0))
    if most > MOST_ENTRIES:
        return None
    return counts.astype(np.uint8 if most < 256 else np.int16)


@dataclass(frozen=True)
class Costs:
    """Cycles (instructions where there is no estimate of cycles) of an entry and of an output."""

    entry: float
    output: float


PORTABLE = Costs(9.5, 40)
"""On a Cortex-M4, as portable kernels say what they take."""

COSTS = {
    "rv32m": Costs(7, 20),
    "armv7m": Costs(10.5, 30),
    "armv6m": Costs(13, 62),
    "xtensa": Costs(11, 50),
}


def dense(conv: Convolution) -> Kernel | None:
    """In C for any core."""
    scale = conv.scaling
    return _rows(
        conv,
        name="dense_sparse_per_channel" if len(scale.multipliers) > 1 else "dense_sparse",
        params={"kind": "portable", "factor": 1, **scale.params},
        scaling=(
            Const("bias", wrap32(conv.folded_bias).astype(np.int32)),
            *scale.args,
        ),
        helpers=(scale.helper, "activate"),
        costs=PORTABLE,
    )


def dense_scalar(isa: scalar.Isa) -> Lower:
    """With the requantization of a core without SIMD."""

    def lower(conv: Convolution) -> Kernel | None:
        if not conv.dense or not sparse(conv):
            return None
        chosen = scalar.scaling(conv, isa)
        if chosen is None:
            return None
        costs = COSTS[isa.name]
        return _rows(
            conv,
            name=f"dense_sparse_{isa.name}_{chosen.kind}",
            params={"kind": chosen.kind, "factor": 256 if isa.high else 1},
            scaling=(Const("start", chosen.start), *chosen.args),
            helpers=chosen.helpers,
            costs=Costs(costs.entry / isa.costs.slow, costs.output / isa.costs.slow),
        )

    return lower


def _rows(
    conv: Convolution,
    name: str,
    params: dict[str, object],
    scaling: tuple[Arg, ...],
    helpers: tuple[str, ...],
    costs: Costs,
) -> Kernel | None:
    """The kernel that goes through the entries once a row."""
    if not conv.dense or not sparse(conv):
        return None
    stream = entries_of(conv)
    counts = counted(stream.counts)
    if counts is None:
        return None
    pairs = np.stack([stream.values.view(np.uint8), stream.gaps.astype(np.uint8)], axis=1)
    outputs, taken = conv.pixels * conv.channels, conv.pixels * stream.values.size
    return Kernel(
        name=f"{name}_long" if counts.dtype == np.int16 else name,
        template="fully_connected/sparse.c.j2",
        params=params | {"counter": "int16_t" if counts.dtype == np.int16 else "uint8_t"},
        args=(
            Input(0),
            Output(0),
            conv.pixels,
            conv.depth,
            conv.channels,
            Const("weights", pairs.reshape(-1)),
            Const("counts", counts),
            *scaling,
        ),
        helpers=helpers,
        overlap={0: overlap(*conv.rows, conv.window)},
        cycles=int(costs.entry * taken + costs.output * outputs),
        bound=6 * taken + 8 * outputs,
        encoding="sparse",
    )


@dataclass(frozen=True)
class BlockCosts:
    """Cycles (or instructions) of an entry with four pixels, and of a channel with them; the
    instructions that an entry needs, counted by hand."""

    entry: float
    channel: float
    bound: float


BLOCK_COSTS = {
    "rv32m": BlockCosts(17, 40, 16),
    "armv7m": BlockCosts(19, 60, 11),
    "armv6m": BlockCosts(23, 280, 15),
    "xtensa": BlockCosts(17, 40, 16),
}


def by_fours(lower: Lower, isa: scalar.Isa) -> Lower:
    """As ``lower``, a kernel of :mod:`tinygen.ops.scalar` that lays out four pixels side by side,
    without zeros.

    Entries are 16-bit numbers, the weight in the upper byte, those of a channel behind their
    number.  Where a core's loads move the pointer on (Cortex-M0), gaps count from there.
    """

    def sparse_lower(conv: Convolution) -> Kernel | None:
        if conv.groups > 1 or not sparse(conv):
            return None
        kernel, stream = lower(conv), entries_of(conv)
        if kernel is None or int(stream.counts.max()) > MOST_ENTRIES:
            return None
        kind, costs = kernel.params["kind"], BLOCK_COSTS[isa.name]
        multiply = f"sparse_multiply_{isa.name}_{kind}"
        blocks = conv.output[0] * -(-conv.output[1] * conv.output[2] // 4)
        per_block = costs.entry * stream.values.size + costs.channel * conv.channels
        gather = isa.costs.gather + (0 if conv.dense else 3)
        _, output_bound, input_bound = isa.bound
        taps = conv.taps.shape[1]
        return replace(
            kernel,
            name=kernel.name.replace(isa.name, f"sparse_{isa.name}"),
            params={
                **kernel.params,
                "weight": "int16_t",
                "corrected": False,
                "multiply": multiply,
            },
            args=tuple(
                Const("weights", _numbered(stream, behind=isa is scalar.ARMV6M))
                if isinstance(arg, Const) and arg.role == "weights"
                else arg
                for arg in kernel.args
            ),
            helpers=(
                *(h for h in kernel.helpers if not h.startswith(("block_", "scalar_"))),
                f"sparse_block_{isa.name}",
                multiply,
            ),
            cycles=int((blocks * per_block + conv.pixels * (gather * taps + 20)) / isa.costs.slow),
            bound=int(
                costs.bound * stream.values.size * blocks
                + output_bound * conv.pixels * conv.channels
                + input_bound * conv.pixels * taps
            ),
            encoding="sparse",
        )

    return sparse_lower


def _numbered(stream: Entries, behind: bool) -> Array:
    """Entries as int16, each channel's behind their number.  ``behind`` has gaps count from behind
    the entry before."""
    starts = np.cumsum(stream.counts) - stream.counts
    gaps = stream.gaps
    if behind:
        first = np.zeros(gaps.size + 1, dtype=bool)
        first[starts] = True
        gaps = np.where(first[:-1], gaps, gaps - 1)
    words = (stream.values.astype(np.int64) * 256 + gaps).astype(np.int16)
    return np.insert(words, starts, stream.counts.astype(np.int16))


DENSE = (
    *((isa.name, by_fours(scalar.dense(isa), isa), isa.features) for isa in scalar.ISAS),
    *((isa.name, dense_scalar(isa), isa.features) for isa in scalar.ISAS),
    ("portable", dense, FEATURES),
)
CONV2D = tuple((isa.name, by_fours(scalar.conv2d(isa), isa), isa.features) for isa in scalar.ISAS)
"""Ways for :func:`tinygen.ops.convolution.variants`."""
