"""What networks are held to, and what they compute to be held to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tinygen import boards, evaluate, hostrun
from tinygen.compile import plan_for
from tinygen.compress import network
from tinygen.compress.base import Progress, silent
from tinygen.compress.network import Network
from tinygen.datasets import Data
from tinygen.errors import TinyGenError
from tinygen.evaluate import Task
from tinygen.graph import Array
from tinygen.plan import Goal, Plan


@dataclass(frozen=True, eq=False)
class Runner:
    """Runs networks on this machine: generated C or, ``by_reference``, the numpy reference."""

    by_reference: bool = False
    progress: Progress = silent

    def plan(self, plan: Plan, data: Data) -> Array:
        """Real outputs (n, ...) float32 of a plan's generated C."""
        if not self.by_reference:
            return evaluate.run(plan, data, self.progress)
        graph = plan.graph
        inputs = evaluate.network_inputs(graph, data, "data")
        outputs = hostrun.by_reference(graph, [inputs], self.progress)[0]
        return evaluate.real(outputs, graph.at(graph.outputs[0]))

    def network(self, given: Network, data: Data) -> Array:
        """Real outputs (n, ...) float32 of a network of any form."""
        if given.kind != "int8":
            return network.float_outputs(given, data, self.progress)
        return self.plan(plan_for(given.value, boards.load("host"), Goal()), data)


def runner(say: Callable[[str], None], progress: Progress) -> Runner:
    """Generated C where there is a compiler, else the reference, which is said."""
    try:
        hostrun.compiler()
    except TinyGenError as error:
        say(f"{error.message}; the numpy reference computes the same, slowly")
        return Runner(True, progress)
    return Runner(False, progress)


@dataclass(frozen=True, eq=False)
class Judge:
    """What outputs are held to, in ``words``: nothing, without data."""

    data: Data | None = None
    task: Task | None = None
    words: str = "nothing, for there are no data"

    def points(self, outputs: Array) -> float | None:
        """See :attr:`tinygen.evaluate.Scores.points`."""
        if self.data is None or self.task is None:
            return None
        return evaluate.assess(outputs, self.data, self.task).points


def judge(name: str, given: Network, data: Data, task: str | None, run: Runner) -> Judge:
    """A judge by the labels of ``data``; without any by the inputs, where the network ``given``
    reconstructs them, and else by what it computes.

    Raises :class:`tinygen.errors.InputError` for labels that do not fit the network.
    """
    _, gives = network.example_shapes(given)
    shapes = data.inputs.shape[1:], tuple(e for e in gives if e is not None)
    if data.labels is not None:
        chosen = evaluate.task_of(name, *shapes, data, task)
        return Judge(data, chosen, f"labels ({chosen})")
    if evaluate.mirrored(*shapes):
        held = Data(data.inputs, data.inputs.reshape(len(data), -1))
        return Judge(held, "regression", "the inputs, which the model reconstructs")
    outputs = run.network(given, data)
    flat = outputs.reshape(len(outputs), -1)
    if flat.shape[1] > 1 and task in (None, "classification"):
        held = Data(data.inputs, evaluate.classes_found(flat).astype(np.int64))
        return Judge(held, "classification", "the classes that the given model finds")
    return Judge(Data(data.inputs, flat), "regression", "the outputs of the given model")
