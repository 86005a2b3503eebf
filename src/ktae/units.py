"""What is counted: a token, or a token with what came before it; and what it is compared within.

A unit is an integer. So is what it is compared within: a context (the tokens before it), a state of the caller's, or
both. All that the tables assume is that equal things have equal numbers. What is made of several numbers gets a 64-bit
hash; two different ones of a batch share one with a probability of about n^2 / 2^65, n being how many there are: 1e-7
for two million.

To count something else, write a function here that returns (N, T) int64 and call it in `units` (CONTRIBUTING.md).

Shape suffixes: _BT one a token, _K one a token inside the mask.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ktae.config import KTAEConfig

START = -7046029254386353131  # any odd number of well-mixed bits, as a signed 64-bit integer
_MULTIPLIER = -4658895280553007687
_LOWER = 0xFFFFFFFF


def units(
    token_ids_BT: Tensor, mask_BT: Tensor, states_BT: Tensor | None, config: KTAEConfig
) -> tuple[Tensor, Tensor | None]:
    """What each token counts as, and what it is compared within. `ktae.kernels.loops` does the same on the way.

    Args:
        token_ids_BT: (N, T) int32 or int64.
        mask_BT: (N, T) bool, the tokens that count.
        states_BT: (N, T) int64, the state in which each token was chosen; None if there are none.
        config: its `context` and `ngram` say how many tokens before a token matter.

    Returns:
        (N, T) units, int32 or int64, and (N, T) int64 of what each is compared within; None for the whole group.
        What stands outside the mask has no meaning.
    """
    if config.context == 0 and config.ngram == 1 and states_BT is None:
        return token_ids_BT, None
    place_K = mask_BT.flatten().nonzero().squeeze(1)
    row_K, token_K = place_K // mask_BT.shape[1], token_ids_BT.flatten()[place_K].long()
    hash_K = torch.full_like(token_K, START)
    if states_BT is not None:
        hash_K = joined(hash_K, states_BT.flatten()[place_K].long())
    within_K = hash_K
    for back in range(1, max(config.context, config.ngram - 1) + 1):
        # Nothing is added further back than the rollout's first token.
        reaches_K = row_K[back:] == row_K[:-back]
        longer_K = torch.where(reaches_K, joined(hash_K[back:], token_K[:-back]), hash_K[back:])
        hash_K = torch.cat([hash_K[:back], longer_K])
        if back == config.context:
            within_K = hash_K

    def at_place(value_K: Tensor) -> Tensor:
        value_BT = torch.zeros_like(mask_BT, dtype=torch.int64)
        value_BT.view(-1)[place_K] = value_K
        return value_BT

    in_group = states_BT is None and config.context == 0
    return at_place(joined(hash_K, token_K)), None if in_group else at_place(within_K)


def joined(hashed: Any, number: Any) -> Any:
    """A hash, or `START`, joined with one more 64-bit integer; tensors or Numba's numbers, whose products wrap around.

    A bijection in each of the two, so that nothing but chance makes two hashes alike. Shifted bits are masked because
    int64's own shift copies the sign.
    """
    product = (hashed + number) * _MULTIPLIER
    return product ^ ((product >> 32) & _LOWER)
