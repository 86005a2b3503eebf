"""The trainer behind `ktae train`: TRL's, with what a long run needs. Estimators and dynamic sampling come on top."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from trl.trainer.grpo_trainer import GRPOTrainer

from ktae.integrations.trl import CorrectnessTrainer
from ktae.train.checkpoints import begin, mark_complete, rotate


class RunTrainer(CorrectnessTrainer):
    """TRL's trainer with strict rewards, phase times, a check of every loss and checkpoints that can be trusted.

    * A rollout that any reward function could not score (None, NaN, infinite) is unscored as a whole: it has
      advantage 0, and neither the group's mean nor KTAE's tables see it. TRL alone would take the sum of the others.
    * A loss or gradient that is not finite stops the run before the weights are touched.
    * A checkpoint is marked when it is complete (`ktae.train.checkpoints`); `save_total_limit` counts marked ones only,
      by step, and older ones are deleted last.
    * Resuming from a checkpoint of the last update trains nothing.

    Args:
        *args, **kwargs: those of `CorrectnessTrainer`.
        card: what TRL's model card is to say: `trainer_name`, `base_model`, `dataset_name`, `tags`, `paper`.

    On the main process, `latest_rollouts` holds the latest rollouts trained on, of all processes, one dict each: group,
    prompt, completion, each reward (None where unscored), other logged columns, rollout advantage.

    Logs `accuracy`, `unscored`, `tokens_per_second`, `seconds/*` and `ktae/step_share` (docs/metrics.md).

    Raises:
        FloatingPointError: while training: a loss or gradient is not finite.
    """

    def __init__(self, *args: Any, card: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._card = card or {}
        # TRL's own rotation goes by modification time, and takes any folder called checkpoint-something.
        self._keep, self.args.save_total_limit = self.args.save_total_limit, None
        self._phases = {"generation": 0.0, "rewards": 0.0}
        self._generated = False
        self._logged_at: float | None = None
        self._logged_tokens = 0

    def _generate(self, prompts: list) -> tuple:
        begun = time.perf_counter()
        generated = super()._generate(prompts)
        self._phases["generation"] += time.perf_counter() - begun
        return generated

    def _calculate_rewards(self, *rollouts: Any) -> Tensor:
        begun = time.perf_counter()
        rewards_NF = super()._calculate_rewards(*rollouts)
        rewards_NF[~rewards_NF.isfinite().all(dim=1)] = torch.nan
        self._phases["rewards"] += time.perf_counter() - begun
        return rewards_NF

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        mode = "train" if cast(torch.nn.Module, self.model).training else "eval"
        batch = super()._generate_and_score_completions(inputs)
        for phase, seconds in self._phases.items():
            self._metrics[mode][f"seconds/{phase}"].append(seconds)
            self._phases[phase] = 0.0
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
            self.latest_rollouts = _rollouts(self)  # now: an evaluation would put its own in their place
        self._generated = False
        return inputs

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

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        metrics = self._metrics["train"]
        if "loss" in logs:
            now, tokens = time.perf_counter(), int(self.state.num_input_tokens_seen)
            if tokens > self._logged_tokens:  # an update that reuses rollouts adds none
                if self._logged_at is not None:
                    metrics["tokens_per_second"].append((tokens - self._logged_tokens) / (now - self._logged_at))
                self._logged_at, self._logged_tokens = now, tokens
            if "ktae/seconds" in metrics:
                metrics["ktae/step_share"].append(sum(metrics["ktae/seconds"]) / sum(metrics["step_time"]))
        super().log(logs, start_time)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        if self.state.global_step >= self.state.max_steps:  # TRL would make one update more before it looks
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*args, **kwargs)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder, step = Path(cast(str, self.args.output_dir)), self.state.global_step
        checkpoint = folder / f"checkpoint-{step}"
        if self.args.should_save:
            begin(checkpoint)
        self.accelerator.wait_for_everyone()
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()  # each process writes the state of its own random numbers
        if self.args.should_save:
            mark_complete(checkpoint)
            if self._keep:
                rotate(folder, step, self._keep, best=self.state.best_model_checkpoint)

    def create_model_card(
        self, model_name: str | None = None, dataset_name: str | None = None, tags: str | list[str] | None = None
    ) -> None:
        card = self._card
        self._name, self._paper = card.get("trainer_name", self._name), card.get("paper", self._paper)
        super().create_model_card(self.args.run_name, card.get("dataset_name"), card.get("tags"))
        if self.is_world_process_zero():
            path = Path(cast(str, self.args.output_dir), "README.md")
            # TRL takes every base model for one of the hub, and knows no other place for the trained one.
            text = path.read_text().replace("[None](https://huggingface.co/None)", f"`{card.get('base_model')}`")
            path.write_text(text.replace('model="None"', 'model="path/to/this/folder"'))


def _rollouts(trainer: GRPOTrainer) -> list[dict[str, Any]]:
    """What TRL keeps for its completions table, a row a rollout."""
    logs = trainer._logs
    columns = {**logs["rewards"], **logs["extra"]}
    return [
        {
            "group": i // cast(int, trainer.num_generations),
            "prompt": logs["prompt"][i],
            "completion": logs["completion"][i],
            **{name: _finite(values[i]) for name, values in columns.items()},
            "advantage": logs["advantages"][i],
        }
        for i in range(len(logs["prompt"]))
    ]


def _finite(value: Any) -> Any:
    """NaN, an unscored reward, is not valid JSON."""
    return None if isinstance(value, float) and value != value else value
