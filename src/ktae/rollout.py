"""Rollout advantages: one number for each rollout, read from the rewards of its group.

Shape suffixes: _B one entry a rollout, _G one entry a group.

Sums run over the sorted rewards of each group, so that no result depends on the order of the rows or on which
other groups share the batch, not even in the last bit.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ktae import checks


def grpo(rewards: Tensor, group_ids: Tensor, *, eps: float = 1e-6) -> Tensor:
    """GRPO's advantage A_i = (r_i - mean(r)) / (std(r) + eps), over the group (arXiv 2402.03300).

    The standard deviation divides by G - 1. A group with a single scored rollout has mean 0 and standard
    deviation 1 by convention: its advantage is its reward.

    Args:
        rewards: (N,) rewards; NaN marks an unscored rollout.
        group_ids: (N,) integers, equal for the rollouts of one prompt.
        eps: added to the standard deviation; 1e-6 in the authors' code.

    Returns:
        (N,) float64 on the rewards' device, float32 where it has no float64; 0 for unscored rollouts.

    Raises:
        ValueError, TypeError: an argument is out of contract; the message names it.

    >>> grpo(torch.tensor([1.0, 0.0, 5.0, 5.0]), torch.tensor([7, 7, 8, 8]))
    tensor([ 0.7071, -0.7071,  0.0000,  0.0000], dtype=torch.float64)
    """
    deviations_B, sizes_B, sum_by_group = _deviations(rewards, group_ids)
    variance_B = sum_by_group(deviations_B.square()) / (sizes_B - 1).clamp(min=1)
    return _like(rewards, torch.where(sizes_B > 1, deviations_B / (variance_B.sqrt() + eps), deviations_B))


def dr_grpo(rewards: Tensor, group_ids: Tensor) -> Tensor:
    """Dr. GRPO's advantage A_i = r_i - mean(r): GRPO's without the division (arXiv 2503.20783).

    Arguments, result and errors are those of `grpo`.

    >>> dr_grpo(torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.tensor([0, 0, 0, 0]))
    tensor([ 0.7500, -0.2500, -0.2500, -0.2500], dtype=torch.float64)
    """
    deviations_B, _, _ = _deviations(rewards, group_ids)
    return _like(rewards, deviations_B)


def rloo(rewards: Tensor, group_ids: Tensor) -> Tensor:
    """RLOO's advantage A_i = r_i - mean of the group's other rewards (arXiv 2402.14740).

    Computed as (r_i - mean(r)) G / (G - 1), which is the same number. Arguments, result and errors are those of
    `grpo`.

    >>> rloo(torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0, 0, 0]))
    tensor([ 1.0000, -0.5000, -0.5000], dtype=torch.float64)
    """
    deviations_B, sizes_B, _ = _deviations(rewards, group_ids)
    return _like(rewards, deviations_B * torch.where(sizes_B > 1, sizes_B.double() / (sizes_B - 1).clamp(min=1), 1.0))


def _like(rewards: Tensor, advantages_B: Tensor) -> Tensor:
    return advantages_B.to(checks.widest_float(rewards.device)).to(rewards.device)


def _deviations(rewards: Tensor, group_ids: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
    """r_i minus its group's mean (0 where unscored), the scored rollouts in its group, and a sum over groups.

    A group with a single scored rollout has mean 0.
    """
    rewards_B = checks.rewards(rewards)
    group_B = checks.group_indices(group_ids, rewards)
    groups = int(group_B.max()) + 1
    scored_B = ~rewards_B.isnan()
    size_G = torch.bincount(group_B[scored_B], minlength=groups)

    def sum_by_group(values_B: Tensor) -> Tensor:
        order = torch.argsort(values_B, stable=True)
        order = order[scored_B[order]]
        order = order[torch.argsort(group_B[order], stable=True)]
        return torch.segment_reduce(values_B[order], "sum", lengths=size_G)[group_B]

    sizes_B = size_G[group_B]
    mean_B = torch.where(sizes_B > 1, sum_by_group(rewards_B) / sizes_B, 0.0)
    deviations_B = torch.where(scored_B, rewards_B - mean_B, 0.0)
    return deviations_B, sizes_B, sum_by_group
