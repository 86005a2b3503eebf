"""Which runs make up the experiment of plan.md, the most important ones first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from ktae.files import json_lines

RUNS = Path(__file__).parent / "runs.jsonl"


@dataclass(frozen=True)
class Run:
    """One line of runs.jsonl: which method learns which task, from which warm start and seed."""

    task: str
    method: str
    seed: int
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        extra = "".join(f" {name}={value}" for name, value in sorted(self.settings.items()))
        return f"{self.task} {self.method} {self.seed}{extra}"


MANY_PROMPTS = {"prompts": 16, "group_size": 8}
SETTINGS = {
    "chain": MANY_PROMPTS,
    "chain_hard": MANY_PROMPTS,
    "legs": MANY_PROMPTS,
    "words": MANY_PROMPTS | {"updates": 60},
    "svamp": {
        **{"prompts": 8, "group_size": 8, "parts": 1},
        **{"updates": 60, "evaluate_every": 60, "final_evaluations": 1, "final_rows": 200},
    },
}
SMALL = ("chain", "legs", "words", "chain_hard")
SVAMP = ("grpo", "grpo+ktae", "grpo+context", "grpo+positive")
TUNED = (
    *("grpo", "grpo+ktae", "grpo+context", "grpo+positive", "grpo+surprise"),
    *("grpo+context_in_share", "grpo+surprise_context", "grpo+strongest"),
    "grpo+calculation",
)
METHODS = ("grpo", "grpo+x3", *TUNED[1:], "grpo+oracle")
# More estimators, with GRPO's learning rate and untuned, for `predicts.py` alone.
EXTRA = (
    *("grpo+back_off", "grpo+back_off_8", "grpo+prefix_tree", "grpo+prefix_set", "grpo+conflict_tokens"),
    *("grpo+ktae_no_tf", "grpo+context_4", "grpo+own_outcome", "grpo+position"),
)
# Is there credit beyond sharpening? Also at GRPO's learning rate and untuned, on chains and on legs.
BEYOND = ("grpo+context_centered", "grpo+positive_context")
# What of the oracle's knowledge is worth most? Where it gains most, with GRPO's learning rate.
PARTS, PART_SEEDS = ("grpo+oracle_slips", "grpo+oracle_in_incorrect", "grpo+oracle_in_correct"), range(40, 44)
# Of what finds mistakes, the one token that it blames most: alone, and on top of the control; beside a token at random.
BLAME = ("grpo+positive_blame_one", "grpo+positive_blame_random", "grpo+blame_one")
# The model of the word problems is seven times as large, and 4e-4 ruins it: its rate is the best of these for GRPO.
WORDS_RATES, WORDS_TUNING_SEED = (1e-4, 5e-5, 2e-4), 100
PREDICTED, EXTRA_SEEDS = ("chain", "legs"), range(40, 43)
LEARNING_RATES, SCALES = (2e-4, 1e-4, 4e-4, 8e-4), (1.0, 0.5, 2.0)
TUNING_SEEDS, SEEDS, SHAPE_SEEDS = range(100, 102), range(40, 50), range(60, 64)
# Prompts by rollouts of a group.
SHAPES = ((4, 8), (16, 8), (4, 32), (16, 32))


def finished(path: Path = RUNS) -> dict[str, dict[str, Any]]:
    """The runs in runs.jsonl by key."""
    return {run["key"]: run for run in json_lines.read(path)}


def missing(done: dict[str, dict[str, Any]]) -> Iterator[Run]:
    """The runs that are not done, in order; those that depend on others' results follow when these are there."""
    wanted = [
        *(_run("svamp", method, seed) for seed in range(2) for method in SVAMP),
        *(run for method in TUNED for run in _tuning_runs(method, done)),
        *(_words_run(rate) for rate in WORDS_RATES),
    ]
    if chosen := tuned(done):
        cells = dict.fromkeys(SMALL, chosen)
        if words := words_rate(done):
            cells["words"] = {method: chosen.get(method, {}) | {"learning_rate": words} for method in METHODS}
        else:
            del cells["words"]
        wanted += [
            _run(task, method, seed, **cells[task].get(method, {}))
            for seed in SEEDS
            for task in cells
            for method in METHODS
        ]
        wanted += [
            _run(task, method, seed, **chosen["grpo+oracle"])
            for seed in SEEDS
            for task in ("chain_hard", "chain")
            for method in BLAME
        ]
        wanted += [_run("chain_hard", method, seed, **chosen["grpo+oracle"]) for seed in PART_SEEDS for method in PARTS]
        wanted += [
            _run(task, method, seed, **chosen["grpo+oracle"])
            for task in PREDICTED
            for seed in SEEDS
            for method in BEYOND
        ]
        wanted += [
            _run("chain", method, seed, prompts=prompts, group_size=group_size)
            for seed in SHAPE_SEEDS
            for prompts, group_size in SHAPES
            for method in ("grpo", "grpo+context", "grpo+oracle")
        ]
        wanted += [
            _run(task, method, seed, **chosen["grpo+oracle"])
            for seed in EXTRA_SEEDS
            for task in PREDICTED
            for method in EXTRA
        ]
        wanted += [_run("svamp", method, seed) for seed in range(2, 4) for method in SVAMP]
    return (run for run in wanted if run.key not in done)


def tuned(done: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Each method's learning rate and scale; empty until all tuning runs are done. The controls take GRPO's rate."""
    if any(run.key not in done for method in TUNED for run in _tuning_runs(method, done)):
        return {}
    chosen = {method: _best(method, _second_cells(method, done), done) for method in TUNED}
    of_grpo = {"learning_rate": chosen["grpo"]["learning_rate"]}
    return chosen | {"grpo+x3": of_grpo, "grpo+oracle": of_grpo}


def words_rate(done: dict[str, dict[str, Any]]) -> float | None:
    """The learning rate on word problems, GRPO's best in greedy accuracy; None until all have been tried."""
    keys = {rate: _words_run(rate).key for rate in WORDS_RATES}
    if any(key not in done for key in keys.values()):
        return None
    return max(WORDS_RATES, key=lambda rate: done[keys[rate]]["final"]["greedy_accuracy"])


def _words_run(rate: float) -> Run:
    once = {"updates": 30, "evaluate_every": 30, "final_evaluations": 1, "samples": 0}
    return _run("words", "grpo", WORDS_TUNING_SEED, **once, learning_rate=rate)


def _tuning_runs(method: str, done: dict[str, dict[str, Any]]) -> list[Run]:
    """First the learning rates at the method's own scale, then the scales at the best of these."""
    first = [{"learning_rate": rate, "scale": 1.0} for rate in LEARNING_RATES]
    runs = [_tuning_run(method, seed, cell) for cell in first for seed in TUNING_SEEDS]
    if all(run.key in done for run in runs):
        runs += [_tuning_run(method, s, cell) for cell in _second_cells(method, done)[1:] for s in TUNING_SEEDS]
    return runs


def _second_cells(method: str, done: dict[str, dict[str, Any]]) -> list[dict[str, float]]:
    best = _best(method, [{"learning_rate": rate, "scale": 1.0} for rate in LEARNING_RATES], done)
    return [best | {"scale": scale} for scale in SCALES]


def _best(method: str, cells: list[dict[str, float]], done: dict[str, dict[str, Any]]) -> dict[str, float]:
    """The cell with the best mean greedy accuracy over the tuning seeds, the first on a tie."""
    greedy = defaultdict(list)
    for index, cell in enumerate(cells):
        for seed in TUNING_SEEDS:
            greedy[index].append(done[_tuning_run(method, seed, cell).key]["final"]["greedy_accuracy"])
    return cells[max(greedy, key=lambda index: mean(greedy[index]))]


def _tuning_run(method: str, seed: int, cell: dict[str, float]) -> Run:
    return _run(
        "chain", method, seed, updates=60, evaluate_every=60, final_evaluations=1, final_rows=1000, samples=0, **cell
    )


def _run(task: str, method: str, seed: int, **settings: Any) -> Run:
    return Run(task, method, seed, SETTINGS[task] | settings)
