"""Prefix tree: a token is worth what it adds to the mean reward of the rollouts that share its prefix (TEMPO)."""

from __future__ import annotations

import torch
from torch import Tensor

from ktae.estimators.counts import prefix_index, size_by, spread, standardised, sum_by
from ktae.estimators.interface import Rollouts


def prefix_tree(rollouts: Rollouts) -> Tensor:
    """V(prefix with the token) - V(prefix before it), in standard deviations of the group's rewards.

    V of a prefix is the mean reward of the group's rollouts that begin with it, so the rollouts of a group are a tree,
    and credit falls where it branches. Where all that share a prefix go on with the same token, the value is 0.

        value = (V(s_t+1) - V(s_t)) / (std(r) + 1e-6)        TEMPO, arXiv 2509.18314

    Needs token ids and rewards. Chosen: the difference is divided by GRPO's standard deviation (G - 1), so that it has
    the unit of the rollout advantage it is added to; V before the first token is the group's mean. A rollout that ends
    where others go on counts in V of its whole prefix and in none after it.

    Returns:
        (N, T) float32; 0 where rewards of a group are equal. After the first branch that a rollout takes alone, 0.
    """
    counted_BT = rollouts.counted_BT
    reward_B = standardised(rollouts.rewards, rollouts.group_B)  # its means are V in standard deviations
    root_B = sum_by(rollouts.group_B, reward_B) / sum_by(rollouts.group_B, rollouts.scored_B).clamp(min=1)
    prefix_K, row_K = prefix_index(rollouts), counted_BT.nonzero()[:, 0]
    after_K = sum_by(prefix_K, reward_B[row_K]) / size_by(prefix_K)
    before_K = after_K.roll(1)
    first_K = row_K != row_K.roll(1)
    first_K[:1] = True
    return spread(after_K - torch.where(first_K, root_B[row_K], before_K), counted_BT)
