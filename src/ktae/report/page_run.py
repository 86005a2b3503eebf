"""What a training run's folder adds to the page: its curves, its evaluation, its settings."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ktae.config import KTAEConfig
from ktae.files import json_lines
from ktae.train.recipe import Recipe, load_recipe, parse_algorithm

# Logged name, label. Drawn where it was logged.
_CURVES = (
    ("reward", "Training reward"),
    ("accuracy", "Accuracy of the training rollouts"),
    ("completions/mean_length", "Mean length, tokens"),
    ("entropy", "Entropy, nats"),
    ("kl", "KL divergence from the reference, nats"),
    ("grad_norm", "Gradient norm"),
    ("ktae/key_token_share", "Key tokens, share of all tokens"),
)
_POINTS = 400  # of a curve; more than the pixels it is drawn on


def is_run(path: Path) -> bool:
    """Whether `path` is the folder of a run of `ktae train`."""
    return (path / "config.yaml").is_file() and (path / "provenance.jsonl").is_file()


def recipe_of(run: Path) -> Recipe:
    """The run's recipe, as config.yaml spells it out."""
    return load_recipe(str(run / "config.yaml"))


def settings_of(recipe: Recipe) -> Callable[[str], KTAEConfig]:
    """The estimator's settings of a group by its name, ALGORITHM/STEP/GROUP."""
    return lambda group: recipe.key_tokens(group.partition("/")[0])


def reward_column(recipe: Recipe) -> str:
    """The column of samples.jsonl that says which rollouts are correct."""
    return recipe.correctness.rpartition(":")[2]


def saved_tokenizer(run: Path) -> Path | None:
    """A folder of the run that holds its tokenizer, if there is one yet."""
    saved = [*run.glob("*/model/tokenizer_config.json"), *run.glob("*/checkpoint-*/tokenizer_config.json")]
    return saved[0].parent if saved else None


def curves(run: Path, recipe: Recipe) -> list[dict[str, Any]]:
    """Logged numbers by step, a series an algorithm: {label, series: [{name, points: [[step, value], ...]}]}.

    Series of more than 400 steps are thinned to the means of equal stretches.
    """
    rows = json_lines.read(run / "metrics.jsonl")
    drawn = []
    for key, label in _CURVES:
        series = []
        for algorithm in recipe.algorithms:
            points = [
                (row["step"], row[key])
                for row in rows
                if row["algorithm"] == algorithm and isinstance(row.get(key), int | float) and math.isfinite(row[key])
            ]
            if points:
                series.append({"name": parse_algorithm(algorithm).label, "points": _thinned(points)})
        if any(len(one["points"]) > 1 for one in series):
            drawn.append({"label": label, "series": series})
    return drawn


def evaluation(run: Path) -> dict[str, Any] | None:
    """The accuracies and differences of results.json with their 95 % intervals; None before it is written."""
    path = run / "results.json"
    if not path.exists():
        return None
    results = json.loads(path.read_text())
    if not results["problems"]:
        return None
    names = {who: policy["label"] for who, policy in results["policies"].items()}
    policies = [
        {
            "label": policy["label"],
            "mode": mode,
            "value": policy[mode]["accuracy"],
            "low": policy[mode]["low"],
            "high": policy[mode]["high"],
            "more": f"{policy[mode]['mean_length']:.1f}",
        }
        for policy in results["policies"].values()
        for mode in ("sampled", "greedy")
        if mode in policy
    ]
    differences = [
        {
            "label": f"{names[row['policy']]} minus {names[row['baseline']]}",
            "mode": row["mode"],
            "value": row["difference"],
            "low": row["low"],
            "high": row["high"],
        }
        for row in results["differences"]
    ]
    notes = [
        f"{results['problems']} held-out problems. The intervals cover the choice of problems, not the training seed "
        f"(one here: {results['seed']}); one seed cannot show that one algorithm is better than another."
    ]
    return {"policies": policies, "differences": differences, "notes": notes}


def facts(run: Path, recipe: Recipe) -> list[tuple[str, str]]:
    """Model and algorithms, for the head of the page."""
    steps = max((row["step"] for row in json_lines.read(run / "metrics.jsonl")), default=0)
    return [
        ("model", recipe.model.path),
        ("algorithms", ", ".join(parse_algorithm(name).label for name in recipe.algorithms)),
        ("updates", f"{steps:,}"),
    ]


def _thinned(points: list[tuple[int, float]]) -> list[list[float]]:
    size = -(-len(points) // _POINTS)
    thin = []
    for start in range(0, len(points), size):
        part = points[start : start + size]
        thin.append([part[len(part) // 2][0], float(f"{sum(value for _, value in part) / len(part):.5g}")])
    return thin
