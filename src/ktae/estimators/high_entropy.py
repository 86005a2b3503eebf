"""High entropy: only the tokens learn where the policy was least sure."""

from __future__ import annotations

import torch
from torch import Tensor

from ktae.estimators.interface import Rollouts


def high_entropy(rollouts: Rollouts, *, share: float = 0.2) -> Tensor:
    """Minus the rollout advantage at all tokens but the `share` of the batch with the highest entropy.

    Most tokens follow from those before them; the few where the policy hesitates decide where a solution goes. So
    only these keep their advantage, and the others get 0 in all.

        value = -A_i where H_it < the entropy that a `share` of the tokens reach        arXiv 2506.01939

    Needs entropies. Chosen: the threshold is that of the batch handed over, which is the part that one process sees
    where a trainer splits it; tokens that tie with it are kept; at least one token is.

    Returns:
        (N, T) float32, 0 at tokens that are kept.
    """
    entropy_BT, counted_BT = rollouts.require("entropies"), rollouts.counted_BT
    entropy_K = entropy_BT[counted_BT].sort(descending=True).values
    if not len(entropy_K):
        return torch.zeros(counted_BT.shape, device=counted_BT.device)
    threshold = entropy_K[max(round(share * len(entropy_K)), 1) - 1]
    return -(rollouts.rollout_advantages[:, None] * (counted_BT & (entropy_BT < threshold))).float()
