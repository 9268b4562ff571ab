"""Which kernel computes a node, and how its weights lie in flash.

By default the kernel that is expected to take the fewest cycles.  Weights of a shape that somebody
gave them (few distinct values, four bits, zeros) may lie in flash encoded: either a kernel computes
with them as they lie (:mod:`tinygen.ops.sparse`), or they are decoded into scratch memory, some
channels at a time, before the kernel that computes with plain weights is called for these
channels.  Entropy coding suits any weights and is slow; it is considered when asked for.

Layers take what saves most bytes for the cycles it costs, as long as all together cost no more
than a limit.  A function that few layers use may take more flash than they save, so decoders are
done without, one by one, where that is less in all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tinygen import encodings
from tinygen.encodings import Encoded
from tinygen.errors import InputError
from tinygen.graph import Array, Graph, Node
from tinygen.ops import BY_NAME, scalar
from tinygen.ops.base import (
    Arg,
    Channels,
    Codes,
    Const,
    Decoded,
    Form,
    Function,
    Input,
    Kernel,
    aligned,
)

BODY_BYTES = 250
"""What a function takes of flash, about: what doing without one is worth."""

TILE_BYTES = 1024
"""Bytes of weights that are decoded at a time at the least, where channels can be chosen."""

AGAIN = (0.03, 0.1)
"""Parts of a kernel's cycles that calls for some channels at a time may add, for less RAM."""

WORTHWHILE = 3 / 4
"""Part of a layer's bytes that an encoding must come down to, unless a limit was asked for."""

FORM_CYCLES: dict[Form, float] = {"bytes": 0, "flipped": 1.5, "paired": 2.6, "woven": 2.6}
"""Cycles that a decoded weight takes until it has the form in which kernels read it."""

DISTINCTLY = 0.97
"""Part of a faster kernel's bytes that a slower one must come down to."""

_CORES = ("mve", "dsp", *(isa.name for isa in scalar.ISAS))
_SLOW = {isa.name: isa.costs.slow for isa in scalar.ISAS}
"""By how much kernels' cycles are understated on a core, see :class:`tinygen.ops.scalar.Costs`."""


@dataclass(frozen=True)
class Limit:
    """How much slower than with plain weights a network may become, whether ``any`` weights may be
    encoded, or those of which it is worthwhile alone, and by what part a kernel may take longer
    because it is called for some channels at a time."""

    slow_down: float
    any: bool = False
    again: float = AGAIN[0]


@dataclass(frozen=True)
class Room:
    """Bytes of RAM that decoded weights of a node may take for nothing, and the bytes that it takes
    more when its output may not lie over its input, as with several calls."""

    free: int = 0
    lost: int = 0


@dataclass(frozen=True, eq=False)
class Option:
    """A kernel that could compute a node, and the name of its variant."""

    variant: str
    kernel: Kernel


def options(graph: Graph, node: Node, features: frozenset[str]) -> list[Option]:
    """The kernels that could compute ``node``, in the operator's order."""
    usable = (v for v in BY_NAME[node.op].variants if v.features <= features)
    found = [
        Option(v.isa, replace(kernel, args=tuple(_constant(graph, node, a) for a in kernel.args)))
        for v in usable
        if (kernel := v.lower(graph, node)) is not None
    ]
    if not found:
        raise InputError(f"{graph.where(node)}: no kernel computes it")
    return found


def _constant(graph: Graph, node: Node, arg: Arg) -> Arg:
    """``arg``, or the constant it stands for when it is an input that lies in flash."""
    if isinstance(arg, Input):
        tensor = graph.required(node, arg.position)
        if tensor.data is not None:
            return Const("constant", tensor.data.reshape(-1))
    return arg


def fastest(found: Sequence[Option]) -> Option:
    """The option expected to take the fewest cycles, the first of several."""
    return min(found, key=lambda option: option.kernel.cycles)


def plain(found: Sequence[Option]) -> list[Option]:
    """Those of ``found`` that compute with plain weights."""
    return [option for option in found if option.kernel.encoding == "dense"]


def encodable(found: Sequence[Sequence[Option]], limit: Limit) -> bool:
    """Whether the weights of any node could be encoded."""
    consts = (_weights(option.kernel) for options in found for option in options)
    codes = (const.codes for const in consts if const is not None and const.codes is not None)
    return limit.slow_down > 1 and any(limit.any or _structured(code.values) for code in codes)


def select(
    found: Sequence[Sequence[Option]],
    features: frozenset[str],
    limit: Limit,
    small: bool = False,
    rooms: Sequence[Room] | None = None,
) -> tuple[Option, ...]:
    """One option for each node, encoded where that saves flash within ``limit``.

    ``small`` chooses plain kernels for little flash, too.  ``rooms`` says what RAM each has.
    """
    dense = [plain(options) or list(options) for options in found]
    allowed = limit.slow_down * sum(fastest(options).kernel.cycles for options in dense)
    base = _fewest_bodies(dense) if small else [fastest(options) for options in found]
    offered = [
        [b, *(o for o in some if o.kernel.encoding != "dense"), *_encoded(d, features, limit, room)]
        for b, some, d, room in zip(base, found, dense, rooms or [Room()] * len(found), strict=True)
    ]
    offered = [[some[0], *_distinct(some[1:])] for some in offered]
    if all(len(o) == 1 for o in offered):
        return tuple(base)
    chosen = _greedy(offered, allowed)
    for decoder in sorted({d for option in chosen for d in _decoders(option)}):
        fewer = [[o for o in some if decoder not in _decoders(o)] for some in offered]
        without = _greedy(fewer, allowed)
        if _flash(without) <= _flash(chosen):
            chosen, offered = without, fewer
    return tuple(chosen)


def _distinct(options: Sequence[Option]) -> list[Option]:
    """Those that take distinctly fewer bytes than any that is faster."""
    kept: list[Option] = []
    for option in sorted(options, key=lambda option: option.kernel.cycles):
        if all(option.kernel.bytes < DISTINCTLY * other.kernel.bytes for other in kept):
            kept.append(option)
    return kept


def alike(found: Sequence[Option], wanted: Kernel, features: frozenset[str]) -> Option | None:
    """Of kernels for a row of the layer that ``wanted`` computes, the fastest whose weights lie in
    flash as they do for the layer; those that are decoded once for all rows.  None without any."""
    if wanted.encoding == "dense":
        return fastest(found)
    alike = [option for option in found if option.kernel.encoding == wanted.encoding]
    if alike:
        return fastest(alike)
    if not wanted.decoded or not plain(found):
        return None
    option = fastest(plain(found))
    const = _weights(option.kernel)
    if const is None or const.codes is None:
        return None
    encoded = encodings.named(wanted.encoding, _lines(const.codes, 0, 0))
    if encoded is None:
        return None
    kernel = _decoding(option.kernel, const, encoded, 0, 0, features)
    return Option(option.variant, replace(kernel, cycles=option.kernel.cycles))


def _greedy(offered: Sequence[Sequence[Option]], allowed: float) -> list[Option]:
    """From the first of each on, whatever saves most bytes a cycle, until no cycle is left."""
    chosen = [options[0] for options in offered]
    cycles = sum(option.kernel.cycles for option in chosen)
    while True:
        best, most = None, 0.0
        for i, options in enumerate(offered):
            for option in options:
                saved = chosen[i].kernel.bytes - option.kernel.bytes
                longer = option.kernel.cycles - chosen[i].kernel.cycles
                if saved > 0 and cycles + longer <= max(allowed, cycles):
                    worth = saved / max(longer, 1)
                    if worth > most:
                        best, most = (i, option), worth
        if best is None:
            return chosen
        i, option = best
        cycles += option.kernel.cycles - chosen[i].kernel.cycles
        chosen[i] = option


def _decoders(option: Option) -> set[str]:
    return {decoded.decoder for decoded in option.kernel.decoded}


def _encoded(
    found: Sequence[Option], features: frozenset[str], limit: Limit, room: Room
) -> list[Option]:
    """The fastest of the plain kernels ``found``, its weights encoded in all ways that pay."""
    option = fastest(found)
    if limit.slow_down <= 1:
        return []
    encoded = encode(option.kernel, features, limit.any, _tiling(option.kernel, room, limit.again))
    most = option.kernel.bytes * (1 if limit.any else WORTHWHILE)
    return [Option(option.variant, kernel) for kernel in encoded if kernel.bytes <= most]


def encode(kernel: Kernel, features: frozenset[str], entropy: bool, tile: int = 0) -> list[Kernel]:
    """``kernel`` with its weights encoded, fewest bytes first, in every way that saves some.

    With ``entropy`` in ways that suit any weights, too.  The weights of ``tile`` channels are
    decoded at a time, 0: all.
    """
    const = _weights(kernel)
    if const is None or const.codes is None or not (entropy or _structured(const.codes.values)):
        return []
    total = next((a.count for a in kernel.args if isinstance(a, Channels)), 0)
    found = encodings.candidates(_lines(const.codes, tile, total), entropy)
    return [_decoding(kernel, const, encoded, tile, total, features) for encoded in found]


def _weights(kernel: Kernel) -> Const | None:
    """The constant of a kernel that can be encoded."""
    return next((a for a in kernel.args if isinstance(a, Const) and a.codes is not None), None)


def _structured(values: Array) -> bool:
    """Whether somebody gave weights a shape: four bits, few distinct values, or many zeros."""
    if values.size == 0:
        return False
    few = len(np.unique(values)) <= 32
    return few or int(np.count_nonzero(values == 0)) * 4 >= values.size


def _tiling(kernel: Kernel, room: Room, again: float) -> int:
    """How many channels to decode at a time, 0: all.

    As many as there is room for, or as make so many calls that they add ``again`` of its cycles;
    all when that takes no more RAM.
    """
    const = _weights(kernel)
    if const is None or const.codes is None or not kernel.channels * const.codes.per_channel:
        return 0
    block = const.codes.per_channel * kernel.channels
    blocks = -(-const.codes.values.size // block)
    calls = 1 + int(again * kernel.cycles / max(kernel.again, 1))
    free = max(TILE_BYTES, room.free - room.lost)
    at_a_time = max(-(-blocks // calls), free // block, 1)
    needed = at_a_time * block + room.lost
    return 0 if needed >= blocks * block else kernel.channels * at_a_time


def _lines(codes: Codes, tile: int, total: int) -> list[Array]:
    """What is decoded at a time."""
    if codes.form == "woven":
        return list(codes.values.reshape(-1, 2 * codes.per_channel))
    if tile == 0:
        return [codes.values]
    ends = range(0, total, tile)
    return [codes.values[i * codes.per_channel : (i + tile) * codes.per_channel] for i in ends]


def _decoding(
    kernel: Kernel,
    const: Const,
    encoded: Encoded,
    tile: int,
    total: int,
    features: frozenset[str],
) -> Kernel:
    """``kernel`` that gets the weights ``const`` decoded, ``tile`` of ``total`` channels a call."""
    codes = const.codes
    assert codes is not None
    values = tile * codes.per_channel if tile else codes.values.size
    extra = 0
    if codes.form == "woven":
        assert codes.scaling is not None
        extra = 4 * codes.scaling.shape[1] * (values // (2 * codes.per_channel))
    core = next((name for name in _CORES if name in features), "portable")
    cycles = encoded.cycles(core) + FORM_CYCLES[codes.form] * codes.values.size
    calls = -(-total // tile) if tile else 1
    decoded = Decoded(
        encoding=encoded.name,
        decoder=encoded.decoder,
        helpers=(*encoded.helpers, *_form_helpers(codes.form)),
        form=codes.form,
        values=values,
        per_channel=codes.per_channel,
        bytes=aligned(values + extra),
        dtype=str(const.data.dtype),
        data=Const("weights", encoded.data),
        table=None if encoded.table is None else Const("codebook", encoded.table),
        scaling=None
        if codes.scaling is None
        else Const("scaling", codes.scaling.reshape(-1), codes.scaling.shape[1]),
        cycles=int(cycles / _SLOW.get(core, 1)),
    )
    return replace(
        kernel,
        args=tuple(decoded if arg is const else arg for arg in kernel.args),
        helpers=(*kernel.helpers, *decoded.helpers),
        # With several calls the inputs are read again after outputs were written.
        overlap=kernel.overlap if calls == 1 else {},
        in_place=kernel.in_place if calls == 1 else (),
        cycles=kernel.cycles + decoded.cycles + kernel.again * (calls - 1) + 20 * calls,
        encoding=encoded.name,
        tile=tile,
    )


def _form_helpers(form: Form) -> tuple[str, ...]:
    return {
        "bytes": (),
        "flipped": ("flip_signs",),
        "paired": ("dsp", "pair_weights"),
        "woven": ("dsp", "pair_weights", "decode_line", "weave_weights"),
    }[form]


# ---- functions that take flash -------------------------------------------------------------------


def _fewest_bodies(found: Sequence[Sequence[Option]]) -> list[Option]:
    """For each node which kernel to take, so that functions and constants take little flash.

    From the fastest kernels on, one function after another is done without, as long as the
    constants of those that its layers take instead leave a saving.
    """
    chosen = [fastest(options) for options in found]
    while True:
        bodies = {b for option in chosen for b in _bodies(option.kernel)}
        trials = [trial for b in sorted(bodies) if (trial := _without(found, chosen, b))]
        best = min(trials, key=_flash, default=chosen)
        if _flash(best) >= _flash(chosen):
            return chosen
        chosen = best


def _without(
    found: Sequence[Sequence[Option]], chosen: Sequence[Option], body: str
) -> list[Option] | None:
    """``chosen`` with the smallest of other kernels where it uses ``body``; None without any."""
    result = []
    for options, taken in zip(found, chosen, strict=True):
        if body not in _bodies(taken.kernel):
            result.append(taken)
            continue
        others = [option for option in options if body not in _bodies(option.kernel)]
        if not others:
            return None
        result.append(min(others, key=lambda option: option.kernel.bytes))
    return result


def _flash(chosen: Iterable[Option]) -> int:
    """Bytes of functions (about) and constants."""
    kernels = [option.kernel for option in chosen]
    bodies = {body for kernel in kernels for body in _bodies(kernel)}
    return BODY_BYTES * len(bodies) + sum(kernel.bytes for kernel in kernels)


def _bodies(kernel: Kernel) -> set[str]:
    """The functions that a call of ``kernel`` needs: its own, and those it is given."""
    own = f"{kernel.template} {sorted((k, repr(v)) for k, v in kernel.params.items())}"
    return {own, *_given(kernel)}


def _given(kernel: Kernel) -> Iterator[str]:
    for arg in kernel.args:
        if isinstance(arg, Function):
            yield arg.name
        elif isinstance(arg, Decoded):
            yield arg.decoder
