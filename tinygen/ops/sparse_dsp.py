"""Dense layers of few rows without their zeros, with Arm's DSP extension.

Two entries (see :mod:`tinygen.ops.sparse`) are a word; its two weights are extended by one
instruction, and an entry's place is another.  Behind the entries of a channel stand its start, its
multiplier and, where the two rounded steps are needed, its shift.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from tinygen.graph import Array
from tinygen.numerics import wrap32
from tinygen.ops import dsp
from tinygen.ops.base import Arg, Const, Function, Input, Kernel, Output
from tinygen.ops.common import overlap
from tinygen.ops.convolution import Convolution
from tinygen.ops.sparse import MOST_ENTRIES, Entries, entries, sparse


def dense(conv: Convolution) -> Kernel | None:
    """Channel by channel, all in assembly."""
    if not conv.dense or not sparse(conv):
        return None
    scale = dsp.scaling(conv, (dsp.SHIFT,))
    stream = entries(conv.taps, together=2)
    words = stream.counts // 2
    if scale is None or int(words.max()) > MOST_ENTRIES:
        return None
    exact = "_exact" if scale.exact else ""
    clamped = (conv.scaling.low, conv.scaling.high) != (-128, 127)
    limits = (conv.scaling.low, conv.scaling.high) if clamped else ()
    eights, ones = int((words // 4).sum()), int((words % 4).sum())
    return Kernel(
        name=f"dense_sparse_dsp{exact}" + ("_clamped" if clamped else ""),
        template="fully_connected/sparse_dsp.c.j2",
        params={"exact": scale.exact, "clamped": clamped},
        args=(
            Input(0),
            Output(0),
            conv.pixels,
            conv.depth,
            conv.channels,
            Const("weights", _stream(conv, stream, scale)),
            Const("counts", words.astype(np.int16)),
            scale.rounding,
            *limits,
        ),
        helpers=(
            "dsp",
            f"sparse_row{exact}",
            f"scale_output{exact}",
            *(("clamp_outputs",) if clamped else ()),
        ),
        overlap={0: overlap(*conv.rows, conv.window)},
        cycles=conv.pixels
        * (39 * eights + 10 * ones + (35 if scale.exact else 29) * conv.channels + 20),
        bound=conv.pixels * (29 * eights + 8 * ones + (12 if scale.exact else 7) * conv.channels),
        encoding="sparse",
    )


def _by_fours(
    conv: Convolution, kernel: Kernel | None, weights: Array, blocks: int, singles: int
) -> Kernel | None:
    """``kernel`` of :mod:`tinygen.ops.dsp`, which prepares four pixels at a time for ``weights``
    (channels, taps), without zeros.

    The prepared pixels are laid out anew, of each tap two pairs of pixels, so that one load and
    four products take an entry.
    """
    scale = dsp.scaling(conv, (dsp.SHIFT,)) if kernel is not None else None
    if kernel is None or scale is None:
        return None
    stream = entries(weights, _NEAR, together=2)
    words = stream.counts // 2
    if int(words.max()) > MOST_ENTRIES:
        return None
    form = "_exact" if scale.exact else ""
    ours = {
        f"multiply_block{form}": f"sparse_four{form}",
        f"multiply_one{form}": f"sparse_one{form}",
    }
    quads = -(-weights.shape[1] // 4)
    dense = dsp._products(conv, scale, quads, blocks)
    doubles, odd = int((words // 2).sum()), int((words % 2).sum())
    finish = (41, 58) if scale.exact else (28, 45)
    single = conv.channels * 30 + 18 * int(words.sum())
    dense_single = -(-conv.channels // 2) * (12 * quads + (34 if scale.exact else 14))
    params = {**kernel.params, "odd": False, "exact": False}
    return replace(
        kernel,
        name=dsp._name(f"{'dense' if conv.dense else 'conv2d'}_by_fours_sparse_dsp{form}", params),
        params=params,
        args=tuple(
            _without_zeros(arg, ours, _stream(conv, stream, scale, True)) for arg in kernel.args
        ),
        helpers=(
            *(h for h in kernel.helpers if not h.startswith(("multiply_block", "single_pixel"))),
            f"sparse_four{form}",
            f"scale_output{form}",
            *((f"sparse_one{form}",) if singles else ()),
        ),
        cycles=kernel.cycles
        - dense.cycles
        + blocks * (40 + 38 * quads + 41 * doubles + 22 * odd + finish[1] * conv.channels)
        + singles * (single - 9 * dense_single // 5),
        bound=kernel.bound
        - dense.instructions
        + blocks * (18 * quads + 27 * doubles + 14 * odd + finish[0] * conv.channels)
        + singles * (single - dense_single),
        encoding="sparse",
        channels=0,
    )


_NEAR = 31
"""Taps from an entry to the next, at most, where a tap is eight bytes."""


def _without_zeros(arg: Arg, functions: Mapping[str, str], weights: Array) -> Arg:
    if isinstance(arg, Function):
        return Function(functions[arg.name])
    return Const("weights", weights) if isinstance(arg, Const) and arg.role == "weights" else arg


def dense_by_fours(conv: Convolution) -> Kernel | None:
    """Rows by fours."""
    if not conv.dense or not sparse(conv):
        return None
    kernel = dsp.dense(conv)
    blocks, singles = divmod(conv.pixels, 4)
    if kernel is not None and kernel.params["ragged"] and blocks and singles * conv.depth < 3:
        blocks, singles = blocks - 1, singles + 4
    if kernel is not None and kernel.params["three"]:
        blocks, singles = blocks + 1, 0
    return _by_fours(conv, kernel, conv.taps, blocks, singles)


def conv2d(conv: Convolution) -> Kernel | None:
    """Windows of four pixels at a time."""
    if conv.dense or conv.groups > 1 or not sparse(conv):
        return None
    blocks = conv.output[0] * -(-conv.output[1] * conv.output[2] // 4)
    return _by_fours(conv, dsp.conv2d(conv), dsp.window_taps(conv), blocks, 0)


def _stream(conv: Convolution, stream: Entries, scale: dsp.Scaling, counted: bool = False) -> Array:
    """Two entries a word; behind a channel's its start, multiplier and shift, before them, when
    ``counted`` (gaps then count bytes of which a tap has eight), their number."""
    words, gaps = stream.counts // 2, stream.gaps * (8 if counted else 1)
    pairs = np.stack([stream.values.view(np.uint8), gaps.astype(np.uint8)], axis=1)
    packed = pairs.reshape(-1).view("<u4").astype(np.uint32)
    ends = np.cumsum(words)
    start = wrap32(dsp.SCALE * conv.folded_bias + scale.offset)
    columns = [start, scale.multiplier, *((scale.shift,) if scale.exact else ())]
    behind = (np.stack(columns, axis=1).astype(np.int64) & 0xFFFFFFFF).astype(np.uint32)
    made = np.insert(packed, np.repeat(ends, len(columns)), behind.reshape(-1))
    begins = ends - words + len(columns) * np.arange(conv.channels)
    return np.insert(made, begins, words.astype(np.uint32)) if counted else made


DENSE = (
    ("dsp", dense_by_fours, dsp.FEATURES),
    ("dsp", dense, dsp.FEATURES),
)
CONV2D = (("dsp", conv2d, dsp.FEATURES),)
"""Ways for :func:`tinygen.ops.convolution.variants`."""
