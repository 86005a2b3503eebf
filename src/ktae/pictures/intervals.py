"""Estimates with their 95 % intervals, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ktae.pictures.style import LINE, MARKERS, figure, series, styled

Interval = tuple[float, float, float]  # value, low, high

_LONGEST_NAME = 48


@styled()
def draw_intervals(
    rows: Mapping[str, Mapping[str, Interval]],
    names: Sequence[str],
    label: str,
    *,
    limit: float | None = None,
    total: str = "",
) -> Any:
    """A matplotlib Figure: a row a task, in it a mark for each of the names that has an estimate.

    The axis, `label`, goes from 0 to `limit`, or else to where the estimates end. The row `total` is set apart. A
    single name is the title, several make a legend. Raises a ValueError for no row or for more than 7 names.
    """
    if not rows:
        raise ValueError("there are no estimates to draw")
    shorts = [name if len(name) <= _LONGEST_NAME else "..." + name[3 - _LONGEST_NAME :] for name in names]  # of paths
    columns = max(1, min(4, int(7 / (0.5 + 0.08 * max(map(len, shorts))))))  # of the legend, as many as fit
    drawn = figure(7.0, 0.8 + len(rows) * (0.24 + 0.18 * len(names)) + 0.22 * -(-len(names) // columns))
    axis = drawn.subplots()
    marks = [
        {"color": series(number)["color"], "marker": MARKERS[number], "markersize": 6, "markeredgecolor": "white"}
        for number in range(len(names))
    ]
    for y, (row, estimates) in enumerate(rows.items()):
        if row == total:
            axis.axhline(y - 0.5, color=LINE, linewidth=0.8)
        for number, name in enumerate(names):
            if name not in estimates:
                continue
            value, low, high = estimates[name]
            at = y + 0.7 / max(len(names), 3) * (number - (len(names) - 1) / 2)
            # Not clipped: at an end of the axis a mark would be cut in half.
            axis.plot([low, high], [at, at], linewidth=2, alpha=0.55, clip_on=False, color=marks[number]["color"])
            axis.plot(value, at, clip_on=False, **marks[number])
            place = {"xytext": (5, 0), "textcoords": "offset points", "va": "center"}
            axis.annotate(f"{value:.1f}", (high, at), fontsize=8, **place)
    axis.set_yticks(range(len(rows)), list(rows))
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_xlim(0, limit)
    axis.set_xlabel(label)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x")
    axis.spines["left"].set_visible(False)
    if len(names) == 1:
        axis.set_title(shorts[0], loc="left")
        return drawn
    for name, mark in zip(shorts, marks, strict=True):
        axis.plot([], [], label=name, linestyle="none", **mark)
    drawn.legend(loc="outside upper center", ncols=columns, handletextpad=0.2, columnspacing=1.5)
    return drawn
