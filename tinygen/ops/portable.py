"""Convolutions and dense layers in portable C: any shape, any core."""

from __future__ import annotations

import numpy as np

from tinygen.graph import Array
from tinygen.numerics import wrap32
from tinygen.ops.base import Channels, Codes, Const, Input, Kernel, Output
from tinygen.ops.common import overlap
from tinygen.ops.convolution import Convolution

FEATURES: frozenset[str] = frozenset()


def interleave(filters: Array, block: int = 4) -> Array:
    """Filters (channels, taps) in the order in which a kernel of ``block`` channels reads them.

    Blocks of channels one after another, each tap by tap; the last block may be smaller.
    """
    parts = [filters[i : i + block].T.reshape(-1) for i in range(0, len(filters), block)]
    return np.concatenate(parts) if parts else filters.reshape(-1)


def whole_bytes(weights: Array) -> Const:
    """Weights (int8) of a kernel that computes all channels or none."""
    return Const("weights", weights, codes=Codes(weights, 0))


def dense(conv: Convolution) -> Kernel | None:
    """Four output channels at a time, one function for every shape."""
    if not conv.dense:
        return None
    scaling, weights = conv.scaling, interleave(conv.taps)
    return Kernel(
        name="dense_per_channel" if len(scaling.multipliers) > 1 else "dense",
        template="fully_connected/portable.c.j2",
        params=scaling.params,
        args=(
            Input(0),
            Output(0),
            conv.pixels,
            conv.depth,
            Channels(conv.channels),
            Const("weights", weights, conv.depth, Codes(weights, conv.depth)),
            Const("bias", wrap32(conv.folded_bias).astype(np.int32), step=1),
            *scaling.args,
        ),
        helpers=(scaling.helper, "activate"),
        overlap={0: overlap(*conv.rows, conv.window)},
        cycles=5 * conv.macs + 30 * conv.pixels * conv.channels,
        channels=4 if conv.pixels == 1 else 0,
        again=40,
    )


def conv2d(conv: Convolution) -> Kernel | None:
    """Four output channels at a time over the part of the window inside the image."""
    if conv.dense:
        return None
    grouped = conv.taps.reshape(conv.groups, conv.channels // conv.groups, -1)
    params = geometry(conv) | {"groups": conv.groups}
    return _over_window(
        conv,
        name=f"conv2d_{shape_name(conv)}",
        template="conv2d/portable.c.j2",
        params=params,
        weights=np.concatenate([interleave(group) for group in grouped]),
        cycles=6 * conv.macs,
    )


def depthwise(conv: Convolution) -> Kernel | None:
    """Four channels at a time, or one when the depth multiplier is above one."""
    return _over_window(
        conv,
        name=f"depthwise_{shape_name(conv)}",
        template="depthwise_conv2d/portable.c.j2",
        params=geometry(conv) | {"multiplier": conv.channels // conv.depth},
        weights=conv.taps.T.reshape(-1),
        cycles=10 * conv.macs,
    )


def shape_name(conv: Convolution) -> str:
    """For a kernel made for one shape: ``3x3_48x48x8_to_48x48x8``."""
    (rows, columns), image, output = conv.window.kernel, conv.image, conv.output
    sizes = "x".join(map(str, image[1:])), "x".join(map(str, output[1:]))
    return f"{rows}x{columns}_{sizes[0]}_to_{sizes[1]}"


def geometry(conv: Convolution) -> dict[str, object]:
    """What templates of windows over an image need to know of shapes."""
    batch, height, width, depth = conv.image
    return {
        "batch": batch, "height": height, "width": width, "depth": depth,
        "rows": conv.output[1], "columns": conv.output[2], "channels": conv.channels,
        "kernel": conv.window.kernel, "stride": conv.window.stride,
        "dilation": conv.window.dilation,
        "top": conv.pads.top, "left": conv.pads.left, "padded": conv.pads.any,
    }  # fmt: skip


def _over_window(
    conv: Convolution,
    name: str,
    template: str,
    params: dict[str, object],
    weights: Array,
    cycles: int,
) -> Kernel:
    """A kernel that skips the window's taps outside the image."""
    padded = conv.pads.any
    bias = conv.bias if padded else conv.folded_bias
    return Kernel(
        name=name,
        template=template,
        params=params | conv.scaling.params,
        args=(
            Input(0),
            Output(0),
            whole_bytes(weights),
            Const("bias", wrap32(bias).astype(np.int32)),
            *((conv.zero_point,) if padded else ()),
            *conv.scaling.args,
        ),
        helpers=(conv.scaling.helper, "activate"),
        overlap={0: overlap(conv.image, conv.output, conv.window)},
        cycles=cycles + 60 * conv.pixels * conv.channels,
    )
