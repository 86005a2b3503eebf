"""The trainer behind `ktae train`: TRL's, with what a long run needs. Estimators and dynamic sampling come on top."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from transformers import TrainerCallback

from ktae.files.json_lines import append
from ktae.integrations.trl import CorrectnessTrainer
from ktae.train.folder import COMPLETE
from ktae.train.recipe import Algorithm

_EVERY, _SILENCE = 10, 60.0  # updates, or seconds, until a run says something


class RunTrainer(CorrectnessTrainer):
    """TRL's trainer for long runs.

    * A rollout that any reward function could not score (None, NaN, infinite) is unscored as a whole: it has
      advantage 0, and neither the group's mean nor KTAE's tables see it. TRL alone would take the sum of the others.
    * A loss or gradient that is not finite stops the run, with a FloatingPointError, before the weights are touched.
    * A checkpoint gets the file `complete` when everything else is on disk.
    * Resuming from a checkpoint of the last update trains nothing.

    On the main process, `latest_rollouts` holds the latest rollouts trained on, of all processes, as docs/metrics.md
    says of samples.jsonl. Logs `accuracy` and `unscored`.
    """

    _generated = False

    def _calculate_rewards(self, *rollouts: Any) -> Tensor:
        rewards_NF = super()._calculate_rewards(*rollouts)
        rewards_NF[~rewards_NF.isfinite().all(dim=1)] = torch.nan
        return rewards_NF

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        mode = "train" if cast(torch.nn.Module, self.model).training else "eval"
        batch = super()._generate_and_score_completions(inputs)
        rewards_N = self.latest_rewards[:, self._correctness_column]
        unscored_N = rewards_N.isnan()
        self._metrics[mode]["unscored"].append(unscored_N.float().mean().item())
        correct_N = (rewards_N > self.correct_above).float()
        self._metrics[mode]["accuracy"].append(correct_N[~unscored_N].mean().item())
        self._generated = mode == "train"
        return batch

    def _prepare_inputs(self, generation_batch: dict[str, Any]) -> dict[str, Any]:
        inputs = super()._prepare_inputs(generation_batch)
        if self._generated and self.accelerator.is_main_process:
            self.latest_rollouts = self._rollouts()  # now: an evaluation would put its own in their place
        self._generated = False
        return inputs

    def _rollouts(self) -> list[dict[str, Any]]:
        """What TRL keeps for its completions table, a row a rollout; None for NaN."""
        logs, size = self._logs, cast(int, self.num_generations)
        columns = {"prompt": logs["prompt"], "completion": logs["completion"], **logs["rewards"], **logs["extra"]}
        columns["advantage"] = logs["advantages"]
        rows = [[None if value != value else value for value in row] for row in zip(*columns.values(), strict=True)]
        return [{"group": k // size, **dict(zip(columns, row, strict=True))} for k, row in enumerate(rows)]

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        loss = super().training_step(*args, **kwargs)
        self._refuse_unless_finite("loss", float(loss))
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm)
        if norm is not None and not self.args.fp16:  # float16's loss scaling skips such steps by itself
            self._refuse_unless_finite("gradient norm", float(norm))
        return norm

    def _refuse_unless_finite(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            raise FloatingPointError(
                f"the {what} of update {self.state.global_step + 1} is {value}; the weights were not touched by it. "
                "Lower trl.learning_rate, set trl.max_grad_norm, or use another model.dtype, and start a new run"
            )

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        if self.state.global_step >= self.state.max_steps:  # TRL would make one update more before it looks
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*args, **kwargs)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()  # each process writes the state of its own random numbers
        if self.args.should_save:
            os.sync()
            Path(cast(str, self.args.output_dir), f"checkpoint-{self.state.global_step}", COMPLETE).touch()


class Records(TrainerCallback):
    """Writes metrics.jsonl, a row an update or evaluation, and samples.jsonl, the rollouts of some; prints lines.

    `run` is the `Run` that all this belongs to.
    """

    def __init__(self, trainer: RunTrainer, run: Any, algorithm: Algorithm) -> None:
        self._trainer, self._run, self._algorithm = trainer, run, algorithm
        self._latest = {"reward": math.nan, "completions/mean_length": math.nan}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._begun = self._said = time.perf_counter()
        self._first = state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero or not {"loss", "eval_loss"} & (logs or {}).keys():
            return
        step, out, every = state.global_step, self._run.out, self._run.recipe.samples_every
        key = {"algorithm": self._algorithm.name, "step": step}
        append(out / "metrics.jsonl", [{**key, **logs}])
        if "loss" not in logs:
            return
        if every and step % every == 0:
            append(out / "samples.jsonl", [{**key, **row} for row in self._trainer.latest_rollouts])
        # A step that reuses the rollouts of an earlier one logs neither; None is a mean of nothing.
        self._latest |= {name: logs[name] for name in self._latest if logs.get(name) is not None}
        now = time.perf_counter()
        if step % _EVERY == 0 or step == state.max_steps or now - self._said > _SILENCE:
            self._said, spent, (reward, length) = now, now - self._begun, self._latest.values()
            left = spent / max(step - self._first, 1) * (state.max_steps - step)
            shown = f"reward {reward:.2f}  length {length:.1f}  {spent:.0f} s, {left:.0f} s left"
            self._run.say(f"{self._algorithm.label:<10} step {step}/{state.max_steps}  {shown}")
