"""``tinygen bench``: what an inference costs, in all and by layer."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from tinygen.bench import Bench
from tinygen.report.console import table


def document(result: Bench) -> dict[str, Any]:
    """For ``--json``.  ``cycles_estimate`` is null for cores without a timing model."""
    return {
        "model": result.model,
        "board": result.board.name,
        "machine": result.machine.name,
        "instructions": result.instructions,
        "macs": result.macs,
        "instructions_per_mac": _per_mac(result.instructions, result.macs),
        "cycles_estimate": result.cycles,
        "flash": result.sizes.flash.total,
        "ram": result.sizes.ram.total,
        "weights": result.weight_bytes,
        "arena": result.arena_bytes,
        "layers": [
            {
                "name": layer.name,
                "op": layer.op,
                "kernel": layer.kernel,
                "variant": layer.variant,
                "instructions": layer.instructions,
                "cycles_estimate": layer.cycles,
                "macs": layer.macs,
            }
            for layer in result.layers
        ],
    }


def _per_mac(instructions: int, macs: int) -> float | None:
    return round(instructions / macs, 3) if macs else None


def show(result: Bench, console: Console) -> None:
    """Print the layers and the totals."""
    rows: list[tuple[object, ...]] = [
        (
            i,
            layer.op,
            layer.kernel,
            layer.variant,
            layer.macs,
            layer.instructions,
            "-" if layer.macs == 0 else f"{layer.instructions / layer.macs:.2f}",
            "-" if layer.cycles is None else layer.cycles,
        )
        for i, layer in enumerate(result.layers)
    ]
    columns = ["", "operator", "kernel", "variant", ">MACs", ">instructions", ">a MAC", ">cycles"]
    console.print(table([*columns[:-1], ">cycles (estimate)"], rows))
    console.print()
    per_mac = _per_mac(result.instructions, result.macs)
    console.print(
        f"{result.model} on {result.machine.title}: {result.instructions:,} instructions"
        f"{f', {per_mac:.2f} a multiply-accumulate' if per_mac else ''}",
        markup=False,
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
