"""KTAE in NeMo-RL: key-token values on top of the configured advantage estimator. Written for its `grpo_train`.

A script of your own, started with the arguments of NeMo-RL's `examples/run_grpo.py`:

    import runpy
    from ktae import KTAEConfig
    from ktae.integrations import nemo_rl

    nemo_rl.install(KTAEConfig())
    runpy.run_path("examples/run_grpo.py", run_name="__main__")
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ktae.config import KTAEConfig
from ktae.integrations import lists


def install(config: KTAEConfig = KTAEConfig()) -> None:  # noqa: B008 (frozen)
    """Makes `grpo_train` of this process add key-token values to the advantages of its estimator."""
    from nemo_rl.algorithms import grpo  # pyright: ignore[reportMissingImports]

    create = grpo._create_advantage_estimator
    grpo._create_advantage_estimator = lambda master_config: KeyTokenEstimator(create(master_config), config)


class KeyTokenEstimator:
    """A NeMo-RL advantage estimator that adds K(o_it) to the advantages of another one."""

    def __init__(self, estimator: Any, config: KTAEConfig = KTAEConfig()) -> None:  # noqa: B008 (frozen)
        self.estimator = estimator
        self.config = config

    def compute_advantage(
        self, prompt_ids: Tensor, rewards: Tensor, mask: Tensor, repeated_batch: Any = None, **kwargs: Any
    ) -> Tensor:
        """(N, T) the other estimator's advantages plus key-token values, which are 0 where `mask` is 0.

        Args:
            prompt_ids: (N, P) the prompts' token ids. Equal rows are one group, as in NeMo-RL's own baselines.
            rewards: (N,) a rollout is correct when its reward is greater than `config.correct_above`.
            mask: (N, T) 1 for the response tokens that are trained on.
            repeated_batch: `repeated_batch["message_log"]` has each rollout's messages with `token_ids` and
                `token_loss_mask`, which joined are the first of the T positions. All generated tokens count in the
                tables, also those of rollouts that the mask drops as a whole.
            **kwargs: for the other estimator.

        Raises:
            ValueError: `repeated_batch` has no messages, as in NeMo-RL's loops that keep token ids with the workers.
        """
        advantages_BT = self.estimator.compute_advantage(
            prompt_ids=prompt_ids, rewards=rewards, mask=mask, repeated_batch=repeated_batch, **kwargs
        )
        if repeated_batch is None or "message_log" not in repeated_batch:
            raise ValueError(
                'KTAE needs the token ids in repeated_batch["message_log"], which this training loop of NeMo-RL does '
                "not hand to its estimator; grpo_train does"
            )
        logs = repeated_batch["message_log"]
        values = lists.key_token_values(
            [torch.cat([message["token_ids"] for message in log]) for log in logs],
            [torch.cat([message["token_loss_mask"] for message in log]) for log in logs],
            rewards,
            [tuple(prompt) for prompt in prompt_ids.tolist()],
            config=self.config,
        )
        value_BT = torch.zeros(mask.shape)
        for row, value in enumerate(values):
            value_BT[row, : len(value)] = torch.tensor(value)
        return advantages_BT + value_BT.to(advantages_BT) * (mask != 0)
