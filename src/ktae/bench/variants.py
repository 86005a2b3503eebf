"""Estimators that were tried and did not make it into the core, kept so that anyone can try them again.

They share the core's tables, one for each token in its context, and differ in what they read from a table with a
correct and b incorrect rollouts that hold the unit, among n_T and n_F.

Shape suffixes: _B one entry a rollout, _BT one a token, _U one a (group, unit) pair.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ktae.bench.labelled import Rollouts
from ktae.config import KTAEConfig
from ktae.contingency import contingency
from ktae.scores import fisher_p_values
from ktae.units import units

Statistic = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def shrunk_difference(a: Tensor, b: Tensor, n_T: Tensor, n_F: Tensor) -> Tensor:
    """Q - V: the success rate with the token, shrunk by one pseudo-rollout towards that of its context, minus that."""
    rate = n_T / (n_T + n_F).clamp(min=1)
    return (a + rate) / (a + b + 1) - rate


def share_difference(a: Tensor, b: Tensor, n_T: Tensor, n_F: Tensor) -> Tensor:
    """a / n_T - b / n_F: by how much correct rollouts hold it more often."""
    return a / n_T.clamp(min=1) - b / n_F.clamp(min=1)


def z_score(a: Tensor, b: Tensor, n_T: Tensor, n_F: Tensor) -> Tensor:
    """a in standard deviations from its mean under independence, squashed: tanh(z / 2)."""
    n, held = n_T + n_F, a + b
    variance = n_T * n_F * held * (n - held) / (n.square() * (n - 1).clamp(min=1)).clamp(min=1)
    return torch.tanh((a - held * n_T / n.clamp(min=1)) / variance.clamp(min=1e-9).sqrt() / 2) * (variance > 0)


def exonerated(a: Tensor, b: Tensor, n_T: Tensor, n_F: Tensor) -> Tensor:
    """+1 for what any correct rollout did; otherwise minus the chance that b harmless choices would show a success."""
    rate = n_T / (n_T + n_F).clamp(min=1)
    return torch.where(a > 0, 1.0, (1 - rate) ** b - 1)


def supported(statistic: Statistic, rollouts: int) -> Statistic:
    """The statistic, 0 for units that fewer rollouts hold."""
    return lambda a, b, n_T, n_F: torch.where(a + b >= rollouts, statistic(a, b, n_T, n_F), 0.0)


def significant(statistic: Statistic, level: float) -> Statistic:
    """The statistic, 0 for units whose p-value in Fisher's exact test is above the level."""

    def gated(a: Tensor, b: Tensor, n_T: Tensor, n_F: Tensor) -> Tensor:
        p = torch.ones_like(a)
        for correct, incorrect in torch.unique(torch.stack([n_T.flatten(), n_F.flatten()]), dim=1).long().T.tolist():
            if correct > 0 and incorrect > 0:
                here = (n_T == correct) & (n_F == incorrect)
                table = torch.from_numpy(fisher_p_values(correct, incorrect))
                p[here] = table[a[here].long(), b[here].long()]
        return torch.where(p <= level, statistic(a, b, n_T, n_F), 0.0)

    return gated


def in_context(
    statistic: Statistic, context: int, *, leave_one_out: bool = False, first_only: bool = False
) -> Callable[[Rollouts], Tensor]:
    """Values (N, T): a statistic of the tables within `context` preceding tokens; 0 in one-sided tables.

    Args:
        statistic: of a, b, n_T and n_F.
        context: preceding tokens; 0 compares with the whole group.
        leave_one_out: each rollout's own outcome is left out of the tables it looks at.
        first_only: what follows the first token that at least half convicts a rollout is left out of all tables, and
            gets 0.
    """

    def values(rollouts: Rollouts) -> Tensor:
        counted_BT = rollouts.mask
        if first_only:
            convicted_BT = (_values(rollouts, counted_BT, exonerated, context, False) <= -0.5).long()
            counted_BT = counted_BT & (convicted_BT.cumsum(1) - convicted_BT == 0)
        return _values(rollouts, counted_BT, statistic, context, leave_one_out).float()

    return values


def back_off(orders: int, *, pseudo: float = 2.0, support: int = 2) -> Callable[[Rollouts], Tensor]:
    """Q - V by back-off: both begin at the group's mean and are shrunk from each context to the next longer one.

    Args:
        orders: the longest context, in preceding tokens.
        pseudo: how many rollouts the shorter context's estimate counts as.
        support: a context that fewer rollouts reach is not looked at.
    """

    def values(rollouts: Rollouts) -> Tensor:
        q_BT = v_BT = _rates(rollouts)[:, None].expand(rollouts.mask.shape)
        for context in range(orders + 1):
            a, b, n_T, n_F = _counts(rollouts, rollouts.mask, context)
            seen_BT = n_T + n_F >= support
            q_BT = torch.where(seen_BT, (a + pseudo * q_BT) / (a + b + pseudo), q_BT)
            v_BT = torch.where(seen_BT, (n_T + pseudo * v_BT) / (n_T + n_F + pseudo), v_BT)
        return ((q_BT - v_BT) * rollouts.mask).float()

    return values


def mean_of(*estimators: Callable[[Rollouts], Tensor]) -> Callable[[Rollouts], Tensor]:
    """The mean of several estimators' values."""
    return lambda rollouts: torch.stack([estimator(rollouts) for estimator in estimators]).mean(0)


def _values(rollouts: Rollouts, counted_BT: Tensor, statistic: Statistic, context: int, leave_one_out: bool) -> Tensor:
    a, b, n_T, n_F = _counts(rollouts, counted_BT, context)
    if leave_one_out:
        own = (rollouts.rewards > 0).double()[:, None].expand(a.shape)
        a, b, n_T, n_F = a - own, b - (1 - own), n_T - own, n_F - (1 - own)
    two_sided_BT = counted_BT & (n_T > 0) & (n_F > 0)
    return torch.where(two_sided_BT, statistic(a, b, n_T, n_F), 0.0)


def _counts(rollouts: Rollouts, counted_BT: Tensor, context: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """a, b, n_T and n_F of each token's table, (N, T) float64, 0 where it is not counted."""
    correct_B = rollouts.rewards > 0
    group_B = torch.unique(rollouts.group_ids, return_inverse=True)[1]
    units_BT, within_BT = units(rollouts.token_ids, counted_BT, None, KTAEConfig(context=context))
    table = contingency(units_BT, counted_BT, correct_B, group_B, within_BT)

    def per_token(counts_U: Tensor) -> Tensor:
        return torch.cat([counts_U, counts_U.new_zeros(1)])[table.unit_index_BT].double()

    return per_token(table.a_U), per_token(table.b_U), per_token(table.n_T_U), per_token(table.n_F_U)


def _rates(rollouts: Rollouts) -> Tensor:
    """(N,) the share of correct rollouts in each rollout's group."""
    group_B = torch.unique(rollouts.group_ids, return_inverse=True)[1]
    correct_B = (rollouts.rewards > 0).double()
    sums = torch.zeros(int(group_B.max()) + 1, dtype=torch.float64).index_add_(0, group_B, correct_B)
    return (sums / torch.bincount(group_B))[group_B]
