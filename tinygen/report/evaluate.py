"""``tinygen evaluate``: how good a model is, as tables or as a document."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from tinygen.evaluate import Agreement, Evaluation, Scores
from tinygen.report.console import table

SHOWN_CLASSES = 20
"""A confusion matrix of more classes is in the document alone."""


def document(result: Evaluation) -> dict[str, Any]:
    """For ``--json``: parts of one (accuracy, AUC, agreement), errors in real units; null where a
    figure makes no sense for the task."""
    return {
        "model": result.model,
        "on": result.on,
        "data": result.data,
        **scores_document(result.scores),
        "float": _float(result.agreement, result.float_scores),
    }


def scores_document(scores: Scores) -> dict[str, Any]:
    """The figures of one model; ``confusion`` has a row for each true class."""
    return {
        "task": scores.task,
        "examples": scores.examples,
        "accuracy": scores.accuracy,
        "accuracy_top5": scores.top5,
        "auc": scores.auc,
        "mean_absolute_error": scores.mean_absolute_error,
        "mean_squared_error": scores.mean_squared_error,
        "r2": scores.r2,
        "confusion": None if scores.confusion is None else scores.confusion.tolist(),
        "classes": [
            {"class": i, "count": c.count, "precision": c.precision, "recall": c.recall}
            for i, c in enumerate(scores.classes)
        ],
    }


def _float(agreement: Agreement | None, scores: Scores | None) -> dict[str, Any] | None:
    if agreement is None or scores is None:
        return None
    return {
        "model": agreement.model,
        "same_class": agreement.same_class,
        "mean_difference": agreement.mean_difference,
        "largest_difference": agreement.largest_difference,
        **scores_document(scores),
    }


def show(result: Evaluation, console: Console) -> None:
    """Print the figures, the float model's beside them, and for classes the confusion matrix."""
    scores, other = result.scores, result.float_scores
    columns = ["", f">{result.on}"] + ([">float model"] if other else [])
    theirs = dict(_figures(other)) if other else {}
    rows = [
        (name, value, *((theirs.get(name, ""),) if other else ()))
        for name, value in _figures(scores)
    ]
    console.print(
        f"{result.model}: {scores.task} of {scores.examples:,} examples in {result.data}",
        markup=False,
    )
    console.print()
    console.print(table(columns, rows))
    if result.agreement:
        console.print()
        _show_agreement(result.agreement, console)
    if scores.confusion is not None:
        console.print()
        _show_classes(scores, console)


def _figures(scores: Scores) -> list[tuple[str, str]]:
    named = (
        ("accuracy", _percent(scores.accuracy)),
        ("accuracy, top 5", _percent(scores.top5)),
        ("area under the ROC curve", _plain(scores.auc)),
        ("mean absolute error", _plain(scores.mean_absolute_error)),
        ("mean squared error", _plain(scores.mean_squared_error)),
        ("variance explained (R2)", _plain(scores.r2)),
    )
    return [(name, text) for name, text in named if text]


def _show_agreement(agreement: Agreement, console: Console) -> None:
    same = agreement.same_class
    console.print(
        f"against {agreement.model}: "
        + (f"same class for {100 * same:.2f} %, " if same is not None else "")
        + f"outputs differ by {agreement.mean_difference:.3g} on average, "
        + f"{agreement.largest_difference:.3g} at most",
        markup=False,
    )


def _show_classes(scores: Scores, console: Console) -> None:
    assert scores.confusion is not None
    small = len(scores.classes) <= SHOWN_CLASSES
    found = [f">as {i}" for i in range(len(scores.classes))] if small else []
    rows = [
        (
            i,
            one.count,
            _percent(one.precision) or "-",
            _percent(one.recall) or "-",
            *(scores.confusion[i].tolist() if small else ()),
        )
        for i, one in enumerate(scores.classes)
    ]
    console.print(table([">class", ">examples", ">precision", ">recall", *found], rows))


def _percent(part: float | None) -> str:
    return "" if part is None else f"{100 * part:.2f} %"


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
