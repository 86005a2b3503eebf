"""Which runs make up the experiment, the most important ones first.

Seeds 0, 4, 8 and 12 of the chains, on warm start 0, served to choose among estimators (docs/log.md); none is used here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


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


MAIN = (
    *("grpo", "grpo+ktae", "grpo+context", "grpo+context_centered", "grpo+positive", "grpo+oracle"),
    *("dapo", "dapo+ktae", "dapo+context"),
)
OTHER_TASKS = ("grpo", "grpo+ktae", "grpo+context", "grpo+oracle", "dapo", "dapo+context")
RIVALS = ("grpo+tempo", "grpo+gtpo", "grpo+high_entropy", "grpo+ktae_mean")
ABLATIONS = (
    *("grpo+ktae_no_fisher", "grpo+ktae_no_ig", "grpo+ktae_no_tf", "grpo+ktae_h2_2"),
    *("grpo+context_x2", "grpo+context_x16", "grpo+context_1", "grpo+context_4"),
)
SIZES = ("grpo", "grpo+ktae", "grpo+context")


def _runs(task: str, methods: tuple[str, ...], seeds: range, settings: dict | None = None) -> list[Run]:
    """Seed by seed, so that whatever is finished is balanced."""
    return [Run(task, method, seed, settings or {}) for seed in seeds for method in methods]


PLAN = [
    *_runs("chain", MAIN, range(20, 30)),
    *_runs("legs", OTHER_TASKS, range(20, 23)),
    *_runs("chain_hard", OTHER_TASKS, range(20, 24)),
    *_runs("chain", RIVALS, range(20, 24)),
    *_runs("chain", ABLATIONS, range(20, 24)),
    *_runs("legs", OTHER_TASKS, range(23, 26)),
    *_runs("chain", SIZES, range(20, 24), {"group_size": 8, "prompts": 16}),
    *_runs("chain", SIZES, range(20, 24), {"group_size": 32, "prompts": 4}),
    *_runs("chain_hard", OTHER_TASKS, range(24, 30)),
    *_runs("chain", RIVALS, range(24, 30)),
    *_runs("legs", OTHER_TASKS, range(26, 30)),
]
