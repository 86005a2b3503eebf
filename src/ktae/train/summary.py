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
from ktae.train.recipe import Recipe, label_of


def summarize(recipe: Recipe, out: Path, console: Any) -> None:
    """Reads the run's records; writes results.json and curves.png; prints the table."""
    results = _results(recipe, out)
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    title = f"{recipe.name}: {results['problems']} held-out problems, 95 % intervals"
    table = Table("policy", "sampled accuracy", "greedy accuracy", "mean length", "training", title=title)
    for policy in results["policies"].values():
        scores = [policy.get(mode) for mode in ("sampled", "greedy")]
        cells = [f"{one['accuracy']:.3f} [{one['low']:.3f}, {one['high']:.3f}]" if one else "-" for one in scores]
        length = next((f"{one['mean_length']:.1f}" for one in scores if one), "-")
        spent = f"{policy['steps']} steps, {policy['seconds']:.0f} s" if "steps" in policy else ""
        table.add_row(policy["label"], *cells, length, spent)
    console.print(table)
    lines = [
        f"{label_of(row['policy'])} minus {label_of(row['baseline'])}, {row['mode']}: {row['difference']:+.3f} "
        f"[{row['low']:+.3f}, {row['high']:+.3f}] (95 %, paired by problem)"
        for row in results["differences"]
    ]
    if results["problems"]:
        lines.append(
            f"The intervals cover the choice of test problems, not the training seed (one here: {recipe.seed}). "
            "One seed cannot show that one algorithm is better than another."
        )
    if (out / "metrics.jsonl").exists() and (curves := read_curves(out)):
        labels = {name: label_of(name) for name in recipe.algorithms}
        save(draw_curves(curves, labels, f"{recipe.name}, seed {recipe.seed}"), out / "curves.png")
    console.print(*lines, f"Curves, metrics, samples and models are in {out}/", sep="\n", highlight=False)


def _results(recipe: Recipe, out: Path) -> dict[str, Any]:
    correct, policies, problems = {}, {}, 0
    updates = [row for row in json_lines.read(out / "metrics.jsonl") if "loss" in row]
    for who in ("start", *recipe.algorithms):
        policy: dict[str, Any] = {"label": "before training" if who == "start" else label_of(who)}
        policies[who] = policy
        for mode in ("sampled", "greedy"):
            if not (rows := json_lines.read(out / "evaluation" / f"{who}_{mode}.jsonl")):
                continue
            problems = rows[-1]["problem"] + 1
            reward = np.array([math.nan if row["reward"] is None else row["reward"] for row in rows])
            correct[who, mode] = (reward > recipe.correct_above).astype(float).reshape(problems, -1)
            accuracy = share_interval(correct[who, mode].mean(axis=1))
            policy[mode] = {
                **{"accuracy": accuracy.value, "low": accuracy.low, "high": accuracy.high},
                "mean_length": float(np.mean([row["length"] for row in rows])),
                "unscored": int(np.isnan(reward).sum()),
            }
        if own := [row for row in updates if row["algorithm"] == who]:
            policy |= {"steps": own[-1]["step"], "seconds": sum(row["step_time"] for row in own)}
    differences = []
    for who, mode in correct:
        # An algorithm is compared with itself without an estimator if that was trained, otherwise with the first one.
        without = who.partition("+")[0]
        baseline = without if without != who and without in recipe.algorithms else recipe.algorithms[0]
        if who in recipe.algorithms[1:] and (baseline, mode) in correct:
            by = paired_difference(correct[who, mode], correct[baseline, mode])
            interval = {"difference": by.value, "low": by.low, "high": by.high}
            differences.append({"policy": who, "baseline": baseline, "mode": mode, **interval})
    return {"seed": recipe.seed, "problems": problems, "policies": policies, "differences": differences}
