"""Pictures of evaluations: accuracy by task, and accuracy against length.

Both take what `write_results` returns, by the name that the legend shows: {"base": {...}, "KTAE": {...}}.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ktae.evaluation.results import MACRO
from ktae.evaluation.statistics import Estimate, average
from ktae.extras import require

# Okabe and Ito's colours, which people with any colour vision can tell apart; the shapes repeat what they say.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "D", "^", "v", "P", "X")
_LONGEST_NAME = 48
_INK, _LINE, _FAINT = "#222222", "#8A8A8A", "#E3E3E3"
_STYLE = {
    "font.size": 11,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _LINE,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "figure.constrained_layout.h_pad": 0.1,
    "figure.constrained_layout.w_pad": 0.1,
    "grid.color": _FAINT,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
}


def plot_accuracy(results: Mapping[str, dict[str, Any]], path: Path) -> None:
    """Accuracy with its 95 % interval: a row a task, and below them the average; writes a PNG.

    Raises:
        ValueError: there are no results, or more than can be told apart.
        ImportError: matplotlib is not installed.
    """
    pyplot = _pyplot(results)
    tasks = _tasks(results)
    has_macro = any(result["macro"] for result in results.values())
    rows = [*tasks, *[MACRO] * has_macro]
    with pyplot.rc_context(_STYLE):
        width, height = 7.2, 0.85 + len(rows) * (0.26 + 0.2 * len(results))
        figure, axis = pyplot.subplots(figsize=(width, height + _legend_height(results, width)), layout="constrained")
        for number, result in enumerate(results.values()):
            found = {**result["tasks"], **({MACRO: result["macro"]} if result["macro"] else {})}
            shift = 0.7 / max(len(results), 3) * (number - (len(results) - 1) / 2)
            for y, task in enumerate(rows):
                if task in found:
                    _accuracy(axis, y + shift, found[task], number)
        axis.set_yticks(range(len(rows)), [_row_label(task, results) for task in rows])
        axis.set_ylim(len(rows) - 0.4, -0.6)
        axis.set_xlim(0, 100)
        axis.set_xlabel("accuracy, % (bars: 95 % intervals)")
        axis.tick_params(axis="y", length=0)
        axis.grid(axis="x")
        axis.spines["left"].set_visible(False)
        if has_macro:
            axis.axhline(len(tasks) - 0.5, color=_LINE, linewidth=0.8)
        if len(results) > 1:
            _legend(figure, axis, results)
        else:
            axis.set_title(_short(next(iter(results))), loc="left")
        figure.savefig(path, dpi=150)
        pyplot.close(figure)


def plot_length(results: Mapping[str, dict[str, Any]], path: Path) -> None:
    """Accuracy against mean length, both with 95 % intervals; writes a PNG.

    One evaluation: a point a task. Several: a panel a task, and one for the average. Tasks with an unknown length in
    any of the evaluations are left out.

    Raises:
        ValueError: there are no results, or more than can be told apart, or all tasks would be left out.
        ImportError: matplotlib is not installed.
    """
    pyplot = _pyplot(results)
    points = {
        name: {task: point for task, summary in result["tasks"].items() if (point := _point(summary))}
        for name, result in results.items()
    }
    tasks = [task for task in _tasks(results) if all(task in found for found in points.values())]
    if not tasks:
        raise ValueError("no task has known lengths in all of the results")
    with pyplot.rc_context(_STYLE):
        if len(results) == 1:
            figure, axis = pyplot.subplots(figsize=(6.4, 4.4), layout="constrained")
            halo = [require("matplotlib.patheffects", extra="train").withStroke(linewidth=3, foreground="white")]
            for task in tasks:
                length, accuracy = points[next(iter(results))][task]
                _cross(axis, length, accuracy, 0)
                place = {"xytext": (8, 7), "textcoords": "offset points", "path_effects": halo}
                axis.annotate(task, (length.value, accuracy.value), **place)
            axis.set_title(_short(next(iter(results))), loc="left")
            axis.margins(x=0.12)
            axes = [axis]
        else:
            panels = [*tasks, *[MACRO] * (len(tasks) > 1)]
            columns = min(len(panels), 3)
            rows = math.ceil(len(panels) / columns)
            width = max(0.6 + 3.1 * columns, 5.4)
            size = (width, 0.5 + 2.6 * rows + _legend_height(results, width))
            figure, grid = pyplot.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
            axes = list(grid.flat)[: len(panels)]
            for panel, axis in zip(panels, axes, strict=True):
                axis.set_title(panel, loc="left", weight="bold" if panel == MACRO else "normal")
                for number, found in enumerate(points.values()):
                    of_tasks = [found[task] for task in (tasks if panel == MACRO else [panel])]
                    length, accuracy = map(average, zip(*of_tasks, strict=True))
                    _cross(axis, length, accuracy, number)
            for axis in list(grid.flat)[len(panels) :]:
                axis.set_visible(False)
            _legend(figure, axes[0], results)
        for axis in axes:
            axis.grid()
            axis.margins(0.1)
        figure.supxlabel("mean length, tokens", fontsize=11)
        figure.supylabel("accuracy, %", fontsize=11)
        figure.savefig(path, dpi=150)
        pyplot.close(figure)


def _pyplot(results: Mapping[str, dict[str, Any]]) -> Any:
    if not 1 <= len(results) <= len(_COLORS):
        raise ValueError(f"results must hold 1 to {len(_COLORS)} evaluations, got {len(results)}")
    require("matplotlib", extra="train").use("Agg")  # no display
    return require("matplotlib.pyplot", extra="train")


def _tasks(results: Mapping[str, dict[str, Any]]) -> list[str]:
    """The tasks that any of the results has, in the order in which they first appear."""
    return list(dict.fromkeys(task for result in results.values() for task in result["tasks"]))


def _row_label(task: str, results: Mapping[str, dict[str, Any]]) -> str:
    sizes = {result["tasks"][task]["problems"] for result in results.values() if task in result["tasks"]}
    return f"{task} ({', '.join(map(str, sorted(sizes)))})" if sizes else task


def _legend_columns(results: Mapping[str, dict[str, Any]], width: float) -> int:
    """As many as fit: names can be paths."""
    return min(max(int(width / (0.55 + 0.095 * max(len(_short(name)) for name in results))), 1), 4)


def _legend_height(results: Mapping[str, dict[str, Any]], width: float) -> float:
    return 0.25 * math.ceil(len(results) / _legend_columns(results, width))


def _legend(figure: Any, axis: Any, results: Mapping[str, dict[str, Any]]) -> None:
    for name, color, marker in zip(results, _COLORS, _MARKERS, strict=False):
        axis.plot([], [], label=_short(name), color=color, marker=marker, linestyle="none")
    columns = _legend_columns(results, figure.get_figwidth())
    figure.legend(loc="outside upper center", ncols=columns, handletextpad=0.2, columnspacing=1.5)


def _short(name: str) -> str:
    """The end of a long name, which is what tells paths apart."""
    return name if len(name) <= _LONGEST_NAME else "..." + name[3 - _LONGEST_NAME :]


def _accuracy(axis: Any, y: float, summary: dict[str, Any], number: int) -> None:
    value, low, high = (100 * summary[key] for key in ("accuracy", "low", "high"))
    # Not clipped: at 0 and 100 % a marker would be cut in half.
    style = {"color": _COLORS[number], "clip_on": False}
    axis.plot([low, high], [y, y], linewidth=2.2, alpha=0.55, solid_capstyle="round", **style)
    axis.plot(value, y, marker=_MARKERS[number], markersize=7, markeredgecolor="white", **style)
    place = {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}
    axis.annotate(f"{value:.1f}", (high, y), fontsize=9, **place)


def _point(summary: dict[str, Any]) -> tuple[Estimate, Estimate] | None:
    """Mean length, and accuracy in percent; None without lengths. With one problem the length has no interval."""
    length = summary["length"]
    if length is None:
        return None
    ends = (length["mean"] if length[end] is None else length[end] for end in ("low", "high"))
    return Estimate(length["mean"], *ends), Estimate(*(100 * summary[key] for key in ("accuracy", "low", "high")))


def _cross(axis: Any, length: Estimate, accuracy: Estimate, number: int) -> None:
    style = {"color": _COLORS[number], "linewidth": 1.8, "alpha": 0.55, "solid_capstyle": "round"}
    axis.plot([length.low, length.high], [accuracy.value] * 2, **style)
    axis.plot([length.value] * 2, [accuracy.low, accuracy.high], **style)
    marker = {"color": _COLORS[number], "marker": _MARKERS[number], "markersize": 8, "markeredgecolor": "white"}
    axis.plot(length.value, accuracy.value, zorder=3, **marker)
