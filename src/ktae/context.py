"""Tokens in context: 64-bit hashes that tell apart what came before a token, and the token together with it.

Two different contexts of a batch get the same hash with a probability of about n^2 / 2^65, n being how many there are:
1e-7 for two million.

Shape suffixes: _BT one a token, _K one a token inside the mask.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Odd multipliers of well-mixed bits (splitmix64's), as signed 64-bit integers.
_START, _STEP, _MIX = -7046029254386353131, -4658895280553007687, -7723592293110705685


def preceding(token_ids_BT: Tensor, mask_BT: Tensor, length: int, tokens: int | None = None) -> Tensor:
    """Hashes of the (up to) `length` tokens inside the mask that come before each token of its rollout.

    Tokens outside the mask (padding, a tool's output) are skipped over.

    Args:
        token_ids_BT: (N, T) int32 or int64.
        mask_BT: (N, T) bool.
        length: at least 1.
        tokens: how many are inside the mask, where the caller knows; the device is then not waited for.

    Returns:
        (N, T) int64, 0 outside the mask.
    """
    if tokens is None:
        tokens = int(mask_BT.sum())
    # The k-th token inside the mask is where the number of such tokens reaches k; `nonzero` would wait for the device.
    reached_N = mask_BT.flatten().cumsum(0)
    place_K = torch.searchsorted(reached_N, torch.arange(1, tokens + 1, device=mask_BT.device))
    row_K = place_K // mask_BT.shape[1]
    token_K = token_ids_BT.flatten()[place_K].long()
    hash_K = torch.full_like(token_K, _START)
    for back in range(min(length, len(token_K) - 1), 0, -1):
        same_row_K = row_K[back:] == row_K[:-back]
        # A start further back than the rollout's first token leaves no trace, whatever the token before it was.
        longer_K = _mixed(hash_K[back:] * _STEP + token_K[:-back])
        hash_K[back:] = torch.where(same_row_K, longer_K, hash_K[back:])
    hash_BT = torch.zeros(mask_BT.shape, dtype=torch.int64, device=mask_BT.device)
    hash_BT.view(-1)[place_K] = hash_K
    return hash_BT


def followed_by(context_BT: Tensor, token_ids_BT: Tensor) -> Tensor:
    """(N, T) int64 hashes of a context together with the token after it."""
    return _mixed(context_BT * _STEP + token_ids_BT)


def _mixed(x: Tensor) -> Tensor:
    """A bijection of 64-bit integers that spreads every bit; int64 products wrap around."""
    x = (x ^ (x >> 31)) * _MIX
    return x ^ (x >> 29)
