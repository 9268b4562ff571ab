"""The committed benchmark results: the code still is as fast and as small as they say."""

from __future__ import annotations

import json

import benches
import pytest

from benchmarks import peers, published, results, tables

DOCUMENT = results.load()
QUICK_MODELS = ("digits_int8", "ad01_int8", "kws_ref_model", "str_ww_ref_model")
QUICK_BOARDS = ("qemu_m4", "qemu_rv32")
ROWS = [
    (model, board)
    for model, by_board in DOCUMENT["results"].items()
    for board, by_engine in by_board.items()
    if "instructions" in by_engine.get("tinygen", {})
]
QUICK = [row for row in ROWS if row[0] in QUICK_MODELS and row[1] in QUICK_BOARDS]


@pytest.mark.parametrize(
    ("model", "board"),
    [benches.grouped(*row, *(() if row in QUICK else (pytest.mark.wide,))) for row in ROWS],
)
def test_figures_hold(model: str, board: str) -> None:
    benches.file(model)
    other = {k: v for k, v in results.tools().items() if DOCUMENT["tools"].get(k) != v}
    if other:
        pytest.skip(f"the committed results were measured with other tools than {other}")
    committed = DOCUMENT["results"][model][board]["tinygen"]
    found = results.changes(committed, benches.row(model, board))
    assert not found, f"{model} on {board}: {'; '.join(found)}"


def test_the_bundled_model_is_among_them() -> None:
    assert {("digits_int8", board) for board in QUICK_BOARDS} <= set(QUICK)


def test_a_change_is_noticed() -> None:
    was = {"instructions": 10_000, "flash": 1000, "ram": 500}
    assert results.changes(was, was | {"instructions": 10_100, "cycles": 1}) == []
    assert results.changes(was, was | {"instructions": 10_101}) == [
        "instructions: 10,000 committed, 10,101 measured, +1.0%, worse"
    ]
    assert results.changes(was, was | {"flash": 980, "ram": 520}) == [
        "flash: 1,000 committed, 980 measured, -2.0%, better: refresh with `make bench-update`",
        "ram: 500 committed, 520 measured, +4.0%, worse",
    ]
    assert results.changes(was, {"error": "does not fit"}) == [
        f"{key}: {value} committed, None measured" for key, value in was.items()
    ]


def test_tables_and_figures_agree() -> None:
    assert tables.FILE.read_text() == tables.text(DOCUMENT)
    page = tables.README.read_text()
    assert page == tables.readme(page, DOCUMENT)
    again = json.dumps(DOCUMENT, indent=1, sort_keys=True) + "\n"
    assert results.FILE.read_text() == again


def test_no_peer_needs_less() -> None:
    """Of instructions, flash or RAM, on any core, of any model that both run."""
    for model, board in ROWS:
        rows = DOCUMENT["results"][model][board]
        others = [rows[peer] for peer in peers.PEERS if "instructions" in rows.get(peer, {})]
        if board == results.MAIN:
            quoted = published.TFLM.get(model, {}).values()
            others += [dict(zip(results.HELD, row, strict=True)) for row in quoted]
        for other in others:
            assert all(rows["tinygen"][key] < other[key] for key in results.HELD), (model, board)


def test_peers_are_measured_too() -> None:
    """On the models that a peer reads it stands beside TinyGen."""
    rows = DOCUMENT["results"]["digits_int8"]["qemu_m4"]
    assert {"tinygen", "bakenn", "cmsis_nn"} <= set(rows)
