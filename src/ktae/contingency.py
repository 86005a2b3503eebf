"""2x2 tables, one for each (group, unit): which rollouts hold the unit, and which of those are correct.

A *unit* is whatever is counted: a token id, or a hash of a token with the tokens before it (`context`). All that is
assumed of a unit is that it is an int32 or int64, and not the least one, which marks tokens that do not count (a hash
is the least int64 with a probability of 2^-64).

Shape suffixes: _B one entry a rollout, _BT one a token, _G one a group, _U one a (group, unit) pair,
_K one a counted token.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Contingency:
    """The tables and the term counts of U (group, unit) pairs, all int64.

    |            | correct   | incorrect |
    |------------|-----------|-----------|
    | holds it   | a         | b         |
    | lacks it   | n_T - a   | n_F - b   |

    Attributes:
        a_U, b_U: correct and incorrect rollouts of the group that hold the unit.
        n_T_U, n_F_U: all correct and all incorrect rollouts of the group.
        count_T_U, count_F_U: the unit's occurrences in the group's correct and incorrect rollouts.
        length_T_U, length_F_U: counted tokens of the group's correct and incorrect rollouts.
        unit_index_BT: (N, T) which of the U pairs each token belongs to; -1 where the token is not counted.
    """

    a_U: Tensor
    b_U: Tensor
    n_T_U: Tensor
    n_F_U: Tensor
    count_T_U: Tensor
    count_F_U: Tensor
    length_T_U: Tensor
    length_F_U: Tensor
    unit_index_BT: Tensor


def contingency(
    units_BT: Tensor,
    counted_BT: Tensor,
    correct_B: Tensor,
    scored_B: Tensor,
    group_B: Tensor,
    groups: int,
    *,
    tokens: int | None = None,
) -> Contingency:
    """Counts rollouts and occurrences of every unit in every group.

    A unit that occurs ten times in one rollout counts once in a or b and ten times in count_T or count_F.

    Args:
        units_BT: (N, T) int32 or int64 units.
        counted_BT: (N, T) bool, the tokens to count; all False in a rollout that is not scored.
        correct_B: (N,) bool.
        scored_B: (N,) bool; only scored rollouts enter n_T and n_F.
        group_B: (N,) int64 in [0, groups).
        groups: number of groups.
        tokens: how many tokens are counted, where the caller knows. The device is then never waited for; the number of
            units not being known, the tables have `tokens` entries, and those after the U-th are of no meaning.
    """
    entries = tokens
    if tokens is None:
        tokens = int(counted_BT.sum())
    place_K, row_K, starts_unit_K, starts_rollout_K = _by_unit(units_BT, counted_BT, group_B, tokens)
    correct_K, group_K = correct_B[row_K], group_B[row_K]
    unit_index_K = starts_unit_K.cumsum(0) - 1
    if entries is None:
        entries = int(unit_index_K[-1]) + 1 if tokens else 0
    unit_index_BT = torch.full(counted_BT.shape, -1, dtype=torch.int64, device=group_B.device)
    unit_index_BT.view(-1)[place_K] = unit_index_K
    group_U = group_B.new_zeros(entries).scatter_(0, unit_index_K, group_K)
    lengths_B = counted_BT.sum(dim=1)
    del place_K, row_K, group_K, starts_unit_K  # before there are tables: they are what takes most memory

    def per_unit(values_K: Tensor) -> Tensor:
        return _sums(values_K, unit_index_K, entries)

    def per_group(values_B: Tensor) -> Tensor:
        return _sums(values_B, group_B, groups)[group_U]

    return Contingency(
        a_U=per_unit(starts_rollout_K & correct_K),
        b_U=per_unit(starts_rollout_K & ~correct_K),
        n_T_U=per_group(scored_B & correct_B),
        n_F_U=per_group(scored_B & ~correct_B),
        count_T_U=per_unit(correct_K),
        count_F_U=per_unit(~correct_K),
        length_T_U=per_group(lengths_B * correct_B),
        length_F_U=per_group(lengths_B * ~correct_B),
        unit_index_BT=unit_index_BT,
    )


def _by_unit(
    units_BT: Tensor, counted_BT: Tensor, group_B: Tensor, tokens: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The counted tokens, those of one (group, unit) pair next to each other, and among them those of one rollout.

    Returns:
        Of each token its place in the flattened batch and its row, (K,) int64; whether it is the first of its pair, and
        the first of its pair in its rollout, (K,) bool.
    """
    columns = units_BT.shape[1]
    # A stable sort by unit of rows that are ranked by group. Tokens that do not count come before all others.
    by_group = torch.argsort(group_B, stable=True)
    ranked_BT = units_BT[by_group].masked_fill_(~counted_BT[by_group], torch.iinfo(units_BT.dtype).min)
    unit_K, place_K = (part[part.numel() - tokens :] for part in torch.sort(ranked_BT.flatten(), stable=True))
    rank_K = place_K // columns
    row_K = by_group[rank_K]
    starts_unit_K = _differs(unit_K) | _differs(group_B[row_K])
    starts_rollout_K = starts_unit_K | _differs(rank_K)
    return place_K + (row_K - rank_K) * columns, row_K, starts_unit_K, starts_rollout_K


def within(table: Contingency, contexts: Contingency) -> Contingency:
    """The tables of units among the rollouts that reached the unit's context, instead of among all of the group.

    |                                 | correct | incorrect |
    |---------------------------------|---------|-----------|
    | went on with the unit's token   | a       | b         |
    | reached the context and did not | n_T - a | n_F - b   |

    The context's occurrences take the place of the group's tokens: count_T / length_T becomes the share of the
    context's occurrences that went on with the token.

    Args:
        table: of units that are a context and the token after it.
        contexts: of the contexts alone, at the same tokens.
    """
    context_U = _contexts_of(table, contexts)
    return replace(
        table,
        n_T_U=contexts.a_U[context_U],
        n_F_U=contexts.b_U[context_U],
        length_T_U=contexts.count_T_U[context_U],
        length_F_U=contexts.count_F_U[context_U],
    )


def _contexts_of(table: Contingency, contexts: Contingency) -> Tensor:
    """(U,) int64, the context that each unit begins with; 0 for entries that are no unit."""
    unit_index_N = table.unit_index_BT.flatten()
    spare = len(table.a_U)  # takes the tokens that do not count
    context_U = table.a_U.new_zeros(spare + 1)
    context_U.scatter_(0, unit_index_N.where(unit_index_N >= 0, spare), contexts.unit_index_BT.flatten())
    return context_U[:-1]


def _differs(values_K: Tensor) -> Tensor:
    """(K,) bool, whether each value differs from the one before it; the first does."""
    differs_K = torch.ones_like(values_K, dtype=torch.bool)
    differs_K[1:] = values_K[1:] != values_K[:-1]
    return differs_K


def _sums(values: Tensor, index: Tensor, size: int) -> Tensor:
    """int64 sums of `values` by `index`: exact, so the order of addition cannot matter."""
    return torch.zeros(size, dtype=torch.int64, device=index.device).index_add_(0, index, values.long())
