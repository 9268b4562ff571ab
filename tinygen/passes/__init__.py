"""Exact rewrites of the graph, one file each; here is their order.

A pass is a pure function ``Graph -> Graph`` that leaves every output byte as it is.
"""

from __future__ import annotations

from collections.abc import Callable

from tinygen.graph import Graph
from tinygen.passes.drop_channels import drop_channels, multiple_for
from tinygen.passes.drop_dead import drop_dead
from tinygen.passes.drop_identities import drop_identities
from tinygen.passes.fold_channels import fold_channels
from tinygen.passes.fold_constants import fold_constants
from tinygen.passes.fuse_activation import fuse_activation
from tinygen.passes.fuse_pad import fuse_pad
from tinygen.passes.merge_equal import merge_equal
from tinygen.passes.regroup import regroup
from tinygen.passes.settle_constant_channels import settle_constant_channels

PASSES: tuple[Callable[[Graph], Graph], ...] = (
    fold_constants,
    merge_equal,
    fuse_pad,
    fuse_activation,
    drop_identities,
    regroup,
    fold_channels,
    drop_channels,
    settle_constant_channels,
    drop_dead,
)


def run(graph: Graph, features: frozenset[str] = frozenset()) -> Graph:
    """``graph`` after every pass, checked after each.

    ``features`` are the core's: they decide how many channels are left.
    """
    for rewrite in PASSES:
        if rewrite is drop_channels:
            graph = drop_channels(graph, multiple_for(features))
        else:
            graph = rewrite(graph)
        graph.check()
    return graph
