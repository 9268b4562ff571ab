"""Writing a firmware project: whole or not at all, and never over what a user made.

The new tree is built beside the old one, takes over the user's files as hard links, and changes
places with it in one step.  The manifest ``tinygen.json`` records the SHA-256 of each file written,
so that a later run tells TinyGen's files from the user's, and untouched ones from edited ones.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from tinygen import __version__, boards, emit
from tinygen.boards import Board
from tinygen.config import Engine
from tinygen.errors import InputError, TinyGenError
from tinygen.resources import folder as resource

MANIFEST = "tinygen.json"
YOURS = ("README.md", "platformio.ini", "src/main.cpp", ".gitignore")  # kept once edited
BUILT = "firmware"  # what the last build made

_OTHER_CODE = 65_536  # of a program beside weights and framework, for choosing a partition table
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h


@dataclass(frozen=True, eq=False)
class Contents:
    """What goes into a project, apart from the board.

    ``library`` maps paths inside ``lib/<name>`` to the generated model's files, ``extra`` paths
    inside the project to further ones.  ``layers`` are the manifest's, in the order in which the
    traced firmware reports them.
    """

    name: str  # of the model in C
    engine: Engine
    model: bytes  # the .tflite file
    source: str  # its file name
    library: Mapping[str, str | bytes]
    layers: Sequence[Mapping[str, Any]]
    weight_bytes: int
    lib_deps: tuple[str, ...] = ()  # of the vendor environment
    extra: Mapping[str, str | bytes] | None = None
    optimize: str = "-O2"  # the compiler's level for the model


@dataclass(frozen=True)
class Written:
    """A project on disk and the files in it that TinyGen left as the user has them."""

    folder: Path
    kept: tuple[str, ...]


class Manifest(BaseModel):
    """``tinygen.json``: what the project holds and what the last build made of it."""

    model_config = ConfigDict(frozen=True)

    tinygen: str
    name: str
    model: str
    sha256: str
    board: str
    engine: Engine
    toolchain: str = ""
    environment: str = ""
    flashable: bool = False
    artifacts: dict[str, str] = {}
    stack_estimate: int | None = None  # bytes of stack that an inference takes
    layers: tuple[dict[str, Any], ...] = ()
    files: dict[str, str] = {}


def load(folder: Path) -> Manifest:
    """The manifest of the project in ``folder``; :class:`InputError` when it is none."""
    path = folder / MANIFEST
    try:
        return Manifest.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(
            f"{folder}: not a TinyGen project", "give a folder that `tinygen build` made"
        ) from error
    except (ValidationError, ValueError) as error:
        raise InputError(
            f"{path}: damaged", "put the file back, or build into another folder"
        ) from error


def record(folder: Path, **changes: Any) -> Manifest:
    """Change fields of the manifest in ``folder``, in one step."""
    manifest = load(folder).model_copy(update=changes)
    draft = folder / f"{MANIFEST}.{os.getpid()}"
    try:
        draft.write_bytes(_manifest_text(manifest))
        draft.replace(folder / MANIFEST)
    finally:
        draft.unlink(missing_ok=True)
    return manifest


def write(folder: Path, board: Board, contents: Contents) -> Written:
    """Write the project for ``contents`` on ``board`` into ``folder``.

    A project that is there already is replaced in one step: whoever kills this process finds either
    the old one or the new one.  Files of the user's stay, and so do edited ones of :data:`YOURS`;
    when TinyGen would now write something else there, that goes into ``<file>.new``.  Other
    generated files that were edited are written again, and the edit is kept as ``<file>.orig``.

    The folder itself is a new one afterwards: a shell that stands in it has to ``cd`` again.

    Raises :class:`InputError` when ``folder`` holds something else, or a file of the user's is in
    the way; :class:`TinyGenError` when the disk is full or not writable.
    """
    folder = folder.resolve()
    try:
        _recover(folder)
        old = _existing(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        stage = _stage(folder)
        try:
            kept = _fill(stage, folder, tree(board, contents), old, _manifest(board, contents))
            put_in_place(stage, folder)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    except OSError as error:
        raise TinyGenError(
            f"{folder}: {error.strerror or error}", "free space or choose another folder with -o"
        ) from error
    return Written(folder, kept)


def tree(board: Board, contents: Contents) -> dict[str, bytes]:
    """All generated files of a project but the manifest: ``{path: contents}``."""
    files: dict[str, str | bytes] = {
        **(contents.extra or {}),
        **_rendered(board, contents),
        f"model/{contents.name}.tflite": contents.model,
        **{f"lib/{contents.name}/{path}": data for path, data in contents.library.items()},
        **_runtime(),
        **_platform(board),
    }
    return {path: _bytes(data) for path, data in sorted(files.items())}


def partitions_for(board: Board, weight_bytes: int) -> str:
    """The partition table to ask for when a model of ``weight_bytes`` outgrows the default one.

    An estimate: the framework's usual size and room for code are added to the weights.
    """
    if board.vendor is None or board.vendor.partitions is None:
        return ""
    needed = weight_bytes + board.vendor.framework_flash + _OTHER_CODE
    return board.vendor.partitions.file if needed > board.flash else ""


def board_manifest(board: Board) -> dict[str, Any]:
    """What PlatformIO and our bare-metal platform read of a board that has a system build."""
    system = board.system
    assert system is not None
    symbols = {
        "TINYGEN_FLASH_ORIGIN": system.flash_origin,
        "TINYGEN_FLASH_SIZE": board.flash_limit,
        "TINYGEN_RAM_ORIGIN": system.ram_origin,
        "TINYGEN_RAM_SIZE": board.ram,
        "TINYGEN_STACK_SIZE": system.stack,
        **{f"TINYGEN_{name.upper()}": value for name, value in system.memory.items()},
    }
    return {
        "name": board.title,
        "vendor": "TinyGen",
        "url": "",
        "frameworks": [],
        "build": {"mcu": board.mcu, "cpu": board.core, "f_cpu": f"{board.clock_hz}L"},
        "upload": {"maximum_size": board.flash_limit, "maximum_ram_size": board.ram},
        "tinygen": {
            "clock_hz": board.clock_hz,
            "compiler": system.compiler,
            "flags": system.flags,
            "defines": system.defines,
            "folders": system.folders,
            "script": system.script,
            "symbols": symbols,
            "hosted": system.hosted,
            "flashable": system.flashable,
            "esp_chip": system.esp_chip,
            "uf2_family": system.uf2_family,
            "upload": system.upload,
            "touch_1200": board.usb is not None and board.usb.touch_1200,
        },
    }


def _rendered(board: Board, contents: Contents) -> dict[str, str]:
    """The files that depend on model and board, from ``templates/project``."""
    simulated = boards.simulated_by(board)
    system = simulated.system if simulated else None
    facts = {
        "version": __version__,
        "name": contents.name,
        "macro": contents.name.upper(),
        "source": emit.comment_text(contents.source),
        "board": board,
        "flash": board.flash_limit,
        "stack": system.stack if system else 0,
        "simulated": simulated,
        "flashable": simulated is board and system is not None and system.flashable,
        "partitions": partitions_for(board, contents.weight_bytes),
        "lib_deps": contents.lib_deps,
        "optimize": contents.optimize,
    }
    templates = {
        "platformio.ini": "platformio.ini.j2",
        "src/main.cpp": "main.cpp.j2",
        "include/tinygen_board.h": "board.h.j2",
        "README.md": "README.md.j2",
        f"lib/{contents.name}/library.json": "library.json.j2",
    }
    env = emit.environment()
    return {
        **{
            path: env.get_template(f"project/{file}").render(facts)
            for path, file in templates.items()
        },
        ".gitignore": f".pio/\n{BUILT}/\n",
    }


def _runtime() -> dict[str, bytes]:
    """The serial protocol and the descriptor, as a library."""
    return {
        f"lib/tinygen/{'' if path.suffix == '.json' else 'src/'}{path.name}": path.read_bytes()
        for path in _files(resource("firmware") / "runtime")
    }


def _platform(board: Board) -> dict[str, str | bytes]:
    """Our PlatformIO platform with the ports that the project's environments need."""
    firmware = resource("firmware")
    targets = {b.name: b for b in (boards.simulated_by(board), boards.load("host")) if b}
    systems = [target.system for target in targets.values() if target.system]
    folders = {firmware / "port" / name for system in systems for name in system.folders}
    single = {"tinygen_port.h", *(system.script for system in systems)} - {""}
    found = {
        path.relative_to(firmware / "platform"): path for path in _files(firmware / "platform")
    }
    for source in (
        *(path for folder in folders for path in _files(folder)),
        *(firmware / "port" / name for name in single),
        *_files(firmware / "arduino"),
    ):
        found[source.relative_to(firmware)] = source
    files: dict[str, str | bytes] = {
        f"platforms/tinygen/{name.as_posix()}": path.read_bytes() for name, path in found.items()
    }
    for name, target in targets.items():
        text = json.dumps(board_manifest(target), indent=2)
        files[f"platforms/tinygen/boards/{name}.json"] = f"{text}\n"
    return files


def _files(folder: Path) -> list[Path]:
    """Files below ``folder``, without what Python leaves there."""
    return sorted(
        path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    )


def _bytes(data: str | bytes) -> bytes:
    return data.encode() if isinstance(data, str) else data


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _manifest(board: Board, contents: Contents) -> Manifest:
    return Manifest(
        tinygen=__version__,
        name=contents.name,
        model=f"model/{contents.name}.tflite",
        sha256=_sha256(contents.model),
        board=board.name,
        engine=contents.engine,
        layers=tuple(dict(layer) for layer in contents.layers),
    )


def _manifest_text(manifest: Manifest) -> bytes:
    return f"{json.dumps(manifest.model_dump(mode='json'), indent=1)}\n".encode()


def _existing(folder: Path) -> Manifest | None:
    """The manifest of the project that is in ``folder``; None for no or an empty folder."""
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise InputError(f"{folder}: is a file", "choose another folder with -o")
    if (folder / MANIFEST).is_file():
        return load(folder)
    if any(folder.iterdir()):
        raise InputError(
            f"{folder}: exists and is not a TinyGen project", "choose another folder with -o"
        )
    return None


def _fill(
    stage: Path, folder: Path, files: Mapping[str, bytes], old: Manifest | None, new: Manifest
) -> tuple[str, ...]:
    """Fill ``stage`` with generated files and the user's from ``folder``; returns those kept."""
    _link_users_files(folder, stage, old)
    kept = []
    for path, data in files.items():
        target = stage / path
        before = old.files.get(path) if old else None
        if path in YOURS and old and _users(folder / path, before):
            kept.append(path)
            if before and _sha256(data) != before:
                target.with_name(f"{target.name}.new").write_bytes(data)
            continue
        if target.exists() or target.is_symlink():
            raise InputError(
                f"{folder / path}: exists and was not written by TinyGen",
                "move the file away, or give the model another name with --name",
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    recorded = {path: _sha256(data) for path, data in files.items()}
    (stage / MANIFEST).write_bytes(_manifest_text(new.model_copy(update={"files": recorded})))
    return tuple(kept)


def _users(path: Path, recorded: str | None) -> bool:
    """The file is the user's: never written by TinyGen, edited since, or taken away."""
    if recorded is None:
        return path.exists()
    return not path.is_file() or _sha256(path.read_bytes()) != recorded


def _link_users_files(folder: Path, stage: Path, old: Manifest | None) -> None:
    """Bring over from ``folder`` all that TinyGen did not write, or that was edited since."""
    written = old.files if old else {}
    outdated = {MANIFEST, *(f"{path}.new" for path in YOURS)}
    for parent, directories, names in os.walk(folder):
        here = Path(parent).relative_to(folder)
        links = [name for name in directories if (folder / here / name).is_symlink()]
        directories[:] = set(directories) - {"__pycache__", *([BUILT] if here == Path() else ())}
        for name in sorted([*names, *links]):
            path = (here / name).as_posix()
            recorded = written.get(path)
            if path in outdated or not _users(folder / path, recorded):
                continue
            target = stage / (f"{path}.orig" if recorded and path not in YOURS else path)
            _link(folder / path, target)


def _link(source: Path, target: Path) -> None:
    """A hard link, or a copy where the file system has none; what is there already stays."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def _stage(folder: Path) -> Path:
    """A new, empty folder beside ``folder``, named after this process."""
    stage = folder.with_name(f".{folder.name}.tinygen-{os.getpid()}")
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir()
    return stage


def put_in_place(stage: Path, folder: Path) -> None:
    """Make ``stage`` what ``folder`` is; an old project ends up where ``stage`` was."""
    if not folder.exists() or not any(folder.iterdir()):
        stage.replace(folder)
    elif not _exchange(stage, folder):
        aside = stage.with_name(f"{stage.name}.old")
        folder.replace(aside)
        try:
            stage.replace(folder)
        except OSError:
            aside.replace(folder)
            raise
        aside.replace(stage)


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change places in one step, where the system can."""
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    paths = os.fsencode(one), os.fsencode(other)
    return rename is not None and (
        rename(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], ctypes.c_uint(_RENAME_EXCHANGE)) == 0
    )


def _recover(folder: Path) -> None:
    """Clear up after runs that were killed: put back what was set aside, remove what was begun."""
    for left in sorted(folder.parent.glob(f".{folder.name}.tinygen-*")):
        process = left.name.rpartition("-")[2].removesuffix(".old")
        if not process.isdigit() or _alive(int(process)):
            continue
        if left.suffix == ".old" and not folder.exists():
            left.replace(folder)
        else:
            shutil.rmtree(left, ignore_errors=True)


def _alive(process: int) -> bool:
    with contextlib.suppress(ProcessLookupError, OverflowError):
        try:
            os.kill(process, 0)
        except PermissionError:
            return True
        return True
    return False
