"""Rebuilds tables.md, results.json and the figures from runs.jsonl.

    python tables.py        needs the extras train and dev

Differences are paired by seed: the same warm start and the same problems. Intervals are Student's, 95 %; p-values are
those of the paired t-test, adjusted by Holm for all differences of a table's column.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from plan import ABLATIONS, RIVALS
from scipy import stats

from ktae.evaluation.statistics import Estimate, holm, mean_interval

HERE = Path(__file__).parent
MEASURES = {"accuracy": 3, "greedy_accuracy": 3, "length": 1, "entropy": 3}
# Taken once, at the end of a run; older runs have none. Columns of the tables whose runs all have them.
END_MEASURES = {"t06_accuracy": 3, "pass_8": 3, "maj_8": 3}
HEADS = {"t06_accuracy": "temperature .6", "pass_8": "pass@8", "maj_8": "maj@8"}
TITLES = {"chain": "Chains", "chain_hard": "Hard chains", "legs": "Counting legs"}
AGAIN = ("grpo", "grpo+ktae", "grpo+context")
CURVES = {
    "grpo": ("GRPO", "#666666", "-"),
    "grpo+ktae": ("+ KTAE, the paper's", "#D55E00", "-"),
    "grpo+context": ("+ KTAE in context", "#0072B2", "-"),
    "grpo+oracle": ("+ oracle", "#009E73", "--"),
}

Runs = dict[str, dict[int, dict[str, Any]]]  # method -> seed -> the run


def read() -> dict[tuple[str, str], Runs]:
    """The runs by (task, settings other than the default)."""
    sections: dict[tuple[str, str], Runs] = defaultdict(lambda: defaultdict(dict))
    for line in (HERE / "runs.jsonl").read_text().splitlines():
        run = json.loads(line)
        settings = ", ".join(f"{name}={value}" for name, value in sorted(run["settings"].items()))
        sections[run["task"], settings][run["method"]][run["seed"]] = run
    return sections


def difference(runs: Runs, method: str, baseline: str, measure: str) -> tuple[Estimate, float] | None:
    """The paired difference of the final values with its p-value; None with fewer than two common seeds."""
    seeds = sorted(runs[method].keys() & runs[baseline].keys())
    if len(seeds) < 2:
        return None
    d = np.array([final(runs[method][s], measure) - final(runs[baseline][s], measure) for s in seeds])
    return mean_interval(d), float(stats.ttest_1samp(d, 0).pvalue)


def final(run: dict[str, Any], measure: str) -> float:
    """The mean of the last three evaluations, or what was measured once at the end."""
    return run["end" if measure in END_MEASURES else "final"][measure]


def share_of_oracle(runs: Runs, method: str, measure: str) -> Estimate | None:
    """The gain over GRPO as a share of the oracle's: the shares that a paired t-test does not reject (Fieller).

    None where the oracle's own gain is not told from zero, no share from -2 to 4 fits, or seeds are fewer than eight.
    """
    seeds = sorted(runs[method].keys() & runs["grpo"].keys() & runs["grpo+oracle"].keys())
    if len(seeds) < 8:
        return None
    gain, oracle = (
        np.array([final(runs[m][s], measure) - final(runs["grpo"][s], measure) for s in seeds])
        for m in (method, "grpo+oracle")
    )
    if stats.ttest_1samp(oracle, 0).pvalue > 0.05:
        return None
    shares = np.arange(-2.0, 4.0, 0.005)
    kept = [share for share in shares if stats.ttest_1samp(gain - share * oracle, 0).pvalue > 0.05]
    if not kept:
        return None
    return Estimate(float(gain.mean() / oracle.mean()), float(min(kept)), float(max(kept)))


def rollouts_to(runs: Runs, method: str, level: float) -> str:
    """Rollouts drawn until the mean curve reaches `level`, between two evaluations on a straight line."""
    curves = [run["curve"] for run in runs[method].values()]
    accuracy = np.mean([[point["accuracy"] for point in curve] for curve in curves], axis=0)
    rollouts = np.mean([[point["rollouts"] for point in curve] for curve in curves], axis=0)
    above = np.nonzero(accuracy >= level)[0]
    if not len(above):
        return "not reached"
    i = int(above[0])
    if i == 0:
        return "0"
    share = (level - accuracy[i - 1]) / (accuracy[i] - accuracy[i - 1])
    return f"{rollouts[i - 1] + share * (rollouts[i] - rollouts[i - 1]):,.0f}"


def parts(runs: Runs) -> dict[str, Runs]:
    """The main comparison, and those with fewer seeds, which show its methods again on their own seeds."""
    found = {"": {method: runs[method] for method in runs if method not in (*RIVALS, *ABLATIONS)}}
    for title, methods in (("rivals", RIVALS), ("ablations", ABLATIONS)):
        present = [method for method in methods if method in runs]
        if present:
            seeds = set.intersection(*(set(runs[method]) for method in present))
            found[title] = {method: {seed: runs[method][seed] for seed in seeds} for method in (*AGAIN, *present)}
    return found


def section(task: str, settings: str, runs: Runs) -> tuple[str, dict[str, Any]]:
    """A table, and the same as numbers."""
    rows, results = [], {}
    at_end = END_MEASURES if all("end" in run for of_method in runs.values() for run in of_method.values()) else {}
    level = np.mean([run["final"]["accuracy"] for run in runs["grpo"].values()])
    adjusted = {}
    for measure in ("accuracy", "greedy_accuracy"):
        compared = [m for m in runs if (base := _baseline(m)) != m and difference(runs, m, base, measure)]
        p_values = [difference(runs, m, _baseline(m), measure)[1] for m in compared]
        adjusted[measure] = dict(zip(compared, holm(p_values), strict=True))
    for method in sorted(runs, key=lambda m: (m.partition("+")[0] != "grpo", "+" in m, m)):
        cells, result = [f"`{method}`", str(len(runs[method]))], {"seeds": sorted(runs[method])}
        for measure, digits in (MEASURES | at_end).items():
            mean = float(np.mean([final(run, measure) for run in runs[method].values()]))
            cell, result[measure] = f"{mean:.{digits}f}", {"mean": mean}
            if _baseline(method) != method and (found := difference(runs, method, _baseline(method), measure)):
                d, p = found
                star = "*" if adjusted.get(measure, {}).get(method, 1.0) < 0.05 else ""
                cell += f" ({d.value:+.{digits}f}{star} [{d.low:+.{digits}f}, {d.high:+.{digits}f}])"
                result[measure] |= {"difference": [d.value, d.low, d.high], "p": p}
                if measure in adjusted:
                    result[measure]["p_holm"] = adjusted[measure][method]
            cells.append(cell)
        cells.append(rollouts_to(runs, method, float(level)))
        for measure in ("accuracy", "greedy_accuracy"):
            share = (
                share_of_oracle(runs, method, measure) if method.startswith("grpo+") and "grpo+oracle" in runs else None
            )
            cells.append(
                f"{share.value:.0%} [{share.low:.0%}, {share.high:.0%}]" if share and method != "grpo+oracle" else ""
            )
            if share:
                result[measure]["share_of_oracle"] = [share.value, share.low, share.high]
        rows.append("| " + " | ".join(cells) + " |")
        results[method] = result
    title = f"## {TITLES[task]}" + (f", {settings}" if settings else "")
    head = ["method", "seeds", "sampled", "greedy", "length", "entropy", *(HEADS[measure] for measure in at_end)]
    head.append(f"rollouts to {level:.3f}")
    head += ["share of the oracle's gain, sampled", "greedy"]
    return "\n".join([title, "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head), *rows, ""]), results


def _baseline(method: str) -> str:
    return method.partition("+")[0]


def plot_curves(sections: dict[tuple[str, str], Runs]) -> None:
    """Sampled and greedy accuracy against the rollouts drawn, mean of the seeds."""
    tasks = [task for task in TITLES if (task, "") in sections]
    figure, axes = plt.subplots(2, len(tasks), figsize=(4 * len(tasks), 6), squeeze=False, layout="constrained")
    for column, task in enumerate(tasks):
        for row, (measure, label) in enumerate((("accuracy", "sampled"), ("greedy_accuracy", "greedy"))):
            ax = axes[row][column]
            for method, (name, color, line) in CURVES.items():
                runs = list(sections[task, ""].get(method, {}).values())
                if not runs:
                    continue
                rollouts = np.mean([[p["rollouts"] for p in run["curve"]] for run in runs], axis=0)
                values = np.array([[p[measure] for p in run["curve"]] for run in runs])
                ax.plot(rollouts, values.mean(0), line, color=color, label=f"{name} ({len(runs)})")
            ax.grid(color="#e5e5e5")
            ax.spines[["top", "right"]].set_visible(False)
            ax.set_ylabel(f"accuracy, {label}" if column == 0 else "")
            ax.set_title(TITLES[task] if row == 0 else "")
            ax.set_xlabel("rollouts" if row == 1 else "")
            if row == 0:
                ax.legend(frameon=False, fontsize=8)
    figure.savefig(HERE / "curves.png", dpi=130)


def plot_differences(results: dict[str, dict[str, Any]]) -> None:
    """Gains over the baseline with intervals, sampled and greedy, on the chains."""
    methods = [m for m, r in results.items() if "difference" in r["accuracy"]]
    figure, ax = plt.subplots(figsize=(7, 0.42 * len(methods) + 1.2), layout="constrained")
    for i, method in enumerate(reversed(methods)):
        for measure, color, shift in (("accuracy", "#0072B2", 0.14), ("greedy_accuracy", "#D55E00", -0.14)):
            value, low, high = results[method][measure]["difference"]
            ax.errorbar(value, i + shift, xerr=[[value - low], [high - value]], fmt="o", color=color, ms=4, capsize=2)
    ax.axvline(0, color="#888888", lw=1)
    ax.set_yticks(range(len(methods)), list(reversed(methods)))
    ax.set_xlabel("difference to GRPO, to DAPO (accuracy; 95 % interval over seeds)")
    ax.plot([], [], "o", color="#0072B2", label="sampled")
    ax.plot([], [], "o", color="#D55E00", label="greedy")
    ax.legend(frameon=False, loc="lower right")
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="x", color="#e5e5e5")
    figure.savefig(HERE / "differences.png", dpi=130)


def main() -> None:
    sections = read()
    texts, results = [], {}
    for task, settings in sorted(sections, key=lambda key: (key[1] != "", list(TITLES).index(key[0]), key[1])):
        if "grpo" not in sections[task, settings]:
            continue
        for part, runs in parts(sections[task, settings]).items():
            name = ", ".join(filter(None, (settings, part)))
            text, results[f"{task} {name}".strip()] = section(task, name, runs)
            texts.append(text)
    note = (
        "Mean over seeds (difference to `grpo`, to `dapo`, paired by seed, 95 % interval; * p < .05 after Holm's "
        "adjustment for the column). Sampled: temperature 1; entropy in nats a token.\n"
    )
    (HERE / "tables.md").write_text("\n".join([note, *texts]))
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    plot_curves(sections)
    plot_differences(results["chain"])


if __name__ == "__main__":
    main()
