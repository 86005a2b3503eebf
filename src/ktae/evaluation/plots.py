"""What the pictures of evaluations show: accuracy by task, and accuracy against length.

Both take what `write_results` returns, by the name that the legend shows: {"base": {...}, "KTAE": {...}}.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ktae.evaluation.results import MACRO
from ktae.evaluation.statistics import Estimate, average
from ktae.pictures.estimates import Interval, draw_crosses, draw_rows
from ktae.pictures.style import save


def plot_accuracy(results: Mapping[str, dict[str, Any]], path: Path) -> None:
    """Accuracy with its 95 % interval: a row a task, and below them the average; writes a PNG.

    Raises:
        ValueError: there are no results, or more than can be told apart.
        ImportError: matplotlib is not installed.
    """
    rows: dict[str, dict[str, Interval]] = {}
    for task in _tasks(results):
        sizes = {result["tasks"][task]["problems"] for result in results.values() if task in result["tasks"]}
        of_task = {name: result["tasks"][task] for name, result in results.items() if task in result["tasks"]}
        rows[f"{task} ({', '.join(map(str, sorted(sizes)))})"] = _accuracies(of_task)
    if of_all := {name: result["macro"] for name, result in results.items() if result["macro"]}:
        rows[MACRO] = _accuracies(of_all)
    save(draw_rows(rows, list(results), "accuracy, % (bars: 95 % intervals)", total=MACRO), path)


def plot_length(results: Mapping[str, dict[str, Any]], path: Path) -> None:
    """Accuracy against mean length, both with 95 % intervals; writes a PNG.

    One evaluation: a point a task. Several: a panel a task, and one for the average. Tasks with an unknown length in
    any of the evaluations are left out.

    Raises:
        ValueError: there are no results, or more than can be told apart, or all tasks would be left out.
        ImportError: matplotlib is not installed.
    """
    points: dict[str, dict[str, tuple[Interval, Interval]]] = {}
    for task in _tasks(results):
        summaries = {name: result["tasks"].get(task) for name, result in results.items()}
        if all(summary and summary["length"] for summary in summaries.values()):
            accuracies = _accuracies(summaries)
            points[task] = {name: (_length(summaries[name]["length"]), accuracies[name]) for name in results}
    if not points:
        raise ValueError("no task has known lengths in all of the results")
    if len(points) > 1 and len(results) > 1:
        points[MACRO] = {name: _averages([of_task[name] for of_task in points.values()]) for name in results}
    save(draw_crosses(points, list(results), "mean length, tokens", "accuracy, %"), path)


def _tasks(results: Mapping[str, dict[str, Any]]) -> list[str]:
    """The tasks that any of the results has, in the order in which they first appear."""
    if not results:
        raise ValueError("results must hold at least one evaluation, got none")
    return list(dict.fromkeys(task for result in results.values() for task in result["tasks"]))


def _accuracies(summaries: Mapping[str, Any]) -> dict[str, Interval]:
    """In percent, by name."""
    return {
        name: (100 * summary["accuracy"], 100 * summary["low"], 100 * summary["high"])
        for name, summary in summaries.items()
    }


def _length(length: Mapping[str, Any]) -> Interval:
    """With one problem the length has no interval."""
    low, high = (length["mean"] if length[end] is None else length[end] for end in ("low", "high"))
    return length["mean"], low, high


def _averages(pairs: list[tuple[Interval, Interval]]) -> tuple[Interval, Interval]:
    x, y = (average([Estimate(*interval) for interval in intervals]) for intervals in zip(*pairs, strict=True))
    return (x.value, x.low, x.high), (y.value, y.low, y.high)
