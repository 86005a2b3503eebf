"""What a 2x2 table says: how strongly a unit goes with the outcome, which way it points, and its key-token value.

    value = tanh(strength * direction / 2)
    strength = (h1 Fisher score + h2 information gain) / (h1 + h2)
    direction = Cohen's h + h3 term-frequency contrast

Strength and Cohen's h depend on (a, b, n_T, n_F) alone: `strengths(n_T, n_F)` and `cohens_h(n_T, n_F)` are float64
tables of all (a, b), made on the host and looked up. A new score is one such function, and one weight in `strengths`.

Shape suffix: _U one a (group, unit) pair.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ktae import checks
from ktae.config import KTAEConfig
from ktae.contingency import Contingency

BM25_K1 = 2.0
BM25_B = 0.5
RATIO_EPS = 1e-5


def key_token_values(table: Contingency, config: KTAEConfig) -> Tensor:
    """The key-token value of each unit, in (-1, 1): the scale is not applied, nor is anything excluded.

    Returns:
        (U,) float64, float32 where the device has no float64. 0 where not both correct and incorrect rollouts are
        compared.
    """
    if not config.term_frequency_weight:  # then nothing but (a, b, n_T, n_F) matters
        return look_up(values_without_tf, table, config)
    return value(look_up(strengths, table, config), directions(table, config))


def value_by(tanh: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    """The value tanh(strength * direction / 2), which is 2 sigmoid(strength * direction) - 1, for any tanh."""

    def value(strength: Any, direction: Any) -> Any:
        return tanh(strength * direction / 2)

    return value


value = value_by(torch.tanh)


def directions(table: Contingency, config: KTAEConfig) -> Tensor:
    """(U,) Cohen's h + h3 term-frequency contrast: > 0 towards correct rollouts."""
    cohens_h_U = look_up(cohens_h, table)
    if not config.term_frequency_weight:
        return cohens_h_U
    return cohens_h_U + config.term_frequency_weight * term_frequency_contrast(*term_frequencies(table))


@functools.lru_cache(maxsize=4096)
def values_without_tf(n_T: int, n_F: int, config: KTAEConfig) -> np.ndarray:
    """(n_T + 1, n_F + 1) values of strength and Cohen's h alone, entry [a, b]."""
    return value(*map(torch.from_numpy, (strengths(n_T, n_F, config), cohens_h(n_T, n_F)))).numpy()


@functools.lru_cache(maxsize=4096)
def strengths(n_T: int, n_F: int, config: KTAEConfig) -> np.ndarray:
    """(n_T + 1, n_F + 1) float64 association strengths, entry [a, b]; 0 without two sides to tell apart."""
    h1, h2 = config.fisher_weight, config.information_gain_weight
    fisher = fisher_scores if config.fisher == "exact" else released_fisher_scores
    return (h1 * fisher(n_T, n_F) + h2 * information_gains(n_T, n_F)) / (h1 + h2)


@functools.lru_cache(maxsize=4096)
def fisher_scores(n_T: int, n_F: int) -> np.ndarray:
    """(n_T + 1, n_F + 1) Fisher scores exp(-2 p), entry [a, b], and 0 where p = 1 (paper, section 3)."""
    p_values = fisher_p_values(n_T, n_F)
    return np.where(p_values == 1.0, 0.0, np.exp(-2.0 * p_values))


@functools.lru_cache(maxsize=4096)
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
def information_gains(n_T: int, n_F: int) -> np.ndarray:
    """(n_T + 1, n_F + 1) information gains H(correct) - H(correct | unit held), in bits, entry [a, b]."""
    a = np.arange(n_T + 1.0)[:, None]
    b = np.arange(n_F + 1.0)[None, :]
    held = (a + b) / max(n_T + n_F, 1)
    conditional = held * _entropy(a, b) + (1.0 - held) * _entropy(n_T - a, n_F - b)
    # Rounding leaves -1e-17 where the unit carries no information.
    return np.maximum(_entropy(np.array(n_T), np.array(n_F)) - conditional, 0.0)


def _entropy(correct: np.ndarray, incorrect: np.ndarray) -> np.ndarray:
    """Entropy, in bits, of a set with so many correct and incorrect members; 0 for an empty set."""
    total = np.maximum(correct + incorrect, 1.0)
    p, q = correct / total, incorrect / total
    return -(p * np.log2(np.where(p > 0, p, 1.0)) + q * np.log2(np.where(q > 0, q, 1.0)))


@functools.lru_cache(maxsize=4096)
def cohens_h(n_T: int, n_F: int) -> np.ndarray:
    """(n_T + 1, n_F + 1) Cohen's h without its factor 2, asin(sqrt(a / n_T)) - asin(sqrt(b / n_F)), entry [a, b].

    In [-pi/2, pi/2]; a side without rollouts has the share 0.
    """
    angle_T, angle_F = (np.arcsin(np.sqrt(np.arange(n + 1) / max(n, 1))) for n in (n_T, n_F))
    return angle_T[:, None] - angle_F


def term_frequencies(table: Contingency) -> tuple[Tensor, Tensor]:
    """`term_frequency` of each unit in the correct and in the incorrect rollouts, two of (U,) float."""
    wide = checks.widest_float(table.a_U.device)
    length_T_U, length_F_U = (length_X.to(wide)[table.within_U] for length_X in (table.length_T_X, table.length_F_X))
    tf_T_U = term_frequency(table.count_T_U.to(wide), length_T_U, length_F_U)
    return tf_T_U, term_frequency(table.count_F_U.to(wide), length_F_U, length_T_U)


def term_frequency(count: Any, length: Any, other_length: Any) -> Any:
    """BM25-normalised term frequency tf = f (k1 + 1) / (f + k1 (1 - b + b length / average)), f = count / length.

    All correct rollouts of a group make one document, all incorrect ones the other; `average` is their mean length,
    k1 = 2 and b = 0.5 (paper, section 3). An empty document has tf = 0. Arguments are float tensors or Numba's numbers.
    """
    f = count / (length + (length == 0))
    return f * (BM25_K1 + 1) / (f + BM25_K1 * (1 - BM25_B + BM25_B * length / ((length + other_length) / 2)))


def term_frequency_contrast(tf_T: Any, tf_F: Any) -> Any:
    """tf_T / (tf_F + 1e-5) - tf_F / (tf_T + 1e-5): unbounded in theory, about +-1e5 at most (paper, section 3)."""
    return tf_T / (tf_F + RATIO_EPS) - tf_F / (tf_T + RATIO_EPS)


def look_up(scores: Callable[..., np.ndarray], table: Contingency, *settings: KTAEConfig) -> Tensor:
    """Entry [a, b] of `scores(n_T, n_F, *settings)` for each of the table's U pairs.

    Returns:
        (U,) in the device's widest float.
    """
    if not len(table.a_U):
        return torch.zeros_like(table.a_U, dtype=checks.widest_float(table.a_U.device))
    columns = int(table.n_F_X.max()) + 1
    margin_X = table.n_T_X.long() * columns + table.n_F_X
    margins = torch.bincount(margin_X).nonzero().flatten().tolist()
    start, entries = _flat(scores, columns, tuple(margins), settings)
    device, wide = table.a_U.device, checks.widest_float(table.a_U.device)
    start_U = start.to(device)[margin_X][table.within_U]
    entry_U = start_U + table.a_U * (table.n_F_X + 1)[table.within_U] + table.b_U
    return entries.to(wide).to(device)[entry_U]


@functools.lru_cache(maxsize=256)
def _flat(
    scores: Callable[..., np.ndarray], columns: int, margins: tuple[int, ...], settings: tuple[KTAEConfig, ...]
) -> tuple[Tensor, Tensor]:
    """The scores of several margins n_T * columns + n_F in one row, and where those of each margin start."""
    tables = [scores(*divmod(margin, columns), *settings).ravel() for margin in margins]
    start = np.zeros(margins[-1] + 1, np.int64)
    start[list(margins)] = np.cumsum([0, *map(len, tables)])[:-1]
    return torch.from_numpy(start), torch.from_numpy(np.concatenate(tables))


@functools.lru_cache(maxsize=4096)
def released_fisher_scores(n_T: int, n_F: int) -> np.ndarray:
    """(n_T + 1, n_F + 1) Fisher scores, entry [a, b], as the authors' released code computes them.

    float32 throughout, with an exact comparison of rounded probabilities: ties are lost and p = 1 is often missed.
    torch's own float32 lgamma, exp and sum differ from processor to processor; here each step is computed in float64
    and rounded, and the sum has one order, so the bits are the same everywhere. The sum runs over the whole grid
    k = 0..n_T, because the order decides whether p comes out as exactly 1.
    """
    single = np.float32
    log_factorial = np.array([math.lgamma(n + 1) for n in range(n_T + n_F + 1)]).astype(single)

    def log_comb(n: int, k: np.ndarray) -> np.ndarray:
        return log_factorial[n] - log_factorial[k] - log_factorial[n - k]

    scores = np.zeros((n_T + 1, n_F + 1))
    for held in range(n_T + n_F + 1):
        k = np.arange(max(0, held - n_F), min(held, n_T) + 1)
        log_p = log_comb(n_T, k) + log_comb(n_F, held - k) - log_comb(n_T + n_F, np.array(held))
        p_K = np.zeros(n_T + 1, single)
        p_K[k] = np.exp(log_p.astype(np.float64)).astype(single)
        p = _sum_of_float32(np.where(p_K[:, None] <= p_K[k], p_K[:, None], single(0)))
        scores[k, held - k] = np.where(p == 1, 0.0, np.exp(-2.0 * p.astype(np.float64)).astype(single))
    return scores


def _sum_of_float32(terms: np.ndarray) -> np.ndarray:
    """Sum over the first axis in the order in which torch sums a short vector on a processor with AVX2."""

    def in_four(rows: np.ndarray) -> np.ndarray:
        whole = len(rows) // 4 * 4
        parts = [functools.reduce(np.add, rows[lane:whole:4], zero) for lane in range(4)]
        parts[0] = functools.reduce(np.add, rows[whole:], parts[0])
        return functools.reduce(np.add, parts)

    zero = np.zeros(terms.shape[1:], np.float32)
    if len(terms) < 8:
        return in_four(terms)
    whole = len(terms) // 8 * 8
    lanes = [in_four(terms[lane:whole:8]) for lane in range(8)]
    return functools.reduce(np.add, [*terms[whole:], *lanes], zero)
