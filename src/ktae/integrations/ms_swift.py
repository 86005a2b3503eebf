"""Token-level credit in ms-swift, on top of its GRPO advantages. Written for ms-swift 4.6.

A plugin file of your own, given with `--external_plugins ktae_plugin.py`:

    from ktae import KTAEConfig
    from ktae.integrations import ms_swift

    ms_swift.install(KTAEConfig())
"""

from __future__ import annotations

from typing import Any

import torch

from ktae.config import KTAEConfig
from ktae.estimators import Estimator
from ktae.integrations import lists
from ktae.integrations.credit import TokenCredit, expect, rollout_means

_IGNORED = -100  # the label of a token that is not trained on


def install(
    config: KTAEConfig = KTAEConfig(),  # noqa: B008 (frozen)
    estimator: Estimator | str | None = None,
    correctness_reward: str | None = None,
) -> None:
    """Makes `swift rlhf --rlhf_type grpo` of this process add an estimator's values to the advantages.

    Args:
        config, estimator: as `TokenCredit`.
        correctness_reward: name of the reward function that decides which rollouts are correct; may be omitted when
            there is only one.
    """
    from swift import rlhf_trainers  # pyright: ignore[reportMissingImports]

    credit = TokenCredit(config, estimator, trainer="ms-swift's hook")
    rlhf_trainers.GRPOTrainer = with_credit(rlhf_trainers.GRPOTrainer, credit, correctness_reward)


def with_credit(trainer: Any, credit: TokenCredit, correctness_reward: str | None = None) -> Any:
    """A subclass of ms-swift's `GRPOTrainer` that adds the estimator's values to the advantages.

    Its constructor raises ValueError for a setting that erases or distorts token-level credit.
    """

    class TokenTrainer(trainer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            averages, split = "it averages the advantages of a rollout", "a process holds others' samples"
            expect(self, "--importance_sampling_level", averages, "token", "sequence_token")
            expect(self, "--loss_type", averages, other_than="real")
            expect(self, "use_liger_loss", averages, False, option="--use_liger_kernel")
            expect(self, "--off_policy_sequence_mask_delta", "it goes by a rollout's mean advantage", None)
            expect(self, "template.sequence_parallel_size", split, 1, option="--sequence_parallel_size")
            names = list(self.reward_func_names)
            named = correctness_reward is not None or len(names) > 1
            if named and names.count(correctness_reward) != 1:
                raise ValueError(
                    f"correctness_reward must name one of the reward functions {names}, got {correctness_reward!r}"
                )
            self._correctness_column = names.index(correctness_reward) if named else 0

        def _postprocess_batch(self, samples: list[Any], batch_encoded_inputs: list[dict[str, Any]]) -> None:
            super()._postprocess_batch(samples, batch_encoded_inputs)
            batches = [encoded["grpo_batch"] for encoded in batch_encoded_inputs]
            means = [rollout_means(batch.advantages, batch.completion_mask).tolist() for batch in batches]
            rows = iter(self._values(samples, [mean for part in means for mean in part]))
            for batch in batches:
                add_to_advantages(batch, [next(rows) for _ in batch.advantages])

        def _values(self, samples: list[Any], advantages: list[float]) -> list[list[float]]:
            """Of this process's samples, from the groups of all processes."""
            from accelerate.utils import gather_object

            ids = [trained_ids(sample.encoded["labels"]) for sample in samples]
            prompts = [sample.prompt_id for sample in samples]
            rollouts = gather_object(list(zip(ids, prompts, advantages, strict=True)))
            counts = gather_object([len(samples)])
            all_ids, groups, all_advantages = zip(*rollouts, strict=True)
            if not self.dynamic_num_samples:
                size = self.num_generations if self.model.training else self.num_generations_eval
                groups = [place // size for place in range(len(rollouts))]
            rewards = self._rewards_per_func[:, self._correctness_column]
            values = lists.of_run(credit, all_ids, None, rewards, groups, all_advantages)
            first = sum(counts[: self.accelerator.process_index])
            return values[first : first + len(samples)]

    return TokenTrainer


def trained_ids(labels: Any) -> list[int]:
    """The token ids that a sample is trained on, in order: its labels but for those that are ignored."""
    return [label for label in torch.as_tensor(labels).flatten().tolist() if label != _IGNORED]


def add_to_advantages(batch: Any, values: list[list[float]]) -> None:
    """Adds each row's values to the (B, T) advantages at the places where its completion mask is 1, in order."""
    mask_BT = batch.completion_mask.bool()
    if mask_BT.sum(dim=1).tolist() != [len(row) for row in values]:
        raise ValueError(
            f"completion_mask must be 1 for as many tokens as a sample has labels, {[len(row) for row in values]}, "
            f"got {mask_BT.sum(dim=1).tolist()}"
        )
    flat = torch.tensor([value for row in values for value in row], dtype=batch.advantages.dtype)
    advantages_BT = batch.advantages.clone()
    advantages_BT[mask_BT] += flat.to(advantages_BT.device)
    batch.advantages = advantages_BT
