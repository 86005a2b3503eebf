"""2x2 tables, one for each (group, unit): which rollouts hold the unit, and which of those are correct.

Shape suffixes: _B one entry a rollout, _BT one a token, _U one a (group, unit) pair, _X one a group or context in which
units are compared, _K one a token inside the mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Contingency:
    """The tables and the term counts of U (group, unit) pairs, integers.

    |            | correct   | incorrect |
    |------------|-----------|-----------|
    | holds it   | a         | b         |
    | lacks it   | n_T - a   | n_F - b   |

    Attributes:
        a_U, b_U: correct and incorrect rollouts that hold the unit.
        count_T_U, count_F_U: the unit's occurrences in correct and incorrect rollouts.
        within_U: int64, which of the X groups or contexts the unit is compared in.
        n_T_X, n_F_X: its correct and incorrect rollouts: all of a group, or those that reached a context.
        length_T_X, length_F_X: its tokens in correct and incorrect rollouts.
        unit_index_BT: (N, T) int64, which of the U pairs each token belongs to; -1 outside the mask.
    """

    a_U: Tensor
    b_U: Tensor
    count_T_U: Tensor
    count_F_U: Tensor
    within_U: Tensor
    n_T_X: Tensor
    n_F_X: Tensor
    length_T_X: Tensor
    length_F_X: Tensor
    unit_index_BT: Tensor

    @property
    def n_T_U(self) -> Tensor:
        """All correct rollouts that the unit is compared among."""
        return self.n_T_X[self.within_U]

    @property
    def n_F_U(self) -> Tensor:
        """All incorrect rollouts that the unit is compared among."""
        return self.n_F_X[self.within_U]


def contingency(
    units_BT: Tensor, mask_BT: Tensor, correct_B: Tensor, group_B: Tensor, within_BT: Tensor | None = None
) -> Contingency:
    """Counts rollouts and occurrences of every unit in every group.

    A unit that occurs ten times in one rollout counts once in a or b and ten times in count_T or count_F.

    Args:
        units_BT: (N, T) int32 or int64 units.
        mask_BT: (N, T) bool, the tokens that count.
        correct_B: (N,) bool.
        group_B: (N,) int64 numbers of groups, from 0.
        within_BT: (N, T) int64, the context in which a unit is compared, the same wherever the unit occurs in a group;
            None compares in the whole group.
    """
    # Tokens in the order of their groups and rollouts, sorted by unit; the sort is stable.
    row_K, column_K = mask_BT.nonzero(as_tuple=True)
    by_group_K = torch.argsort(group_B[row_K], stable=True)
    by_unit_K = by_group_K[torch.argsort(units_BT[row_K, column_K][by_group_K], stable=True)]
    row_K, column_K = row_K[by_unit_K], column_K[by_unit_K]
    group_K, correct_K = group_B[row_K], correct_B[row_K]
    starts_unit_K = _differs(units_BT[row_K, column_K]) | _differs(group_K)
    starts_rollout_K = starts_unit_K | _differs(row_K)
    unit_index_K = starts_unit_K.cumsum(0) - 1
    unit_index_BT = torch.full(mask_BT.shape, -1, dtype=torch.int64, device=mask_BT.device)
    unit_index_BT[row_K, column_K] = unit_index_K

    within_U = group_K[starts_unit_K]
    held = _by_side(unit_index_K[starts_rollout_K], correct_K[starts_rollout_K], len(within_U))
    counts = _by_side(unit_index_K, correct_K, len(within_U))
    if within_BT is None:
        groups = len(torch.bincount(group_B))
        among = *_by_side(group_B, correct_B, groups), *_by_side(group_K, correct_K, groups)
    else:
        contexts = contingency(within_BT, mask_BT, correct_B, group_B)
        among = contexts.a_U, contexts.b_U, contexts.count_T_U, contexts.count_F_U
        within_U = contexts.unit_index_BT[row_K, column_K][starts_unit_K]
    return Contingency(*held, *counts, within_U, *among, unit_index_BT)


def _by_side(index_K: Tensor, correct_K: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """How often each index stands among the correct and among the incorrect, two of (size,) int64."""
    count_F, count_T = torch.bincount(index_K * 2 + correct_K, minlength=2 * size).view(size, 2).unbind(1)
    return count_T, count_F


def _differs(values_K: Tensor) -> Tensor:
    """(K,) bool, whether each value differs from the one before it; the first does."""
    differs_K = torch.ones_like(values_K, dtype=torch.bool)
    differs_K[1:] = values_K[1:] != values_K[:-1]
    return differs_K
