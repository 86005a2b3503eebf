"""Do key tokens beat chance? Values under shuffled labels, and p-values adjusted for the number of units.

Shape suffixes: _B one entry a rollout, _U one a (group, unit) pair, _K one a counted token, _P one a labelling;
inside one group _N for its scored rollouts, _V for its units with different counts.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ktae.contingency import Contingency
from ktae.seeds import derived_seed

_ENTRIES = 1 << 19  # tables held at a time
_TOLERANCE = 1e-9  # labellings with one value in exact arithmetic differ by rounding


def permutation_p_values(
    values: Callable[[Contingency], Tensor],
    row_K: Tensor,
    unit_K: Tensor,
    context_K: Tensor | None,
    group_U: Tensor,
    group_B: Tensor,
    correct_B: Tensor,
    value_U: Tensor,
    *,
    permutations: int,
    seed: int,
) -> np.ndarray:
    """Permutation p-values of |value|, as defined in `KeyTokenTable`.

    Args:
        values: the values of tables.
        row_K, unit_K: rollout and unit of every counted token.
        context_K: its context, where tables compare within the context; None where they compare within the group.
        group_U, group_B: the group of each unit and rollout.
        correct_B: bool.
        value_U: the observed values; units with 0 get p = 1.
        permutations: labellings to look at; all of them if there are no more.
        seed: of the random labellings.

    Returns:
        (U,) float64 in (0, 1].
    """
    p_U = np.ones(len(value_U))
    order_K = torch.argsort(group_U[unit_K], stable=True)
    group_K = group_U[unit_K][order_K]
    numbers, sizes = torch.unique_consecutive(group_K, return_counts=True)
    for group, of_group_K in zip(numbers.tolist(), order_K.split(sizes.tolist()), strict=True):
        members = torch.nonzero(group_B == group).flatten()
        units, column_K = torch.unique(unit_K[of_group_K], return_inverse=True)
        if not value_U[units].any():
            continue
        row_of = torch.zeros(len(group_B), dtype=torch.int64)
        row_of[members] = torch.arange(len(members))
        row_of_K = row_of[row_K[of_group_K]]
        counts_UN = _counts(column_K, row_of_K, len(units), len(members))
        if context_K is None:
            among_UN = counts_UN.sum(dim=0, keepdim=True)
        else:
            contexts, of_context_K = torch.unique(context_K[of_group_K], return_inverse=True)
            context_U = torch.empty(len(units), dtype=torch.int64)
            context_U[column_K] = of_context_K
            among_UN = _counts(of_context_K, row_of_K, len(contexts), len(members))[context_U]
        outcome = correct_B[members], value_U[units]
        p_U[units.numpy()] = _one_group(values, counts_UN, among_UN, *outcome, permutations, seed)
    return p_U


def benjamini_hochberg(p_U: np.ndarray, group_U: np.ndarray) -> np.ndarray:
    """p-values adjusted within each group: min over j >= i of p_(j) m / j, at most 1 (Benjamini, Hochberg 1995).

    >>> benjamini_hochberg(np.array([0.01, 0.03, 0.02, 0.5]), np.array([0, 0, 0, 1]))
    array([0.03, 0.03, 0.03, 0.5 ])
    """
    adjusted_U = np.empty(len(p_U))
    for of_group in np.split(np.argsort(group_U, kind="stable"), np.flatnonzero(np.diff(np.sort(group_U))) + 1):
        falling = of_group[np.argsort(-p_U[of_group], kind="stable")]
        ranks = np.arange(len(falling), 0, -1)
        adjusted_U[falling] = np.minimum.accumulate(np.minimum(p_U[falling] * len(falling) / ranks, 1.0))
    return adjusted_U


def _counts(column_K: Tensor, row_K: Tensor, columns: int, rows: int) -> Tensor:
    counts = torch.zeros(columns, rows, dtype=torch.int64)
    return counts.index_put_((column_K, row_K), torch.ones_like(column_K), accumulate=True)


def _one_group(
    values: Callable[[Contingency], Tensor],
    counts_UN: Tensor,
    among_UN: Tensor,
    correct_N: Tensor,
    value_U: Tensor,
    permutations: int,
    seed: int,
) -> np.ndarray:
    """p-values of a group's units: `counts_UN` occurrences among `among_UN` tokens, the same for all units or not."""
    # Rollouts in an order that only their tokens decide, so that random labellings do not depend on the rows'.
    order_N = torch.from_numpy(np.lexsort(counts_UN.numpy()))
    # Many units occur in the same rollouts, once each say: one set of labellings does for all of them.
    both_UM = torch.cat([counts_UN[:, order_N], among_UN[:, order_N].expand(len(counts_UN), -1)], dim=1)
    both_VM, kind_U = torch.unique(both_UM, dim=0, return_inverse=True)
    counts_VN, among_VN = both_VM.double().split(len(correct_N), dim=1)
    if len(among_UN) == 1:
        among_VN, reached_VN = among_VN[:1], torch.ones(1, len(correct_N), dtype=torch.float64)
    else:
        reached_VN = (among_VN > 0).double()
    labels_NP, exact = _labellings(len(correct_N), int(correct_N.sum()), permutations, seed)
    # Units alike in their counts have one value, but for excluded ones, which have 0.
    observed_V = np.zeros(len(counts_VN))
    np.maximum.at(observed_V, kind_U.numpy(), value_U.abs().numpy())
    threshold_V = torch.from_numpy(observed_V * (1 - _TOLERANCE))
    hits_V = torch.zeros(len(counts_VN), dtype=torch.int64)
    for labels in labels_NP.split(max(_ENTRIES // len(counts_VN), 1), dim=1):
        table = _tables(counts_VN, reached_VN, among_VN, labels)
        hits_V += (values(table).abs().view(len(counts_VN), -1) >= threshold_V[:, None]).sum(dim=1)
    p_V = hits_V.double() / labels_NP.shape[1] if exact else (hits_V.double() + 1) / (labels_NP.shape[1] + 1)
    return torch.where(value_U != 0, p_V[kind_U], 1.0).numpy()


def _labellings(rollouts: int, correct: int, permutations: int, seed: int) -> tuple[Tensor, bool]:
    """(rollouts, P) float64 of 0 and 1, `correct` ones a column, and whether these are all there are."""
    exact = math.comb(rollouts, correct) <= permutations
    if exact:
        chosen = torch.tensor(list(itertools.combinations(range(rollouts), correct)), dtype=torch.int64)
    else:
        generator = np.random.default_rng(derived_seed(seed, rollouts, correct))
        shuffled = generator.permuted(np.tile(np.arange(rollouts), (permutations, 1)), axis=1)
        chosen = torch.from_numpy(shuffled[:, :correct])
    labels_PN = torch.zeros(len(chosen), rollouts, dtype=torch.float64)
    return labels_PN.scatter_(1, chosen, 1.0).T.contiguous(), exact


def _tables(counts_VN: Tensor, reached_XN: Tensor, among_XN: Tensor, labels_NP: Tensor) -> Contingency:
    """The tables of V units under P labellings, V x P entries. float64 products of integers below 2^53 are exact."""

    def sums(weights_XN: Tensor) -> tuple[Tensor, Tensor]:
        correct_XP = weights_XN @ labels_NP
        return correct_XP.long().flatten(), (weights_XN.sum(dim=1, keepdim=True) - correct_XP).long().flatten()

    tables, compared = len(counts_VN) * labels_NP.shape[1], len(among_XN) * labels_NP.shape[1]
    return Contingency(
        *sums((counts_VN > 0).double()),
        *sums(counts_VN),
        torch.arange(tables) % compared,
        *sums(reached_XN),
        *sums(among_XN),
        unit_index_BT=torch.empty(0, 0, dtype=torch.int64),  # no token belongs to them
    )
