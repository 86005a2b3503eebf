"""What a run shows at its end: a table with intervals, what it can and cannot say, and the curves."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from ktae.evaluation.statistics import paired_difference, share_interval
from ktae.files import json_lines
from ktae.pictures.curves import draw_curves, read_curves
from ktae.pictures.style import save
from ktae.train.recipe import Recipe, label_of, parse_algorithm


def summarize(recipe: Recipe, out: Path, console: Any) -> None:
    """Reads the run's records; writes results.json, summary.md and curves.png; prints the table."""
    results = _results(recipe, out)
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    header, lines, notes = _table(recipe, results)
    table = Table(*header, title=f"{recipe.name}: {results['problems']} held-out problems, 95 % intervals")
    for line in lines:
        table.add_row(*line)
    console.print(table)
    for note in notes:
        console.print(note, highlight=False)
    markdown = [header, ["---"] * len(header), *lines]
    rows = "\n".join("| " + " | ".join(line) + " |" for line in markdown)
    (out / "summary.md").write_text("\n\n".join([rows, *notes]) + "\n")
    _plot(recipe, out)
    console.print(f"Curves, metrics, samples and models are in {out}/")


def _results(recipe: Recipe, out: Path) -> dict[str, Any]:
    correct, policies, problems = {}, {}, 0
    for who in ("start", *recipe.algorithms):
        policies[who] = {"label": "before training" if who == "start" else parse_algorithm(who).label}
        for mode in ("sampled", "greedy"):
            rows = json_lines.read(out / "evaluation" / f"{who}_{mode}.jsonl")
            if not rows:
                continue
            problems = rows[-1]["problem"] + 1
            reward = np.array([math.nan if row["reward"] is None else row["reward"] for row in rows])
            correct[who, mode] = (reward > recipe.correct_above).astype(float).reshape(problems, -1)
            accuracy = share_interval(correct[who, mode].mean(axis=1))
            policies[who][mode] = {
                "accuracy": accuracy.value,
                "low": accuracy.low,
                "high": accuracy.high,
                "mean_length": float(np.mean([row["length"] for row in rows])),
                "unscored": int(np.isnan(reward).sum()),
            }
        rows = [row for row in json_lines.read(out / "metrics.jsonl") if row["algorithm"] == who and "loss" in row]
        if rows:
            seconds = sum(row["step_time"] for row in rows)
            policies[who]["steps"], policies[who]["seconds"] = rows[-1]["step"], seconds
            if parse_algorithm(who).ktae:
                # A step that reuses rollouts has no estimator time.
                policies[who]["ktae_share"] = sum(row.get("ktae/seconds", 0.0) for row in rows) / seconds
    differences = []
    for (who, mode), values in correct.items():
        baseline = _baseline(recipe, who)
        if who in recipe.algorithms[1:] and (baseline, mode) in correct:
            difference = paired_difference(values, correct[baseline, mode])
            differences.append(
                {"policy": who, "baseline": baseline, "mode": mode, "difference": difference.value}
                | {"low": difference.low, "high": difference.high}
            )
    return {"seed": recipe.seed, "problems": problems, "policies": policies, "differences": differences}


def _baseline(recipe: Recipe, algorithm: str) -> str:
    """What an algorithm is compared with: itself without KTAE if that was trained, otherwise the first one."""
    without = algorithm.partition("+")[0]
    return without if without != algorithm and without in recipe.algorithms else recipe.algorithms[0]


def _table(recipe: Recipe, results: dict[str, Any]) -> tuple[list[str], list[list[str]], list[str]]:
    header = ["policy", "sampled accuracy", "greedy accuracy", "mean length", "training"]
    lines = []
    for policy in results["policies"].values():
        cells = [policy["label"]]
        for mode in ("sampled", "greedy"):
            score = policy.get(mode)
            cells.append(f"{score['accuracy']:.3f} [{score['low']:.3f}, {score['high']:.3f}]" if score else "-")
        length = policy.get("sampled") or policy.get("greedy")
        cells.append(f"{length['mean_length']:.1f}" if length else "-")
        cells.append(f"{policy['steps']} steps, {policy['seconds']:.0f} s" if "steps" in policy else "")
        lines.append(cells)
    labels = {name: label_of(name) for name in recipe.algorithms}
    notes = [
        f"{labels[row['policy']]} minus {labels[row['baseline']]}, {row['mode']}: "
        f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}] (95 %, paired by problem)"
        for row in results["differences"]
    ]
    notes += [
        f"{policy['label']}: {policy['ktae_share']:.1%} of the training time was spent on key-token values"
        for policy in results["policies"].values()
        if "ktae_share" in policy
    ]
    if results["problems"]:
        notes.append(
            f"The intervals cover the choice of test problems, not the training seed (one here: {recipe.seed}). "
            "One seed cannot show that one algorithm is better than another."
        )
    return header, lines, notes


def _plot(recipe: Recipe, out: Path) -> None:
    if (out / "metrics.jsonl").exists() and (curves := read_curves(out)):
        labels = {name: label_of(name) for name in recipe.algorithms}
        save(draw_curves(curves, labels, f"{recipe.name}, seed {recipe.seed}"), out / "curves.png")
