"""Token-level credit in NeMo-RL, on top of the configured advantage estimator. Written for its `grpo_train`.

`install` goes into a script that then runs NeMo-RL's `examples/run_grpo.py`: docs/integrations.md.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ktae.integrations import lists
from ktae.integrations.credit import TokenCredit, rollout_means


def install(credit: TokenCredit) -> None:
    """Makes `grpo_train` of this process add the estimator's values to the advantages."""
    from nemo_rl.algorithms import grpo  # pyright: ignore[reportMissingImports]

    create = grpo._create_advantage_estimator
    grpo._create_advantage_estimator = lambda master_config: TokenAdvantages(create(master_config), credit)


class TokenAdvantages:
    """A NeMo-RL advantage estimator that adds values to the advantages of another one."""

    def __init__(self, estimator: Any, credit: TokenCredit) -> None:
        credit.check_given("NeMo-RL's hook")
        self.estimator, self.credit = estimator, credit

    def compute_advantage(
        self, prompt_ids: Tensor, rewards: Tensor, mask: Tensor, repeated_batch: Any = None, **kwargs: Any
    ) -> Tensor:
        """(N, T) the other estimator's advantages plus values, which are 0 where `mask` (N, T) is 0.

        Equal rows of `prompt_ids` (N, P) are a group, as in NeMo-RL's own baselines. All generated tokens count in the
        tables, also those of rollouts that the mask drops. Raises a ValueError if `repeated_batch` has no messages, as
        in NeMo-RL's loops that keep token ids with the workers.
        """
        advantages_BT = self.estimator.compute_advantage(
            prompt_ids=prompt_ids, rewards=rewards, mask=mask, repeated_batch=repeated_batch, **kwargs
        )
        if repeated_batch is None or "message_log" not in repeated_batch:
            raise ValueError(
                'token-level credit needs the token ids in repeated_batch["message_log"], which this training loop of '
                "NeMo-RL does not hand to its estimator; grpo_train does"
            )
        ids, masks = (
            [torch.cat([message[name] for message in log]) for log in repeated_batch["message_log"]]
            for name in ("token_ids", "token_loss_mask")
        )
        prompts, means = map(tuple, prompt_ids.tolist()), rollout_means(advantages_BT, mask)
        value_BT = torch.zeros(mask.shape)
        for row, values in enumerate(lists.values(ids, masks, rewards, list(prompts), means, credit=self.credit)):
            value_BT[row, : len(values)] = torch.tensor(values)
        return advantages_BT + value_BT.to(advantages_BT) * (mask != 0)
