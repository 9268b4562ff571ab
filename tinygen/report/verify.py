"""``tinygen verify``: whether all bytes agree."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from tinygen.verify import VerifyResult


def document(result: VerifyResult) -> dict[str, Any]:
    """For ``--json``; sizes in bytes."""
    return {
        "project": result.project,
        "on": result.on,
        "cases": result.cases,
        "bytes": result.bytes,
        "mismatches": result.mismatches,
        "pass": result.passed,
        "failed": list(result.failed),
        "diverging": result.diverging,
        "stack_peak": result.stack_peak,
        "stack_estimate": result.stack_estimate,
    }


def show(result: VerifyResult, console: Console) -> None:
    """Print one line of verdict, and the stack that was used."""
    verdict = "all equal" if result.passed else f"{result.mismatches:,} differ"
    if not result.passed and not result.mismatches:
        verdict = f"all equal, but {result.diverging}"
    console.print(
        f"{result.project} on {result.on}: {result.cases} cases, {result.bytes:,} output bytes, "
        f"{verdict}",
        markup=False,
    )
    if result.stack_peak:
        estimate = ""
        if result.stack_estimate is not None:
            estimate = f"; the model was estimated to take {result.stack_estimate:,} of them"
        console.print(f"most stack used: {result.stack_peak:,} bytes{estimate}")
