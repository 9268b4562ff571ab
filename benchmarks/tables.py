"""RESULTS.md from what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import published, results
from benchmarks.peers import PEERS
from tinygen import boards

FILE = Path(__file__).with_name("RESULTS.md")
README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- benchmarks: made by make bench -->", "<!-- /benchmarks -->"
MAIN = results.MAIN
MISSING = "-"
PLOTS = ("instructions", "flash", "ram")

_HEAD = """\
# Benchmark results

Written by `make bench`; do not edit. `make bench-update` measures TinyGen alone again, and
`make bench-update BOARDS=qemu_m4` one core alone; what is not measured keeps its figures.
`results.json` has the same figures for machines, and `make test` holds the code to them.

- **Instructions** are exact: QEMU runs a minimal program (start-up, model, inputs, no serial line),
  and a plugin counts what the second inference executes. One model on one core:
  `tinygen bench MODEL --board BOARD`, which shows every layer.
- **Cycles** are an estimate from the executed instructions ([docs/cycles.md](../docs/cycles.md)),
  for memory without wait states. Cores without a published timing table have none.
- **Flash and RAM** are all bytes of that program; the stack is not in them.
- **Bound** is what the methods need in the inner loops, counted by hand for the kernels that state
  it, and of how many of the instructions these kernels took. Beside flash stand the constants alone
  (weights, biases, multipliers), beside RAM the activations that exist at one time when layers run
  whole, one after another, outputs in the place of inputs; layers that run row by row need less.
- Every output byte was compared with the reference, of peers too.
"""

_PEERS = """\
Peers run in the same program, compiled by the same compiler, and are counted in the same way:
TinyGen with `-O2`, peers with `-O2` and `-O3`, of which the one with fewer instructions stands
here. Their models were edited first, for BakeNN reads none as it is: no unknown batch, no softmax
at the end (TinyGen's figures include it), reshape options, axis of biases, versions of operators.
Columns marked * were measured once on {date} and are not measured again: TensorFlow Lite for
Microcontrollers is in no package registry. MACs are those that the exact rewrites leave.
"""


def write(document: Mapping[str, Any]) -> None:
    """RESULTS.md, and the table in README.md."""
    FILE.write_text(text(document))
    README.write_text(readme(README.read_text(), document))


def readme(page: str, document: Mapping[str, Any]) -> str:
    """``page`` with the table between :data:`BEGIN` and :data:`END` made anew."""
    rows = []
    for model, cores in sorted(document["results"].items()):
        ours, quoted = cores.get(MAIN, {}).get("tinygen", {}), published.TFLM.get(model)
        if quoted is None or "instructions" not in ours:
            continue
        cells = [f"`{model}`"]
        for at, key in enumerate(("instructions", "flash", "ram")):
            peer = _figure(cores[MAIN].get("cmsis_nn", {}), key)
            cells += [f"**{_number(ours[key])}**", peer, _number(quoted["tflm_cmsis_nn"][at])]
        rows.append([*cells, _short_cycles(ours)])
    columns = ["model"]
    for title in ("instructions", "flash, bytes", "RAM, bytes"):
        columns += [title, "CMSIS-NN", "TFLM + CMSIS-NN*"]
    return between(page, BEGIN, table([*columns, "cycles (estimate)"], rows), END)


def between(page: str, begin: str, text: str, end: str) -> str:
    """``page`` with ``text``, whole lines, between the lines ``begin`` and ``end``."""
    head, _, rest = page.partition(begin)
    return f"{head}{begin}\n{text}{end}{rest.partition(end)[2]}"


def _short_cycles(row: results.Row) -> str:
    return f"{row['cycles'] / 1e6:.2f} M" if row.get("cycles") else MISSING


def text(document: Mapping[str, Any]) -> str:
    """The whole page."""
    found: results.Results = document["results"]
    parts = [_HEAD, _tools(document["tools"]), "## Cortex-M4 beside others\n"]
    parts.append(_PEERS.format(date=published.DATE))
    parts += [f"- `{name}`: {what}." for name, what in PEERS.items()]
    parts.append("")
    parts += [_plots(), _comparison(found), _modes(found)]
    for board in results.BOARDS:
        if any(board in cores for cores in found.values()):
            parts += [f"## {boards.load(board).title}\n", _core(found, board)]
    return "\n".join(parts).rstrip() + "\n"


def _tools(tools: Mapping[str, str]) -> str:
    return "Measured with " + ", ".join(f"{k} {v}" for k, v in sorted(tools.items())) + ".\n"


def _plots() -> str:
    return "\n".join(f"![{name} on the Cortex-M4](plots/{name}.svg)\n" for name in PLOTS)


def _comparison(found: results.Results) -> str:
    """Instructions, flash and RAM on the main core, a table each."""
    parts = []
    for key, title, bound, beside in (
        ("instructions", "Instructions", "bound", "bound"),
        ("flash", "Flash, bytes", "weights", "constants alone"),
        ("ram", "RAM, bytes", "live", "whole layers"),
    ):
        old = ("instructions", "flash", "ram").index(key)
        rows = []
        for model, cores in sorted(found.items()):
            row = cores.get(MAIN, {})
            if "tinygen" not in row:
                continue
            ours = row["tinygen"]
            quoted = published.TFLM.get(model, {})
            rows.append(
                [
                    f"`{model}`",
                    f"**{_number(ours.get(key))}**",
                    _bound(ours, bound),
                    *(_figure(row.get(peer, {}), key) for peer in PEERS),
                    *(
                        _number(quoted[name][old]) if name in quoted else MISSING
                        for name in ("cmsis_nn", "tflm_cmsis_nn", "tflm")
                    ),
                ]
            )
        columns = [
            *("model", "TinyGen", beside, *(f"`{peer}`" for peer in PEERS)),
            *("CMSIS-NN by hand*", "TFLM + CMSIS-NN*", "TFLM*"),
        ]
        parts += [f"### {title}\n", table(columns, rows)]
    return "\n".join(parts)


def _modes(found: results.Results) -> str:
    """What ``--optimize`` trades on the main core."""
    engines = ("tinygen_speed", "tinygen", "tinygen_ram", "tinygen_size")
    rows = []
    for model, cores in sorted(found.items()):
        cells = [f"`{model}`"]
        for key in ("instructions", "ram", "flash"):
            cells += [_figure(cores.get(MAIN, {}).get(engine, {}), key) for engine in engines]
        rows.append(cells)
    columns = ["model"]
    for key in ("instructions", "RAM", "flash"):
        columns += [f"{key}: speed", "balanced", "ram", "size"]
    head = "### `--optimize speed`, `balanced` (the default), `ram` and `size`\n"
    return f"{head}\n{table(columns, rows)}"


def _core(found: results.Results, board: str) -> str:
    """All figures of one core."""
    quoted = published.M55 if board == "qemu_m55" else {}
    rows = []
    others = [p for p in PEERS if any(p in c.get(board, {}) for c in found.values())]
    for model, cores in sorted(found.items()):
        row = cores.get(board, {})
        ours = row.get("tinygen", {"error": "not measured"})
        rows.append(
            [
                f"`{model}`",
                _macs(ours),
                _figure(ours, "instructions"),
                _per_mac(ours),
                _bound(ours, "bound"),
                *(_figure(ours, key) for key in ("cycles", "flash", "ram")),
                *(_three(row.get(peer, {})) for peer in others),
                *([_number(quoted.get(model))] if quoted else []),
            ]
        )
    columns = [
        *("model", "MACs", "instructions", "a MAC", "bound", "cycles (estimate)", "flash", "RAM"),
        *(f"`{peer}`: instructions, flash, RAM" for peer in others),
        *(["TFLM + CMSIS-NN*, instructions"] if quoted else []),
    ]
    note = f"\n\\* measured once on {published.DATE}, not measured again.\n" if quoted else ""
    return table(columns, rows) + note


def _three(row: results.Row) -> str:
    if "instructions" not in row:
        return str(row.get("error", MISSING))
    return " / ".join(_number(row[key]) for key in ("instructions", "flash", "ram"))


def _figure(row: results.Row, key: str) -> str:
    if "error" in row:
        return str(row["error"]) if key == "instructions" else MISSING
    return _number(row.get(key))


def _bound(row: results.Row, key: str) -> str:
    if key != "bound" or not row.get("bound"):
        return _number(row.get(key) or None)
    return f"{_number(row['bound'])} of {_number(row['bounded'])}"


def _macs(row: results.Row) -> str:
    """Multiply-accumulates that are left; of how many, when constants took the place of some."""
    left, nominal = row.get("macs"), row.get("macs_nominal")
    return _number(left) if left == nominal else f"{_number(left)} of {_number(nominal)}"


def _per_mac(row: results.Row) -> str:
    macs = row.get("macs")
    return f"{row['instructions'] / macs:.2f}" if macs else MISSING


def _number(value: float | None) -> str:
    """With thousands separators; figures quoted as floats in millions."""
    if value is None:
        return MISSING
    return f"{value / 1e6:g} M" if isinstance(value, float) else f"{value:,}"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lines of Markdown, all columns but the first set to the right."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    rule = "|" + "|".join(["---", *["---:"] * (len(columns) - 1)]) + "|"
    return "\n".join([line(columns), rule, *(line(row) for row in rows)]) + "\n"
