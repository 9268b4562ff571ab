"""Let a convolution pad its own input.

A PAD before a convolution that itself pads nothing writes a whole image to memory only to have it
read once.  When the padding value is the input's zero point, which is what a convolution takes
outside its image, the two are one.
"""

from __future__ import annotations

from dataclasses import replace

from tinygen.graph import Graph, Node
from tinygen.ops import conv2d, depthwise_conv2d, pad
from tinygen.ops.common import Pads, is_int8
from tinygen.ops.int16 import is_int16

_WINDOWED = (conv2d.OP.name, depthwise_conv2d.OP.name)


def fuse_pad(graph: Graph) -> Graph:
    """``graph`` in which each PAD that feeds convolutions alone, and can be theirs, is."""
    for node in graph.nodes:
        pads = _image_pads(graph, node)
        users = graph.consumers(node.outputs[0])
        if pads is None or not users or not all(_takes(graph, node, user) for user in users):
            continue
        if node.outputs[0] in graph.outputs:
            continue
        fused = {id(user): _padded(user, node.inputs[0], pads) for user in users}
        graph = replace(
            graph, nodes=tuple(fused.get(id(n), n) for n in graph.nodes if n is not node)
        )
    return graph


def _image_pads(graph: Graph, node: Node) -> Pads | None:
    """Rows and columns that ``node`` adds, if it is a PAD of rows and columns with zero points."""
    target = graph.output(node)
    if node.op not in pad.NAMES or not (is_int8(target) or is_int16(target)):
        return None
    if pad.fill_value(graph, node) != target.zero_point:
        return None
    amounts = pad.amounts(graph, node)
    if len(amounts) != 4 or amounts[0] != (0, 0) or amounts[3] != (0, 0):
        return None
    return Pads(*amounts[1], *amounts[2])


def _takes(graph: Graph, node: Node, user: Node) -> bool:
    """Whether ``user`` reads the padded image only as its image, pads nothing itself, and has the
    same zero point before and after."""
    if user.op not in _WINDOWED or user.inputs.count(node.outputs[0]) != 1:
        return False
    if user.inputs[0] != node.outputs[0]:
        return False
    if graph.required(node, 0).quant != graph.output(node).quant:
        return False
    module = conv2d if user.op == conv2d.OP.name else depthwise_conv2d
    height, width = graph.output(node).shape[1:3]
    return not module.window_of(graph, user).resolve(height, width).any


def _padded(user: Node, image: int, pads: Pads) -> Node:
    attrs = replace(user.attrs, padding="EXPLICIT", pads=pads)
    return replace(user, inputs=(image, *user.inputs[1:]), attrs=attrs)
