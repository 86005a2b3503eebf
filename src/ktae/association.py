"""How strongly a unit goes with the outcome, whichever way: Fisher's exact test and information gain.

Both scores depend on (a, b, n_T, n_F) alone, so each is computed once for all (a, b) of a given (n_T, n_F),
kept, and looked up.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ktae.contingency import Contingency

Margins = Collection[tuple[int, int]]  # of (n_T, n_F)


def fisher(table: Contingency, kind: Literal["exact", "released"] = "exact", margins: Margins | None = None) -> Tensor:
    """Fisher score F = exp(-2 p), and 0 when p = 1, with p the two-sided exact p-value (paper, section 3).

    Args:
        table: the tables.
        kind: "released" for the float32 p-values of the authors' code.
        margins: all (n_T, n_F) of the tables, where the caller knows; the device is then not asked.

    Returns:
        (U,) float64 in {0} and (exp(-2), 1).
    """
    return _look_up(exact_fisher_scores if kind == "exact" else released_fisher_scores, table, margins)


def information_gain(table: Contingency, margins: Margins | None = None) -> Tensor:
    """Information gain H(correct) - H(correct | unit held), in bits; arguments are those of `fisher`.

    Returns:
        (U,) float64 in [0, 1].
    """
    return _look_up(information_gains, table, margins)


def margins_of(table: Contingency) -> Margins:
    """All (n_T, n_F) of the tables. Waits for the device."""
    if not len(table.a_U):
        return []
    most_T, most_F = torch.stack([table.n_T_U.max(), table.n_F_U.max()]).tolist()
    seen = torch.zeros((most_T + 1) * (most_F + 1), dtype=torch.bool, device=table.a_U.device)
    seen[table.n_T_U * (most_F + 1) + table.n_F_U] = True
    return [divmod(margin, most_F + 1) for margin in seen.cpu().nonzero().flatten().tolist()]


def fisher_p_values(n_T: int, n_F: int) -> np.ndarray:
    """Two-sided Fisher p-values of all tables with n_T correct and n_F incorrect rollouts.

    p is the sum of the hypergeometric probabilities of the tables with the same margins that are no more
    probable than the one observed. Probabilities share a denominator, so their integer numerators decide ties
    exactly, and each p is the correctly rounded quotient of two integers.

    Returns:
        (n_T + 1, n_F + 1) float64 in (0, 1]; entry [a, b].

    >>> fisher_p_values(2, 2)[2, 0] * 3
    np.float64(1.0)
    """
    p_values = np.empty((n_T + 1, n_F + 1))
    ways_T = [math.comb(n_T, k) for k in range(n_T + 1)]
    ways_F = [math.comb(n_F, k) for k in range(n_F + 1)]
    for held in range(n_T + n_F + 1):
        support = range(max(0, held - n_F), min(held, n_T) + 1)
        ways = sorted((ways_T[a] * ways_F[held - a], a) for a in support)
        total = math.comb(n_T + n_F, held)
        no_more_probable = 0
        start = 0
        while start < len(ways):
            end = start
            while end < len(ways) and ways[end][0] == ways[start][0]:
                no_more_probable += ways[end][0]
                end += 1
            for _, a in ways[start:end]:
                p_values[a, held - a] = no_more_probable / total
            start = end
    return p_values


@functools.lru_cache(maxsize=4096)
def exact_fisher_scores(n_T: int, n_F: int) -> np.ndarray:
    """(n_T + 1, n_F + 1) float64 Fisher scores, entry [a, b], from the exact p-values."""
    p_values = fisher_p_values(n_T, n_F)
    return np.where(p_values == 1.0, 0.0, np.exp(-2.0 * p_values))


@functools.lru_cache(maxsize=4096)
def released_fisher_scores(n_T: int, n_F: int) -> np.ndarray:
    """(n_T + 1, n_F + 1) float64 Fisher scores, entry [a, b], as the authors' released code computes them.

    float32 throughout, with an exact comparison of rounded probabilities: ties are lost and p = 1 is often
    missed. The sum runs over the whole grid k = 0..n_T because the order of summation decides whether p
    comes out as exactly 1.
    """
    k = torch.arange(n_T + 1, dtype=torch.float32)
    correct, total = torch.tensor(float(n_T)), torch.tensor(float(n_T + n_F))
    scores = np.zeros((n_T + 1, n_F + 1))
    for held in range(n_T + n_F + 1):
        held_f = torch.tensor(float(held))
        log_p = _log_comb(correct, k) + _log_comb(total - correct, held_f - k) - _log_comb(total, held_f)
        possible = (k <= held) & (held - k <= n_F)
        p_k = torch.where(possible, log_p.exp(), 0.0)
        for a in range(max(0, held - n_F), min(held, n_T) + 1):
            p = torch.where(p_k <= p_k[a], p_k, 0.0).sum()
            scores[a, held - a] = 0.0 if p == 1.0 else torch.exp(-2.0 * p).item()
    return scores


@functools.lru_cache(maxsize=4096)
def information_gains(n_T: int, n_F: int) -> np.ndarray:
    """(n_T + 1, n_F + 1) float64 information gains in bits, entry [a, b]."""
    a = np.arange(n_T + 1.0)[:, None]
    b = np.arange(n_F + 1.0)[None, :]
    total = n_T + n_F
    held = (a + b) / total
    conditional = held * _entropy(a, b) + (1.0 - held) * _entropy(n_T - a, n_F - b)
    # Rounding leaves -1e-17 where the unit carries no information.
    return np.maximum(_entropy(np.array(n_T), np.array(n_F)) - conditional, 0.0)


def _entropy(correct: np.ndarray, incorrect: np.ndarray) -> np.ndarray:
    """Entropy, in bits, of a set with so many correct and incorrect members; 0 for an empty set."""
    total = np.maximum(correct + incorrect, 1.0)
    p, q = correct / total, incorrect / total
    return -(p * np.log2(np.where(p > 0, p, 1.0)) + q * np.log2(np.where(q > 0, q, 1.0)))


def _log_comb(n: Tensor, k: Tensor) -> Tensor:
    return torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)


def _look_up(scores: Callable[[int, int], np.ndarray], table: Contingency, margins: Margins | None) -> Tensor:
    """scores(n_T, n_F)[a, b] for each of the table's U pairs."""
    margins = margins_of(table) if margins is None else margins
    if not margins:
        return torch.zeros_like(table.a_U, dtype=torch.float64)
    most_T, most_F = np.max(list(margins), axis=0)
    start = np.zeros((most_T + 1, most_F + 1), np.int64)
    flat, end = [], 0
    for n_T, n_F in margins:
        flat.append(scores(n_T, n_F).ravel())
        start[n_T, n_F] = end
        end += flat[-1].size

    def on_device(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(table.a_U.device, non_blocking=True)

    start_U = on_device(start.ravel())[table.n_T_U * (most_F + 1) + table.n_F_U]
    return on_device(np.concatenate(flat))[start_U + table.a_U * (table.n_F_U + 1) + table.b_U]
