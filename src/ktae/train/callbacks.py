"""What a run shows and writes while it trains."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import TrainerCallback

from ktae.files.json_lines import append
from ktae.train.folder import is_record, is_shown


class Display(TrainerCallback):
    """Step, reward, mean length and time left: a live bar on a terminal, a line every so often elsewhere."""

    def __init__(self, label: str, console: Console, every: int = 10) -> None:
        self._label, self._console, self._every = label, console, every
        self._reward = self._length = math.nan
        self._progress = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("reward {task.fields[reward]}  length {task.fields[length]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
        )

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._begun, self._first = time.perf_counter(), state.global_step
        if state.is_world_process_zero and self._console.is_terminal:
            self._task = self._progress.add_task(
                self._label, total=state.max_steps, completed=state.global_step, reward="-", length="-"
            )
            self._progress.start()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if not is_update(state, logs):
            return
        # A step that reuses the rollouts of an earlier one logs neither.
        self._reward = _number(logs.get("reward"), self._reward)
        self._length = _number(logs.get("completions/mean_length"), self._length)
        reward, length, step = f"{self._reward:.2f}", f"{self._length:.1f}", state.global_step
        if self._console.is_terminal:
            self._progress.update(self._task, completed=step, reward=reward, length=length)
        elif step % self._every == 0 or step == state.max_steps:
            spent = time.perf_counter() - self._begun
            left = spent / max(step - self._first, 1) * (state.max_steps - step)
            self._console.print(
                f"{self._label:<10} step {step}/{state.max_steps}  reward {reward}  length {length}  "
                f"{spent:.0f} s, {left:.0f} s left"
            )

    def close(self) -> None:
        """Ends the live bar, which hides the cursor."""
        if self._console.is_terminal:
            self._progress.stop()


class Records(TrainerCallback):
    """Appends metrics, of every update and evaluation, to metrics.jsonl and the rollouts of some to samples.jsonl."""

    def __init__(self, trainer: Any, algorithm: str, out: Path, samples_every: int) -> None:
        self._trainer, self._algorithm, self._samples_every = trainer, algorithm, samples_every
        self._metrics, self._samples = out / "metrics.jsonl", out / "samples.jsonl"

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero or not is_record(logs or {}):
            return
        key = {"algorithm": self._algorithm, "step": state.global_step}
        append(self._metrics, [{**key, **logs}])
        if "loss" in logs and is_shown(state.global_step, self._samples_every):
            append(self._samples, [{**key, **row} for row in self._trainer.latest_rollouts])


def is_update(state: Any, logs: dict[str, Any] | None) -> bool:
    """Whether `logs` are those of a training step, on the process that reports."""
    return state.is_world_process_zero and logs is not None and "loss" in logs


def _number(value: float | None, otherwise: float) -> float:
    """A logged value; `otherwise` if it was not logged, or nothing could be averaged."""
    return otherwise if value is None else value
