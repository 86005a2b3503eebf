"""Back-off: success rates in contexts of growing length, each shrunk towards that of the shorter context."""

from __future__ import annotations

import torch
from torch import Tensor

from ktae.estimators.counts import sum_by, token_counts
from ktae.estimators.interface import Rollouts


def back_off(rollouts: Rollouts, *, orders: int = 3, pseudo: float = 2.0, support: int = 2) -> Tensor:
    """Q - V: how much likelier a rollout succeeds that goes on with the token than one that is in its context.

    Long contexts say where a token stands and are rare; short ones are frequent and vague. So both rates begin at the
    group's success rate and are updated by contexts of 0, 1, ... tokens, the shorter one's estimate counting as
    `pseudo` rollouts (as n-gram models back off). Ours; no paper.

        Q <- (a + pseudo Q) / (a + b + pseudo),    V <- (n_T + pseudo V) / (n_T + n_F + pseudo)

    Args:
        rollouts: token ids and rewards are read.
        orders: the longest context, in tokens.
        pseudo: how many rollouts the estimate of the shorter context counts as, above 0.
        support: contexts that fewer rollouts reach change nothing.

    Returns:
        (N, T) float32 in (-1, 1); 0 in groups with one outcome. A rollout's own outcome is counted: a token that one
        rollout alone chose takes the sign of that rollout's outcome.
    """
    correct_B, scored_B = rollouts.correct_B.double(), rollouts.scored_B.double()
    rate_B = sum_by(rollouts.group_B, correct_B) / sum_by(rollouts.group_B, scored_B).clamp(min=1)
    q_BT = v_BT = rate_B[:, None].expand(rollouts.counted_BT.shape)
    for context in range(orders + 1):
        a, b, n_T, n_F = token_counts(rollouts, context)
        reached_BT = n_T + n_F >= support
        q_BT = torch.where(reached_BT, (a + pseudo * q_BT) / (a + b + pseudo), q_BT)
        v_BT = torch.where(reached_BT, (n_T + pseudo * v_BT) / (n_T + n_F + pseudo), v_BT)
    return ((q_BT - v_BT) * (rollouts.counted_BT & rollouts.mixed_B[:, None])).float()
