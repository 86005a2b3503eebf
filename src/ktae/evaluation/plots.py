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
        for task, summary in {**result["tasks"], **({MACRO: result["macro"]} if result["macro"] else {})}.items():
            row = f"{task} ({summary['problems']})" if "problems" in summary else task
            rows.setdefault(row, {})[name] = 100 * summary["accuracy"], 100 * summary["low"], 100 * summary["high"]
    rows |= {MACRO: rows.pop(MACRO)} if MACRO in rows else {}  # last, also if a later result has more tasks
    save(draw_intervals(rows, list(results), "accuracy, % (bars: 95 % intervals)", limit=100, total=MACRO), path)


def plot_length(results: Mapping[str, dict[str, Any]], path: Path) -> None:
    """Mean length with its 95 % interval, a row a task; writes a PNG. Tasks whose lengths are unknown are left out.

    Raises:
        ValueError: there are no lengths, or more results than can be told apart.
        ImportError: matplotlib is not installed.
    """
    rows: dict[str, dict[str, Interval]] = {}
    for name, result in results.items():
        for task, summary in result["tasks"].items():
            if length := summary["length"]:  # without an interval if there is one problem
                low, high = (length["mean"] if length[end] is None else length[end] for end in ("low", "high"))
                rows.setdefault(task, {})[name] = length["mean"], low, high
    save(draw_intervals(rows, list(results), "mean length, tokens (bars: 95 % intervals)"), path)
