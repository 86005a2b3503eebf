"""Curves of a run: metrics over updates, a panel a metric, a line an algorithm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ktae.extras import require
from ktae.files import json_lines
from ktae.pictures.style import figure, series, styled

# Shown where they were logged and none are named; docs/metrics.md defines them.
METRICS = {
    "reward": "Training reward",
    "accuracy": "Accuracy of the training rollouts",
    "completions/mean_length": "Mean length, tokens",
    "entropy": "Entropy, nats",
    "kl": "KL from the reference, nats",
    "grad_norm": "Gradient norm",
    "ktae/key_token_share": "Key tokens, share of all",
}
SMOOTHED = "Faint: every logged update. Strong: mean over a tenth of them."

Curves = dict[str, dict[str, tuple[list[int], list[float]]]]


def read_curves(path: Path) -> Curves:
    """{metric: {algorithm: (steps, values)}} of METRICS that a run has; the path is its folder or its metrics.jsonl.

    Values that are no finite numbers are left out, and so is a last line without an end, since it is being written.
    Raises a FileNotFoundError if there is no such file, and a ValueError if a line is no row of metrics.
    """
    path = path / "metrics.jsonl" if path.is_dir() else path
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    found: Curves = {}
    for number, row in enumerate(json_lines.read(path), start=1):
        if not isinstance(row.get("step"), int):
            raise ValueError(f"{path}:{number}: not a row of metrics, which has a step")
        for name, value in row.items():
            if isinstance(value, (int, float)) and math.isfinite(value) and name != "step":
                of_metric = found.setdefault(name, {})
                steps, values = of_metric.setdefault(str(row.get("algorithm", "")), ([], []))
                steps.append(row["step"])
                values.append(value)
    return {name: found[name] for name in METRICS if name in found}


def algorithms(curves: Curves) -> list[str]:
    """All that any of the curves has, in their order."""
    return list(dict.fromkeys(algorithm for of_metric in curves.values() for algorithm in of_metric))


def running_mean(values: Sequence[float]) -> list[float]:
    """The mean over a tenth of the values, as many before each as after it; fewer at the ends."""
    half = len(values) // 20
    return [float(np.mean(values[max(0, k - half) : k + half + 1])) for k in range(len(values))]


@styled()
def draw_curves(curves: Curves, labels: Mapping[str, str] | None = None, title: str = "") -> Any:
    """A matplotlib Figure: a panel a metric, in it the values faintly, and their running mean.

    `labels` are what the legend, with a title or without, calls the algorithms that do not go by their name. Raises a
    ValueError if there is no curve, or if there are more algorithms than can be told apart.
    """
    if not curves:
        raise ValueError("there are no curves to draw: none of the usual metrics was logged")
    ticker = require("matplotlib.ticker", extra="report")
    columns, rows = min(len(curves), 3), -(-len(curves) // 3)
    drawn = figure(max(2.7 * columns, 4.5), 1.9 * rows + 0.6 + 0.2 * bool(title))
    axes = list(drawn.subplots(rows, columns, squeeze=False).flat)
    styles = {algorithm: series(number) for number, algorithm in enumerate(algorithms(curves))}
    note = ""
    for axis, (metric, of_metric) in zip(axes, curves.items(), strict=False):
        for algorithm, (steps, values) in of_metric.items():
            mean = running_mean(values)
            if mean != values:
                note = f".  {SMOOTHED}"
                axis.plot(steps, values, color=styles[algorithm]["color"], alpha=0.25, linewidth=0.7)
            axis.plot(steps, mean, linewidth=1.6, marker="o" if len(steps) == 1 else "", **styles[algorithm])
        axis.set_title(METRICS.get(metric, metric), loc="left")
        axis.grid()
        axis.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True, min_n_ticks=1))
    for axis in axes[len(curves) :]:
        axis.set_visible(False)
    for algorithm, style in styles.items():
        axes[0].plot([], [], label=(labels or {}).get(algorithm, algorithm) or "run", linewidth=1.6, **style)
    drawn.legend(loc="outside upper center", ncols=4, handlelength=2.6, title=title)
    drawn.supxlabel(f"update{note}", fontsize=8.5)
    return drawn
