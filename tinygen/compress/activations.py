"""Scales and zero points of activations, by TensorFlow Lite's 8-bit specification.

Each tensor has one scale and zero point.  Tensors between which an operator only moves values share
them; the outputs of SOFTMAX, LOGISTIC and TANH have those that the specification fixes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from tinygen.compress.calibration import Range
from tinygen.graph import ABSENT, Array, Graph, Node, Quant
from tinygen.numerics import LIMITS, float32

Quants = dict[int, Quant]
"""By tensor index; constants that operators take as operands are among them."""

SAME_SCALE = {
    *("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "PAD", "PADV2"),
    *("MAX_POOL_2D", "AVERAGE_POOL_2D", "CONCATENATION", "RELU6"),
}
"""Operators whose kernels do not rescale: TFLM's RELU6 is among them, its RELU is not."""

FIXED = {
    8: {
        "SOFTMAX": Quant((1 / 256,), (-128,)),
        "LOGISTIC": Quant((1 / 256,), (-128,)),
        "TANH": Quant((1 / 128,), (0,)),
    },
    16: dict.fromkeys(("SOFTMAX", "LOGISTIC", "TANH"), Quant((1 / 32768,), (0,))),
}
"""Outputs that the specification fixes, by bits and operator."""

OPERANDS = {"ADD", "SUB", "MUL", "CONCATENATION"}
"""Operators whose float constants are operands like activations."""

HEADROOM = {"ADD": 1 << 18, "SUB": 1 << 18, "HARD_SWISH": 1 << 6}
"""How much finer an output's scale may be than its inputs': TFLM takes less than twice this."""


def operands(node: Node) -> tuple[int, ...]:
    """Inputs that are activations, or constants in the place of one: what PADV2 pads with too."""
    if node.op in ("PAD", "PADV2"):
        return (node.inputs[0], *(i for i in node.inputs[2:] if i != ABSENT))
    return node.inputs if node.op in OPERANDS else node.inputs[:1]


def separate_fixed_outputs(graph: Graph) -> Graph:
    """``graph`` with a QUANTIZE before each concatenation input whose scale is fixed otherwise.

    Inputs of a concatenation share the output's scale, which an input from a SOFTMAX can do with
    one from a LOGISTIC, but not with a convolution's.
    """
    fixed: dict[int, str] = {}  # what fixes a tensor's scale
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.op in FIXED[8]:
            fixed[node.outputs[0]] = "TANH" if node.op == "TANH" else "SOFTMAX"
        elif node.op in SAME_SCALE:
            sources = node.inputs if node.op == "CONCATENATION" else node.inputs[:1]
            kinds = {fixed.get(i, "") for i in sources}
            if len(kinds) > 1:
                graph, copies, node = _with_copies(graph, node, set(fixed))
                nodes += copies
            elif kinds != {""}:
                fixed[node.outputs[0]] = kinds.pop()
        nodes.append(node)
    return replace(graph, nodes=tuple(nodes))


def _with_copies(graph: Graph, node: Node, fixed: set[int]) -> tuple[Graph, list[Node], Node]:
    """``node`` reading copies of its inputs that are ``fixed``, and the nodes that make these."""
    inputs, copies = list(node.inputs), []
    for place, index in enumerate(node.inputs):
        if index in fixed:
            source = graph.at(index)
            graph, copy = graph.add_tensor(replace(source, name=f"{source.name}/requantized"))
            copies.append(Node("QUANTIZE", (index,), (copy,), None, node.index))
            inputs[place] = copy
    return graph, copies, replace(node, inputs=tuple(inputs))


def activation_quants(graph: Graph, ranges: Mapping[int, Range], bits: int) -> Quants:
    """Scale and zero point of every activation of ``graph``, and of constant operands.

    ``ranges`` are those of activations; constants have their own.
    """
    group = _groups(graph)
    wide: dict[int, Range] = {}
    for index, (low, high) in (_constants(graph) | dict(ranges)).items():
        before = wide.get(group[index], (0.0, 0.0))
        wide[group[index]] = (min(low, before[0]), max(high, before[1]))
    quants = {root: affine(*found, bits) for root, found in wide.items()}
    for node in graph.nodes:
        output = group[node.outputs[0]]
        if node.op in FIXED[bits]:
            quants[output] = FIXED[bits][node.op]
        elif node.op in HEADROOM:
            finest = max(quants[group[i]].scale[0] for i in node.inputs) / HEADROOM[node.op]
            if quants[output].scale[0] < finest:
                quants[output] = replace(quants[output], scale=(float32(finest),))
    return {index: quants[root] for index, root in group.items()}


def follow(graph: Graph, learned: Mapping[int, Range]) -> dict[int, Range]:
    """``learned`` ranges, and those of tensors whose values come from such tensors alone."""
    found = dict(learned)
    for node in graph.nodes:
        given = [i for i in operands(node) if not graph.at(i).constant]
        if node.op in SAME_SCALE and given and all(i in found for i in given):
            low, high = min(found[i][0] for i in given), max(found[i][1] for i in given)
            found.setdefault(node.outputs[0], (min(low, 0.0), max(high, 0.0)))
    return found


def _constants(graph: Graph) -> dict[int, Range]:
    """Ranges of constant operands."""
    found: dict[int, Range] = {}
    for node in graph.nodes:
        for index in operands(node):
            data = graph.at(index).data
            if data is not None:
                found[index] = (float(data.min(initial=0)), float(data.max(initial=0)))
    return found


def _groups(graph: Graph) -> dict[int, int]:
    """For each activation or constant operand one tensor that stands for all of its scale."""
    group: dict[int, int] = {i: i for i in (*graph.inputs, *_constants(graph))}
    for node in graph.nodes:
        group[node.outputs[0]] = node.outputs[0]
        if node.op not in SAME_SCALE:
            continue
        for index in operands(node):
            old, new = group[index], group[node.outputs[0]]
            group = {i: new if root == old else root for i, root in group.items()}
    return group


def affine(low: float, high: float, bits: int) -> Quant:
    """The quantization of the real range ``low..high``, in which 0 lies.

    Asymmetric for 8 bits, with the zero point rounded; symmetric for 16.
    """
    if bits == 16:
        return Quant((_scale(max(-low, high) / 32767),), (0,))
    scale = _scale((high - low) / 255)
    return Quant((scale,), (int(np.clip(np.rint(-128 - low / scale), -128, 127)),))


def _scale(value: float) -> float:
    """``value`` as a scale; 1 for a tensor of zeros."""
    return float32(max(value, float(np.finfo(np.float32).tiny))) if value > 0 else 1.0


def rounded(values: Array, quant: Quant, bits: int) -> Array:
    """``values`` moved to the nearest that ``quant`` can hold, float32."""
    low, high = LIMITS[f"int{bits}"]
    scale, zero_point = np.float32(quant.scale[0]), np.float32(quant.zero_point[0])
    integers = np.clip(np.rint(values / scale) + zero_point, low, high)
    return np.asarray((integers - zero_point) * scale, dtype=np.float32)
