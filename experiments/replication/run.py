"""Runs what is missing of the experiment's runs and appends each result as a line to runs.jsonl.

python run.py [--jobs 2] [--task chain] [--methods grpo,grpo+context]        about a minute of one core a run
python run.py --list
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from dataclasses import asdict
from typing import Any

from plan import RUNS, Run, finished, missing

from ktae.files import json_lines

os.environ.setdefault("OMP_NUM_THREADS", "1")
# Models to begin with; a run of seed s takes number s modulo this.
WARM_STARTS = {"chain": 3, "chain_hard": 2, "legs": 2, "words": 2, "svamp": 1}


def execute(run: Run) -> dict[str, Any]:
    import torch
    import warm
    from loop import Settings
    from loop import run as learn
    from methods import method, times
    from tasks import task

    torch.set_num_threads(1)
    settings = Settings(dapo=run.method.startswith("dapo"), **run.settings)
    warm_start = run.seed % WARM_STARTS[run.task]
    model, tokenizer = warm.load(run.task, warm_start)
    result = learn(model, tokenizer, task(run.task), times(method(run.method), settings.scale), settings, run.seed)
    return {"key": run.key} | asdict(run) | {"warm_start": warm_start} | _rounded(result)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 5) if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--task", help="only the runs of this task")
    parser.add_argument("--methods", help="only these, with commas between them")
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    methods = arguments.methods and arguments.methods.split(",")

    def wanted() -> list[Run]:
        runs = [run for run in missing(finished()) if arguments.task in (None, run.task)]
        return [run for run in runs if methods is None or run.method in methods]

    if arguments.list:
        print("\n".join(run.key for run in wanted()))
        return
    # A process a run: nothing of one can leak into the next.
    with multiprocessing.get_context("spawn").Pool(arguments.jobs, maxtasksperchild=1) as pool:
        while runs := wanted():
            for result in pool.imap(execute, runs):
                json_lines.append(RUNS, [result])
                final = result["final"]
                print(f"{result['key']}: {final['accuracy']:.3f}, greedy {final['greedy_accuracy']:.3f}", flush=True)


if __name__ == "__main__":
    main()
