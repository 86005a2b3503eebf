"""What a run shows and writes while it trains."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, TextColumn
from rich.text import Text
from transformers import TrainerCallback

from ktae.files.json_lines import append
from ktae.files.tokens import ModelTokenizer
from ktae.train.folder import is_record, is_shown

_KEY_TOKENS, _CHARACTERS = 6, 200  # of a rollout that is shown, at most


class Display(TrainerCallback):
    """Step, reward, mean length and time left: a live bar on a terminal, a line every so often elsewhere."""

    def __init__(self, label: str, console: Console, every: int = 10) -> None:
        self._label, self._console, self._every = label, console, every
        self._latest = {"reward": math.nan, "completions/mean_length": math.nan}
        self._live = console.is_terminal
        self._progress = Progress(*Progress.get_default_columns(), TextColumn("{task.fields[now]}"), console=console)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._begun, self._first = time.perf_counter(), state.global_step
        if state.is_world_process_zero and self._live:
            self._task = self._progress.add_task(self._label, total=state.max_steps, completed=self._first, now="")
            self._progress.start()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if not is_update(state, logs):
            return
        # A step that reuses the rollouts of an earlier one logs neither; None is a mean of nothing.
        self._latest |= {key: logs[key] for key in self._latest if logs.get(key) is not None}
        step, (reward, length) = state.global_step, self._latest.values()
        now = f"step {step}/{state.max_steps}  reward {reward:.2f}  length {length:.1f}"
        if self._live:
            self._progress.update(self._task, completed=step, now=now)
        elif step % self._every == 0 or step == state.max_steps:
            spent = time.perf_counter() - self._begun
            left = spent / max(step - self._first, 1) * (state.max_steps - step)
            self._console.print(f"{self._label:<10} {now}  {spent:.0f} s, {left:.0f} s left")

    def close(self) -> None:
        """Ends the live bar, which hides the cursor."""
        if self._live:
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


class Show(TrainerCallback):
    """Shows the best and the worst rollout of one group every so many updates, with the key tokens if there are any."""

    def __init__(self, trainer: Any, tokenizer: Any, label: str, console: Console, every: int) -> None:
        self._trainer, self._tokenizer = trainer, ModelTokenizer(tokenizer)
        self._label, self._console, self._every = label, console, every

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if not is_update(state, logs) or not is_shown(state.global_step, self._every):
            return
        rows, name = self._trainer.latest_rollouts, self._trainer.reward_func_names[self._trainer._correctness_column]
        # This process's key tokens are at hand, and its rollouts come first; later groups may be on another one.
        key_tokens = getattr(self._trainer, "latest_key_tokens", None)
        groups: dict[int, list[tuple[float, int]]] = {}
        for i, row in enumerate(rows if key_tokens is None else rows[: len(key_tokens[0])]):
            if row[name] is not None:
                groups.setdefault(row["group"], []).append((row[name], i))
        if not groups:
            return
        group = max(groups.values(), key=lambda members: max(members)[0] - min(members)[0])
        prompt = Text(_end(rows[group[0][1]]["prompt"]))
        self._console.print(f"[bold]{self._label}, update {state.global_step}[/]", prompt)
        for reward, i in (max(group, key=lambda member: (member[0], -member[1])), min(group)):
            advantage = rows[i]["advantage"]
            self._console.print(f"  reward {reward:g}, rollout advantage {advantage:+.2f}", highlight=False)
            self._console.print(Text(f"    {_end(rows[i]['completion'])}"))
            if key_tokens is not None and (listed := self._strongest(*(part[i] for part in key_tokens))):
                self._console.print(Text(f"    key tokens: {listed}"))

    def _strongest(self, ids_T: Any, values_T: Any, mask_T: Any) -> str:
        inside_T = mask_T.bool()
        texts = self._tokenizer.texts(ids_T[inside_T].tolist(), None)
        tokens = sorted(zip(texts, values_T[inside_T].tolist(), strict=True), key=lambda token: abs(token[1]))
        strongest = sorted(dict(tokens).items(), key=lambda token: -abs(token[1]))[:_KEY_TOKENS]  # each text once
        return "  ".join(f"{value:+.2f} {text!r}" for text, value in strongest if value)


def is_update(state: Any, logs: dict[str, Any] | None) -> bool:
    """Whether `logs` are those of a training step, on the process that reports."""
    return state.is_world_process_zero and logs is not None and "loss" in logs


def _end(content: Any) -> str:
    """The end of a prompt or completion as one text, messages one after the other."""
    text = content if isinstance(content, str) else "\n".join(str(message.get("content")) for message in content)
    return text if len(text) <= _CHARACTERS else "…" + text[-_CHARACTERS:]
