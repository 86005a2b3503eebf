"""Token-level credit in ms-swift, on top of its GRPO advantages. Written for ms-swift 4.6.

`install` goes into a plugin file of your own, given with `--external_plugins`: docs/integrations.md.
"""

from __future__ import annotations

from typing import Any

import torch

from ktae.integrations import lists
from ktae.integrations.credit import TokenCredit, expect, reward_column, rollout_means

_IGNORED = -100  # the label of a token that is not trained on


def install(credit: TokenCredit, correctness_reward: str | None = None) -> None:
    """Makes `swift rlhf --rlhf_type grpo` of this process add the estimator's values to the advantages.

    `correctness_reward` names the reward function that decides correctness; it may be omitted if there is only one.
    """
    from swift import rlhf_trainers  # pyright: ignore[reportMissingImports]

    rlhf_trainers.GRPOTrainer = with_credit(rlhf_trainers.GRPOTrainer, credit, correctness_reward)


def with_credit(trainer: Any, credit: TokenCredit, correctness_reward: str | None = None) -> Any:
    """A subclass of ms-swift's `GRPOTrainer` that adds the estimator's values where the completion mask is 1.

    Its constructor raises ValueError for a setting that erases or distorts token-level credit.
    """
    credit.check_given("ms-swift's hook")

    class TokenTrainer(trainer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            averages, split = "it averages the advantages of a rollout", "a process holds others' samples"
            expect(self, "--importance_sampling_level", averages, "token", "sequence_token")
            expect(self, "--loss_type", averages, other_than="real")
            expect(self, "use_liger_loss", f"with --use_liger_kernel {averages}", False)
            expect(self, "--off_policy_sequence_mask_delta", "it goes by a rollout's mean advantage", None)
            expect(self, "template.sequence_parallel_size", split, 1)
            self._correctness_column = reward_column(self.reward_func_names, correctness_reward)

        def _postprocess_batch(self, samples: list[Any], batch_encoded_inputs: list[dict[str, Any]]) -> None:
            """The labels of a sample that are not ignored are, in order, the tokens at which its mask is 1."""
            super()._postprocess_batch(samples, batch_encoded_inputs)
            batches = [encoded["grpo_batch"] for encoded in batch_encoded_inputs]
            means = torch.cat([rollout_means(batch.advantages, batch.completion_mask) for batch in batches])
            values = self._values(samples, means.tolist())
            for batch in batches:
                mask_BT, rows = batch.completion_mask.bool(), values[: len(batch.advantages)]
                values = values[len(rows) :]
                if mask_BT.sum(dim=1).tolist() != [len(row) for row in rows]:
                    raise ValueError(
                        "completion_mask must be 1 for as many tokens as a sample has labels, "
                        f"{[len(row) for row in rows]}, got {mask_BT.sum(dim=1).tolist()}"
                    )
                added_BT = torch.zeros_like(batch.advantages)
                added_BT[mask_BT] = torch.tensor([value for row in rows for value in row]).to(added_BT)
                batch.advantages = batch.advantages + added_BT

        def _values(self, samples: list[Any], advantages: list[float]) -> list[list[float]]:
            """Of this process's samples, from the groups of all processes."""
            from accelerate.utils import gather_object

            labels = [torch.as_tensor(sample.encoded["labels"]).flatten() for sample in samples]
            ids = [row[row != _IGNORED].tolist() for row in labels]
            prompts = [sample.prompt_id for sample in samples]
            rollouts = gather_object(list(zip(ids, prompts, advantages, strict=True)))
            counts = gather_object([len(samples)])
            all_ids, groups, all_advantages = zip(*rollouts, strict=True)
            if not self.dynamic_num_samples:
                size = self.num_generations if self.model.training else self.num_generations_eval
                groups = [place // size for place in range(len(rollouts))]
            rewards = self._rewards_per_func[:, self._correctness_column]
            values = lists.values(all_ids, None, rewards, groups, all_advantages, credit=credit)
            first = sum(counts[: self.accelerator.process_index])
            return values[first : first + len(samples)]

    return TokenTrainer
