"""Curves of a run: metrics over updates, a panel a metric, a line an algorithm."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ktae.extras import require

METRICS = ("accuracy", "completions/mean_length", "entropy", "grad_norm", "ktae/key_token_share")
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito's
_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (7, 2)), (0, (1, 2)))
_COLUMNS = 3
_WINDOW = 20  # a line is a mean over a 20th of the updates

Curves = dict[str, dict[str, tuple[list[float], list[float]]]]


def read_curves(path: Path, metrics: Sequence[str] | None) -> tuple[Curves, int]:
    """Metrics of a run's metrics.jsonl.

    Args:
        path: the run's folder, or the file.
        metrics: names; None for those there are of METRICS.

    Returns:
        {metric: {algorithm: (steps, values)}}, algorithms in the order of the file, and the last step.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a metric is not there, or a line is not a row of metrics.
    """
    path = path / "metrics.jsonl" if path.is_dir() else path
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    curves: Curves = {}
    last = 0
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            row = json.loads(line)
            step, algorithm = row["step"], str(row.get("algorithm", ""))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}:{number}: not a row of metrics: {error!r}") from error
        last = max(last, step)
        for name, value in row.items():
            if isinstance(value, (int, float)) and math.isfinite(value) and name != "step":
                steps, values = curves.setdefault(name, {}).setdefault(algorithm, ([], []))
                steps.append(step)
                values.append(value)
    chosen = [name for name in METRICS if name in curves] if metrics is None else metrics
    missing = [name for name in chosen if name not in curves]
    if missing or not chosen:
        raise ValueError(f"--metrics must be among {', '.join(curves)}, got {', '.join(missing) or 'none'}")
    if len(_algorithms(curves)) > len(_COLORS):
        raise ValueError(f"{path} has {len(_algorithms(curves))} algorithms, and {len(_COLORS)} can be told apart")
    return {name: curves[name] for name in chosen}, last


def draw_curves(curves: Curves, last: int) -> Any:
    """A panel a metric: the values faintly, and their running mean.

    Returns:
        A matplotlib figure.
    """
    pyplot = require("matplotlib.pyplot", extra="report")
    columns = min(len(curves), _COLUMNS)
    rows = math.ceil(len(curves) / columns)
    algorithms = _algorithms(curves)
    figure, grid = pyplot.subplots(
        rows, columns, figsize=(max(2.5 * columns, 4.0), 0.5 + 1.9 * rows), layout="constrained", squeeze=False
    )
    for axis, (name, by_algorithm) in zip(grid.flat, curves.items(), strict=False):
        for algorithm, (steps, values) in by_algorithm.items():
            number = algorithms.index(algorithm)
            axis.plot(steps, values, color=_COLORS[number], alpha=0.18, linewidth=0.7)
            mean = _running_mean(np.array(values))
            axis.plot(steps, mean, color=_COLORS[number], linestyle=_LINES[number], linewidth=1.6)
        axis.set_title(name, loc="left")
        axis.set_xlim(0, last)
        axis.grid()
    for axis in list(grid.flat)[len(curves) :]:
        axis.set_visible(False)
    for number, algorithm in enumerate(algorithms):
        style = {"color": _COLORS[number], "linestyle": _LINES[number], "linewidth": 1.6}
        grid.flat[0].plot([], [], label=algorithm or "run", **style)
    figure.legend(loc="outside upper center", ncols=4, handlelength=2.6)
    figure.supxlabel(f"update (lines: means over a {_WINDOW}th of the run)", fontsize=9)
    return figure


def _algorithms(curves: Curves) -> list[str]:
    return list(dict.fromkeys(algorithm for by_algorithm in curves.values() for algorithm in by_algorithm))


def _running_mean(values: np.ndarray) -> np.ndarray:
    """The mean of the values around each; fewer at the ends."""
    window = np.ones(max(len(values) // _WINDOW, 1))
    half = len(window) // 2
    padded_sums, padded_counts = (np.convolve(part, window) for part in (values, np.ones(len(values))))
    return (padded_sums / padded_counts)[half : half + len(values)]
