"""What a run shows at its end: a table with intervals, what it can and cannot say, and the curves."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from ktae.evaluation.statistics import paired_difference, share_interval
from ktae.files import json_lines
from ktae.train.recipe import Recipe, parse_algorithm


def summarize(recipe: Recipe, out: Path, console: Any) -> dict[str, Any]:
    """Reads the run's records; writes results.json (also returned), summary.md and curves.png; prints the table."""
    results = _results(recipe, out)
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    header, lines, notes = _table(recipe, results)
    table = Table(*header, title=f"{recipe.name}: {results['problems']} held-out problems, 95 % intervals")
    for line in lines:
        table.add_row(*line)
    console.print(table)
    for note in notes:
        console.print(note, highlight=False)
    (out / "summary.md").write_text(as_markdown(recipe, results))
    _plot(recipe, out)
    console.print(f"Curves, metrics, samples and models are in {out}/")
    return results


def as_markdown(recipe: Recipe, results: dict[str, Any]) -> str:
    """The table and the notes below it."""
    header, lines, notes = _table(recipe, results)
    markdown = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in markdown) + "\n\n" + "\n\n".join(notes) + "\n"


def _results(recipe: Recipe, out: Path) -> dict[str, Any]:
    correct, policies = {}, {}
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
    differences = [
        {
            "policy": who,
            "baseline": baseline,
            "mode": mode,
            **dict(
                zip(
                    ("difference", "low", "high"),
                    dataclasses.astuple(paired_difference(values, correct[baseline, mode])),
                    strict=True,
                )
            ),
        }
        for (who, mode), values in correct.items()
        if who in recipe.algorithms[1:] and ((baseline := _baseline(recipe, who)), mode) in correct
    ]
    problems = len(next(iter(correct.values()))) if correct else 0
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
    labels = {name: parse_algorithm(name).label for name in recipe.algorithms}
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
            "One seed shows that the policies learn; it cannot show that one algorithm is better than another."
        )
    return header, lines, notes


def _plot(recipe: Recipe, out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = {"reward": "training reward", "completions/mean_length": "mean length, tokens", "entropy": "entropy, nats"}
    figure, axes = pyplot.subplots(1, len(panels), figsize=(12, 3.4), layout="constrained")
    rows = json_lines.read(out / "metrics.jsonl")
    for axis, (key, label) in zip(axes, panels.items(), strict=True):
        for color, algorithm in enumerate(recipe.algorithms):
            points = [(r["step"], r[key]) for r in rows if r["algorithm"] == algorithm and r.get(key) is not None]
            if not points:
                continue
            step, value = np.array(points).T
            width = max(1, len(step) // 10)
            smooth = np.convolve(value, np.ones(width), "same") / np.convolve(
                np.ones_like(value), np.ones(width), "same"
            )
            axis.plot(step, value, color=f"C{color}", alpha=0.25, linewidth=1)
            axis.plot(step, smooth, color=f"C{color}", linewidth=2, label=parse_algorithm(algorithm).label)
        axis.set(xlabel="step", ylabel=label)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    figure.suptitle(f"{recipe.name}, seed {recipe.seed}: faint = every step, strong = running mean")
    figure.savefig(out / "curves.png", dpi=130)
    pyplot.close(figure)
