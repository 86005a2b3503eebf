"""The estimators that the credit-assignment benchmark compares: rollouts in, one value a token out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ktae.advantages import key_token_values
from ktae.bench.rollouts import Rollouts
from ktae.config import KTAEConfig
from ktae.seeds import derived_seed

# Values are (N, T) float32; the lower a token's value, the more it is blamed.
Estimator = Callable[[Rollouts], Tensor]


def key_tokens(config: KTAEConfig) -> Estimator:
    """The key-token values of these settings."""
    return lambda r: key_token_values(r.token_ids, r.mask, r.rewards, r.group_ids, config=config)


def random(rollouts: Rollouts) -> Tensor:
    """Uniform in [-1, 1), whatever the rollouts.

    A row's draws depend on its group and its tokens only, so that the order of the rows plays no part.
    """
    values_BT = torch.zeros(rollouts.token_ids.shape)
    for row, (ids_T, mask_T, group) in enumerate(
        zip(rollouts.token_ids, rollouts.mask, rollouts.group_ids.tolist(), strict=True)
    ):
        seed = derived_seed(group, *ids_T[mask_T].tolist())
        values_BT[row] = torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, len(ids_T))).float()
    return values_BT


def position(rollouts: Rollouts) -> Tensor:
    """How far into its rollout a token is, from 0 to 1: blames the early ones, whatever they are."""
    index_BT = rollouts.mask.cumsum(dim=1) - 1
    return index_BT / (rollouts.mask.sum(dim=1, keepdim=True) - 1).clamp(min=1)


REFERENCE = "ktae"  # the paper's formula: the others are compared with it
ESTIMATORS: dict[str, Estimator] = {
    REFERENCE: key_tokens(KTAEConfig()),
    "ktae_no_tf": key_tokens(KTAEConfig(term_frequency_weight=0.0)),
    "position": position,
    "random": random,
}
