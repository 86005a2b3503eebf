"""Conflict tokens: what correct and incorrect rollouts say at the same place is not punished."""

from __future__ import annotations

from torch import Tensor

from ktae.estimators.counts import numbered, spread, sum_by
from ktae.estimators.interface import Rollouts


def conflict_tokens(rollouts: Rollouts) -> Tensor:
    """|A| at the conflict tokens: those of rollouts below their group's mean get 0 in all, those above it twice theirs.

    Rollouts of both signs push the tokens that they share up and down at once, and the format of an answer can be lost
    that way. Such tokens stand at the beginning and at the end: the *conflict tokens* are the longest run of tokens
    from the start, and the longest from the end, that some rollout of the other sign has at the same place.

        value = (lambda_it - 1) A_i,  lambda = 0 where A_i < 0, 2 where A_i > 0        GTPO, arXiv 2508.03772

    Needs token ids. Chosen: a token in both runs counts once (the authors' code squares its weight); places count
    tokens inside the mask, from the front for the first run and from the back for the second. Left out: the paper's
    entropy term, and its division by the number of conflict tokens.

    Returns:
        (N, T) float32 >= 0; 0 in groups whose advantages have one sign.
    """
    counted_BT, advantage_B = rollouts.counted_BT, rollouts.rollout_advantages
    place_BT = counted_BT.cumsum(dim=1) - 1
    from_end_BT = counted_BT.sum(dim=1, keepdim=True) - 1 - place_BT
    start_BT = _run(_shared(rollouts, place_BT), counted_BT)
    end_BT = _run(_shared(rollouts, from_end_BT).flip(1), counted_BT.flip(1)).flip(1)
    return (advantage_B.abs()[:, None] * (start_BT | end_BT)).float()


def _shared(rollouts: Rollouts, place_BT: Tensor) -> Tensor:
    """(N, T) bool, whether rollouts of both signs have the token at this place."""
    counted_BT = rollouts.counted_BT
    row_K = counted_BT.nonzero()[:, 0]
    advantage_K = rollouts.rollout_advantages[row_K]
    unit_K = numbered(rollouts.group_B[row_K], place_BT[counted_BT], rollouts.token_ids[counted_BT])
    shared_K = (sum_by(unit_K, advantage_K > 0) > 0) & (sum_by(unit_K, advantage_K < 0) > 0) & (advantage_K != 0)
    return spread(shared_K, counted_BT) != 0


def _run(shared_BT: Tensor, counted_BT: Tensor) -> Tensor:
    """(N, T) bool, the shared tokens before the first that is not."""
    return shared_BT & ((counted_BT & ~shared_BT).cumsum(dim=1) == 0)
