"""Rebuilds tables.md, first_tables.md and gains.png from the committed runs: python tables.py

Differences are paired by seed: the same warm start, problems and draws. Intervals are Student's over seeds, 95 %.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from plan import LEARNING_RATES, METHODS, RUNS, SCALES, SEEDS, SHAPE_SEEDS, SMALL, TUNED, TUNING_SEEDS, finished, tuned
from scipy import stats

from ktae.evaluation.statistics import Estimate, mean_interval
from ktae.files import json_lines
from ktae.markdown import table
from ktae.pictures.style import SERIES

HERE = Path(__file__).parent
TITLES = {
    **{"chain": "Chains", "legs": "Counting legs", "words": "Word problems", "chain_hard": "Hard chains"},
    "svamp": "SmolLM2-135M on SVAMP",
}
# Name in a run's `final` or, where it has one, its `end`; heading; digits.
MEASURES = {
    "greedy_accuracy": ("greedy", 3),
    "accuracy": ("sampled", 3),
    "t06_accuracy": ("temperature .6", 3),
    "pass_8": ("pass@8", 3),
    "maj_8": ("maj@8", 3),
    "length": ("length", 1),
    "entropy": ("entropy", 3),
}
CANDIDATES = ("grpo+context_in_share", "grpo+surprise_context", "grpo+strongest", "grpo+calculation")
RIVALS = ("grpo+ktae", "grpo+context", "grpo+positive")
# Which methods are compared with each other: the task, the two, seeds that are left out.
PAIRS = (
    *(("chain", "grpo+context_in_share", f"grpo+{other}", ()) for other in ("ktae", "context", "positive", "oracle")),
    ("chain", "grpo+calculation", "grpo+ktae", ()),
    ("chain", "grpo+positive_context", "grpo+positive", ()),
    ("chain", "grpo+context", "grpo", (46,)),
    *(("chain_hard", f"grpo+{one}", "grpo+positive", ()) for one in ("oracle", "oracle_slips", "positive_blame_one")),
    ("chain_hard", "grpo+positive_blame_one", "grpo+positive_blame_random", ()),
)

Runs = dict[str, dict[int, dict[str, Any]]]  # method -> seed -> the run


def grouped(runs: Iterable[dict[str, Any]]) -> dict[tuple[str, str], Runs]:
    """The runs by (task, prompts x rollouts a group); a method's own learning rate and scale do not part them."""
    sections: dict[tuple[str, str], Runs] = defaultdict(lambda: defaultdict(dict))
    for run in runs:
        shape = f"{run['settings'].get('prompts', 8)} x {run['settings'].get('group_size', 16)}"
        sections[run["task"], shape][run["method"]][run["seed"]] = run
    return sections


def value(run: dict[str, Any], measure: str) -> float | None:
    """The mean of the last evaluations, else what was measured once at the end."""
    return run["final"].get(measure, run.get("end", {}).get(measure))


def difference(runs: Runs, method: str, baseline: str, measure: str) -> np.ndarray:
    """Paired differences over the seeds that both have."""
    seeds = sorted(runs[method].keys() & runs[baseline].keys())
    return np.array([value(runs[method][s], measure) - value(runs[baseline][s], measure) for s in seeds])


def shown(estimate: Estimate, digits: int) -> str:
    """`+.012 [-.003, +.027]`, bold where the interval leaves 0 out."""
    text = f"{estimate.value:+.{digits}f} [{estimate.low:+.{digits}f}, {estimate.high:+.{digits}f}]"
    return f"**{text}**" if estimate.low > 0 or estimate.high < 0 else text


def of_task(runs: Runs) -> str:
    """Every method against its baseline: the baseline's means, the others' differences."""
    every = [run for of_method in runs.values() for run in of_method.values()]
    measures = [m for m in MEASURES if all(value(run, m) is not None for run in every)]
    rows = []
    for method in sorted(runs, key=lambda name: (name.split("+")[0] != "grpo", "+" in name, name)):
        baseline, row = method.partition("+")[0], [f"`{method}`", str(len(runs[method]))]
        for measure in measures:
            digits = MEASURES[measure][1]
            if method == baseline:
                row.append(f"{np.mean([value(run, measure) for run in runs[method].values()]):.{digits}f}")
                continue
            d = difference(runs, method, baseline, measure)
            row.append(shown(mean_interval(d), digits) if len(d) > 1 else f"{d.mean():+.{digits}f}" if len(d) else "")
        rows.append(row)
    return table(["", "seeds", *(MEASURES[measure][0] for measure in measures)], rows) + "\n"


def pooled(sections: dict[str, Runs], method: str, baseline: str, measure: str) -> Estimate | None:
    """The mean of the tasks' mean differences, by Welch and Satterthwaite; None without two seeds of each."""
    parts = [difference(runs, method, baseline, measure) for runs in sections.values()]
    if any(len(part) < 2 for part in parts):
        return None
    variances = np.array([part.var(ddof=1) / len(part) for part in parts]) / len(parts) ** 2
    freedom = variances.sum() ** 2 / sum(v**2 / (len(part) - 1) for v, part in zip(variances, parts, strict=True))
    middle = float(np.mean([part.mean() for part in parts]))
    half = float(stats.t.ppf(0.975, freedom) * np.sqrt(variances.sum()))
    return Estimate(middle, middle - half, middle + half)


def decision(tasks: dict[str, Runs]) -> str:
    """The plan's rule applied to the small tasks that have four seeds of all methods."""
    small = {t: runs for t, runs in tasks.items() if t in SMALL and all(len(runs.get(m, {})) >= 4 for m in METHODS)}
    if not small:
        return "No small task has four seeds of all methods yet.\n"
    against = ("grpo", *RIVALS)
    rows = [
        [
            f"`{method}`",
            *("" if method == b else shown(pooled(small, method, b, "greedy_accuracy"), 3) for b in against),
        ]
        for method in METHODS
        if method != "grpo"
    ]
    best = max(CANDIDATES, key=lambda method: pooled(small, method, "grpo", "greedy_accuracy").value)
    ahead = all(pooled(small, best, rival, "greedy_accuracy").low > 0 for rival in RIVALS)
    poorer = [t for t, runs in small.items() if mean_interval(difference(runs, best, "grpo", "pass_8")).high < 0]
    verdict = f"`{best}` becomes `recommended()`" if ahead and not poorer else "Today's preset stays"
    reason = (
        f"of the candidates `{best}` gained most and {'is' if ahead else 'is not'} ahead of all of {', '.join(RIVALS)}"
    )
    below = f"; its pass@8 is below GRPO's on {', '.join(poorer)}" if poorer else ""
    text = table(["greedy, pooled", *(f"- `{baseline}`" for baseline in against)], rows)
    return f"Tasks: {', '.join(small)}.\n\n{text}\n\n{verdict}: {reason}{below}.\n"


def pairs(tasks: dict[str, Runs]) -> str:
    """Differences of two methods, paired by seed."""
    measures, rows = ("greedy_accuracy", "accuracy", "t06_accuracy", "pass_8"), []
    for task, one, other, left_out in PAIRS:
        runs = {method: {s: r for s, r in tasks[task][method].items() if s not in left_out} for method in (one, other)}
        seeds = len(runs[one].keys() & runs[other].keys())
        where = TITLES[task] + "".join(f" without seed {seed}" for seed in left_out)
        found = [shown(mean_interval(difference(runs, one, other, measure)), 3) for measure in measures]
        rows.append([f"{where}: `{one}` - `{other}`", str(seeds), *found])
    return table(["", "seeds", *(MEASURES[measure][0] for measure in measures)], rows) + "\n"


def tuning(done: dict[str, dict[str, Any]]) -> str:
    """Mean greedy accuracy of each tuning cell, and what was chosen."""
    cells: dict[tuple[str, float, float], list[float]] = defaultdict(list)
    for run in done.values():
        if run["seed"] in TUNING_SEEDS and run["task"] == "chain":
            cell = run["method"], run["settings"]["learning_rate"], run["settings"]["scale"]
            cells[cell].append(run["final"]["greedy_accuracy"])
    grid = [(rate, scale) for scale in SCALES for rate in sorted(LEARNING_RATES)]
    chosen = tuned(done)
    rows = [
        [
            f"`{method}`",
            *(f"{np.mean(cells[method, *cell]):.3f}" if (method, *cell) in cells else "" for cell in grid),
            "{learning_rate:g}, x {scale:g}".format(**chosen[method]) if chosen else "",
        ]
        for method in TUNED
    ]
    return table(["", *(f"{rate:g}, x {scale:g}" for rate, scale in grid), "chosen"], rows) + "\n"


def shapes(sections: dict[tuple[str, str], Runs]) -> str:
    """Gains over GRPO on held-out and on the last training problems."""
    rows = []
    for (task, shape), runs in sections.items():
        base = runs.get("grpo", {}).values()
        if task == "chain" and base:
            row = [shape, str(len(base))]
            for measure in ("greedy_accuracy", "learned_accuracy"):
                row.append(f"{np.mean([value(run, measure) for run in base]):.3f}")
                for method in ("grpo+context", "grpo+oracle"):
                    d = difference(runs, method, "grpo", measure) if method in runs else ()
                    row.append(shown(mean_interval(d), 3) if len(d) > 1 else "")
            rows.append(row)
    head = ["prompts x rollouts", "seeds"]
    for where in ("held-out", "trained on"):
        head += [f"GRPO, {where}", "+ context", "+ oracle"]
    return table(head, rows) + "\n"


def plot_gains(tasks: dict[str, Runs]) -> None:
    """Greedy and sampled gains over GRPO with intervals, a panel a task."""
    tasks = {t: runs for t, runs in tasks.items() if any(len(runs[m]) > 1 for m in runs if m != "grpo")}
    if not tasks:
        return
    figure, axes = plt.subplots(
        1, len(tasks), figsize=(1.5 + 3.2 * len(tasks), 3.8), squeeze=False, layout="constrained", sharey=True
    )
    methods = [m for m in reversed(METHODS) if m != "grpo" and any(m in runs for runs in tasks.values())]
    for ax, (task, runs) in zip(axes[0], tasks.items(), strict=True):
        for measure, color, shift in (("greedy_accuracy", SERIES[0], 0.14), ("accuracy", SERIES[1], -0.14)):
            for i, method in enumerate(methods):
                d = difference(runs, method, "grpo", measure) if method in runs else ()
                if len(d) > 1:
                    e = mean_interval(d)
                    error = [[e.value - e.low], [e.high - e.value]]
                    ax.errorbar(e.value, i + shift, xerr=error, fmt="o", color=color, ms=4, capsize=2)
            ax.plot([], [], "o", color=color, label=MEASURES[measure][0])
        ax.axvline(0, color="#888888", lw=1)
        ax.set_title(TITLES[task])
        ax.set_yticks(range(len(methods)), [method.removeprefix("grpo") for method in methods])
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="x", color="#e5e5e5")
    axes[0][0].legend(frameon=False)
    figure.supxlabel("accuracy minus GRPO's, 95 % over seeds")
    figure.savefig(HERE / "gains.png", dpi=130)


def main() -> None:
    done = finished(HERE / RUNS.name)
    reported = [run for run in done.values() if run["seed"] in SEEDS or run["task"] == "svamp"]
    tasks = {task: runs for (task, _), runs in grouped(reported).items()}
    tasks = {task: tasks[task] for task in TITLES if task in tasks}
    parts = [
        "Differences to `grpo`, paired by seed; 95 % intervals over seeds, bold where they leave 0 out. They are not\n"
        "adjusted for the number of comparisons; the [plan](plan.md) says which decide.\n",
        *(f"## {TITLES[task]}\n\n{of_task(runs)}" for task, runs in tasks.items()),
        f"## One against another\n\n{pairs(tasks)}",
        f"## Decision\n\n{decision(tasks)}",
        f"## Tuning\n\nGreedy accuracy on chains after 60 updates, mean of two seeds.\n\n{tuning(done)}",
    ]
    if of_shapes := [run for run in done.values() if run["seed"] in SHAPE_SEEDS]:
        parts.append(f"## Shapes of a batch\n\n{shapes(grouped(of_shapes))}")
    (HERE / "tables.md").write_text("\n".join(parts))
    first = json_lines.read(HERE / "first_runs.jsonl")
    titles = "\n".join(
        f"## {TITLES[task]}, {shape}\n\n{of_task(runs)}" for (task, shape), runs in grouped(first).items()
    )
    (HERE / "first_tables.md").write_text("The first experiment: 100 updates at learning rate 2e-4.\n\n" + titles)
    plot_gains(tasks)


if __name__ == "__main__":
    main()
