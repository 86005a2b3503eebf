"""The quickstart's algorithms at several seeds, through `KTAETrainer`: paired differences over seeds.

    python experiments/quickstart/seeds.py                  # the table from seeds.jsonl
    python experiments/quickstart/seeds.py --run 1 2 3 4    # trains what is missing first, 6 minutes of one core a seed

The starting model is the same for all seeds; problems, samples and order of training differ.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from ktae.evaluation.statistics import mean_interval

HERE = Path(__file__).parent
SEEDS, TABLE = HERE / "seeds.jsonl", HERE / "seeds.md"
ALGORITHMS = ("grpo", "grpo+ktae", "grpo+ktae_context")
LENGTH = ("--trl.max_steps", "600", "--data.train_rows", "2400")  # twice the quickstart's
MEASURES = {
    "sampled": ("sampled", "accuracy", 3),
    "greedy": ("greedy", "accuracy", 3),
    "length": ("sampled", "mean_length", 1),
}


def run(seed: int) -> None:
    """Trains the algorithms of a seed and appends their results."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "ktae.cli", "train", "quickstart", "--out", str(out), "--seed", str(seed)]
        command += ["--algorithms", f"[{', '.join(ALGORITHMS)}]", *LENGTH]
        subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        results = json.loads((out / "results.json").read_text())
    with SEEDS.open("a") as file:
        file.write(json.dumps(results) + "\n")


def table(rows: list[dict]) -> str:
    """Means over seeds and paired differences to GRPO, 95 % intervals of Student's t."""
    lines = [
        f"Seeds {', '.join(str(row['seed']) for row in rows)}; differences to GRPO with 95 % intervals over seeds.",
        "",
        "| algorithm | sampled accuracy | greedy accuracy | mean length | share of the time for key-token values |",
        "|---|---|---|---|---|",
    ]
    for algorithm in ALGORITHMS:
        cells = [rows[0]["policies"][algorithm]["label"]]
        for mode, key, digits in MEASURES.values():
            values, baseline = (
                np.array([row["policies"][name][mode][key] for row in rows]) for name in (algorithm, ALGORITHMS[0])
            )
            cell = f"{values.mean():.{digits}f}"
            if algorithm != ALGORITHMS[0] and len(rows) > 1:
                d = mean_interval(values - baseline)
                cell += f" ({d.value:+.{digits}f} [{d.low:+.{digits}f}, {d.high:+.{digits}f}])"
            cells.append(cell)
        shares = [row["policies"][algorithm].get("ktae_share") for row in rows]
        cells.append("" if None in shares else f"{np.mean(shares):.2%}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=int, nargs="+", default=[], metavar="SEED")
    arguments = parser.parse_args()
    for seed in arguments.run:
        done = [json.loads(line)["seed"] for line in SEEDS.read_text().splitlines()] if SEEDS.exists() else []
        if seed not in done:
            run(seed)
    rows = sorted(map(json.loads, SEEDS.read_text().splitlines()), key=lambda row: row["seed"])
    TABLE.write_text(table(rows))
    print(table(rows), end="")


if __name__ == "__main__":
    main()
