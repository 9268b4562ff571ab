"""A TFLM source tree on this machine, and the part of it that one model needs.

Two layouts are known: a checkout of TFLM in which its makefile has put third-party headers into
``tensorflow/lite/micro/tools/make/downloads``, and what TFLM's ``create_tflm_tree.py`` writes, with
the headers in ``third_party``.

What a model needs follows from the sources themselves: the files that define the registrations of
its operators and of the interpreter, and from there along ``#include`` lines; a header's
implementation is the file of the same name, with or without ``_common`` or an element type.
Conditional includes are all followed, so the result may hold a file too many; the linker drops
what is not used.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from tinygen.errors import InputError, TinyGenError

_THIRD_PARTY = ("tensorflow/lite/micro/tools/make/downloads", "third_party")
# Each library's include folder, and a header that shows that it is there.
_LIBRARIES = {
    "flatbuffers": ("include", "flatbuffers/flatbuffers.h"),
    "gemmlowp": (".", "fixedpoint/fixedpoint.h"),
    "ruy": (".", "ruy/profiler/instrumentation.h"),
    "kissfft": (".", "kiss_fft.h"),
}
_OPTIONAL = {"kissfft"}  # only the signal operators' transforms want it
_LICENSES = ("LICENSE", "LICENSE.txt", "COPYING")

_INTERPRETER = "tensorflow/lite/micro/micro_interpreter.h"
_RESOLVER = "tensorflow/lite/micro/micro_mutable_op_resolver.h"
_KERNELS = ("tensorflow/lite/micro/kernels", "signal/micro/kernels")
# Headers that name every operator there is: including one implies none of them.
_LISTS = frozenset({_RESOLVER, "tensorflow/lite/micro/kernels/micro_ops.h"})
# What the files that implement a header add to its name.
_SUFFIXES = ("", "_common", "_float", "_int16", "_int32")
HEADERS = (
    _INTERPRETER,
    _RESOLVER,
    "tensorflow/lite/micro/micro_allocator.h",
    "tensorflow/lite/micro/micro_log.h",
    "tensorflow/lite/micro/micro_profiler_interface.h",
    "tensorflow/lite/micro/micro_resource_variable.h",
    "tensorflow/lite/micro/system_setup.h",
    "tensorflow/lite/schema/schema_generated.h",
)
"""What generated code and sketches include."""

_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*["<]([^">\n]+)[">]', re.MULTILINE)


@dataclass(frozen=True)
class Tree:
    """A usable TFLM tree: the folder of every library in it, "tflm" first, and include roots."""

    folders: dict[str, Path]
    roots: tuple[Path, ...]

    @property
    def path(self) -> Path:
        return self.folders["tflm"]

    def find(self, include: str) -> Path | None:
        """The file that ``#include "include"`` means, or None."""
        if PurePosixPath(include).is_absolute() or ".." in PurePosixPath(include).parts:
            return None
        return next((r / include for r in self.roots if (r / include).is_file()), None)


def check_tree(path: Path) -> Tree:
    """The TFLM tree at ``path``.

    Raises :class:`InputError` that names what is missing when it is none, or lacks a third-party
    library.
    """
    path = path.expanduser().resolve()
    if not (path / _RESOLVER).is_file():
        raise InputError(
            f"{path}: not a TensorFlow Lite Micro tree, there is no {_RESOLVER}",
            "give a checkout of tensorflow/tflite-micro, or what its create_tflm_tree.py wrote",
        )
    folders, roots = {"tflm": path}, [path]
    for library, (include, header) in _LIBRARIES.items():
        places = [path / folder / library for folder in _THIRD_PARTY]
        place = next((p for p in places if (p / include / header).is_file()), None)
        if place is not None:
            folders[library] = place
            roots.append(place / include)
        elif library not in _OPTIONAL:
            raise InputError(
                f"{path}: the tree lacks the headers of {library} ({header})",
                "in a checkout, `make -f tensorflow/lite/micro/tools/make/Makefile "
                "third_party_downloads` fetches them",
            )
    return Tree(folders, tuple(roots))


def check_compiler(prefix: str) -> None:
    """Raise :class:`TinyGenError` unless the C++ compiler ``<prefix>g++`` can compile TFLM.

    TFLM includes headers of the C++ standard library, which some cross compilers come without.
    """
    command = [f"{prefix}g++", "-x", "c++", "-E", "-"]
    try:
        done = subprocess.run(
            command, input=b"#include <algorithm>\n", capture_output=True, check=False
        )
    except OSError as error:
        raise TinyGenError(f"{command[0]}: cannot be run: {error.strerror}") from error
    if done.returncode != 0:
        raise TinyGenError(
            f"{command[0]}: comes without the C++ library, which TensorFlow Lite Micro needs",
            "build with --engine aot, or with the vendor's compiler: --toolchain vendor",
        )


def files(tree: Tree, methods: Iterable[str]) -> dict[str, bytes]:
    """The sources and headers for a resolver with ``methods``, by the path they are included by.

    Raises :class:`InputError` when the tree lacks an operator or has only an optimized kernel of
    it, whose library we do not know how to build.
    """
    text = _Texts(tree)
    sources = {source for header in HEADERS for source in _implementations(tree, header)}
    sources.update(_definition(tree, text, name) for name in _registrations(tree, text, methods))
    todo = [*sources]
    while todo:
        for header in text.reached(todo.pop(), stop=_LISTS):
            new = set(_implementations(tree, header)) - sources
            sources.update(new)
            todo.extend(new)
    needed = sources.union(HEADERS, *(text.reached(name) for name in (*sources, *HEADERS)))
    return {name: text.read(name) for name in sorted(needed)} | dict(_licenses(tree))


class _Texts:
    """Files of a tree and their includes, each read once."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.read = cache(self._read)
        self.includes = cache(self._includes)

    def _read(self, name: str) -> bytes:
        path = self._tree.find(name)
        if path is None:
            raise InputError(f"{self._tree.path}: the tree has no {name}")
        return path.read_bytes()

    def _includes(self, name: str) -> frozenset[str]:
        """What the file includes of this tree, by include path; other names are the compiler's."""
        found = set()
        for include in _INCLUDE.findall(self.read(name).decode("utf-8", "replace")):
            beside = _normal(PurePosixPath(name).parent / include)
            target = next((n for n in (beside, include) if n and self._tree.find(n)), None)
            if target is not None and not _optimized(target):
                found.add(target)
        return frozenset(found)

    def reached(self, name: str, stop: frozenset[str] = frozenset()) -> set[str]:
        """Everything that ``name`` includes, directly or not, but nothing by way of ``stop``."""
        found: set[str] = set()
        todo = [name]
        while todo:
            new = self.includes(todo.pop()) - found - stop
            found |= new
            todo.extend(new)
        return found


def _normal(path: PurePosixPath) -> str | None:
    """``path`` without ``..``; None when it leads outside."""
    parts: list[str] = []
    for part in path.parts:
        if part != "..":
            parts.append(part)
        elif parts:
            parts.pop()
        else:
            return None
    return "/".join(parts)


def _optimized(name: str) -> bool:
    """True for kernels of a special processor or library, in folders below the reference ones."""
    parent = str(PurePosixPath(name).parent)
    return any(parent.startswith(folder + "/") for folder in _KERNELS)


def _implementations(tree: Tree, header: str) -> Iterator[str]:
    """The tree's own sources that implement ``header``; third-party libraries are headers."""
    stem = header.removesuffix(".h")
    for suffix in _SUFFIXES:
        name = f"{stem}{suffix}.cc"
        if (tree.path / name).is_file():
            yield name


def _registrations(tree: Tree, text: _Texts, methods: Iterable[str]) -> Iterator[str]:
    """Names of the functions that register the operators which ``methods`` add."""
    resolver = text.read(_RESOLVER).decode("utf-8", "replace")
    for method in methods:
        match = re.search(rf"\b{method}\(.*?\b(Register_\w+)\(", resolver, re.DOTALL)
        if match is None:
            raise InputError(
                f"{tree.path}: this TFLM has no {method}", "take a newer TensorFlow Lite Micro"
            )
        yield match[1]


def _definition(tree: Tree, text: _Texts, registration: str) -> str:
    """The source of the reference kernel that defines ``registration``."""
    pattern = re.compile(rf"\b{registration}\(\)\s*\{{")
    for folder in _KERNELS:
        for path in sorted((tree.path / folder).glob("*.cc")):
            name = f"{folder}/{path.name}"
            if pattern.search(text.read(name).decode("utf-8", "replace")):
                return name
    raise InputError(
        f"{tree.path}: no reference kernel defines {registration}",
        "trees made for optimized kernels are not supported: make one without OPTIMIZED_KERNEL_DIR",
    )


def _licenses(tree: Tree) -> Iterator[tuple[str, bytes]]:
    """The licences of what is copied, each under its library's name."""
    for library, folder in tree.folders.items():
        found = next((folder / name for name in _LICENSES if (folder / name).is_file()), None)
        if found is not None:
            yield f"LICENSE.{library}", found.read_bytes()
