"""Which metric of the benchmark goes with the gain in training? Writes predicts.md from committed rows and runs.

    python experiments/credit/predicts.py

Spearman's rank correlation over the methods that were both measured (held_out.jsonl) and trained on the chains
(../replication/first_runs.jsonl, the default settings): of the metric on `chain` or `gradients` with the mean gain over
GRPO, paired by seed. Intervals are 95 % bootstrap intervals over methods, wide as they are few.
"""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

HERE = Path(__file__).parent
# Names of the runs -> of the estimators, where they differ.
NAMES = {"context": "ktae_context", "tempo": "prefix_tree", "gtpo": "entropy_weighting"}
METRICS = ("cosine", "snr", "top", "after", "before", "slip", "sign", "true_incorrect", "true_correct")
GAINS = {"greedy_accuracy": "greedy", "accuracy": "sampled"}


def gains(runs: list[dict], measure: str) -> dict[str, float]:
    """The mean gain over GRPO of each estimator on the chains."""
    of_method: dict[str, dict[int, float]] = defaultdict(dict)
    for run in runs:
        if run["task"] == "chain" and not run["settings"] and run["method"].startswith("grpo"):
            of_method[run["method"]][run["seed"]] = run["final"][measure]
    baseline = of_method.pop("grpo")
    found = {}
    for method, by_seed in of_method.items():
        name = method.removeprefix("grpo+")
        found[NAMES.get(name, name)] = float(np.mean([value - baseline[seed] for seed, value in by_seed.items()]))
    return found


def correlation(x: np.ndarray, y: np.ndarray) -> str:
    """Spearman's correlation with its interval."""
    rng, drawn = np.random.default_rng(0), []
    for _ in range(2000):
        index = rng.integers(0, len(x), len(x))
        if len(set(x[index])) > 1 and len(set(y[index])) > 1:
            drawn.append(spearmanr(x[index], y[index]).statistic)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return f"{spearmanr(x, y).statistic:+.2f} [{low:+.2f}, {high:+.2f}]"


def main() -> None:
    runs = [json.loads(line) for line in (HERE.parent / "replication" / "first_runs.jsonl").read_text().splitlines()]
    rows = [json.loads(line) for line in (HERE / "held_out.jsonl").read_text().splitlines()]
    measured: dict[str, dict[str, list]] = defaultdict(dict)
    for row in rows:
        if row.get("source") in ("chain", "gradients") and "estimator" in row:
            measured[row["estimator"]].update({m: row[m] for m in METRICS if m in row})
    gained = {measure: gains(runs, measure) for measure in GAINS}
    lines = ["| metric | methods | " + " | ".join(GAINS.values()) + " |", "|---|---:|" + "---:|" * len(GAINS)]
    for metric in METRICS:
        names = [n for n in gained["accuracy"] if measured.get(n, {}).get(metric, [None])[0] is not None]
        x = np.array([measured[name][metric][0] for name in names])
        cells = [correlation(x, np.array([gained[measure][name] for name in names])) for measure in GAINS]
        lines.append(f"| `{metric}` | {len(names)} | " + " | ".join(cells) + " |")
    (HERE / "predicts.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
