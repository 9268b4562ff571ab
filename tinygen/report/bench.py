"""``tinygen bench``: what an inference costs, in all and by layer."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from tinygen.bench import Bench, LayerCost
from tinygen.report.console import table

COLUMNS = (
    *("", "operator", "kernel", "variant", ">MACs", ">instructions", ">bound", ">a MAC"),
    *(">cycles (estimate)", ">cycles (expected)"),
)


def document(result: Bench) -> dict[str, Any]:
    """For ``--json``.

    ``macs`` are those left after the exact passes, ``macs_nominal`` those of the model file.
    ``cycles_estimate`` is null for cores without a timing model, ``bound`` and
    ``cycles_expected`` of a layer are null where its kernel does not state them.
    """
    return {
        "model": result.model,
        "board": result.board.name,
        "machine": result.machine.name,
        "instructions": result.instructions,
        "macs": result.macs,
        "macs_nominal": result.nominal_macs,
        "instructions_per_mac": _per_mac(result.instructions, result.macs),
        "cycles_estimate": result.cycles,
        "flash": result.sizes.flash.total,
        "ram": result.sizes.ram.total,
        "weights": result.weight_bytes,
        "arena": result.arena_bytes,
        "bound": result.bound,
        "bounded_instructions": result.bounded,
        "layers": [
            {
                "name": layer.name,
                "op": layer.op,
                "kernel": layer.kernel,
                "variant": layer.variant,
                "instructions": layer.instructions,
                "cycles_estimate": layer.cycles,
                "cycles_expected": layer.expected or None,
                "bound": layer.bound or None,
                "macs": layer.macs,
                "alternatives": [
                    {
                        "variant": choice.variant,
                        "kernel": choice.kernel,
                        "cycles_expected": choice.cycles or None,
                    }
                    for choice in layer.alternatives
                ],
            }
            for layer in result.layers
        ],
    }


def _per_mac(instructions: int, macs: int) -> float | None:
    return round(instructions / macs, 3) if macs else None


def show(result: Bench, console: Console, why: bool = False) -> None:
    """Print the layers and the totals; with ``why`` also the kernels that were not taken."""
    rows = [_row(i, layer) for i, layer in enumerate(result.layers)]
    console.print(table(COLUMNS, rows))
    console.print()
    if why:
        _show_choices(result, console)
    per_mac = _per_mac(result.instructions, result.macs)
    console.print(
        f"{result.model} on {result.machine.title}: {result.instructions:,} instructions"
        f"{f', {per_mac:.2f} a multiply-accumulate' if per_mac else ''}",
        markup=False,
    )
    if result.nominal_macs != result.macs:
        console.print(
            f"{result.macs:,} multiply-accumulates of {result.nominal_macs:,} in the file, "
            "the rest folded into constants"
        )
    if result.cycles is not None:
        clock = result.board.clock_hz
        milliseconds = f", {1000 * result.cycles / clock:.1f} ms at {clock // 1_000_000} MHz"
        console.print(
            f"about {result.cycles:,} cycles{milliseconds} with zero-wait memory (estimate)"
        )
    flash, ram = result.sizes.flash, result.sizes.ram
    console.print(
        f"minimal program: flash {flash.total:,} bytes ({flash.weights:,} weights, {flash.code:,} "
        f"code of the model), RAM {ram.total:,} bytes ({ram.arena:,} arena), stack not counted"
    )
    if result.bound:
        console.print(
            f"bound counted by hand for {result.bounded / result.instructions:.0%} of the "
            f"instructions: {result.bound:,} of {result.bounded:,}"
        )


def _row(index: int, layer: LayerCost) -> tuple[object, ...]:
    return (
        index,
        layer.op if "+" not in layer.op else f"{layer.op.count('+') + 1} layers by rows",
        layer.kernel,
        layer.variant,
        layer.macs,
        layer.instructions,
        layer.bound or "-",
        "-" if layer.macs == 0 else f"{layer.instructions / layer.macs:.2f}",
        "-" if layer.cycles is None else layer.cycles,
        layer.expected or "-",
    )


def _show_choices(result: Bench, console: Console) -> None:
    """The kernels that apply to each layer, by the cycles that decided between them."""
    rows: list[tuple[object, ...]] = []
    for i, layer in enumerate(result.layers):
        for choice in sorted(layer.alternatives, key=lambda choice: choice.cycles):
            taken = (choice.variant, choice.kernel) == (layer.variant, layer.kernel)
            cells = (choice.kernel, choice.variant, choice.cycles or "-", "taken" if taken else "")
            rows.append((i, *cells))
    console.print(table(["", "kernel that applies", "variant", ">cycles (expected)", ""], rows))
    console.print()
