"""Token-level credit in SkyRL, on top of its group advantages. Written for SkyRL 0.3 and its sources of 2026-08.

`with_credit` goes into an entry point of your own: docs/integrations.md.
"""

from __future__ import annotations

from typing import Any

import torch

from ktae.integrations import lists
from ktae.integrations.credit import TokenCredit, expect, rollout_means


def with_credit(trainer: Any, credit: TokenCredit) -> Any:
    """A subclass of a SkyRL trainer that adds the estimator's values to the advantages.

    What SkyRL logs of its advantages is without them. Log-probabilities are there for an estimator that needs them:
    `TokenCredit(estimator=..., gives=["log_probs"])`.
    """

    class TokenTrainer(trainer):
        def __init__(self, cfg: Any, *args: Any, **kwargs: Any) -> None:
            _check(cfg)
            super().__init__(cfg, *args, **kwargs)

        def compute_advantages_and_returns(self, data: Any) -> Any:
            data = super().compute_advantages_and_returns(data)
            add_values(data, credit)
            return data

    return TokenTrainer


def add_values(data: Any, credit: TokenCredit) -> None:
    """Adds values to `data["advantages"]` where the loss mask is 1.

    Args:
        data: a `TrainingInputBatch`: `sequences` (N, S) whose last T tokens are those of `loss_mask`, `rewards` and
            `advantages` (N, T), and the N `metadata["uids"]`. A rollout's reward is the sum of its rewards.
        credit: the run's estimator.
    """
    mask_BT, advantages_BT = data["loss_mask"], data["advantages"]
    values = lists.of_run(
        credit,
        list(data["sequences"][:, -mask_BT.shape[1] :]),
        list(mask_BT),
        data["rewards"].sum(dim=-1),
        data.metadata["uids"],
        rollout_means(advantages_BT, mask_BT),
        log_probs=list(data["action_log_probs"]) if "log_probs" in credit.needs else None,
    )
    data["advantages"] = advantages_BT + torch.tensor(values, dtype=advantages_BT.dtype, device=advantages_BT.device)


def _check(cfg: Any) -> None:
    part = "trainer.algorithm"
    expect(cfg, f"{part}.advantage_estimator", "it needs groups", "grpo", "rloo", "maxrl")
    expect(cfg, f"{part}.policy_loss_type", "a sequence-level ratio averages advantages", other_than="gspo")
    expect(cfg, f"{part}.use_kl_in_reward", "rewards decide which rollouts are correct", False)
    expect(cfg, "generator.step_wise_trajectories", "it splits a rollout over rows", False)
