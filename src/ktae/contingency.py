"""2x2 tables, one for each (group, unit): which rollouts hold the unit, and which of those are correct.

A *unit* is whatever is counted: a token id, or a hash of a token with the tokens before it (`context`). All that is
assumed of a unit is that it is an int64.

Shape suffixes: _B one entry a rollout, _BT one a token, _G one a group, _U one a (group, unit) pair,
_R one a (rollout, unit) pair, _K one a counted token.
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
    units_BT: Tensor, counted_BT: Tensor, correct_B: Tensor, scored_B: Tensor, group_B: Tensor, groups: int
) -> Contingency:
    """Counts rollouts and occurrences of every unit in every group.

    A unit that occurs ten times in one rollout counts once in a or b and ten times in count_T or count_F.

    Args:
        units_BT: (N, T) int64 units, any values.
        counted_BT: (N, T) bool, the tokens to count; all False in a rollout that is not scored.
        correct_B: (N,) bool.
        scored_B: (N,) bool; only scored rollouts enter n_T and n_F.
        group_B: (N,) int64 in [0, groups).
        groups: number of groups.
    """
    by_group = torch.argsort(group_B, stable=True)
    rank_B = torch.empty_like(by_group)
    rank_B[by_group] = torch.arange(len(by_group), device=by_group.device)

    # Rows ranked by group: sorted by (unit, rank), the tokens of one (rollout, unit) pair are neighbours, and
    # so are the pairs of one (group, unit).
    row_K, _ = counted_BT.nonzero(as_tuple=True)
    _, unit_K = torch.unique(units_BT[counted_BT], return_inverse=True)
    pair_R, pair_index_K, occurrences_R = torch.unique(
        unit_K * len(rank_B) + rank_B[row_K], return_inverse=True, return_counts=True
    )
    row_R = by_group[pair_R % len(rank_B)]
    _, unit_index_R = torch.unique_consecutive(pair_R // len(rank_B) * groups + group_B[row_R], return_inverse=True)
    units = int(unit_index_R[-1]) + 1 if len(unit_index_R) else 0
    group_U = torch.empty(units, dtype=torch.int64, device=group_B.device)
    group_U[unit_index_R] = group_B[row_R]

    def per_unit(values_R: Tensor) -> Tensor:
        return _sums(values_R, unit_index_R, units)

    def per_group(values_B: Tensor) -> Tensor:
        return _sums(values_B, group_B, groups)[group_U]

    correct_R = correct_B[row_R]
    lengths_B = counted_BT.sum(dim=1)
    unit_index_BT = torch.full_like(units_BT, -1)
    unit_index_BT[counted_BT] = unit_index_R[pair_index_K]
    return Contingency(
        a_U=per_unit(correct_R),
        b_U=per_unit(~correct_R),
        n_T_U=per_group(scored_B & correct_B),
        n_F_U=per_group(scored_B & ~correct_B),
        count_T_U=per_unit(occurrences_R * correct_R),
        count_F_U=per_unit(occurrences_R * ~correct_R),
        length_T_U=per_group(lengths_B * correct_B),
        length_F_U=per_group(lengths_B * ~correct_B),
        unit_index_BT=unit_index_BT,
    )


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
    counted_BT = table.unit_index_BT >= 0
    context_U = torch.empty_like(table.a_U)
    context_U[table.unit_index_BT[counted_BT]] = contexts.unit_index_BT[counted_BT]
    return replace(
        table,
        n_T_U=contexts.a_U[context_U],
        n_F_U=contexts.b_U[context_U],
        length_T_U=contexts.count_T_U[context_U],
        length_F_U=contexts.count_F_U[context_U],
    )


def _sums(values: Tensor, index: Tensor, size: int) -> Tensor:
    """int64 sums of `values` by `index`: exact, so the order of addition cannot matter."""
    return torch.zeros(size, dtype=torch.int64, device=index.device).index_add_(0, index, values.long())
