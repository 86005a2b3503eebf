"""Token-level credit in OpenRLHF, on top of its group advantages. Written for OpenRLHF 0.11.

OpenRLHF's trainer is a Ray actor, so that `install` must run in Ray's workers: docs/integrations.md has the script.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ktae.config import KTAEConfig
from ktae.estimators import Estimator
from ktae.integrations import lists
from ktae.integrations.credit import TokenCredit, expect, rollout_means


def install(config: KTAEConfig = KTAEConfig(), estimator: Estimator | str | None = None) -> None:  # noqa: B008 (frozen)
    """Makes trainers of this process add an estimator's values to the advantages; arguments as `TokenCredit`."""
    from openrlhf.trainer import ppo_trainer  # pyright: ignore[reportMissingImports]

    credit = TokenCredit(config, estimator, gives=["log_probs"], trainer="OpenRLHF")
    ppo_trainer.RemoteExperienceMaker = with_credit(ppo_trainer.RemoteExperienceMaker, credit)


def with_credit(maker: Any, credit: TokenCredit) -> Any:
    """A subclass of OpenRLHF's experience maker that adds the estimator's values to the advantages."""

    class TokenExperienceMaker(maker):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            _check(self.args)

        def compute_advantages_and_returns(self, experiences: list[Any]) -> list[Any]:
            rewards = [experience.rewards.clone() for experience in experiences]  # length penalties will change them
            experiences = super().compute_advantages_and_returns(experiences)
            add_values(experiences, rewards, self.args.rollout.n_samples_per_prompt, credit)
            return experiences

    return TokenExperienceMaker


def add_values(experiences: list[Any], rewards: list[Tensor], group_size: int, credit: TokenCredit) -> None:
    """Adds values to `experience.advantages`, (B, A), where the action mask is 1.

    Args:
        experiences: the whole batch in any division: `sequences` (B, T) whose last A tokens are those of `action_mask`
            (B, A), and `index`, the B places of the rollouts in the batch, groups being consecutive.
        rewards: for each experience (B,) the outcome rewards.
        group_size: rollouts a prompt.
        credit: the run's estimator.
    """
    optional = {"log_probs": "action_log_probs"} if "log_probs" in credit.needs else {}
    values = iter(
        lists.of_run(
            credit,
            [ids for part in experiences for ids in part.sequences[:, -part.action_mask.shape[1] :]],
            [mask for part in experiences for mask in part.action_mask],
            torch.cat(rewards).tolist(),
            [place // group_size for part in experiences for place in part.index],
            torch.cat([rollout_means(part.advantages, part.action_mask) for part in experiences]),
            **{name: [row for part in experiences for row in getattr(part, field)] for name, field in optional.items()},
        )
    )
    for part in experiences:
        rows = [next(values) for _ in part.index]
        part.advantages = part.advantages + torch.tensor(rows, device=part.advantages.device)


def _check(args: Any) -> None:
    expect(args, "--algo.advantage.estimator", "it needs groups", "rloo", "reinforce_baseline", "group_norm", "dr_grpo")
    expect(args, "--rollout.n_samples_per_prompt", "it needs several rollouts a prompt", other_than=1)
    expect(args, "--actor.policy_loss_type", "a sequence-level ratio averages advantages", "ppo")
