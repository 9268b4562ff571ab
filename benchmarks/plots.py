"""Plots of the figures on the Cortex-M4, as SVG: TinyGen beside its peers and the bound."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot

from benchmarks import published, results
from benchmarks.results import MAIN

FOLDER = Path(__file__).with_name("plots")

SERIES = {
    "tflm_cmsis_nn": ("TFLM + CMSIS-NN (2026-11-23)", "#b9b9b9"),
    "bakenn": ("BakeNN", "#d9a441"),
    "cmsis_nn": ("CMSIS-NN, no interpreter", "#5b8fb9"),
    "tinygen": ("TinyGen", "#2f7d4f"),
}
TITLES = {
    "instructions": "Instructions of one inference",
    "flash": "Flash of a minimal program",
    "ram": "RAM of a minimal program",
}
BOUNDS = {
    "instructions": "inner loops counted by hand",
    "flash": "constants alone",
    "ram": "layers run whole",
}
BASE = "tflm_cmsis_nn"
TOP = 130


def write(document: Mapping[str, Any]) -> None:
    """All plots; the same figures give the same bytes."""
    FOLDER.mkdir(exist_ok=True)
    mpl.rcParams["svg.hashsalt"] = "tinygen"
    mpl.rcParams["svg.fonttype"] = "none"
    for key in TITLES:
        _plot(document["results"], key)


def _plot(found: results.Results, key: str) -> None:
    """Bars in per cent of TFLM with CMSIS-NN, TinyGen's figure in full above its bar."""
    models = [m for m in sorted(found) if m in published.TFLM and MAIN in found[m]]
    base = {m: _value(found, m, BASE, key) or 1 for m in models}
    figure, axes = pyplot.subplots(figsize=(8, 3.8))
    width = 0.8 / len(SERIES)
    for at, (engine, (label, colour)) in enumerate(SERIES.items()):
        values = {m: _value(found, m, engine, key) or 0 for m in models}
        places = [i + (at - (len(SERIES) - 1) / 2) * width for i in range(len(models))]
        heights = [100 * values[m] / base[m] for m in models]
        bars = axes.bar(places, heights, width, label=label, color=colour)
        for place, height in zip(places, heights, strict=True):
            if height > TOP:
                style: dict[str, Any] = {"rotation": 90, "ha": "center", "va": "top", "fontsize": 7}
                axes.text(place, TOP - 2, f"{height:.0f} %", **style)
        if engine == "tinygen":
            axes.bar_label(bars, [_short(values[m]) for m in models], fontsize=7)
            bounds = [100 * _bound(found[m][MAIN][engine], key) / base[m] for m in models]
            axes.plot(places, bounds, "_", color="black", markersize=9, label=BOUNDS[key])
    axes.set_xticks(range(len(models)), [m.replace("_", "_\n", 1) for m in models], fontsize=8)
    axes.set_ylim(0, TOP)
    axes.set_ylabel("% of TFLM + CMSIS-NN", fontsize=8)
    axes.set_title(f"{TITLES[key]}, Cortex-M4", fontsize=10)
    axes.legend(fontsize=7, frameon=False, ncols=5, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(FOLDER / f"{key}.svg", metadata={"Date": None})
    pyplot.close(figure)


def _short(value: float) -> str:
    return f"{value / 1e6:.3g} M" if value >= 1e6 else f"{value / 1e3:.3g} k"


def _bound(row: results.Row, key: str) -> float:
    """What the method needs; of layers whose kernels state no bound, what they took."""
    if key == "instructions":
        return float(row["bound"] + row["instructions"] - row["bounded"])
    return float(row["weights"] if key == "flash" else row["live"])


def _value(found: results.Results, model: str, engine: str, key: str) -> float | None:
    if engine in found[model][MAIN]:
        figure: float | None = found[model][MAIN][engine].get(key)
        return figure
    quoted = published.TFLM[model].get(engine)
    return None if quoted is None else quoted[("instructions", "flash", "ram").index(key)]
