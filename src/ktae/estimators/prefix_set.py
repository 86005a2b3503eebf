"""Prefix sets: a token counts once for all rollouts of the group that share its prefix (lambda-GRPO)."""

from __future__ import annotations

from torch import Tensor

from ktae.estimators.counts import prefix_index, size_by, spread
from ktae.estimators.interface import Rollouts


def prefix_set(rollouts: Rollouts) -> Tensor:
    """The rollout advantage divided by the number of rollouts that begin with the same tokens, less itself.

    GRPO is a process reward model in disguise: the rollouts that share a prefix (its *process set*) all push its
    tokens, and together they push them by the set's mean advantage times its size. Dividing by the size takes that
    factor out, so that what many rollouts said weighs no more than what one did.

        value = A_i / |lambda(i, t)| - A_i        lambda-GRPO, arXiv 2509.21154

    with lambda(i, t) the group's rollouts whose tokens up to and including the t-th are rollout i's. Needs token ids.
    Chosen: nothing else of the objective changes; the paper takes the mean over all tokens of the batch (DAPO's loss).

    Returns:
        (N, T) float32 between -A and 0; 0 from the first token on that a rollout chose alone.
    """
    share_K = 1 / size_by(prefix_index(rollouts)).double()
    advantage_K = rollouts.rollout_advantages[rollouts.counted_BT.nonzero()[:, 0]]
    return spread(advantage_K * (share_K - 1), rollouts.counted_BT)
