"""TFLM's C++ interface on top of generated code, for sketches that were written for TFLM.

A project of the ``aot`` engine gets the header set of ``firmware/runtime_tflm`` as
``lib/tinygen_tflm`` and, beside the model, a header that stands in for the model array.  PlatformIO
compiles the library only when a program includes one of its headers.
"""

from __future__ import annotations

from tinygen import __version__, resources
from tinygen.emit import comment_text, environment


def header(name: str, source: str, sha256: str) -> dict[str, str]:
    """The stand-in for the array of the model called ``name`` in C: a file of ``lib/<name>``.

    ``source`` is the model's file name and ``sha256`` the file's, both for the banner.
    """
    text = (
        environment()
        .get_template("tflm/dropin_data.h.j2")
        .render(
            name=name,
            macro=name.upper(),
            version=__version__,
            source=comment_text(source),
            sha256=sha256,
        )
    )
    return {f"src/{name}_model_data.h": text}


def runtime() -> dict[str, bytes]:
    """The files of ``lib/tinygen_tflm``, by path relative to it."""
    folder = resources.folder("firmware") / "runtime_tflm"
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
