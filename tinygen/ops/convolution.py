"""What the kernels of convolutions and dense layers are made from, whatever the operator.

A dense layer is a convolution of one-pixel windows, its rows the pixels.  The instruction sets'
files (``portable.py``, ``dsp.py``, ...) turn a :class:`Convolution` into a kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from tinygen.graph import Array, Graph, Node
from tinygen.numerics import Int64Array
from tinygen.ops.base import Kernel, Variant
from tinygen.ops.common import NO_PADS, Pads, Requant, Window, accumulator_bound
from tinygen.ops.rescale import Rescale, accumulator_range, solve

ONE_PIXEL = Window((1, 1), (1, 1))


@dataclass(frozen=True, eq=False)
class Convolution:
    """A convolution or dense layer of int8 weights.

    ``image`` and ``output`` are NHWC shapes.  ``filters`` is (channels, kernel rows, kernel
    columns, depth / groups), a depthwise convolution having as many groups as input channels.
    ``bias`` (int64, channels) is the model's: the input's ``zero_point`` is not yet in it.
    """

    image: tuple[int, ...]
    output: tuple[int, ...]
    filters: Array
    bias: Int64Array
    zero_point: int
    scaling: Requant
    groups: int = 1
    window: Window = ONE_PIXEL
    pads: Pads = NO_PADS
    dtype: str = "int8"
    """The activations'."""

    @property
    def channels(self) -> int:
        return self.output[3]

    @property
    def depth(self) -> int:
        return self.image[3]

    @property
    def pixels(self) -> int:
        """Output pixels of the whole batch."""
        return self.output[0] * self.output[1] * self.output[2]

    @property
    def rows(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Image and output of a matrix product, the whole batch as one row of pixels."""
        return (1, 1, self.pixels, self.depth), (1, 1, self.pixels, self.channels)

    @property
    def macs(self) -> int:
        return self.pixels * self.filters.size

    @property
    def dense(self) -> bool:
        """Whether it is a matrix product: every output pixel sees one input pixel, in order."""
        return (
            self.groups == 1
            and self.window.kernel == self.window.stride == (1, 1)
            and not self.pads.any
        )

    @property
    def limits(self) -> tuple[int, ...]:
        """Least and greatest output, where an activation leaves less than int8; else nothing."""
        limits = self.scaling.low, self.scaling.high
        return () if limits == (-128, 127) else limits

    @property
    def depthwise(self) -> bool:
        return self.filters.shape[3] == 1 and self.groups == self.depth

    @cached_property
    def taps(self) -> Array:
        """Filters as (channels, taps)."""
        return self.filters.reshape(self.channels, -1)

    @cached_property
    def bound(self) -> int:
        """Largest magnitude of an accumulator, whichever taps padding skips."""
        return accumulator_bound(self.taps, self.zero_point, self.bias, self.dtype)

    @cached_property
    def folded_bias(self) -> Int64Array:
        """The bias with the input's zero point in it: for kernels in which every tap counts, those
        in the padding as zero points."""
        sums: Int64Array = self.taps.astype(np.int64).sum(axis=1)
        return self.bias - self.zero_point * sums

    @cached_property
    def rescale(self) -> Rescale | None:
        """The short requantization of accumulators that carry a factor of 256, if there is one."""
        least, greatest = accumulator_range(self.taps, self.zero_point, self.bias)
        return solve(self.scaling, least, greatest)


Lower = Callable[[Convolution], Kernel | None]


def variants(
    convolution: Callable[[Graph, Node], Convolution],
    ways: tuple[tuple[str, Lower, frozenset[str]], ...],
) -> tuple[Variant, ...]:
    """An operator's variants from ``ways``: what each is called, does and needs of the core.

    ``convolution`` reads a node; its result is kept for the next way.  Only int8 input is read.
    """
    kept = lru_cache(maxsize=4)(convolution)

    def variant(isa: str, way: Lower, features: frozenset[str]) -> Variant:
        def lower(graph: Graph, node: Node) -> Kernel | None:
            int8 = graph.required(node, 0).dtype == "int8"
            return way(kept(graph, node)) if int8 else None

        return Variant(isa, lower, features)

    return tuple(variant(*way) for way in ways)
