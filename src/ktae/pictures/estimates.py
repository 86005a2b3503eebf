"""Estimates with their 95 % intervals: in rows, and against another estimate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ktae.extras import require
from ktae.pictures.style import LINE, figure, mark, panels, styled

Interval = tuple[float, float, float]  # value, low, high

_LONGEST_NAME = 48


@styled()
def draw_rows(rows: Mapping[str, Mapping[str, Interval]], names: Sequence[str], label: str, total: str = "") -> Any:
    """Percentages: a row a task, in it a mark for each of the names that has an estimate.

    Args:
        rows: {row: {name: (value, low, high)}}, percent.
        names: in the order of the legend; a single one is the title.
        label: of the axis.
        total: the row that is set apart.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: there are more names than can be told apart.
    """
    drawn = figure(7.0, 0.8 + len(rows) * (0.24 + 0.18 * len(names)) + _legend_height(names, 7.0))
    axis = drawn.subplots()
    for y, (row, estimates) in enumerate(rows.items()):
        if row == total:
            axis.axhline(y - 0.5, color=LINE, linewidth=0.8)
        for number, name in enumerate(names):
            if name not in estimates:
                continue
            value, low, high = estimates[name]
            at = y + 0.7 / max(len(names), 3) * (number - (len(names) - 1) / 2)
            style = mark(number, 6)
            # Not clipped: at 0 and 100 % a mark would be cut in half.
            axis.plot([low, high], [at, at], color=style["color"], linewidth=2, alpha=0.55, clip_on=False)
            axis.plot(value, at, clip_on=False, **style)
            place = {"xytext": (5, 0), "textcoords": "offset points", "va": "center"}
            axis.annotate(f"{value:.1f}", (high, at), fontsize=8, **place)
    axis.set_yticks(range(len(rows)), list(rows))
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_xlim(0, 100)
    axis.set_xlabel(label)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x")
    axis.spines["left"].set_visible(False)
    _legend(drawn, axis, names)
    return drawn


@styled()
def draw_crosses(
    points: Mapping[str, Mapping[str, tuple[Interval, Interval]]], names: Sequence[str], x: str, y: str
) -> Any:
    """One estimate against another, a panel a task; with a single name all tasks in one panel, each with its name.

    Args:
        points: {task: {name: (estimate on x, estimate on y)}}.
        names: in the order of the legend.
        x, y: labels of the axes.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: there are more names than can be told apart.
    """
    if len(names) > 1:
        drawn, axes = panels(len(points), 3, 2.8, 2.3, 0.5 + _legend_height(names, 2.8 * min(len(points), 3)))
        for axis, (task, of_task) in zip(axes, points.items(), strict=True):
            axis.set_title(task, loc="left")
            for number, name in enumerate(names):
                if name in of_task:
                    _cross(axis, *of_task[name], number)
    else:
        drawn, axes = panels(1, 1, 6.0, 4.0, 0)
        stroke = require("matplotlib.patheffects", extra="report").withStroke(linewidth=3, foreground="white")
        for task, of_task in points.items():
            at_x, at_y = of_task[names[0]]
            _cross(axes[0], at_x, at_y, 0)
            place = {"xytext": (7, 6), "textcoords": "offset points", "path_effects": [stroke]}
            axes[0].annotate(task, (at_x[0], at_y[0]), **place)
    for axis in axes:
        axis.margins(0.12)
    _legend(drawn, axes[0], names)
    drawn.supxlabel(x, fontsize=9)
    drawn.supylabel(y, fontsize=9)
    return drawn


def _cross(axis: Any, x: Interval, y: Interval, number: int) -> None:
    style = mark(number, 7)
    line = {"color": style["color"], "linewidth": 1.6, "alpha": 0.55}
    axis.plot(x[1:], [y[0]] * 2, **line)
    axis.plot([x[0]] * 2, y[1:], **line)
    axis.plot(x[0], y[0], zorder=3, **style)


def _legend_columns(names: Sequence[str], width: float) -> int:
    """As many as fit: names can be paths."""
    return min(max(int(width / (0.5 + 0.08 * max(len(_short(name)) for name in names))), 1), 4)


def _legend_height(names: Sequence[str], width: float) -> float:
    return 0.22 * math.ceil(len(names) / _legend_columns(names, width))


def _legend(drawn: Any, axis: Any, names: Sequence[str]) -> None:
    if len(names) == 1:
        axis.set_title(_short(names[0]), loc="left")
        return
    for number, name in enumerate(names):
        axis.plot([], [], label=_short(name), linestyle="none", **mark(number, 6))
    columns = _legend_columns(names, drawn.get_figwidth())
    drawn.legend(loc="outside upper center", ncols=columns, handletextpad=0.2, columnspacing=1.5)


def _short(name: str) -> str:
    """The end of a long name, which is what tells paths apart."""
    return name if len(name) <= _LONGEST_NAME else "..." + name[3 - _LONGEST_NAME :]
