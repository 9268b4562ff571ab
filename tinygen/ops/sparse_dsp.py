"""Layers without their zeros, with Arm's DSP extension.

Two entries (see :mod:`tinygen.ops.sparse`) are a word; its two weights are extended by one
instruction, and an entry's place is another.  Of weights that are looked up in a table four are a
word, and the table comes first.  Behind the entries of a channel stand its start, its multiplier
and, where the two rounded steps are needed, its shift.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from tinygen.graph import Array
from tinygen.numerics import Int64Array, wrap32
from tinygen.ops import dsp
from tinygen.ops.base import Arg, Const, Function, Input, Kernel, Output
from tinygen.ops.common import overlap
from tinygen.ops.convolution import Convolution, Lower
from tinygen.ops.sparse import FORMS, MOST_ENTRIES, Entries, Form, codes, entries, sparse

_NEARBY = 31
"""Taps from an entry to the next, at most, where a tap is eight bytes and a gap a byte."""


@dataclass(frozen=True, eq=False)
class Words:
    """Entries as words (uint32), ``counts`` of them for each channel, and the ``table`` in which
    weights are looked up (uint32, may be empty)."""

    words: Array
    counts: Int64Array
    table: Array

    def stream(self, conv: Convolution, scale: dsp.Scaling, counted: bool) -> Array:
        """What kernels read: the table, and each channel's words, start, multiplier and shift;
        before the words their number, when ``counted``."""
        ends = np.cumsum(self.counts)
        start = wrap32(dsp.SCALE * conv.folded_bias + scale.offset)
        columns = [start, scale.multiplier, *((scale.shift,) if scale.exact else ())]
        behind = (np.stack(columns, axis=1).astype(np.int64) & 0xFFFFFFFF).astype(np.uint32)
        made = np.insert(self.words, np.repeat(ends, len(columns)), behind.reshape(-1))
        if counted:
            begins = ends - self.counts + len(columns) * np.arange(conv.channels)
            made = np.insert(made, begins, self.counts.astype(np.uint32))
        return np.concatenate([self.table, made])


def words_of(conv: Convolution, weights: Array, form: Form, by_fours: bool) -> Words | None:
    """``weights`` (channels, taps) as words; with ``by_fours`` gaps count bytes, of which a tap has
    eight, where they are bytes.  None when there is no such form."""
    table = form.table(conv)
    furthest = _NEARBY if by_fours and not form.coded else form.furthest
    together = 4 if form.coded else 2
    stream = entries(weights, furthest, together)
    counts = stream.counts // together
    if table is None or int(counts.max()) > MOST_ENTRIES:
        return None
    gaps = (stream.gaps * (8 if by_fours else 1)).astype(np.uint8)
    packed = (
        codes(stream, table)
        if form.coded
        else np.stack([stream.values.view(np.uint8), gaps], axis=1).reshape(-1)
    )
    words = [part.view("<u4").astype(np.uint32) for part in (packed, table.view(np.uint8))]
    return Words(words[0], counts, words[1])


def dense(form: Form) -> Lower:
    """Channel by channel, all in assembly."""
    return lambda conv: _rows(conv, form)


def _rows(conv: Convolution, form: Form) -> Kernel | None:
    if not conv.dense or not sparse(conv):
        return None
    made = words_of(conv, conv.taps, form, by_fours=False)
    scale = dsp.scaling(conv, (dsp.SHIFT,)) if made is not None else None
    if made is None or scale is None:
        return None
    exact = "_exact" if scale.exact else ""
    clamped = bool(conv.limits)
    function = f"sparse_row{form.suffix}{exact}"
    eights, ones = int((made.counts // 4).sum()), int((made.counts % 4).sum())
    bound, cycles = 29 * eights + 8 * ones, 39 * eights + 10 * ones
    if form.coded:
        bound, cycles = 22 * made.words.size, 29 * made.words.size
    return Kernel(
        name=f"dense_sparse{form.suffix}_dsp{exact}" + ("_clamped" if clamped else ""),
        template="fully_connected/sparse_dsp.c.j2",
        params={"function": function, "clamped": clamped},
        args=(
            Input(0),
            Output(0),
            conv.pixels,
            conv.depth,
            conv.channels,
            Const("weights", made.stream(conv, scale, counted=False)),
            Const("counts", made.counts.astype(np.int16)),
            scale.rounding,
            *conv.limits,
        ),
        helpers=(
            "dsp",
            function,
            f"scale_output{exact}",
            *(("clamp_outputs",) if clamped else ()),
        ),
        overlap={0: overlap(*conv.rows, conv.window)},
        cycles=conv.pixels * (cycles + (35 if scale.exact else 29) * conv.channels + 20),
        bound=conv.pixels * (bound + (12 if scale.exact else 7) * conv.channels),
        encoding=form.encoding,
    )


Way = Callable[[Convolution, Kernel | None, Array, int, int], Kernel | None]
"""From a kernel of :mod:`tinygen.ops.dsp`, its weights (channels, taps) in the order in which it
takes them, how often it takes four pixels and how often one."""


def by_entries(form: Form) -> Way:
    """Entry by entry."""

    def way(
        conv: Convolution, kernel: Kernel | None, weights: Array, blocks: int, singles: int
    ) -> Kernel | None:
        return _entries(conv, form, kernel, weights, blocks, singles) if sparse(conv) else None

    return way


def _entries(
    conv: Convolution, form: Form, kernel: Kernel | None, weights: Array, blocks: int, singles: int
) -> Kernel | None:
    """``kernel`` of :mod:`tinygen.ops.dsp`, which prepares four pixels at a time for ``weights``
    (channels, taps), without zeros.

    The prepared pixels are laid out anew, of each tap two pairs of pixels, so that one load and
    four products take an entry.
    """
    made = words_of(conv, weights, form, by_fours=True) if kernel is not None else None
    scale = dsp.scaling(conv, (dsp.SHIFT,)) if made is not None else None
    if kernel is None or made is None or scale is None:
        return None
    exact = "_exact" if scale.exact else ""
    four, one = f"sparse_four{form.suffix}{exact}", f"sparse_one{form.suffix}{exact}"
    ours = {f"multiply_block{exact}": four, f"multiply_one{exact}": one}
    quads = -(-weights.shape[1] // 4)
    dense = dsp._products(conv, scale, quads, blocks)
    doubles, odd = int((made.counts // 2).sum()), int((made.counts % 2).sum())
    bound, cycles = 27 * doubles + 14 * odd, 41 * doubles + 22 * odd
    if form.coded:
        bound, cycles = 34 * made.words.size, 51 * made.words.size
    finish = (41, 58) if scale.exact else (28, 45)
    single = conv.channels * 30 + (30 if form.coded else 18) * made.words.size
    dense_single = -(-conv.channels // 2) * (12 * quads + (34 if scale.exact else 14))
    params = {**kernel.params, "odd": False, "exact": False}
    return replace(
        kernel,
        name=dsp._name(
            f"{'dense' if conv.dense else 'conv2d'}_by_fours_sparse{form.suffix}_dsp{exact}", params
        ),
        params=params,
        args=tuple(
            _without_zeros(arg, ours, made.stream(conv, scale, counted=True)) for arg in kernel.args
        ),
        helpers=(
            *(h for h in kernel.helpers if not h.startswith(("multiply_block", "single_pixel"))),
            four,
            f"scale_output{exact}",
            *((one,) if singles else ()),
        ),
        cycles=kernel.cycles
        - dense.cycles
        + blocks * (40 + 38 * quads + cycles + finish[1] * conv.channels)
        + singles * (single - 9 * dense_single // 5),
        bound=kernel.bound
        - dense.instructions
        + blocks * (18 * quads + bound + finish[0] * conv.channels)
        + singles * (single - dense_single),
        encoding=form.encoding,
        channels=0,
    )


def _without_zeros(arg: Arg, functions: Mapping[str, str], weights: Array) -> Arg:
    if isinstance(arg, Function):
        return Function(functions[arg.name])
    return Const("weights", weights) if isinstance(arg, Const) and arg.role == "weights" else arg


MOST_QUADS = 0.75
"""Share of fours of inputs that may have weights where those without are left out."""


def quads_of(conv: Convolution, weights: Array) -> Array | None:
    """Which fours of ``weights`` (channels, taps) have any in either of two channels, bool (pairs
    of channels, fours); None when most have."""
    if conv.channels % 2:
        return None
    fours = dsp.by_fours(weights).reshape(conv.channels // 2, 2, -1, 4)
    present: Array = (fours != 0).any(axis=(1, 3))
    return present if present.mean() <= MOST_QUADS else None


def by_quads(
    conv: Convolution, kernel: Kernel | None, weights: Array, blocks: int, singles: int
) -> Kernel | None:
    """``kernel`` of :mod:`tinygen.ops.dsp` without fours of inputs in which both of two channels
    have zeros."""
    present = quads_of(conv, weights) if kernel is not None else None
    words = dsp.paired_weights(weights) if present is not None else None
    scale = dsp.scaling(conv, (dsp.SHIFT,)) if words is not None else None
    if kernel is None or present is None or words is None or scale is None:
        return None
    present[~present.any(axis=1), 0] = True
    stream = entries(present.astype(np.int8), together=2)
    exact = "_exact" if scale.exact else ""
    ours = {
        f"multiply_block{exact}": f"sparse_quads{exact}",
        f"multiply_one{exact}": f"sparse_quads_one{exact}",
    }
    dense = dsp._products(conv, scale, words.shape[1], blocks)
    after = (68, 87) if scale.exact else (33, 50)
    pairs, taken = conv.channels // 2, stream.values.size
    finish = 34 if scale.exact else 14
    return replace(
        kernel,
        name=dsp._name(
            f"{'dense' if conv.dense else 'conv2d'}_by_fours_quads_dsp{exact}", dict(kernel.params)
        ),
        args=tuple(
            _without_zeros(arg, ours, _quad_stream(conv, stream, weights, words, scale))
            for arg in kernel.args
        ),
        helpers=(
            *(h for h in kernel.helpers if not h.startswith(("multiply_block", "single_pixel"))),
            f"sparse_quads{exact}",
            f"scale_output{exact}",
            *((f"sparse_quads_one{exact}",) if singles else ()),
        ),
        cycles=kernel.cycles
        - dense.cycles
        + blocks * (40 + 38 * taken + (after[1] + 10) * pairs)
        + singles * 9 * 14 * (taken - pairs * words.shape[1]) // 5,
        bound=kernel.bound
        - dense.instructions
        + blocks * (27 * taken + (after[0] + 8) * pairs)
        + singles * (14 * taken - pairs * (12 * words.shape[1] + finish) + finish * pairs),
        encoding="blocks",
        channels=0,
    )


def _quad_stream(
    conv: Convolution, stream: Entries, weights: Array, words: Array, scale: dsp.Scaling
) -> Array:
    """What ``sparse_quads`` reads, for every two channels: their starts; a word of gaps before
    each two fours of inputs, and four of weights; multipliers and shifts."""
    pairs = np.repeat(np.arange(conv.channels // 2), stream.counts)
    ends = np.cumsum(stream.gaps)
    before = np.concatenate([[0], ends])[np.cumsum(stream.counts) - stream.counts]
    both = words.reshape(-1, 2, words.shape[1])[pairs, :, ends - before[pairs]]
    both = (both * (stream.values != 0)[:, None]).reshape(-1, 4)
    groups = np.cumsum(stream.counts // 2)
    more = np.ones(len(both), dtype=np.int64)
    more[groups - 1] = 0
    gaps = stream.gaps.reshape(-1, 2) @ np.array([1, 1 << 8]) + (more << 16)
    body = np.concatenate([gaps[:, None], both], axis=1).astype(np.uint32)
    around = dsp.stream(conv, weights, words, scale).data.reshape(conv.channels // 2, -1)
    around = np.delete(around, np.s_[2 : 2 + 2 * words.shape[1]], axis=1)
    parts = []
    for pair, rows in enumerate(np.split(body, groups[:-1])):
        parts += [around[pair, :2], rows.reshape(-1), around[pair, 2:]]
    return np.concatenate(parts)


def dense_by_fours(way: Way) -> Lower:
    """Rows by fours."""

    def lower(conv: Convolution) -> Kernel | None:
        if not conv.dense or conv.pixels < 2 or not sparse(conv, 1 - MOST_QUADS):
            return None
        kernel = dsp.dense(conv)
        blocks, singles = divmod(conv.pixels, 4)
        if kernel is not None and kernel.params["ragged"] and blocks and singles * conv.depth < 3:
            blocks, singles = blocks - 1, singles + 4
        if kernel is not None and kernel.params["three"]:
            blocks, singles = blocks + 1, 0
        return way(conv, kernel, conv.taps, blocks, singles)

    return lower


def conv2d(way: Way) -> Lower:
    """Windows of four pixels at a time."""

    def lower(conv: Convolution) -> Kernel | None:
        if conv.dense or conv.groups > 1 or not sparse(conv, 1 - MOST_QUADS):
            return None
        blocks = conv.output[0] * -(-conv.output[1] * conv.output[2] // 4)
        return way(conv, dsp.conv2d(conv), dsp.window_taps(conv), blocks, 0)

    return lower


WAYS: tuple[Way, ...] = (*(by_entries(form) for form in FORMS), by_quads)
DENSE = (
    *(("dsp", dense_by_fours(way), dsp.FEATURES) for way in WAYS),
    *(("dsp", dense(form), dsp.FEATURES) for form in FORMS),
)
CONV2D = tuple(("dsp", conv2d(way), dsp.FEATURES) for way in WAYS)
"""Ways for :func:`tinygen.ops.convolution.variants`."""
