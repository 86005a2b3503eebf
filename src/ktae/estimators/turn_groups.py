"""Turn groups: what rollouts did in the same state is compared, as whole rollouts are in GRPO (GiGPO)."""

from __future__ import annotations

import torch
from torch import Tensor

from ktae.estimators.counts import numbered, spread, standardised
from ktae.estimators.interface import Rollouts


def turn_groups(rollouts: Rollouts, *, discount: float = 0.95) -> Tensor:
    """The advantage of a turn among all turns of the group's rollouts that were taken in the same state.

    Rollouts of an agent come to the same state now and then, and the turns taken there are a group of their own. Each
    turn's return is the rollout's reward, discounted by the turns still to come.

        value = (R_k - mean(R)) / (std(R) + 1e-6),  R_k = discount^(turns after k) r_i        GiGPO, arXiv 2505.10978

    Needs states. A turn is a run of adjacent tokens inside the mask that share a state, so a gap in the mask (the
    environment's answer) or another state ends it. Chosen: weight 1 (the paper's omega); the reward is that of the
    whole rollout, as no other is given; states are compared as they are, among the rollouts of one prompt.

    Args:
        rollouts: states and rewards are read.
        discount: the paper's gamma, in (0, 1].

    Returns:
        (N, T) float32, one value a turn; 0 for a turn that nobody else took a turn beside.
    """
    states_BT, counted_BT = rollouts.require("states"), rollouts.counted_BT
    begins_BT = counted_BT.clone()
    begins_BT[:, 1:] &= ~counted_BT[:, :-1] | (states_BT[:, 1:] != states_BT[:, :-1])
    row_V = begins_BT.nonzero()[:, 0]  # _V one a turn
    turn_BT = begins_BT.cumsum(dim=1)
    turns_left_V = (turn_BT[:, -1:] - turn_BT)[begins_BT]
    # Looked up, as a vector's powers can differ in the last bit from one place to another.
    powers = torch.tensor([discount**k for k in range(counted_BT.shape[1])], dtype=torch.float64, device=row_V.device)
    return_V = rollouts.rewards.double()[row_V] * powers[turns_left_V]
    value_V = standardised(return_V, numbered(rollouts.group_B[row_V], states_BT[begins_BT]))
    turn_K = begins_BT[counted_BT].cumsum(dim=0) - 1
    return spread(value_V[turn_K], counted_BT)
