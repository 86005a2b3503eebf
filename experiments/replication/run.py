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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Run:
    """One line of runs.jsonl: which method learns which task, from which warm start and seed."""

    task: str
    method: str
    seed: int
    settings: dict[str, Any] = field(default_factory=dict)
    warm_starts: int = 4

    @property
    def key(self) -> str:
        extra = "".join(f" {name}={value}" for name, value in sorted(self.settings.items()))
        return f"{self.task} {self.method} {self.seed}{extra}"


def execute(run: Run) -> dict[str, Any]:
    import torch
    import warm
    from loop import Settings, run as learn
    from methods import METHODS
    from tasks import TASKS

    torch.set_num_threads(1)
    settings = Settings(dapo=run.method.startswith("dapo"), **run.settings)
    model, tokenizer = warm.load(run.task, run.seed % run.warm_starts)
    method = METHODS[run.method.removeprefix("dapo").removeprefix("grpo").removeprefix("+")]
    result = learn(model, tokenizer, TASKS[run.task], method, settings, run.seed)
    return {"key": run.key} | asdict(run) | _rounded(result)


def finished(path: Path) -> set[str]:
    return {json.loads(line)["key"] for line in path.read_text().splitlines()} if path.exists() else set()


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 5) if isinstance(value, float) else value


def main() -> None:
    from plan import PLANS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", choices=PLANS, default="main")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    path = HERE / ("runs.jsonl" if arguments.plan == "main" else f"{arguments.plan}.jsonl")
    done = finished(path)
    missing = [run for run in PLANS[arguments.plan] if run.key not in done]
    print(f"{len(PLANS[arguments.plan])} runs, {len(missing)} missing")
    if arguments.list:
        print("\n".join(run.key for run in missing))
        return
    started = time.perf_counter()
    # A process a run: nothing of one can leak into the next.
    with multiprocessing.get_context("spawn").Pool(arguments.jobs, maxtasksperchild=1) as pool, path.open("a") as file:
        for count, result in enumerate(pool.imap(execute, missing), 1):
            file.write(json.dumps(result) + "\n")
            file.flush()
            left = (time.perf_counter() - started) / count * (len(missing) - count)
            print(f"{result['key']}: {result['final']['accuracy']:.3f}, {left / 60:.0f} min left", flush=True)


if __name__ == "__main__":
    main()
