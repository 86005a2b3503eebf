"""Entropy weighting: correct rollouts earn more where the policy was unsure, incorrect ones lose more where sure."""

from __future__ import annotations

import torch
from torch import Tensor

from ktae.estimators.counts import numbered, size_by, spread, standardised, sum_by
from ktae.estimators.interface import Rollouts


def entropy_weighting(rollouts: Rollouts, *, share: float = 0.5) -> Tensor:
    """GTPO's token advantage less the rollout advantage.

    An uncertain choice that ended well is taken for a decision and rewarded; a confident one that ended badly is
    punished. With H the entropy, and d the number of rollouts of the same group and outcome that have a t-th token,

        reward = (1 - share) + share d H / sum(H)              in correct rollouts,
        reward = -(1 - share) - share d (1/H) / sum(1/H)       in incorrect ones        GTPO, arXiv 2508.04349

    with sums over those rollouts' t-th tokens. Advantages are the rewards standardised over the tokens of the group.
    Needs entropies. Chosen: both outcomes are standardised together; entropies below 1e-6 nats count as 1e-6; t counts
    tokens inside the mask.

    Returns:
        (N, T) float32; 0 in groups with one outcome, which keep their rollout advantage.
    """
    entropy_BT = rollouts.require("entropies").double().clamp(min=1e-6)
    here_BT = rollouts.counted_BT & rollouts.mixed_B[:, None]
    row_K = here_BT.nonzero()[:, 0]
    group_K, correct_K = rollouts.group_B[row_K], rollouts.correct_B[row_K]
    weight_K = torch.where(correct_K, entropy_BT[here_BT], 1 / entropy_BT[here_BT])
    place_K = rollouts.counted_BT.cumsum(dim=1)[here_BT]
    cell_K = numbered(group_K, correct_K, place_K)
    bonus_K = size_by(cell_K) * weight_K / sum_by(cell_K, weight_K)
    reward_K = torch.where(correct_K, 1.0, -1.0) * ((1 - share) + share * bonus_K)
    return spread(standardised(reward_K, group_K) - rollouts.rollout_advantages[row_K], here_BT)
