"""Dense layers of few rows without their zeros, with Arm's DSP extension.

Two entries (see :mod:`tinygen.ops.sparse`) are a word; its two weights are extended by one
instruction, and an entry's place is another.  Behind the entries of a channel stand its start, its
multiplier and, where the two rounded steps are needed, its shift.
"""

from __future__ import annotations

import numpy as np

from tinygen.graph import Array
from tinygen.numerics import wrap32
from tinygen.ops import dsp
from tinygen.ops.base import Const, Input, Kernel, Output
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


def _stream(conv: Convolution, stream: Entries, scale: dsp.Scaling) -> Array:
    pairs = np.stack([stream.values.view(np.uint8), stream.gaps.astype(np.uint8)], axis=1)
    words = pairs.reshape(-1).view("<u4").astype(np.uint32)
    ends = np.cumsum(stream.counts // 2)
    start = wrap32(dsp.SCALE * conv.folded_bias + scale.offset)
    columns = [start, scale.multiplier, *((scale.shift,) if scale.exact else ())]
    behind = (np.stack(columns, axis=1).astype(np.int64) & 0xFFFFFFFF).astype(np.uint32)
    places = np.repeat(ends, len(columns))
    return np.insert(words, places, behind.reshape(-1))


DENSE = (("dsp", dense, dsp.FEATURES),)
"""Ways for :func:`tinygen.ops.convolution.variants`."""
