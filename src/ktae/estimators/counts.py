"""What estimators count: rollouts that hold a token, go on from a context with it, or begin with the same tokens.

Shape suffixes: _B one entry a rollout, _BT one a token, _K one a counted token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ktae.config import KTAEConfig
from ktae.contingency import contingency
from ktae.estimators.interface import Rollouts
from ktae.rollout import grpo
from ktae.units import START, joined, units


def token_counts(rollouts: Rollouts, context: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """a, b, n_T and n_F of each token's table, (N, T) float64, 0 where no token counts.

    Of the group's rollouts that reached the `context` tokens before it, n_T are correct and n_F incorrect; a and b of
    them went on with the token. With `context` 0 all rollouts of the group count.
    """
    scored_B = rollouts.scored_B
    counted_BT, ids_BT = rollouts.counted_BT[scored_B], rollouts.token_ids[scored_B].long()
    units_BT, within_BT = units(ids_BT, counted_BT, None, KTAEConfig(context=context))
    table = contingency(units_BT, counted_BT, rollouts.correct_B[scored_B], rollouts.group_B[scored_B], within_BT)

    def of_tokens(counts_U: Tensor) -> Tensor:
        count_BT = torch.zeros(rollouts.token_ids.shape, dtype=torch.float64, device=ids_BT.device)
        count_BT[scored_B] = torch.cat([counts_U, counts_U.new_zeros(1)])[table.unit_index_BT].double()
        return count_BT

    return of_tokens(table.a_U), of_tokens(table.b_U), of_tokens(table.n_T_U), of_tokens(table.n_F_U)


def prefix_index(rollouts: Rollouts) -> Tensor:
    """(K,) int64, of each counted token the number of its prefix: equal for tokens of a group that end the same prefix.

    Tokens outside the mask (padding, a tool's output) are skipped over. A rollout holds each prefix once. Prefixes are
    told apart by 64-bit hashes, as contexts are.
    """
    prefix_B, prefixes = joined(torch.full_like(rollouts.group_B, START), rollouts.group_B), []
    for ids_B, counted_B in zip(rollouts.token_ids.long().T, rollouts.counted_BT.T, strict=True):
        prefix_B = torch.where(counted_B, joined(prefix_B, ids_B), prefix_B)
        prefixes.append(prefix_B)
    return numbered(torch.stack(prefixes, dim=1)[rollouts.counted_BT])


def numbered(*parts_K: Tensor) -> Tensor:
    """(K,) int64 numbers from 0, equal where all parts, (K,) integers, are equal."""
    number_K = torch.zeros_like(parts_K[0], dtype=torch.int64)
    for part_K in parts_K:
        values, part_K = torch.unique(part_K, return_inverse=True)
        number_K = torch.unique(number_K * len(values) + part_K, return_inverse=True)[1]
    return number_K


def sum_by(index_K: Tensor, value_K: Tensor) -> Tensor:
    """(K,) float64, of each entry the sum over those with its index; the same whatever their order."""
    if not len(index_K):
        return value_K.double()
    order_K = torch.argsort(value_K, stable=True)
    order_K = order_K[torch.argsort(index_K[order_K], stable=True)]
    return torch.segment_reduce(value_K[order_K].double(), "sum", lengths=index_K.bincount())[index_K]


def size_by(index_K: Tensor) -> Tensor:
    """(K,) int64, of each entry how many have its index."""
    return index_K.bincount()[index_K]


def standardised(value_K: Tensor, index_K: Tensor) -> Tensor:
    """(K,) float64, (value - mean) / (std + 1e-6) among those with the same index.

    0 for NaN, which does not count, and for a value that is alone.
    """
    if not len(value_K):
        return value_K.double()
    alone_K = sum_by(index_K, ~value_K.isnan()) < 2
    return grpo(value_K, index_K).masked_fill(alone_K, 0.0)


def spread(value_K: Tensor, at_BT: Tensor) -> Tensor:
    """(N, T) float32: the values at the K tokens where `at_BT` is True, row by row, and 0 elsewhere."""
    value_BT = torch.zeros(at_BT.shape, device=at_BT.device)
    value_BT[at_BT] = value_K.float()
    return value_BT
