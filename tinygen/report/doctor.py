"""``tinygen doctor``: what is installed, what is missing, and the command that installs it."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console

from tinygen.report.console import table


@dataclass(frozen=True)
class Tool:
    """Something that TinyGen uses when it is there."""

    name: str
    purpose: str
    install: str
    program: str = ""
    package: str = ""


@dataclass(frozen=True)
class Finding:
    """A tool and the version found, empty when missing."""

    name: str
    purpose: str
    version: str
    install: str

    @property
    def found(self) -> bool:
        return bool(self.version)


TOOLS = (
    Tool("host compiler", "host runs", "apt-get install gcc g++", program="gcc"),
    Tool(
        "Arm compiler",
        "Cortex-M boards without vendor packages",
        "apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi libstdc++-arm-none-eabi-newlib",
        program="arm-none-eabi-gcc",
    ),
    Tool(
        "RISC-V compiler",
        "ESP32-C3 and RV32 without vendor packages",
        "apt-get install gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf",
        program="riscv64-unknown-elf-gcc",
    ),
    Tool(
        "Xtensa compiler",
        "ESP32 images for emulation",
        "apt-get install gcc-xtensa-lx106 picolibc-xtensa-lx106-elf",
        program="xtensa-lx106-elf-gcc",
    ),
    Tool(
        "QEMU Arm",
        "Cortex-M emulation",
        "apt-get install qemu-system-arm",
        "qemu-system-arm",
    ),
    Tool(
        "QEMU RISC-V", "RV32 emulation", "apt-get install qemu-system-misc", "qemu-system-riscv32"
    ),
    Tool(
        "QEMU Xtensa", "Xtensa emulation", "apt-get install qemu-system-misc", "qemu-system-xtensa"
    ),
    Tool("PlatformIO", "builds and uploads", "pip install platformio", package="platformio"),
    Tool("SCons", "builds without PlatformIO's registry", "pip install scons", package="scons"),
    Tool("labwired", "whole-chip emulation", "pip install 'tinygen[sim]'", package="labwired"),
    Tool("esptool", "ESP32 images and flashing", "pip install 'tinygen[esp]'", package="esptool"),
    Tool(
        "tflite_micro",
        "arena size of the tflm engine",
        "pip install 'tinygen[tflm]'",
        package="tflite_micro",
    ),
    Tool(
        "TensorFlow",
        "training the examples",
        "pip install 'tinygen[train]'",
        package="tensorflow-cpu",
    ),
)


def examine() -> tuple[Finding, ...]:
    """Look for every tool."""
    return (
        Finding("Python", "TinyGen itself", sys.version.split()[0], ""),
        *(Finding(tool.name, tool.purpose, _version(tool), tool.install) for tool in TOOLS),
    )


def _version(tool: Tool) -> str:
    if tool.package:
        try:
            return importlib.metadata.version(tool.package)
        except importlib.metadata.PackageNotFoundError:
            return ""
    path = shutil.which(tool.program)
    if path is None:
        return ""
    try:
        answer = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    first = (answer.stdout or answer.stderr).partition("\n")[0]
    return next((w.rstrip("),") for w in first.split() if w[:1].isdigit()), "installed")


def document(findings: tuple[Finding, ...]) -> dict[str, Any]:
    """For ``--json``."""
    return {"tools": [asdict(f) | {"found": f.found} for f in findings]}


def show(findings: tuple[Finding, ...], console: Console) -> None:
    """Print what is there and what is not."""
    rows = [(f.name, f.version or "missing", f.purpose) for f in findings]
    console.print(table(["tool", "version", "for"], rows))
    missing = [f for f in findings if not f.found]
    if not missing:
        console.print("\nEverything is installed.")
        return
    console.print("\nNothing of this is needed for every board.  To install what is missing:")
    for command in dict.fromkeys(f.install for f in missing):
        console.print(f"  {command}", markup=False)
