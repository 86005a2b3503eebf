"""KTAE in TRL: `GRPOTrainer` with token advantages.

    from ktae.integrations.trl import KTAETrainer
    trainer = KTAETrainer(model, reward_funcs, args=GRPOConfig(...), train_dataset=..., ktae=KTAEConfig())

TRL computes the rollout advantages as always (loss types, reward scaling, KL, generation are its own); this
class adds each token's key-token value to them. Written for TRL 1.16.
"""

from __future__ import annotations

import sys
import time
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from ktae.advantages import key_token_values
from ktae.config import KTAEConfig
from ktae.extras import require
from ktae.integrations.metrics import estimator_metrics

require("trl", extra="train")

from trl.trainer.grpo_trainer import GRPOTrainer  # noqa: E402 (after the check that names the extra)

# With these losses a sequence-level importance ratio is one number for the whole rollout, clipped and
# differentiated as such: the gradient of every token is scaled by the rollout's mean advantage.
_SEQUENCE_LEVEL_ERASES_TOKENS = ("grpo", "dapo", "dr_grpo", "bnpo", "luspo", "sapo")


class CorrectnessTrainer(GRPOTrainer):
    """`trl.GRPOTrainer` that knows which of its reward functions decides whether a rollout is correct.

    Args:
        *args, **kwargs: those of `GRPOTrainer`.
        correctness_reward: name of that reward function; may be omitted when there is only one. Its raw values are
            used, before reward weights and normalisation.

    Raises:
        ValueError: `correctness_reward` is missing or unknown.
    """

    latest_rewards: Tensor
    """(N, functions) raw rewards of the latest batch, of all processes; NaN where unscored."""

    def __init__(self, *args: Any, correctness_reward: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._correctness_column = _correctness_column(self.reward_func_names, correctness_reward)

    def _calculate_rewards(
        self, inputs: list[dict[str, Any]], prompts: list, completions: list, completion_ids_list: list[list[int]]
    ) -> Tensor:
        self.latest_rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        return self.latest_rewards


class KTAETrainer(CorrectnessTrainer):
    """`trl.GRPOTrainer` whose advantages are A_i + K(o_it), one a token, instead of A_i, one a rollout.

    Args:
        *args, **kwargs: those of `GRPOTrainer`.
        ktae: the estimator's settings. A rollout is correct when its correctness reward is greater than
            `ktae.correct_above`.
        correctness_reward: name of the reward function that decides which rollouts are correct; may be omitted
            when there is only one. Its raw values are used, before reward weights and normalisation.

    Logs `ktae/*` (docs/metrics.md) and a column `key_token_value`, each rollout's mean, in the completions table.
    After a generation to train on, `latest_key_tokens` holds this process's token ids, key-token values and mask, each
    (B, T).

    Raises:
        ValueError: a setting would erase or distort token-level credit, or `correctness_reward` is missing or
            unknown.
        RuntimeError: Unsloth has replaced TRL's trainer.
    """

    _name = "KTAE"  # what TRL's model card says
    _tag_names: ClassVar = ["trl", "grpo", "ktae"]
    _paper: ClassVar = {
        "title": "KTAE: A Model-Free Algorithm to Key-Tokens Advantage Estimation in Mathematical Reasoning",
        "id": "2505.16826",
    }

    def __init__(self, *args: Any, ktae: KTAEConfig | None = None, **kwargs: Any) -> None:
        _refuse_unsloth()
        super().__init__(*args, **kwargs)
        self.ktae = KTAEConfig() if ktae is None else ktae
        if self.importance_sampling_level == "sequence" and self.loss_type in _SEQUENCE_LEVEL_ERASES_TOKENS:
            raise ValueError(
                'importance_sampling_level="sequence" gives all tokens of a rollout the same gradient weight with '
                f'loss_type="{self.loss_type}", which erases token-level credit. '
                'Use importance_sampling_level="token".'
            )
        if self.off_policy_mask_threshold is not None:
            raise ValueError(
                "off_policy_mask_threshold drops whole rollouts by the sign of the rollout advantage; with token "
                f"advantages it would drop single tokens. It must be None, got {self.off_policy_mask_threshold}"
            )

    def _generate(self, prompts: list) -> tuple:
        """Keeps which tokens are tool output, before truncated rollouts are masked as a whole."""
        generated = super()._generate(prompts)
        self._ktae_tool_mask = generated[2]
        return generated

    def _calculate_rewards(
        self,
        inputs: list[dict[str, Any]],
        prompts: list,
        completions: list,
        completion_ids_list: list[list[int]],
    ) -> Tensor:
        """Keeps what the tables need: the rewards of all processes and the lengths of this one's completions."""
        rewards_NF = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        self._ktae_rewards = rewards_NF[:, self._correctness_column]
        self._ktae_lengths = [len(ids) for ids in completion_ids_list]
        return rewards_NF

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Turns the (B,) advantages into (B, T): a group's rollouts are gathered from all processes first."""
        training = cast(torch.nn.Module, self.model).training  # generation may leave the model in training mode
        batch = super()._generate_and_score_completions(inputs)
        start = time.perf_counter()
        ids_BT = batch["completion_ids"]
        rows, width = ids_BT.shape

        # Not the batch's masks: mask_truncated_completions has zeroed them for truncated rollouts, which still
        # say which tokens go with failure.
        lengths_B = torch.tensor(self._ktae_lengths, device=ids_BT.device)
        generated_BT = (torch.arange(width, device=ids_BT.device) < lengths_B[:, None]).long()
        for row, tool_mask in enumerate(self._ktae_tool_mask or []):
            generated_BT[row, : len(tool_mask)] *= torch.tensor(tool_mask, device=ids_BT.device)

        def gather(local_BT: Tensor) -> Tensor:
            return cast(Tensor, self.accelerator.gather(self.accelerator.pad_across_processes(local_BT, dim=1)))

        ids_NT, generated_NT = gather(ids_BT), gather(generated_BT)
        group_size = cast(int, self.num_generations if training else self.num_generations_eval)
        group_N = torch.arange(len(ids_NT), device=ids_NT.device) // group_size
        value_NT = key_token_values(ids_NT, generated_NT, self._ktae_rewards, group_N, config=self.ktae)

        first = self.accelerator.process_index * rows
        value_BT = value_NT[first : first + rows, :width]
        if training:
            self.latest_key_tokens = ids_BT, value_BT, generated_BT
        batch["advantages"] = (batch["advantages"][:, None] + value_BT) * batch["completion_mask"]

        metrics = estimator_metrics(value_NT, generated_NT.bool(), self._ktae_rewards, group_N, self.ktae)
        metrics["seconds"] = time.perf_counter() - start
        for name, value in metrics.items():  # TRL leaves NaN out of its averages
            self._metrics["train" if training else "eval"][f"ktae/{name}"].append(value)
        rollout_means = value_NT.sum(dim=1) / generated_NT.sum(dim=1).clamp(min=1)
        self._logs["extra"]["key_token_value"].extend(rollout_means.tolist())
        return batch


def _correctness_column(names: list[str], correctness_reward: str | None) -> int:
    if correctness_reward is None:
        if len(names) > 1:
            raise ValueError(
                f"correctness_reward must name the reward function that decides correctness, one of {names}; got None"
            )
        return 0
    if names.count(correctness_reward) != 1:
        raise ValueError(
            f"correctness_reward must name exactly one of the reward functions {names}, got {correctness_reward!r}"
        )
    return names.index(correctness_reward)


def _refuse_unsloth() -> None:
    if "unsloth" in sys.modules or GRPOTrainer.__name__.startswith("Unsloth"):
        raise RuntimeError(
            "KTAETrainer does not work with Unsloth: it rewrites GRPOTrainer and repacks completions without "
            "moving token advantages along, so each token would get another token's credit. "
            "Train without importing unsloth."
        )
