"""Cost per token of every estimator, measured in one run: nanoseconds, and the ratio to the paper's formula.

    OMP_NUM_THREADS=2 python benchmarks/estimators.py --json benchmarks/estimators.json
    python benchmarks/estimators.py --quick

All take the same batch in turns, so that whatever else the machine does meets them alike; the ratio is the median over
the turns of the ratio within a turn. Ids follow Zipf's law, a tenth of each group's rollouts begin with the same 32
tokens, and a rollout changes its state about every 64 tokens.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from ktae.estimators import ESTIMATORS, Rollouts, load_estimator, token_values

VOCABULARY, GROUP_SIZE = 151_936, 16
REFERENCE = "ktae"


def batch(groups: int, columns: int, seed: int = 0) -> Rollouts:
    """Rollouts of drawn lengths, half of them correct, with entropies and states."""
    rng = np.random.default_rng(seed)
    shape = rows, _ = groups * GROUP_SIZE, columns
    weights = 1 / np.arange(2, VOCABULARY + 2)
    ids = rng.choice(VOCABULARY, shape, p=weights / weights.sum())
    shared = rng.random(rows) < 0.1
    ids[shared, :32] = ids[np.arange(rows) // GROUP_SIZE * GROUP_SIZE, :32][shared]
    mask = np.arange(columns) < rng.integers(columns // 4, columns, rows, endpoint=True)[:, None]
    states = (rng.random(shape) < 1 / 64).cumsum(axis=1)
    tensors = (ids, mask, np.arange(rows) % 2.0, np.arange(rows) // GROUP_SIZE)
    entropies = torch.from_numpy(rng.exponential(0.4, shape)).float()
    return Rollouts(*map(torch.from_numpy, tensors), entropies=entropies, states=torch.from_numpy(states))


def measure(rollouts: Rollouts, turns: int) -> dict[str, dict[str, float]]:
    """Of each estimator nanoseconds per token inside the mask, and times the reference's; medians over the turns."""
    estimators = {name: load_estimator(name) for name in ESTIMATORS}
    tokens = int(rollouts.counted_BT.sum())
    seconds: dict[str, list[float]] = {name: [] for name in estimators}
    for turn in range(turns + 1):
        for name, estimator in estimators.items():
            start = time.perf_counter()
            token_values(estimator, rollouts)
            if turn:  # the first compiles, and fills the score tables
                seconds[name].append(time.perf_counter() - start)
    return {
        name: {
            "ns_per_token": statistics.median(spent) / tokens * 1e9,
            "ratio": statistics.median(a / b for a, b in zip(spent, seconds[REFERENCE], strict=True)),
        }
        for name, spent in seconds.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="4 groups instead of 64, 3 turns instead of 9")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    groups, columns, turns = (4, 256, 3) if arguments.quick else (64, 1024, 9)
    found = measure(batch(groups, columns), turns)
    print("| estimator | ns per token | times the paper's formula |\n|---|---:|---:|")
    for name, row in sorted(found.items(), key=lambda item: item[1]["ratio"]):
        print(f"| `{name}` | {row['ns_per_token']:.0f} | {row['ratio']:.1f} |")
    if arguments.json is not None:
        about = {"groups": groups, "columns": columns, "turns": turns, "threads": torch.get_num_threads()}
        about |= {"machine": platform.processor() or platform.machine(), "torch": torch.__version__}
        arguments.json.write_text(json.dumps({"about": about, "estimators": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
