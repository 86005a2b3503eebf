"""Token-level credit in SkyRL, on top of its group advantages. Written for SkyRL 0.3 and its sources of 2026-08.

`with_credit` goes into an entry point of your own: docs/integrations.md.
"""

from __future__ import annotations

from typing import Any

import torch

from ktae.integrations import lists
from ktae.integrations.credit import TokenCredit, expect, rollout_means


def with_credit(trainer: Any, credit: TokenCredit) -> Any:
    """A subclass of a SkyRL trainer that adds the estimator's values to the advantages where the loss mask is 1.

    A rollout's reward is the sum of its rewards. Its constructor raises a ValueError for a setting that erases or
    distorts token-level credit.
    """
    credit.check_given("SkyRL", "log_probs")

    class TokenTrainer(trainer):
        def __init__(self, cfg: Any, *args: Any, **kwargs: Any) -> None:
            part = "trainer.algorithm"
            expect(cfg, f"{part}.advantage_estimator", "it needs groups", "grpo", "rloo", "maxrl")
            expect(cfg, f"{part}.policy_loss_type", "a sequence-level ratio averages advantages", other_than="gspo")
            expect(cfg, f"{part}.use_kl_in_reward", "rewards decide which rollouts are correct", False)
            expect(cfg, "generator.step_wise_trajectories", "it splits a rollout over rows", False)
            super().__init__(cfg, *args, **kwargs)

        def compute_advantages_and_returns(self, data: Any) -> Any:
            """`sequences` (N, S) end with the T tokens of `loss_mask`, `rewards` and `advantages`, (N, T) each."""
            data = super().compute_advantages_and_returns(data)
            mask_NT, advantage_NT = data["loss_mask"], data["advantages"]
            values = lists.values(
                data["sequences"][:, -mask_NT.shape[1] :],
                mask_NT,
                data["rewards"].sum(dim=-1),
                data.metadata["uids"],
                rollout_means(advantage_NT, mask_NT),
                credit=credit,
                log_probs=data["action_log_probs"] if "log_probs" in credit.needs else None,
            )
            data["advantages"] = advantage_NT + torch.tensor(values).to(advantage_NT)
            return data

    return TokenTrainer
