"""What a run shows and writes while it trains."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from ktae.files.json_lines import append

_EVERY, _SILENCE = 10, 60.0


class Records(TrainerCallback):
    """Writes metrics.jsonl, a row an update or evaluation, and samples.jsonl, the rollouts of every so manieth update.

    Every tenth update, or after a minute's silence, it prints a line.
    """

    def __init__(
        self, trainer: Any, algorithm: str, label: str, out: Path, samples_every: int, say: Callable[[str], object]
    ) -> None:
        self._trainer, self._algorithm, self._label = trainer, algorithm, label
        self._out, self._samples_every, self._say = out, samples_every, say
        self._latest = {"reward": math.nan, "completions/mean_length": math.nan}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._begun = self._said = time.perf_counter()
        self._first = state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero or not {"loss", "eval_loss"} & (logs or {}).keys():
            return
        step, key = state.global_step, {"algorithm": self._algorithm, "step": state.global_step}
        append(self._out / "metrics.jsonl", [{**key, **logs}])
        if "loss" not in logs:
            return
        if self._samples_every and step % self._samples_every == 0:
            append(self._out / "samples.jsonl", [{**key, **row} for row in self._trainer.latest_rollouts])
        # A step that reuses the rollouts of an earlier one logs neither; None is a mean of nothing.
        self._latest |= {name: logs[name] for name in self._latest if logs.get(name) is not None}
        now = time.perf_counter()
        if step % _EVERY == 0 or step == state.max_steps or now - self._said > _SILENCE:
            self._said, spent, (reward, length) = now, now - self._begun, self._latest.values()
            left = spent / max(step - self._first, 1) * (state.max_steps - step)
            self._say(
                f"{self._label:<10} step {step}/{state.max_steps}  reward {reward:.2f}  length {length:.1f}  "
                f"{spent:.0f} s, {left:.0f} s left"
            )
