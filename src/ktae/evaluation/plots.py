"""Pictures of evaluations: accuracy and mean length by task.

Both take what `write_results` returns, by the name that the legend shows: {"base": {...}, "KTAE": {...}}.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ktae.evaluation.results import MACRO
from ktae.pictures.intervals import Interval, draw_intervals
from ktae.pictures.style import save


def plot_accuracy(results: Mapping[str, dict[str, Any]], path: Path) -> None:
    """Accuracy with its 95 % interval: a row a task, and below them the average; writes a PNG.

    Raises:
        ValueError: there are no results, or more than can be told apart.
        ImportError: matplotlib is not installed.
    """
    rows: dict[str, dict[str, Interval]] = {}
    for name, result in results.items():
        for task, of_task in {**result["tasks"], **({MACRO: result["macro"]} if result["macro"] else {})}.items():
            row = f"{task} ({of_task['problems']})" if "problems" in of_task else task
            rows.setdefault(row, {})[name] = tuple(100 * of_task[key] for key in ("accuracy", "low", "high"))
    rows |= {MACRO: rows.pop(MACRO)} if MACRO in rows else {}  # last, also if a later result has more tasks
    save(draw_intervals(rows, list(results), "accuracy, % (bars: 95 % intervals)", limit=100, total=MACRO), path)


def plot_length(results: Mapping[str, dict[str, Any]], path: Path) -> None:
    """Mean length with its 95 % interval, a row a task. Tasks whose lengths are unknown are left out.

    Else as `plot_accuracy`.
    """
    rows: dict[str, dict[str, Interval]] = {}
    for name, result in results.items():
        for task, of_task in result["tasks"].items():
            if length := of_task["length"]:  # without an interval if there is one problem
                low, high = (length["mean"] if length[end] is None else length[end] for end in ("low", "high"))
                rows.setdefault(task, {})[name] = length["mean"], low, high
    save(draw_intervals(rows, list(results), "mean length, tokens (bars: 95 % intervals)"), path)
