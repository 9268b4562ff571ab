"""``tinygen inspect``: what a network is made of and what it needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from tinygen.emit import comment_text, memory_map
from tinygen.graph import Graph, Tensor
from tinygen.ops import macs
from tinygen.plan import Plan
from tinygen.report.console import table


def document(graph: Graph, plan: Plan) -> dict[str, Any]:
    """Everything ``inspect`` knows, for ``--json``.

    ``macs`` and ``layers`` are of the network after the exact passes, which drop channels that no
    input changes; ``macs_nominal`` are those of the network in the file.
    """
    return {
        "model": graph.source,
        "sha256": graph.sha256,
        "inputs": [_edge(graph.at(i)) for i in graph.inputs],
        "outputs": [_edge(graph.at(i)) for i in graph.outputs],
        "operators": len(graph.nodes),
        "macs": plan.macs,
        "macs_nominal": macs(graph),
        "weights": plan.weight_bytes,
        "arena": plan.arena_bytes,
        "arena_lower_bound": plan.lower_bound,
        "layers": [
            {
                "name": comment_text(plan.graph.output(step.node).name),
                "op": step.node.op,
                "kernel": step.kernel.name,
                "input_shape": list(plan.graph.required(step.node, 0).shape),
                "output_shape": list(plan.graph.output(step.node).shape),
                "macs": step.macs,
                "weights": sum(c.data.nbytes for c in step.kernel.constants),
                "scratch": step.kernel.scratch,
                "live": live,
            }
            for step, live in zip(plan.steps, plan.live(), strict=True)
        ],
        "memory": memory_map(plan),
    }


def _edge(tensor: Tensor) -> dict[str, Any]:
    quant = tensor.quant
    return {
        "name": comment_text(tensor.name),
        "shape": list(tensor.shape),
        "dtype": tensor.dtype,
        "scale": quant.scale[0] if quant and quant.per_tensor else None,
        "zero_point": quant.zero_point[0] if quant and quant.per_tensor else None,
    }


def show(graph: Graph, plan: Plan, console: Console) -> None:
    """Print the layers, the totals and the memory map over time."""
    facts = document(graph, plan)
    console.print(f"{graph.source}  sha256 {graph.sha256[:16]}…", markup=False)
    for kind in ("inputs", "outputs"):
        for edge in facts[kind]:
            quant = f"  scale {edge['scale']:.6g} zero point {edge['zero_point']}"
            console.print(
                f"{kind[:-1]:6} {_shape(edge['shape'])} {edge['dtype']}"
                f"{quant if edge['scale'] else ''}  {edge['name']}",
                markup=False,
            )
    console.print()
    console.print(
        table(
            ["", "operator", "shape", ">MACs", ">weights", ">live", "name"],
            [
                (
                    i,
                    layer["op"],
                    f"{_shape(layer['input_shape'])} -> {_shape(layer['output_shape'])}",
                    layer["macs"],
                    layer["weights"],
                    layer["live"],
                    layer["name"],
                )
                for i, layer in enumerate(facts["layers"])
            ],
        )
    )
    console.print()
    console.print(
        f"{facts['macs']:,} multiply-accumulates{nominal(facts)}, "
        f"{facts['weights']:,} bytes of weights, arena "
        f"{facts['arena']:,} bytes (no plan needs less than {facts['arena_lower_bound']:,})"
    )
    console.print()
    console.print(memory_picture(plan), markup=False)


def nominal(facts: Mapping[str, Any]) -> str:
    """What the file says of ``macs``, in words, where the passes left fewer."""
    if facts["macs_nominal"] == facts["macs"]:
        return ""
    return f" of {facts['macs_nominal']:,} in the file, the rest folded into constants"


def _shape(shape: list[int]) -> str:
    return "x".join(str(extent) for extent in shape) or "scalar"


def memory_picture(plan: Plan, rows: int = 16) -> str:
    """The arena over time: one column a layer, addresses upwards, one letter a buffer."""
    steps = len(plan.steps)
    if not steps or not plan.arena_bytes:
        return "the arena is empty"
    stride = max(1, -(-steps // 72))
    unit = -(-plan.arena_bytes // rows)
    lines = []
    for row in reversed(range(-(-plan.arena_bytes // unit))):
        middle = row * unit + min(unit, plan.arena_bytes - row * unit) // 2
        cells = "".join(_cell(plan, middle, step) for step in range(0, steps, stride))
        lines.append(f"{row * unit:>9,} |{cells}|")
    axis = f"{'':>9}  layer 0 to {steps - 1}, left to right; "
    return "\n".join([*lines, axis + "a letter is a buffer, a dot is free memory"])


def _cell(plan: Plan, address: int, step: int) -> str:
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    for i, b in enumerate(plan.buffers):
        if b.first <= step <= b.last and b.offset <= address < b.end:
            return letters[i % len(letters)]
    return "."
