"""Other ways to credit tokens without an extra model, on the same footing: rollouts in, token advantages out.

Each takes the rollouts and their rollout advantages (N,) and returns token advantages (N, T) float32, 0 outside the
mask. What they are compared with on the benchmark is the difference to the rollout advantage.

Shape suffixes: _B one entry a rollout, _BT one a token.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ktae.advantages import key_token_values
from ktae.bench.labelled import Label, Rollouts
from ktae.config import KTAEConfig

Method = Callable[[Rollouts, Tensor], Tensor]


def uniform(rollouts: Rollouts, rollout_advantages: Tensor) -> Tensor:
    """Every token gets its rollout's advantage, as in GRPO and DAPO."""
    return (rollout_advantages[:, None] * rollouts.mask).float()


def key_tokens(config: KTAEConfig) -> Method:
    """The rollout advantage plus the key-token value."""

    def advantages(rollouts: Rollouts, rollout_advantages: Tensor) -> Tensor:
        return uniform(rollouts, rollout_advantages) + _key(rollouts, config)

    return advantages


def key_mean(config: KTAEConfig) -> Method:
    """A control without token information: the mean key-token value of the rollout, at each of its tokens."""

    def advantages(rollouts: Rollouts, rollout_advantages: Tensor) -> Tensor:
        key_BT = _key(rollouts, config)
        mean_B = key_BT.sum(1) / rollouts.mask.sum(1).clamp(min=1)
        return uniform(rollouts, rollout_advantages + mean_B)

    return advantages


def prefix_tree(rollouts: Rollouts, rollout_advantages: Tensor) -> Tensor:
    """TEMPO (arXiv 2509.18314): V(after the token) - V(before it) is added, in standard deviations of the rewards.

    V is the mean reward of the group's rollouts that begin with the same tokens, so the term is 0 where the prefix
    tree does not branch.
    """
    correct_B = rollouts.rewards.double()
    node_B = torch.unique(rollouts.group_ids, return_inverse=True)[1]
    value_B, deviation_B = _means(node_B, correct_B), _deviations(node_B, correct_B)
    steps = []
    for ids_B, mask_B in zip(rollouts.token_ids.T, rollouts.mask.T, strict=True):
        # A rollout that has ended is a branch of its own kind: it takes no part in what the others go on to do.
        token_B = torch.where(mask_B, ids_B, -1)
        node_B = torch.unique(torch.stack([node_B, token_B]), dim=1, return_inverse=True)[1]
        after_B = torch.where(mask_B, _means(node_B, correct_B), value_B)
        steps.append(after_B - value_B)
        value_B = after_B
    difference_BT = torch.stack(steps, dim=1) / (deviation_B[:, None] + 1e-6)
    return uniform(rollouts, rollout_advantages) + (difference_BT * rollouts.mask).float()


def entropy_weighted(rollouts: Rollouts, rollout_advantages: Tensor, *, share: float = 0.5) -> Tensor:
    """GTPO (arXiv 2508.04349): correct rollouts are rewarded more where the policy was unsure, incorrect ones less.

    With H the entropy, d the rollouts of the same outcome that have a t-th token and the sums over those,

        reward = (1 - share) + share d H / sum(H)              in correct rollouts,
        reward = -(1 - share) - share d (1/H) / sum(1/H)       in incorrect ones,

    standardised over the tokens of the group. Where a group has one outcome only, the rollout advantage is kept.
    """
    if rollouts.entropies is None:
        raise ValueError("entropy_weighted needs the rollouts' entropies, got None")
    advantage_BT = uniform(rollouts, rollout_advantages)
    for group in rollouts.group_ids.unique():
        in_group_B = rollouts.group_ids == group
        correct_B = in_group_B & (rollouts.rewards > 0)
        incorrect_B = in_group_B & ~correct_B
        if not correct_B.any() or not incorrect_B.any():
            continue
        reward_BT = torch.zeros(rollouts.mask.shape, dtype=torch.float64)
        entropy_BT = rollouts.entropies.double().clamp(min=1e-6)
        for rows_B, sign, weight_BT in ((correct_B, 1, entropy_BT), (incorrect_B, -1, 1 / entropy_BT)):
            mask_BT = rollouts.mask[rows_B]
            weight_BT = weight_BT[rows_B] * mask_BT
            bonus_BT = mask_BT.sum(0) * weight_BT / weight_BT.sum(0).clamp(min=1e-12)
            reward_BT[rows_B] = sign * ((1 - share) + share * bonus_BT)
        rewards = reward_BT[in_group_B][rollouts.mask[in_group_B]]
        if len(rewards) < 2:
            continue
        standard_BT = (reward_BT - rewards.mean()) / (rewards.std() + 1e-6)
        advantage_BT[in_group_B] = (standard_BT * rollouts.mask)[in_group_B].float()
    return advantage_BT


def high_entropy_only(rollouts: Rollouts, rollout_advantages: Tensor, *, share: float = 0.2) -> Tensor:
    """The 80/20 rule (arXiv 2506.01939): only the `share` of the batch's tokens with the highest entropy learn."""
    if rollouts.entropies is None:
        raise ValueError("high_entropy_only needs the rollouts' entropies, got None")
    entropies_K = rollouts.entropies[rollouts.mask].sort(descending=True).values
    if not len(entropies_K):
        return uniform(rollouts, rollout_advantages)
    threshold = entropies_K[max(round(share * len(entropies_K)), 1) - 1]
    return uniform(rollouts, rollout_advantages) * (rollouts.entropies >= threshold)


def oracle(rollouts: Rollouts, rollout_advantages: Tensor) -> Tensor:
    """An upper bound that reads the labels: +1 at right results and -1 at slips, in groups with both outcomes."""
    correct_B = (rollouts.rewards > 0).double()
    share_B = _means(torch.unique(rollouts.group_ids, return_inverse=True)[1], correct_B)
    mixed_B = (share_B > 0) & (share_B < 1)
    label_BT = rollouts.labels
    value_BT = (label_BT == Label.RIGHT).float() - (label_BT == Label.SLIP).float()
    return uniform(rollouts, rollout_advantages) + value_BT * mixed_B[:, None] * rollouts.mask


def _key(rollouts: Rollouts, config: KTAEConfig) -> Tensor:
    return key_token_values(rollouts.token_ids, rollouts.mask, rollouts.rewards, rollouts.group_ids, config=config)


def _means(index_B: Tensor, values_B: Tensor) -> Tensor:
    """Of each entry the mean over those with the same index."""
    size = int(index_B.max()) + 1
    sums = torch.zeros(size, dtype=values_B.dtype).index_add_(0, index_B, values_B)
    return (sums / torch.bincount(index_B, minlength=size).clamp(min=1))[index_B]


def _deviations(index_B: Tensor, values_B: Tensor) -> Tensor:
    squares_B = (values_B - _means(index_B, values_B)).square()
    size_B = torch.bincount(index_B)[index_B]
    return (_means(index_B, squares_B) * size_B / (size_B - 1).clamp(min=1)).sqrt()
