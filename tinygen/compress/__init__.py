"""The compression methods, one file each; adding one is a line here."""

from __future__ import annotations

from tinygen.compress import (
    cluster,
    cluster_weights,
    distill,
    filters,
    low_rank,
    prune,
    qat,
    quantize,
    recover,
    round_weights,
    thin_filters,
)
from tinygen.compress.base import Context, Method, Recipe, RecipeStep, parse

METHODS: tuple[Method, ...] = (
    prune.METHOD,
    cluster.METHOD,
    filters.METHOD,
    low_rank.METHOD,
    qat.METHOD,
    distill.METHOD,
    quantize.METHOD,
    cluster_weights.METHOD,
    round_weights.METHOD,
    recover.METHOD,
    thin_filters.METHOD,
)

__all__ = ["METHODS", "Context", "Method", "Recipe", "RecipeStep", "parse"]
