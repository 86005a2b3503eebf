"""KTAE in SkyRL: key-token values on top of its group advantages. Written for SkyRL 0.3.

An entry point of your own, started with the arguments of `skyrl.train.entrypoints.main_base`:

    import sys, ray
    from ktae import KTAEConfig
    from ktae.integrations.skyrl import with_key_tokens
    from skyrl.train.config import SkyRLTrainConfig
    from skyrl.train.entrypoints.main_base import BasePPOExp
    from skyrl.train.trainer import RayPPOTrainer
    from skyrl.train.utils import initialize_ray, validate_cfg

    class Exp(BasePPOExp):
        def get_trainer(self, *args, **kwargs):
            return with_key_tokens(RayPPOTrainer, KTAEConfig())(*args, **kwargs)

    @ray.remote(num_cpus=1)
    def run(cfg):
        Exp(cfg).run()

    if __name__ == "__main__":
        cfg = SkyRLTrainConfig.from_cli_overrides(sys.argv[1:])
        validate_cfg(cfg)
        initialize_ray(cfg)
        ray.get(run.remote(cfg))
"""

from __future__ import annotations

from typing import Any

import torch

from ktae.config import KTAEConfig
from ktae.integrations import lists

_GROUP_ESTIMATORS = ("grpo", "rloo", "maxrl")
_SEQUENCE_LEVEL = ("gspo",)


def with_key_tokens(trainer: Any, config: KTAEConfig = KTAEConfig()) -> Any:  # noqa: B008 (frozen)
    """A subclass of a SkyRL trainer that adds key-token values to the advantages. What it logs of them is without."""

    class KTAETrainer(trainer):
        def __init__(self, cfg: Any, *args: Any, **kwargs: Any) -> None:
            _check(cfg)
            super().__init__(cfg, *args, **kwargs)

        def compute_advantages_and_returns(self, data: Any) -> Any:
            data = super().compute_advantages_and_returns(data)
            add_key_token_values(data, config)
            return data

    return KTAETrainer


def add_key_token_values(data: Any, config: KTAEConfig) -> None:
    """Adds K(o_it) to `data["advantages"]` where the loss mask is 1.

    Args:
        data: a `TrainingInputBatch`: `sequences` (N, S) whose last T tokens are those of `loss_mask`, `rewards` and
            `advantages` (N, T), and the N `metadata["uids"]`. A rollout is correct when the sum of its rewards is
            greater than `config.correct_above`.
        config: the estimator's settings.
    """
    mask_BT = data["loss_mask"]
    values = lists.key_token_values(
        list(data["sequences"][:, -mask_BT.shape[1] :]),
        list(mask_BT),
        data["rewards"].sum(dim=-1),
        data.metadata["uids"],
        config=config,
    )
    advantages_BT = data["advantages"]
    data["advantages"] = advantages_BT + torch.tensor(values, dtype=advantages_BT.dtype, device=advantages_BT.device)


def _check(cfg: Any) -> None:
    algorithm = cfg.trainer.algorithm
    if algorithm.advantage_estimator not in _GROUP_ESTIMATORS:
        raise ValueError(
            f"trainer.algorithm.advantage_estimator must be one of {_GROUP_ESTIMATORS} for KTAE, "
            f"got {algorithm.advantage_estimator!r}"
        )
    if algorithm.policy_loss_type in _SEQUENCE_LEVEL:
        raise ValueError(
            "a sequence-level importance ratio gives all tokens of a rollout the same gradient weight: "
            f"trainer.algorithm.policy_loss_type must not be {algorithm.policy_loss_type!r} for KTAE"
        )
    if algorithm.use_kl_in_reward:
        raise ValueError(
            "trainer.algorithm.use_kl_in_reward mixes a KL penalty into the rewards that decide what is correct; "
            "it must be false for KTAE"
        )
    if cfg.generator.step_wise_trajectories:
        raise ValueError(
            "generator.step_wise_trajectories splits a rollout over rows, which KTAE's hook does not join; "
            "it must be false"
        )
