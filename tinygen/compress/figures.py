"""What a compressed network costs on a board: flash, RAM and time, measured as far as it goes.

Flash is what the model's library takes in a minimal program for the board's core, its code and
constants; without that compiler it is estimated by the constants alone.  Instructions are QEMU's
count.  Cycles are estimated from these, or, where nothing counts, are those the planner expects.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tinygen import bench, sizes
from tinygen.boards import Board
from tinygen.compile import Compiled, plan_for
from tinygen.errors import FitError, InputError, TinyGenError
from tinygen.graph import Graph
from tinygen.plan import Goal, Plan
from tinygen.simulate import qemu

NAME = "model"


@dataclass(frozen=True)
class Figures:
    """Bytes, instructions, cycles and seconds of one inference; None is what nobody can tell.

    ``flash`` are bytes of the model's code and constants, or of constants alone when
    ``flash_measured`` is false.  ``weights`` are bytes of constants as planned.
    """

    weights: int
    arena: int
    macs: int
    flash: int
    flash_measured: bool = False
    instructions: int | None = None
    cycles: int | None = None
    seconds: float | None = None

    def document(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(eq=False)
class Meter:
    """Measures networks for one board.

    What is missing to measure is said once through ``say``, and done without from then on.
    """

    board: Board
    goal: Goal
    say: Callable[[str], None] = lambda line: None
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._machine = self._find_machine()
        self._compiles = self._machine is not None and self._works(
            lambda machine: bench.tool(machine, "gcc"), "flash is estimated by constants alone"
        )
        self._counts = self._compiles and self._works(
            self._find_emulator, "cycles are the planner's"
        )

    def plan(self, graph: Graph) -> Plan:
        """The plan for the board; the one of least RAM when no plan meets the goal's limit."""
        try:
            return plan_for(graph, self.board, self.goal)
        except FitError:
            return plan_for(graph, self.board, Goal("ram"))

    def estimated(self, plan: Plan) -> Figures:
        """Figures of a plan alone."""
        return Figures(
            weights=plan.weight_bytes,
            arena=plan.arena_bytes,
            macs=plan.macs,
            flash=plan.weight_bytes,
            cycles=plan.cycles or None,
            seconds=self._seconds(plan.cycles),
        )

    def measured(self, plan: Plan, count: bool = True) -> Figures:
        """Figures of the library compiled and, with ``count``, run."""
        figures = self.estimated(plan)
        if not self._compiles or not self._holds(plan):
            return figures
        assert self._machine is not None
        with tempfile.TemporaryDirectory(prefix="tinygen-") as name:
            compiled = Compiled(NAME, plan.graph, plan, b"")
            program = bench.generated(compiled, Path(name))
            elf = bench.build(program, self._machine, Path(name, "program.elf"))
            flash = sizes.of(elf, NAME, self.board).flash
            cost = bench.measure(self._machine, elf) if count and self._counts else None
        cycles = (cost.cycles if cost else None) or figures.cycles
        return Figures(
            weights=figures.weights,
            arena=figures.arena,
            macs=figures.macs,
            flash=flash.code + flash.weights,
            flash_measured=True,
            instructions=cost.instructions if cost else None,
            cycles=cycles,
            seconds=self._seconds(cycles or 0),
        )

    def _seconds(self, cycles: int) -> float | None:
        clock = self.board.clock_hz
        return cycles / clock if clock and cycles else None

    def _holds(self, plan: Plan) -> bool:
        """The machine that stands in for the board is large enough to link for."""
        assert self._machine is not None and self._machine.system is not None
        stack = self._machine.system.stack
        return (
            plan.weight_bytes <= self._machine.flash_limit
            and plan.arena_bytes + stack <= self._machine.ram
        )

    def _find_machine(self) -> Board | None:
        try:
            return bench.machine_for(self.board)
        except InputError as error:
            self._note(f"{error.message}: flash and cycles are estimates")
            return None

    def _find_emulator(self, machine: Board) -> None:
        program = qemu.machine_of(machine).program
        if shutil.which(program) is None:
            raise TinyGenError(f"{program} is not on PATH")

    def _works(self, what: Callable[[Board], object], otherwise: str) -> bool:
        assert self._machine is not None
        try:
            what(self._machine)
        except TinyGenError as error:
            self._note(f"{error.message}: {otherwise}")
            return False
        return True

    def _note(self, line: str) -> None:
        self.notes.append(line)
        self.say(line)
