"""Where TinyGen's data folders are (templates, firmware, boards, examples), and its cache.

In a source checkout the data folders lie beside the package, in a wheel inside it
(``tinygen/_data``).  This is the one place that knows.
"""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_INSTALLED = _PACKAGE / "_data"


def folder(name: str) -> Path:
    """Absolute path of the data folder ``name``, such as ``"templates"`` or ``"boards"``."""
    return (_INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent) / name


def cache() -> Path:
    """Folder for what TinyGen makes once and uses again; it may not exist yet.

    ``TINYGEN_HOME``, or ``tinygen`` in the user's cache folder.
    """
    own = os.environ.get("TINYGEN_HOME")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "tinygen")
