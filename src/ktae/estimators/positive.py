"""Positive: a control without token information, correct rollouts weigh more."""

from __future__ import annotations

from torch import Tensor

from ktae.estimators.interface import Rollouts


def positive(rollouts: Rollouts) -> Tensor:
    """+1 at every token of the correct rollouts of groups with both outcomes.

    Key tokens push correct rollouts up in sum, which sharpens the policy whatever the tokens. An estimator has found
    something only if it does better than this control, which knows no token. Ours; needs rewards.

        value = 1 where r_i > correct_above, 0 elsewhere

    Returns:
        (N, T) float32, 0 or 1; 0 in groups with one outcome.
    """
    return (rollouts.counted_BT & (rollouts.correct_B & rollouts.mixed_B)[:, None]).float()
