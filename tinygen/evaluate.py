"""How good a model is: its generated C, run on this machine over labelled examples.

The sources are compiled as they go into the firmware, so the figures are those of the firmware,
output for output.  What is computed depends on the task: right classes, the area under the ROC
curve of an anomaly score, or errors against targets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from tinygen import boards, datasets, emit, floatrun, hostrun, importers, project, verify
from tinygen.compile import plan_for
from tinygen.compress.base import Progress, silent
from tinygen.datasets import Data
from tinygen.errors import InputError
from tinygen.graph import Array, Graph, Tensor
from tinygen.plan import Goal, Plan

Task = Literal["classification", "anomaly", "regression"]
TASKS: tuple[Task, ...] = ("classification", "anomaly", "regression")

MANY_CLASSES = 10
"""More classes than these also have a top-5 accuracy."""

QUANTIZED = ("int8", "uint8", "int16")


@dataclass(frozen=True)
class ClassScore:
    """One class: its examples, and of these and of those taken for it the part that is right."""

    count: int
    precision: float | None
    recall: float | None


@dataclass(frozen=True, eq=False)
class Scores:
    """What outputs are worth against labels; None where that makes no sense.

    ``confusion`` is int64 (true class, class found).  Errors are in real units, means over all
    elements; for an anomaly detector without labels against the input itself.
    """

    task: Task
    examples: int
    accuracy: float | None = None
    top5: float | None = None
    auc: float | None = None
    mean_absolute_error: float | None = None
    mean_squared_error: float | None = None
    r2: float | None = None
    confusion: Array | None = None
    classes: tuple[ClassScore, ...] = ()

    @property
    def points(self) -> float | None:
        """The one figure that models are compared by, better the higher, 100 being perfect: per
        cent of accuracy, of area under the curve, or of variance explained."""
        part = {"classification": self.accuracy, "anomaly": self.auc, "regression": self.r2}
        found = part[self.task]
        return None if found is None else 100 * found


@dataclass(frozen=True)
class Agreement:
    """A model beside the float model it was made from: the part of examples of the same class
    (None when outputs are no classes), and differences of real outputs."""

    model: str
    same_class: float | None
    mean_difference: float
    largest_difference: float


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What ``tinygen evaluate`` found; ``on`` says what computed the outputs."""

    model: str
    on: str
    data: str
    scores: Scores
    agreement: Agreement | None = None
    float_scores: Scores | None = None


# ---- the verb ------------------------------------------------------------------------------------


def evaluate(
    path: Path,
    data_file: Path,
    task: str | None = None,
    float_model: Path | None = None,
    by_reference: bool = False,
    progress: Progress = silent,
) -> Evaluation:
    """Evaluate the project in the folder ``path``, or the .tflite file, on the examples in a file.

    A project's generated C is compiled as it stands; that of a file, or of a project with another
    engine, is generated for the host.  ``by_reference`` takes the numpy reference instead.

    Raises :class:`InputError` for a model or data that cannot be used, and
    :class:`tinygen.errors.TinyGenError` without a compiler.
    """
    data = datasets.load(data_file)
    folder = path if path.is_dir() else None
    manifest = project.load(folder) if folder else None
    graph = verify.model_of(folder, manifest) if folder and manifest else importers.load(path)
    inputs = [network_inputs(graph, data, data_file.name)]
    chosen = choose_task(graph, data, task)
    if by_reference:
        outputs = hostrun.by_reference(graph, inputs, progress)
    elif folder and manifest and manifest.engine == "aot":
        library = verify.inside(folder, f"lib/{_name(folder, manifest.name)}/src")
        with hostrun.of_project(library, manifest.name, graph) as program:
            outputs = program.run(inputs, progress)
    else:
        with hostrun.compiled(plan_for(graph, boards.load("host"), Goal())) as program:
            outputs = program.run(inputs, progress)
    given = in_real(graph, data)
    found = real(outputs[0], graph.at(graph.outputs[0]))
    agreement = float_scores = None
    if float_model is not None:
        wanted = outputs_of(float_model, given, progress)
        float_scores = assess(wanted, given, chosen)
        agreement = agree(float_model.name, found, wanted, chosen)
    return Evaluation(
        model=graph.source,
        on="the numpy reference" if by_reference else "generated C",
        data=data_file.name,
        scores=assess(found, given, chosen),
        agreement=agreement,
        float_scores=float_scores,
    )


def _name(folder: Path, name: str) -> str:
    """The model's name in C, which a damaged manifest may have as anything."""
    if emit.c_identifier(name) != name:
        raise InputError(f"{folder}: {name!r} is no name of a model", "build the project again")
    return name


# ---- running -------------------------------------------------------------------------------------


def run(plan: Plan, data: Data, progress: Progress = silent) -> Array:
    """Real outputs (n, ...) float32 of a plan's generated C; see :func:`network_inputs`."""
    graph = plan.graph
    inputs = [network_inputs(graph, data, "data")]
    with hostrun.compiled(plan) as program:
        outputs = program.run(inputs, progress)
    return real(outputs[0], graph.at(graph.outputs[0]))


def outputs_of(path: Path, data: Data, progress: Progress = silent) -> Array:
    """Real outputs (n, ...) float32 of a model file: Keras, float .tflite, or quantized .tflite."""
    if floatrun.is_keras(path):
        return floatrun.predict(floatrun.load_keras(path), data.inputs, progress)
    try:
        graph = importers.load(path)
    except InputError:
        return floatrun.interpret(path, data.inputs, progress)
    if not is_quantized(graph):
        return floatrun.interpret(path, data.inputs, progress)
    return run(plan_for(graph, boards.load("host"), Goal()), data, progress)


def is_quantized(graph: Graph) -> bool:
    """The network computes in integers, whatever its inputs and outputs are."""
    computed = [graph.at(i) for node in graph.nodes for i in node.outputs]
    return any(tensor.dtype in QUANTIZED for tensor in computed)


def network_inputs(graph: Graph, data: Data, where: str) -> Array:
    """The examples as the network takes them: (n, *shape of its input), its element type.

    Examples that a file stores in the element type of a quantized input are quantized values and
    taken as they are.  All others are real values, which are quantized as ``tinygen verify`` does:
    rounded half away from zero and clamped.  Extents of 1 may be missing.

    Raises :class:`InputError` for examples of another shape, and for a network that has not one
    input and one output.
    """
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise InputError(
            f"{graph.source}: has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs; "
            "only networks with one of each are evaluated"
        )
    tensor = graph.at(graph.inputs[0])
    if _without_ones(data.inputs.shape[1:]) != _without_ones(tensor.shape):
        raise InputError(
            f"{where}: examples of shape {data.inputs.shape[1:]}, "
            f"the model takes {example_shape(tensor)}",
            "give examples (n, *shape) of the model's shape",
        )
    shaped = data.inputs.reshape(len(data), *tensor.shape)
    if tensor.dtype in (data.stored, "float32"):
        return shaped.astype(tensor.dtype)
    return verify.quantized(shaped, tensor)


def in_real(graph: Graph, data: Data) -> Data:
    """``data`` with inputs in real values: those stored as the network's input are dequantized."""
    tensor = graph.at(graph.inputs[0])
    if tensor.dtype != data.stored or tensor.dtype not in QUANTIZED:
        return data
    return Data(real(data.inputs, tensor), data.labels)


def real(values: Array, tensor: Tensor) -> Array:
    """Float32 values that ``values`` of ``tensor`` stand for, without the batch of one."""
    if tensor.shape[:1] == (1,) and values.shape[1:] == tensor.shape and values.ndim > 2:
        values = values[:, 0]
    if tensor.quant is None or tensor.dtype == "float32":
        return values.astype(np.float32)
    centred = values.astype(np.float32) - np.float32(tensor.zero_point)
    found: Array = centred * np.float32(tensor.scale)
    return found


def example_shape(tensor: Tensor) -> tuple[int, ...]:
    """Shape of one example: the tensor's, without a batch of one."""
    return tensor.shape[1:] if tensor.shape[:1] == (1,) else tensor.shape


def mirrored(input_shape: Sequence[int], output_shape: Sequence[int]) -> bool:
    """The output has the input's shape, and more than one element."""
    return _without_ones(input_shape) == _without_ones(output_shape) != ()


def _without_ones(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(extent for extent in shape if extent != 1)


# ---- scores --------------------------------------------------------------------------------------


def choose_task(graph: Graph, data: Data, task: str | None = None) -> Task:
    """:func:`task_of` for a graph."""
    ends = graph.at(graph.inputs[0]), graph.at(graph.outputs[0])
    return task_of(graph.source, ends[0].shape, ends[1].shape, data, task)


def task_of(
    name: str,
    input_shape: Sequence[int],
    output_shape: Sequence[int],
    data: Data,
    task: str | None = None,
) -> Task:
    """The task named, or the one that shapes and labels say.

    Classes for several outputs are a classification.  An output of the input's shape is a
    reconstruction, whose error is an anomaly score, and one output with two classes a score too.
    Targets are a regression.  Raises :class:`InputError` when labels are missing, or do not fit.
    """
    outputs = math.prod(output_shape)
    same = mirrored(input_shape, output_shape)
    named = next((known for known in TASKS if known == task), None)
    chosen = named or _likely(data, outputs, same)
    if chosen is None:
        raise InputError(
            f"{name}: the data have no labels, so nothing says what is right",
            "add an array named labels: classes (integers), or targets (floats)",
        )
    _check_labels(name, data, outputs, chosen, same)
    return chosen


def _likely(data: Data, outputs: int, mirrored: bool) -> Task | None:
    if data.labels is None:
        return "anomaly" if mirrored else None
    if data.classes is None:
        return "regression"
    if data.classes <= 2 and mirrored:
        return "anomaly"
    if outputs == 1:
        return "anomaly" if data.classes <= 2 else "regression"
    return "classification"


def _check_labels(name: str, data: Data, outputs: int, task: Task, mirrored: bool) -> None:
    labels = data.labels
    if task == "anomaly":
        if not mirrored and outputs != 1:
            raise InputError(
                f"{name}: an anomaly score is one output, or an output of the input's shape; "
                f"the model has {outputs} outputs"
            )
        if labels is None and not mirrored:
            raise InputError(f"{name}: anomaly scores without labels", "add an array named labels")
        if labels is not None and data.classes is None:
            raise InputError(f"{name}: labels of anomalies are integers, 0 for what is normal")
        return
    if labels is None:
        raise InputError(f"{name}: {task} without labels", "add an array named labels")
    if task == "classification":
        classes = max(outputs, 2)
        if data.classes is None:
            raise InputError(
                f"{name}: labels of a classification are integers", "or give --task regression"
            )
        if data.classes > classes:
            raise InputError(
                f"{name}: a label is {data.classes - 1}, the model tells {classes} classes apart"
            )
    elif labels.size != len(data) * outputs:
        raise InputError(
            f"{name}: targets of shape {labels.shape[1:]}, the model has {outputs} outputs"
        )


def assess(outputs: Array, data: Data, task: Task) -> Scores:
    """Score real ``outputs`` (n, ...) against the data's labels (checked already).

    One output is the score of class 1: a probability when all lie in 0..1, else a logit.
    """
    flat = outputs.reshape(len(outputs), -1).astype(np.float64)
    if task == "classification":
        return _classified(flat, data)
    if task == "anomaly":
        return _anomalies(flat, data)
    assert data.labels is not None
    targets = data.labels.reshape(len(flat), -1).astype(np.float64)
    spread = float(((targets - targets.mean(axis=0)) ** 2).sum())
    squares = float(((flat - targets) ** 2).sum())
    return Scores(
        "regression",
        len(flat),
        mean_absolute_error=float(np.abs(flat - targets).mean()),
        mean_squared_error=squares / flat.size,
        r2=1 - squares / spread if spread else None,
    )


def _classified(flat: Array, data: Data) -> Scores:
    assert data.labels is not None
    labels, found = data.labels, classes_found(flat)
    count = max(flat.shape[1], 2)
    confusion = np.zeros((count, count), np.int64)
    np.add.at(confusion, (labels, found), 1)
    best = np.argsort(-flat, axis=1, kind="stable")[:, :5]
    margin = flat[:, 0] if flat.shape[1] == 1 else flat[:, 1] - flat[:, 0]
    return Scores(
        "classification",
        len(flat),
        accuracy=float((found == labels).mean()),
        top5=float((best == labels[:, None]).any(axis=1).mean()) if count > MANY_CLASSES else None,
        auc=area_under_curve(margin, labels == 1) if count == 2 else None,
        confusion=confusion,
        classes=tuple(
            ClassScore(
                count=int(confusion[i].sum()),
                precision=_part(confusion[i, i], confusion[:, i].sum()),
                recall=_part(confusion[i, i], confusion[i].sum()),
            )
            for i in range(count)
        ),
    )


def classes_found(flat: Array) -> Array:
    """The class of each row of outputs (n, outputs), int64: the first of the highest."""
    if flat.shape[1] > 1:
        return np.asarray(flat.argmax(axis=1))
    probable = flat.size > 0 and flat.min() >= 0 and flat.max() <= 1
    return np.asarray(flat[:, 0] > (0.5 if probable else 0.0), np.int64)


def _anomalies(flat: Array, data: Data) -> Scores:
    given = data.inputs.reshape(len(flat), -1).astype(np.float64)
    difference = flat - given if given.shape == flat.shape and flat.shape[1] > 1 else None
    score = flat[:, 0] if difference is None else (difference**2).mean(axis=1)
    auc = None if data.labels is None else area_under_curve(score, data.labels != 0)
    if difference is None:
        return Scores("anomaly", len(flat), auc=auc)
    return Scores(
        "anomaly",
        len(flat),
        auc=auc,
        mean_absolute_error=float(np.abs(difference).mean()),
        mean_squared_error=float((difference**2).mean()),
    )


def area_under_curve(scores: Array, positive: Array) -> float | None:
    """Area under the ROC curve: how often a positive example has the higher score, ties half.

    ``scores`` and the booleans ``positive`` are (n,).  None when all are of one kind.
    Mann and Whitney, 1947.
    """
    some, others = int(positive.sum()), int((~positive).sum())
    if not some or not others:
        return None
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return float((ranks[positive].sum() - some * (some + 1) / 2) / (some * others))


def agree(name: str, found: Array, wanted: Array, task: Task) -> Agreement:
    """Compare real outputs with those of the float model ``name``; :class:`InputError` when it has
    others."""
    one, other = (a.reshape(len(a), -1).astype(np.float64) for a in (found, wanted))
    if one.shape != other.shape:
        raise InputError(f"{name}: has {other.shape[1]} outputs, the model {one.shape[1]}")
    classes = task == "classification"
    difference = np.abs(one - other)
    return Agreement(
        model=name,
        same_class=float((classes_found(one) == classes_found(other)).mean()) if classes else None,
        mean_difference=float(difference.mean()),
        largest_difference=float(difference.max()),
    )


def _part(some: int, all_of_them: int) -> float | None:
    return float(some / all_of_them) if all_of_them else None
