"""Surprise: a control that knows no other rollout's outcome, rare tokens weigh more."""

from __future__ import annotations

import torch
from torch import Tensor

from ktae.estimators.counts import token_counts
from ktae.estimators.interface import Rollouts


def surprise(rollouts: Rollouts, *, context: int = 2) -> Tensor:
    """How rare a token is among the rollouts in its place, for better or worse by the rollout's own outcome.

    A mistake is often a token that no other rollout chose, so whatever prefers rare tokens finds mistakes without
    knowing what leads to them. An estimator that finds no more mistakes than this control knows nothing of outcomes.

        value = -log((a + b) / (n_T + n_F)),  times -1 in incorrect rollouts

    with n_T + n_F the group's rollouts that reached the same `context` preceding tokens, and a + b those of them that
    went on with this one. Ours; needs token ids and rewards. Groups with one outcome have values too.

    Returns:
        (N, T) float32 in +-log(group size); 0 where all went on in the same way.
    """
    a, b, n_T, n_F = token_counts(rollouts, context)
    rarity_BT = torch.where(rollouts.counted_BT, ((n_T + n_F) / (a + b)).log(), 0.0)
    return (rarity_BT * torch.where(rollouts.correct_B, 1.0, -1.0)[:, None]).float()
