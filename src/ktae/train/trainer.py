"""The trainer behind `ktae train`: TRL's, with what a long run needs. Estimators and dynamic sampling come on top."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from trl.trainer.grpo_trainer import GRPOTrainer

from ktae.integrations.trl import CorrectnessTrainer
from ktae.train.folder import COMPLETE
from ktae.train.rewards import ThresholdError, split_of

_TRIES = 3  # generations until all rollouts' being correct is a fault of the threshold


class RunTrainer(CorrectnessTrainer):
    """TRL's trainer with strict rewards, a check of every loss and checkpoints that can be trusted.

    * A rollout that any reward function could not score (None, NaN, infinite) is unscored as a whole: it has
      advantage 0, and neither the group's mean nor KTAE's tables see it. TRL alone would take the sum of the others.
    * A loss or gradient that is not finite stops the run before the weights are touched.
    * A checkpoint gets the file `complete` when everything else is on disk.
    * Resuming from a checkpoint of the last update trains nothing.

    Args:
        *args, **kwargs: those of `CorrectnessTrainer`.
        card: what TRL's model card is to say: `trainer_name`, `base_model`, `dataset_name`, `tags`, `paper`, and
            `settings`, a paragraph on how the model was trained.

    On the main process, `latest_rollouts` holds the latest rollouts trained on, of all processes, one dict each: group,
    prompt, completion, each reward (None where unscored), other logged columns, rollout advantage.

    Logs `accuracy` and `unscored` (docs/metrics.md).

    Raises:
        FloatingPointError: while training: a loss or gradient is not finite.
        ThresholdError: while training: rewards differ, and all of the first three generations are above the threshold.
    """

    def __init__(self, *args: Any, card: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._card = card or {}
        self._generated = False
        self._tries, self._first_rewards = 0, []

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
        if mode == "train" and self._tries < _TRIES:
            self._tries += 1
            self._first_rewards += rewards_N[~unscored_N].tolist()
            advice = split_of(self._first_rewards, self.correct_above)
            if advice and self._tries == _TRIES and min(self._first_rewards) > self.correct_above:
                raise ThresholdError(advice)
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

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        card = self._card
        self._name, self._paper = card.get("trainer_name", self._name), card.get("paper", self._paper)
        super().create_model_card(self.args.run_name, card.get("dataset_name"), card.get("tags"))
        if self.is_world_process_zero():
            path = Path(cast(str, self.args.output_dir), "README.md")
            # TRL takes every base model for one of the hub, and knows no other place for the trained one.
            text = path.read_text().replace("[None](https://huggingface.co/None)", f"`{card.get('base_model')}`")
            text = text.replace('model="None"', 'model="path/to/this/folder"')
            path.write_text(text.replace("\n### Framework", f"\n{card.get('settings', '')}\n\n### Framework"))


def _rollouts(trainer: GRPOTrainer) -> list[dict[str, Any]]:
    """What TRL keeps for its completions table, a row a rollout."""
    logs = trainer._logs
    columns = {**logs["rewards"], **logs["extra"]}
    return [
        {
            "group": i // cast(int, trainer.num_generations),
            "prompt": logs["prompt"][i],
            "completion": logs["completion"][i],
            **{
                name: None if values[i] != values[i] else values[i] for name, values in columns.items()
            },  # NaN: unscored
            "advantage": logs["advantages"][i],
        }
        for i in range(len(logs["prompt"]))
    ]
