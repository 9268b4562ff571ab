"""The stock engine: TensorFlow Lite Micro's interpreter behind TinyGen's model header.

:func:`generate` makes the model's library for a project: the flatbuffer as an array, an operator
resolver with exactly the model's operators, an arena of measured size.  TFLM itself comes from the
board's ``lib_deps``, or from a local tree (:func:`tinygen.tflm.tree.check_tree`), of which the
project gets a copy of what this model needs, so that it stays complete by itself.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tinygen import __version__, resources
from tinygen.emit import RUNTIME_VERSION, Edge, comment_text, environment
from tinygen.graph import Tensor
from tinygen.tflm import tree as trees
from tinygen.tflm.arena import arena_bytes
from tinygen.tflm.summary import Layer, Summary, summarize
from tinygen.tflm.tree import Tree, check_compiler, check_tree

__all__ = [
    "Layer",
    "Library",
    "Summary",
    "Tree",
    "arena_bytes",
    "check_compiler",
    "check_tree",
    "generate",
]

_BYTES_A_LINE = 16


@dataclass(frozen=True, eq=False)
class Library:
    """What the TFLM engine puts into a project, and what it knows of the model."""

    summary: Summary
    arena_bytes: int
    sources: dict[str, str]
    """Files of ``lib/<name>``, by path relative to it."""
    runtime: dict[str, str | bytes]
    """Files of ``lib/tflm``, by path relative to it; empty when ``lib_deps`` bring TFLM."""


def generate(model: bytes, filename: str, name: str, tree: Tree | None = None) -> Library:
    """The TFLM engine for the flatbuffer ``model``, called ``name`` in C.

    Raises :class:`tinygen.errors.InputError` when the file is damaged, when TFLM cannot run it,
    or when ``tree`` lacks one of its operators; :class:`tinygen.errors.TinyGenError` when TFLM's
    Python runtime, which measures the arena, is not installed.
    """
    summary = summarize(model, filename)
    runtime = {} if tree is None else _runtime(tree, summary)
    measured = arena_bytes(model, summary.source)
    # A local tree has the reference kernels, as the runtime that measured; other libraries may not.
    scratch = 0 if tree is not None else (summary.scratch_bytes + 15) // 16 * 16
    context: dict[str, Any] = {
        "name": name,
        "macro": name.upper(),
        "version": __version__,
        "runtime_version": RUNTIME_VERSION,
        "source": comment_text(summary.source),
        "sha256": summary.sha256,
        "inputs": _edges(name, "INPUT", summary.inputs),
        "outputs": _edges(name, "OUTPUT", summary.outputs),
        "arena_bytes": measured + scratch,
        "measured": measured,
        "scratch": scratch,
        "weight_bytes": summary.weight_bytes,
        "macs": 0,
        "calls": summary.layers,
        "layers": summary.layers,
        "nodes": summary.nodes,
        "operators": [comment_text(operator) for operator in summary.operators],
        "methods": summary.methods,
        "resource_variables": summary.resource_variables,
        "local_tree": tree is not None,
        "values": _hexadecimal(model),
    }
    env = environment()
    templates = {
        f"src/{name}.h": "model/model.h.j2",
        f"src/{name}.cpp": "tflm/model.cpp.j2",
        f"src/{name}_model_data.h": "tflm/model_data.h.j2",
        f"src/{name}_model_data.cpp": "tflm/model_data.cpp.j2",
    }
    sources = {path: env.get_template(t).render(context) for path, t in templates.items()}
    return Library(summary, measured + scratch, sources, runtime)


def _edges(name: str, kind: str, tensors: tuple[Tensor, ...]) -> list[Edge]:
    return [
        Edge(f"{name.upper()}_{kind}{i}", comment_text(tensor.name), tensor, 0)
        for i, tensor in enumerate(tensors)
    ]


def _hexadecimal(data: bytes) -> str:
    """``data`` as the lines of a C initialiser."""
    rows = (data[i : i + _BYTES_A_LINE] for i in range(0, len(data), _BYTES_A_LINE))
    return "\n".join("  " + " ".join(f"0x{b:02x}," for b in row) for row in rows)


def _runtime(tree: Tree, summary: Summary) -> dict[str, str | bytes]:
    """The library ``lib/tflm``: a manifest, how TFLM is configured, and the files of the tree."""
    manifest = {
        "name": "tflm",
        "version": "0.0.0",
        "description": "The part of TensorFlow Lite Micro that this project's model needs",
        "license": "Apache-2.0",
        "build": {
            "srcDir": "src",
            "includeDir": "src",
            "flags": ["-include tinygen_tflm_config.h", "-Wno-all", "-Wno-extra"],
        },
    }
    config = (resources.folder("templates") / "tflm" / "config.h").read_text()
    files: dict[str, str | bytes] = {
        "library.json": json.dumps(manifest, indent=2) + "\n",
        "src/tinygen_tflm_config.h": config,
    }
    for path, data in trees.files(tree, summary.methods).items():
        files[path if path.startswith("LICENSE") else f"src/{path}"] = data
    return files
