"""KTAE in OpenRLHF: key-token values on top of its group advantages. Written for OpenRLHF 0.11.

OpenRLHF's trainer is a Ray actor, so the hook is installed in Ray's workers. A script of your own, started with the
arguments of `python -m openrlhf.cli.train_ppo_ray`:

    import runpy, ray
    from ktae import KTAEConfig
    from ktae.integrations import openrlhf

    def hook():
        openrlhf.install(KTAEConfig())

    ray.init(runtime_env={"worker_process_setup_hook": hook})
    runpy.run_module("openrlhf.cli.train_ppo_ray", run_name="__main__", alter_sys=True)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ktae.config import KTAEConfig
from ktae.integrations import lists

_GROUP_ESTIMATORS = ("rloo", "reinforce_baseline", "group_norm", "dr_grpo")


def install(config: KTAEConfig = KTAEConfig()) -> None:  # noqa: B008 (frozen)
    """Makes trainers of this process use an experience maker with key-token values."""
    from openrlhf.trainer import ppo_trainer  # pyright: ignore[reportMissingImports]

    ppo_trainer.RemoteExperienceMaker = with_key_tokens(ppo_trainer.RemoteExperienceMaker, config)


def with_key_tokens(maker: Any, config: KTAEConfig = KTAEConfig()) -> Any:  # noqa: B008 (frozen)
    """A subclass of OpenRLHF's experience maker that adds key-token values to the advantages."""

    class KTAEExperienceMaker(maker):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            _check(self.args)

        def compute_advantages_and_returns(self, experiences: list[Any]) -> list[Any]:
            rewards = [experience.rewards.clone() for experience in experiences]  # length penalties will change them
            experiences = super().compute_advantages_and_returns(experiences)
            add_key_token_values(experiences, rewards, self.args.rollout.n_samples_per_prompt, config)
            return experiences

    return KTAEExperienceMaker


def add_key_token_values(experiences: list[Any], rewards: list[Tensor], group_size: int, config: KTAEConfig) -> None:
    """Adds K(o_it) to `experience.advantages`, (B, A) where the action mask is 1.

    Args:
        experiences: the whole batch in any division: `sequences` (B, T) whose last A tokens are those of `action_mask`
            (B, A), and `index`, the B places of the rollouts in the batch, groups being consecutive.
        rewards: for each experience (B,) the outcome rewards; a rollout is correct when its reward is greater than
            `config.correct_above`.
        group_size: rollouts a prompt.
        config: the estimator's settings.
    """
    token_ids = [
        ids for experience in experiences for ids in experience.sequences[:, -experience.action_mask.shape[1] :]
    ]
    masks = [mask for experience in experiences for mask in experience.action_mask]
    groups = [place // group_size for experience in experiences for place in experience.index]
    values = iter(lists.key_token_values(token_ids, masks, torch.cat(rewards).tolist(), groups, config=config))
    for experience in experiences:
        rows = [next(values) for _ in experience.index]
        experience.advantages = experience.advantages + torch.tensor(rows, device=experience.advantages.device)


def _check(args: Any) -> None:
    estimator = args.algo.advantage.estimator
    if estimator not in _GROUP_ESTIMATORS:
        raise ValueError(f"--algo.advantage.estimator must be one of {_GROUP_ESTIMATORS} for KTAE, got {estimator!r}")
    if args.rollout.n_samples_per_prompt < 2:
        raise ValueError(
            f"--rollout.n_samples_per_prompt must be at least 2 for KTAE, got {args.rollout.n_samples_per_prompt}"
        )
    if args.actor.policy_loss_type != "ppo":
        raise ValueError(
            "a sequence-level importance ratio gives all tokens of a rollout the same gradient weight: "
            f"--actor.policy_loss_type must be ppo for KTAE, got {args.actor.policy_loss_type}"
        )
