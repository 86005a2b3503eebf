"""Token-level credit in OpenRLHF, on top of its group advantages. Written for OpenRLHF 0.11.

OpenRLHF's trainer is a Ray actor, so that `install` must run in Ray's workers: docs/integrations.md has the script.
"""

from __future__ import annotations

from typing import Any

import torch

from ktae.integrations import lists
from ktae.integrations.credit import TokenCredit, expect, rollout_means


def install(credit: TokenCredit) -> None:
    """Makes trainers of this process add the estimator's values to the advantages."""
    from openrlhf.trainer import ppo_trainer  # pyright: ignore[reportMissingImports]

    ppo_trainer.RemoteExperienceMaker = with_credit(ppo_trainer.RemoteExperienceMaker, credit)


def with_credit(maker: Any, credit: TokenCredit) -> Any:
    """A subclass of OpenRLHF's experience maker that adds the estimator's values where the action mask is 1.

    Its constructor raises ValueError for a setting that erases or distorts token-level credit.
    """
    credit.check_given("OpenRLHF", "log_probs")

    class TokenExperienceMaker(maker):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            groups, loss = ("rloo", "reinforce_baseline", "group_norm", "dr_grpo"), "--actor.policy_loss_type"
            expect(self.args, "--algo.advantage.estimator", "it needs groups", *groups)
            expect(self.args, "--rollout.n_samples_per_prompt", "it needs several rollouts a prompt", other_than=1)
            expect(self.args, loss, "a sequence-level ratio averages advantages", "ppo")

        def compute_advantages_and_returns(self, experiences: list[Any]) -> list[Any]:
            """`action_mask` (B, A) is of the last tokens of `sequences` (B, T), `index` has places in the batch."""
            rewards = torch.cat([part.rewards for part in experiences])  # length penalties will change theirs
            parts = super().compute_advantages_and_returns(experiences)
            known = "log_probs" in credit.needs
            values = lists.values(
                [ids for part in parts for ids in part.sequences[:, -part.action_mask.shape[1] :]],
                [mask for part in parts for mask in part.action_mask],
                rewards,
                [place // self.args.rollout.n_samples_per_prompt for part in parts for place in part.index],
                torch.cat([rollout_means(part.advantages, part.action_mask) for part in parts]),
                credit=credit,
                log_probs=[row for part in parts for row in part.action_log_probs] if known else None,
            )
            for part in parts:
                mine, values = values[: len(part.index)], values[len(part.index) :]
                part.advantages = part.advantages + torch.tensor(mine).to(part.advantages)
            return parts

    return TokenExperienceMaker
