"""CI fails on a skip that it did not expect."""

from __future__ import annotations

from conftest import EXPECTED, unexpected


def test_unexpected_skips_are_found() -> None:
    assert unexpected([f"Skipped: {reason}" for reason in EXPECTED]) == []
    assert unexpected(["Skipped: the compiler is missing"]) == ["Skipped: the compiler is missing"]
