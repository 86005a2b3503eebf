"""What a training run's folder adds to the page: its curves and its evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ktae.pictures.curves import METRICS, SMOOTHED, algorithms, read_curves, running_mean
from ktae.train.recipe import Recipe, label_of

_POINTS = 400  # of a curve; more than the pixels it is drawn on


def is_run(path: Path) -> bool:
    """Whether `path` is the folder of a run of `ktae train`."""
    return (path / "config.yaml").is_file() and (path / "provenance.jsonl").is_file()


def saved_tokenizer(run: Path) -> Path | None:
    """A folder of the run that holds its tokenizer, if there is one yet."""
    saved = [*run.glob("*/model/tokenizer_config.json"), *run.glob("*/checkpoint-*/tokenizer_config.json")]
    return saved[0].parent if saved else None


def contents(run: Path, recipe: Recipe) -> dict[str, Any]:
    """What the page shows: `curves`, `evaluation` (results.json, None before there are results), and a `summary`."""
    drawn = curves(run)
    results = json.loads((run / "results.json").read_text()) if (run / "results.json").exists() else {}
    summary = [
        ("model", recipe.model.path),
        ("algorithms", ", ".join(map(label_of, recipe.algorithms))),
        ("updates", f"{drawn['updates']:,}"),
    ]
    return {"curves": drawn, "evaluation": results if results.get("problems") else None, "summary": summary}


def curves(run: Path) -> dict[str, Any]:
    """Logged numbers by update, a panel a metric, a series an algorithm.

    Returns:
        {names, note, updates, panels: [{label, series: [{name, points: [[update, value, running mean], ...]}]}]}.
        Series of more than 400 points are thinned to the means of equal stretches. Metrics of a single update are left
        out. The note says what is faint, "" if nothing is.
    """
    read = read_curves(run) if (run / "metrics.jsonl").exists() else {}
    updates = max((steps[-1] for of_metric in read.values() for steps, _ in of_metric.values()), default=0)
    panels, smoothed = [], False
    for metric, of_metric in read.items():
        series = []
        for algorithm, (steps, values) in of_metric.items():
            steps, values = _thinned(steps, values)
            means = [float(f"{mean:.5g}") for mean in running_mean(values)]
            smoothed |= means != values
            series.append({"name": label_of(algorithm), "points": list(zip(steps, values, means, strict=True))})
        if any(len(one["points"]) > 1 for one in series):
            panels.append({"label": METRICS[metric], "series": series})
    names = [label_of(algorithm) for algorithm in algorithms(read)]
    return {"names": names, "note": SMOOTHED if smoothed else "", "updates": updates, "panels": panels}


def _thinned(steps: list[int], values: list[float]) -> tuple[list[int], list[float]]:
    size = max(-(-len(steps) // _POINTS), 1)
    parts = [(steps[start : start + size], values[start : start + size]) for start in range(0, len(steps), size)]
    return [part[len(part) // 2] for part, _ in parts], [float(f"{sum(part) / len(part):.5g}") for _, part in parts]
