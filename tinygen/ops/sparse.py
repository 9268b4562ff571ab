"""Layers whose weights lie in flash without zeros, and are computed from there: in C, and for cores
without SIMD.

A nonzero weight is an entry: its value, and how many taps it lies behind the entry before it, each
a byte.  Where nothing lies within 255 taps an entry of value 0 goes there.  Kernels read one stream
of entries, channel by channel; ``counts`` says how many each channel has.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace
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

NEAR = 15
"""The same where a gap has four bits."""

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
def entries_of(conv: Convolution, furthest: int = FURTHEST) -> Entries:
    """The entries of a layer, kept for the next kernel that is looked at."""
    return entries(conv.taps, furthest)


def codebook(weights: Array) -> Array | None:
    """Sixteen values, int8, of which 0 is the first: all that ``weights`` have.  None when they
    have more."""
    found = np.unique(weights[weights != 0])
    if found.size > 15:
        return None
    return np.concatenate([[0], found, np.zeros(15 - found.size)]).astype(np.int8)


def codes(stream: Entries, table: Array) -> Array:
    """Entries as bytes, uint8: the place of the weight in ``table``, and four bits of gap."""
    order = np.argsort(table, kind="stable")
    places = order[np.searchsorted(table[order], stream.values)]
    return (places * 16 + stream.gaps).astype(np.uint8)


@dataclass(frozen=True)
class Form:
    """How entries lie in flash: ``coded`` ones in a byte, others in two."""

    coded: bool

    @property
    def encoding(self) -> str:
        return "sparse+codebook4" if self.coded else "sparse"

    @property
    def suffix(self) -> str:
        return "_coded" if self.coded else ""

    @property
    def furthest(self) -> int:
        """Taps from an entry to the next, at most."""
        return NEAR if self.coded else FURTHEST

    def table(self, conv: Convolution) -> Array | None:
        """What weights are looked up in, empty when they stand in the entries; None when there is
        no such form of them."""
        return codebook(conv.taps) if self.coded else np.zeros(0, dtype=np.int8)


PLAIN, CODED = Form(coded=False), Form(coded=True)
FORMS = (PLAIN, CODED)


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
    """Cycles (instructions where there is no estimate of cycles) of an entry, of an output, and how
    many more an entry takes whose weight is looked up."""

    entry: float
    output: float
    look_up: float


PORTABLE = Costs(9.5, 40, 2)
"""On a Cortex-M4, as portable kernels say what they take."""

COSTS = {
    "rv32m": Costs(7, 20, 3),
    "armv7m": Costs(10.5, 30, 2.2),
    "armv6m": Costs(13, 62, 2.3),
    "xtensa": Costs(11, 50, 3.2),
}


def dense(form: Form) -> Lower:
    """In C for any core."""

    def lower(conv: Convolution) -> Kernel | None:
        scale = conv.scaling
        return _rows(
            conv,
            form,
            name="dense_sparse" + ("_per_channel" if len(scale.multipliers) > 1 else ""),
            params={"kind": "portable", "factor": 1, **scale.params},
            scaling=(Const("bias", wrap32(conv.folded_bias).astype(np.int32)), *scale.args),
            helpers=(scale.helper, "activate"),
            costs=PORTABLE,
        )

    return lower


def dense_scalar(isa: scalar.Isa, form: Form) -> Lower:
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
            form,
            name=f"dense_sparse_{isa.name}_{chosen.kind}",
            params={"kind": chosen.kind, "factor": 256 if isa.high else 1},
            scaling=(Const("start", chosen.start), *chosen.args),
            helpers=chosen.helpers,
            costs=Costs(*(part / isa.costs.slow for part in astuple(costs))),
        )

    return lower


def _rows(
    conv: Convolution,
    form: Form,
    name: str,
    params: dict[str, object],
    scaling: tuple[Arg, ...],
    helpers: tuple[str, ...],
    costs: Costs,
) -> Kernel | None:
    """The kernel that goes through the entries once a row."""
    if not conv.dense or not sparse(conv):
        return None
    table = form.table(conv)
    stream = entries_of(conv, form.furthest)
    counts = counted(stream.counts)
    if table is None or counts is None:
        return None
    packed = np.stack([stream.values.view(np.uint8), stream.gaps.astype(np.uint8)], axis=1)
    weights = codes(stream, table) if form.coded else packed.reshape(-1)
    entry = costs.entry + (costs.look_up if form.coded else 0)
    outputs, taken = conv.pixels * conv.channels, conv.pixels * stream.values.size
    return Kernel(
        name=name.replace("sparse", f"sparse{form.suffix}")
        + ("_long" if counts.dtype == np.int16 else ""),
        template="fully_connected/sparse.c.j2",
        params={
            **params,
            "counter": "int16_t" if counts.dtype == np.int16 else "uint8_t",
            "coded": form.coded,
        },
        args=(
            Input(0),
            Output(0),
            conv.pixels,
            conv.depth,
            conv.channels,
            Const("weights", np.concatenate([table.view(np.uint8), weights])),
            Const("counts", counts),
            *scaling,
        ),
        helpers=helpers,
        overlap={0: overlap(*conv.rows, conv.window)},
        cycles=int(entry * taken + costs.output * outputs),
        bound=(8 if form.coded else 6) * taken + 8 * outputs,
        encoding=form.encoding,
    )


@dataclass(frozen=True)
class BlockCosts:
    """Cycles (or instructions) of an entry with four pixels, and of a channel with them; the
    instructions that an entry needs, counted by hand; how many more it takes to look a weight
    up."""

    entry: float
    channel: float
    bound: float
    look_up: float


BLOCK_COSTS = {
    "rv32m": BlockCosts(17, 40, 16, 3),
    "armv7m": BlockCosts(19, 100, 11, 2),
    "armv6m": BlockCosts(23, 280, 15, 2),
    "xtensa": BlockCosts(17, 40, 16, 2),
}


def by_fours(lower: Lower, isa: scalar.Isa, form: Form) -> Lower:
    """As ``lower``, a kernel of :mod:`tinygen.ops.scalar` that lays out four pixels side by side,
    without zeros.

    Entries are 16-bit numbers, the weight in the upper byte, or bytes; those of a channel lie
    behind their number.  Where loads move the pointer on (Cortex-M0), gaps count from there.
    """

    def sparse_lower(conv: Convolution) -> Kernel | None:
        if conv.groups > 1 or not sparse(conv):
            return None
        table = form.table(conv)
        if table is None:
            return None
        kernel, stream = lower(conv), entries_of(conv, form.furthest)
        if kernel is None or int(stream.counts.max()) > MOST_ENTRIES:
            return None
        kind, costs = kernel.params["kind"], BLOCK_COSTS[isa.name]
        multiply = f"sparse_multiply{form.suffix}_{isa.name}_{kind}"
        behind = _from_behind(stream) if isa is scalar.ARMV6M else stream
        weights = _numbered_codes(behind, table) if form.coded else _numbered(behind)
        more = costs.look_up if form.coded else 0
        blocks = conv.output[0] * -(-conv.output[1] * conv.output[2] // 4)
        per_block = (costs.entry + more) * stream.values.size + costs.channel * conv.channels
        gather = isa.costs.gather + (0 if conv.dense else 3)
        _, output_bound, input_bound = isa.bound
        taps = conv.taps.shape[1]
        return replace(
            kernel,
            name=kernel.name.replace(isa.name, f"sparse{form.suffix}_{isa.name}"),
            params={
                **kernel.params,
                "weight": "uint8_t" if form.coded else "int16_t",
                "corrected": False,
                "multiply": multiply,
            },
            args=tuple(
                Const("weights", weights)
                if isinstance(arg, Const) and arg.role == "weights"
                else arg
                for arg in kernel.args
            ),
            helpers=(
                *(h for h in kernel.helpers if not h.startswith(("block_", "scalar_"))),
                f"sparse_block{form.suffix}_{isa.name}",
                multiply,
            ),
            cycles=int((blocks * per_block + conv.pixels * (gather * taps + 20)) / isa.costs.slow),
            bound=int(
                (costs.bound + more) * stream.values.size * blocks
                + output_bound * conv.pixels * conv.channels
                + input_bound * conv.pixels * taps
            ),
            encoding=form.encoding,
            channels=0,
        )

    return sparse_lower


def _from_behind(stream: Entries) -> Entries:
    """The entries with gaps that count from behind the entry before."""
    first = np.zeros(stream.gaps.size + 1, dtype=bool)
    first[_starts(stream)] = True
    return replace(stream, gaps=np.where(first[:-1], stream.gaps, stream.gaps - 1))


def _starts(stream: Entries) -> Int64Array:
    """Where each channel's entries begin."""
    starts: Int64Array = np.cumsum(stream.counts) - stream.counts
    return starts


def _numbered(stream: Entries) -> Array:
    """Entries as int16, each channel's behind their number."""
    words = (stream.values.astype(np.int64) * 256 + stream.gaps).astype(np.int16)
    return np.insert(words, _starts(stream), stream.counts.astype(np.int16))


def _numbered_codes(stream: Entries, table: Array) -> Array:
    """Entries as bytes, each channel's behind their number of two bytes; first the table."""
    numbers = stream.counts.astype("<i2").view(np.uint8)
    packed = np.insert(codes(stream, table), np.repeat(_starts(stream), 2), numbers)
    return np.concatenate([table.view(np.uint8), packed])


DENSE = (
    *(
        (isa.name, by_fours(scalar.dense(isa), isa, form), isa.features)
        for isa in scalar.ISAS
        for form in FORMS
    ),
    *((isa.name, dense_scalar(isa, form), isa.features) for isa in scalar.ISAS for form in FORMS),
    *(("portable", dense(form), FEATURES) for form in FORMS),
)
CONV2D = tuple(
    (isa.name, by_fours(scalar.conv2d(isa), isa, form), isa.features)
    for isa in scalar.ISAS
    for form in FORMS
)
"""Ways for :func:`tinygen.ops.convolution.variants`."""
