"""Runs what is missing of the experiment's runs and appends each result as a line to runs.jsonl.

python run.py [--jobs 2] [--plan main|exploration]        about a minute of one core a run
python run.py --list
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from plan import PLAN, Run

os.environ.setdefault("OMP_NUM_THREADS", "1")
RUNS = Path(__file__).parent / "runs.jsonl"
# Models to begin with; a run of seed s takes number s modulo this.
WARM_STARTS = {"chain": 3, "chain_hard": 2, "legs": 2}


def execute(run: Run) -> dict[str, Any]:
    import torch
    import warm
    from loop import Settings
    from loop import run as learn
    from methods import method
    from tasks import TASKS

    torch.set_num_threads(1)
    settings = Settings(dapo=run.method.startswith("dapo"), **run.settings)
    warm_start = run.seed % WARM_STARTS[run.task]
    model, tokenizer = warm.load(run.task, warm_start)
    result = learn(model, tokenizer, TASKS[run.task], method(run.method), settings, run.seed)
    return {"key": run.key} | asdict(run) | {"warm_start": warm_start} | _rounded(result)


def finished() -> set[str]:
    """Keys of the runs in runs.jsonl."""
    return {json.loads(line)["key"] for line in RUNS.read_text().splitlines()} if RUNS.exists() else set()


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 5) if isinstance(value, float) else value


def main() -> None:

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    done = finished()
    missing = [run for run in PLAN if run.key not in done]
    print(f"{len(PLAN)} runs, {len(missing)} missing")
    if arguments.list:
        print("\n".join(run.key for run in missing))
        return
    started = time.perf_counter()
    # A process a run: nothing of one can leak into the next.
    with multiprocessing.get_context("spawn").Pool(arguments.jobs, maxtasksperchild=1) as pool, RUNS.open("a") as file:
        for count, result in enumerate(pool.imap(execute, missing), 1):
            file.write(json.dumps(result) + "\n")
            file.flush()
            left = (time.perf_counter() - started) / count * (len(missing) - count)
            print(f"{result['key']}: {result['final']['accuracy']:.3f}, {left / 60:.0f} min left", flush=True)


if __name__ == "__main__":
    main()
