"""``tinygen build``: what was made, and what it takes of the board."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from tinygen.compile import Built
from tinygen.report.console import table


def document(built: Built) -> dict[str, Any]:
    """For ``--json``."""
    request, firmware = built.request, built.firmware
    flash, ram = firmware.sizes.flash, firmware.sizes.ram
    return {
        "project": str(request.output),
        "board": request.board.name,
        "engine": request.engine,
        "toolchain": firmware.toolchain,
        "environment": firmware.environment,
        "flashable": firmware.flashable,
        "artifacts": {kind: str(path) for kind, path in firmware.artifacts.items()},
        "macs": built.macs,
        "flash": {
            "total": flash.total,
            "code": flash.code,
            "weights": flash.weights,
            "rest": flash.rest,
            "limit": flash.limit,
        },
        "ram": {
            "total": ram.total,
            "arena": ram.arena,
            "stack": ram.stack,
            "stack_estimate": built.stack_bytes,
            "rest": ram.rest,
            "limit": ram.limit,
        },
        "fits": firmware.sizes.fits,
        "kept": list(built.kept),
    }


def show(built: Built, console: Console) -> None:
    """Print the size table and what to do next."""
    firmware, request = built.firmware, built.request
    flash, ram = firmware.sizes.flash, firmware.sizes.ram
    known = built.stack_bytes is not None
    estimate = f" (an inference takes about {built.stack_bytes:,})" if known else ""
    rows = [
        ("flash", "model code", flash.code),
        ("", "weights and tables", flash.weights),
        ("", "all else", flash.rest),
        ("", f"of {flash.limit:,}", flash.total),
        ("RAM", "arena", ram.arena),
        ("", f"stack kept free{estimate}", ram.stack),
        ("", "all else", ram.rest),
        ("", f"of {ram.limit:,}", ram.total + ram.stack),
    ]
    percent = [""] * len(rows)
    percent[3] = f"{100 * flash.total / flash.limit:.1f} %"
    percent[7] = f"{100 * (ram.total + ram.stack) / ram.limit:.1f} %"
    console.print(
        table(
            [request.board.name, "", ">bytes", ">"],
            [(*row, share) for row, share in zip(rows, percent, strict=True)],
        )
    )
    console.print()
    for path in firmware.artifacts.values():
        console.print(str(path), markup=False)
    for kept in built.kept:
        console.print(f"kept your {kept}", markup=False)
    console.print()
    console.print(f"next: tinygen verify {request.output}", markup=False)
    if firmware.flashable:
        console.print(f"      tinygen flash {request.output}", markup=False)
    else:
        console.print("      (this image is for the emulator; it cannot be flashed)")
