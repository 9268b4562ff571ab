"""PlatformIO does the build: with a vendor's packages, or with compilers from PATH.

Every run has a PlatformIO core folder of TinyGen's own; the user's is read at most.  Builds with
our bare-metal platform keep theirs inside the project, in ``.pio/core``, and need no network:
SCons comes from PyPI, wrapped as the package ``tool-scons`` that PlatformIO asks for.  Builds with
a vendor's platform share one in the user's cache folder, because the packages are large; where the
user's PlatformIO has the pinned platform, its packages are linked into there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from zlib import crc32

from tinygen import boards, project, resources, sizes
from tinygen.boards import Board, Vendor
from tinygen.config import Toolchain
from tinygen.errors import FitError, InputError, TinyGenError
from tinygen.sizes import Sizes

PACKAGES = {  # Debian's, by compiler prefix
    "arm-none-eabi-": "gcc-arm-none-eabi libnewlib-arm-none-eabi libstdc++-arm-none-eabi-newlib",
    "riscv64-unknown-elf-": "gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf",
    "xtensa-lx106-elf-": "gcc-xtensa-lx106 picolibc-xtensa-lx106-elf",
    "": "gcc g++",
}
PROBE_SECONDS = 2.0

_SCONS = "from SCons.Script import main\n\nmain()\n"
_ARTIFACTS = ("elf", "bin", "hex", "uf2")
_ERROR = re.compile(
    r"(fatal )?error:|undefined reference|multiple definition|overflowed by|will not fit"
    r"|cannot find -l|^Error: |^\w+(Error|Exception): |No such file"
)
_TOO_BIG = re.compile(r"region `?(\w+)'? overflowed by (\d+) bytes|program size .* is greater than")
_NOT_FETCHED = re.compile(
    r"HTTPClientError|InternetConnectionError|UnknownPackageError|UnknownPlatform|PackageException"
    r"|VCSBaseException|Could not (find|install) "
)


@dataclass(frozen=True)
class Choice:
    """Which of a project's environments to build, with whose packages, and why."""

    environment: str
    toolchain: Toolchain
    flashable: bool
    reason: str


@dataclass(frozen=True)
class Firmware:
    """What a build made.  ``artifacts`` are by suffix; ``message`` says what was used and why."""

    elf: Path
    bin: Path | None
    artifacts: dict[str, Path]
    environment: str
    toolchain: Toolchain
    flashable: bool
    sizes: Sizes
    message: str


class BuildError(TinyGenError):
    """PlatformIO did not get through; ``log`` is all that it said."""

    def __init__(self, message: str, hint: str, log: str) -> None:
        super().__init__(message, hint)
        self.log = log


def build(
    folder: Path,
    board: Board,
    toolchain: Toolchain = "auto",
    say: Callable[[str], None] = lambda text: None,
) -> Firmware:
    """Build the project in ``folder`` for ``board``; the result goes to its ``firmware`` folder.

    ``auto`` takes the vendor's packages when they are installed or can be fetched and otherwise the
    compilers on PATH; ``vendor`` and ``system`` insist.  Raises :class:`FitError` when the program
    is too big for the board, :class:`BuildError` when it does not compile, :class:`TinyGenError`
    when no compiler can be had.
    """
    choice = choose(board, toolchain)
    say(f"building {choice.environment} {choice.reason}")
    try:
        elf = make(folder, choice.environment)
    except BuildError as error:
        if (
            toolchain != "auto"
            or choice.toolchain != "vendor"
            or not _NOT_FETCHED.search(error.log)
        ):
            raise
        choice = _system(board, "because the vendor's packages could not be fetched")
        say(f"building {choice.environment} {choice.reason}")
        elf = make(folder, choice.environment)
    return _publish(folder, board, choice, elf)


def choose(board: Board, toolchain: Toolchain) -> Choice:
    """Decide how to build for ``board``, within a few seconds and without a download."""
    if board.vendor is None or toolchain == "system":
        if toolchain == "vendor":
            raise InputError(
                f"{board.name}: no vendor builds for it", "leave out --toolchain vendor"
            )
        return _system(board, "as asked for" if toolchain == "system" else "")
    where = _installed(board.vendor)
    if where is not None:
        _adopt(where)
        return Choice(board.name, "vendor", True, f"with {board.vendor.platform}")
    if _within_reach(board.vendor):
        return Choice(board.name, "vendor", True, f"with {board.vendor.platform}, to be fetched")
    if toolchain == "vendor":
        raise TinyGenError(
            f"{board.name}: {board.vendor.platform} is not installed and cannot be fetched",
            f"connect to the network, install it with `pio pkg install -g -p "
            f"{board.vendor.platform}`, or leave out --toolchain vendor",
        )
    return _system(board, f"because {board.vendor.platform} is neither installed nor within reach")


def _system(board: Board, reason: str) -> Choice:
    """Our bare-metal platform with a compiler from PATH."""
    target = boards.simulated_by(board)
    if target is None or target.system is None:
        raise InputError(
            f"{board.name}: compilers from PATH cannot build for it",
            "`tinygen boards` lists what can be built how",
        )
    compiler = f"{target.system.compiler}gcc"
    for tool in (compiler, f"{target.system.compiler}g++"):
        if shutil.which(tool) is None:
            raise TinyGenError(
                f"{board.name}: {tool} is not on PATH",
                f"apt-get install {PACKAGES.get(target.system.compiler, tool)}",
            )
    environment = "host" if board.core == "host" else f"{board.name}_sim"
    stand_in = f"for {target.name}, which stands in for it," if target is not board else ""
    words = ("with", compiler, "from PATH", stand_in, reason)
    flashable = target is board and target.system.flashable
    return Choice(environment, "system", flashable, " ".join(filter(None, words)))


def make(folder: Path, environment: str, flags: Sequence[str] = ()) -> Path:
    """Run PlatformIO for one environment of the project in ``folder``; returns the ELF's path.

    ``flags`` are added to every compilation, which then has a build folder of its own.  What
    PlatformIO says goes to ``.pio/<environment>.log``.
    """
    output, log = _run(folder.resolve(), environment, flags)
    elf = next((output / environment).glob("firmware*.elf"), None)
    if elf is None:
        raise BuildError(f"{folder}: the build made no firmware.elf", f"see {log}", _text(log))
    return elf


def upload(folder: Path, environment: str, port: str | None = None) -> str:
    """Have PlatformIO put one environment of the project onto its board; returns what it said.

    Raises :class:`BuildError` when the upload fails.
    """
    where = ("--upload-port", port) if port else ()
    _, log = _run(folder.resolve(), environment, (), "-t", "upload", *where)
    return _text(log)


def _run(folder: Path, environment: str, flags: Sequence[str], *words: str) -> tuple[Path, Path]:
    """``pio run`` with further ``words``; the build folder and the log."""
    manifest = project.load(folder)
    core = folder / ".pio" / "core" if _is_ours(manifest.board, environment) else _shared_core()
    _prepare(core)
    variant = f"-{crc32(' '.join(flags).encode()):08x}" if flags else ""
    output = folder / ".pio" / f"build{variant}"
    log = folder / ".pio" / f"{environment}{variant}.log"
    log.parent.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "platformio", "run", "-d", str(folder), "-e", environment]
    with log.open("wb") as file:
        done = subprocess.run(
            [*command, *words],
            env=_environment(core, output, flags),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode != 0:
        raise _failure(folder, environment, log, "did not upload" if words else "did not build")
    return output, log


def _is_ours(board: str, environment: str) -> bool:
    """The environment uses our platform, so nothing has to be downloaded."""
    return environment != board or boards.load(board).vendor is None


def _publish(folder: Path, board: Board, choice: Choice, elf: Path) -> Firmware:
    """Bring what was built into ``firmware``, in one step, and note it in the manifest."""
    folder = folder.resolve()
    manifest = project.load(folder)
    target = folder / project.BUILT
    stage = folder / ".pio" / project.BUILT
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    names = {}
    for suffix in _ARTIFACTS:
        built = elf.with_suffix(f".{suffix}")
        if built.is_file():
            names[suffix] = built.name
            shutil.copy2(built, stage / built.name)
    project.put_in_place(stage, target)
    shutil.rmtree(stage, ignore_errors=True)
    project.record(
        folder,
        toolchain=choice.toolchain,
        environment=choice.environment,
        flashable=choice.flashable,
        artifacts={suffix: f"{project.BUILT}/{name}" for suffix, name in names.items()},
    )
    artifacts = {suffix: target / name for suffix, name in names.items()}
    end = "can be flashed" if choice.flashable else "runs here or in an emulator, not on a board"
    return Firmware(
        elf=artifacts["elf"],
        bin=artifacts.get("bin"),
        artifacts=artifacts,
        environment=choice.environment,
        toolchain=choice.toolchain,
        flashable=choice.flashable,
        sizes=sizes.of(artifacts["elf"], manifest.name, board),
        message=f"built {choice.reason}; {end}",
    )


def _failure(folder: Path, environment: str, log: Path, what: str) -> TinyGenError:
    """What went wrong, from the lines of the log that say so."""
    text = _text(log)
    lines = [line.strip() for line in text.splitlines() if _ERROR.search(line)]
    shown = list(dict.fromkeys(lines))[:12] or text.splitlines()[-5:]
    message = "\n  ".join([f"{folder.name}: {environment} {what}", *shown])
    too_big = _TOO_BIG.search(text)
    if too_big:
        region, excess = too_big.groups()
        by = f" by {int(excess):,} bytes of {region}" if region else ""
        return FitError(
            f"{folder.name}: the program is too big for {environment}{by}",
            f"take a smaller model or a bigger board; all of it is in {log}",
        )
    return BuildError(message, f"all of it is in {log}", text)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _environment(core: Path, output: Path, flags: Sequence[str]) -> dict[str, str]:
    """The environment for PlatformIO: the user's without PlatformIO's own variables, and ours."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PLATFORMIO_")}
    return kept | {
        "LC_ALL": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PLATFORMIO_CORE_DIR": str(core),
        "PLATFORMIO_BUILD_DIR": str(output),
        "PLATFORMIO_BUILD_FLAGS": " ".join(flags),
        "PLATFORMIO_SETTING_ENABLE_TELEMETRY": "no",
        "PLATFORMIO_SETTING_CHECK_PRUNE_SYSTEM_THRESHOLD": "0",
        "PLATFORMIO_DISABLE_UPGRADE_CHECK": "true",
        "PLATFORMIO_DISABLE_PROGRESSBAR": "true",
        "PLATFORMIO_NO_ANSI": "true",
    }


def _prepare(core: Path) -> None:
    """Make ``core`` a PlatformIO core folder that has SCons."""
    missing = [name for name in ("platformio", "SCons") if find_spec(name) is None]
    if missing:
        raise TinyGenError(
            f"{' and '.join(missing)}: not installed", "python -m pip install platformio scons"
        )
    version = _scons_version()
    spec = {"owner": "platformio", "id": None, "name": "tool-scons"}
    files = {
        "package.json": json.dumps({"name": "tool-scons", "version": version}),
        ".piopm": json.dumps(
            {
                "type": "tool",
                "name": "tool-scons",
                "version": version,
                "spec": {**spec, "requirements": None, "uri": None},
            }
        ),
        "scons.py": _SCONS,
    }
    package = core / "packages" / "tool-scons"
    package.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        path = package / name
        if not path.is_file() or _text(path) != text:
            draft = path.with_name(f"{name}.{os.getpid()}")
            draft.write_text(text, encoding="utf-8")
            draft.replace(path)


def _scons_version() -> str:
    """The version of ``tool-scons`` that the installed PlatformIO wants."""
    from platformio.dependencies import get_core_dependencies

    return str(get_core_dependencies()["tool-scons"]).lstrip("~^=>")


def _shared_core() -> Path:
    """The core folder of vendor builds."""
    return resources.cache() / "platformio"


def _users_core() -> Path:
    return Path(os.environ.get("PLATFORMIO_CORE_DIR") or Path.home() / ".platformio")


def _installed(vendor: Vendor) -> Path | None:
    """The core folder that has the pinned platform: ours or the user's."""
    for core in (_shared_core(), _users_core()):
        for place in (core / "platforms").glob("*/"):
            if _is_platform(place, vendor.platform):
                return core
    return None


def _is_platform(place: Path, pinned: str) -> bool:
    """A folder holds the platform ``pinned``, as name@version or as an address."""
    try:
        facts = json.loads(_text(place / "platform.json"))
        if "://" not in pinned:
            return f"{facts['name']}@{facts['version']}" == pinned
        noted = json.loads(_text(place / ".piopm"))["spec"]["uri"]
        return str(noted).removeprefix("git+") == pinned
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _adopt(core: Path) -> None:
    """Link platforms and packages of the user's core folder into ours, the one written to."""
    ours = _shared_core()
    if core == ours:
        return
    for kind in ("platforms", "packages"):
        (ours / kind).mkdir(parents=True, exist_ok=True)
        for source in (core / kind).glob("*/"):
            target = ours / kind / source.name
            if source.name != "tool-scons" and not target.exists():
                target.unlink(missing_ok=True)
                target.symlink_to(source, target_is_directory=True)


def _within_reach(vendor: Vendor) -> bool:
    """PlatformIO's registry answers, and knows the platform, within :data:`PROBE_SECONDS`."""
    from platformio import __registry_mirror_hosts__ as hosts

    name = re.sub(r"^.*/platform-|\.git.*$|@.*$", "", vendor.platform)
    address = f"https://api.{hosts[0]}/v3/packages/platformio/platform/{name}"
    answers: list[int] = []

    def ask() -> None:
        request = urllib.request.Request(address, method="GET")
        try:
            with urllib.request.urlopen(request, timeout=PROBE_SECONDS) as answer:
                answers.append(answer.status)
        except (OSError, ValueError):
            pass

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return answers == [200]
