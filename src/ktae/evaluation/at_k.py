"""pass@k and maj@k, estimated from several samples of each problem.

Shape suffixes: _P problems, _S samples (completions) of a problem.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from ktae.evaluation.statistics import checked_correct


def pass_at_k(correct_PS: np.ndarray, k: int) -> np.ndarray:
    """The chance that one of k samples is correct, 1 - C(n - c, k) / C(n, k) for c of n correct.

    Unbiased: k of the n samples, drawn without replacement (Chen et al. 2021, arXiv:2107.03374, equation 1).

    Takes (P, S) of 0 and 1, and k from 1 to S; returns (P,) chances, whose mean is pass@k. Raises a ValueError if the
    array is empty or holds other values, or k is out of range.

    >>> pass_at_k(np.array([[1, 0, 0, 0], [0, 0, 0, 0]]), 2)
    array([0.5, 0. ])
    """
    correct_PS = _checked(correct_PS, k)
    n = correct_PS.shape[1]
    # Python's integers are exact, and so each chance is the correctly rounded one.
    chance = np.array([1 - math.comb(n - c, k) / math.comb(n, k) for c in range(n + 1)])
    return chance[correct_PS.sum(axis=1)]


def majority_at_k(answer_PS: np.ndarray, correct_PS: np.ndarray, k: int) -> np.ndarray:
    """The chance that the most frequent answer of k samples is correct.

    The exact expectation over all k of the n samples, drawn without replacement. Of equally frequent answers one is
    taken at random. Samples without one do not vote; without any vote the problem counts as not solved.

    Of (P, S) integers, samples of a problem with the same number gave the same answer, -1 gave none. If the verdicts on
    one answer differ (a comparison timed out, say), it counts with the share that is correct. Otherwise as `pass_at_k`;
    a ValueError also if the shapes differ.

    >>> majority_at_k(np.array([[7, 7, 3], [7, 3, -1]]), np.array([[1, 1, 0], [1, 0, 0]]), 3)
    array([1. , 0.5])
    """
    correct_PS, answer_PS = _checked(correct_PS, k), np.asarray(answer_PS)
    if answer_PS.shape != correct_PS.shape:
        raise ValueError(f"answer_PS must have the shape of correct_PS, {correct_PS.shape}, got {answer_PS.shape}")
    chances = []
    for answer_S, correct_S in zip(answer_PS, correct_PS, strict=True):
        voted_S = answer_S >= 0
        _, group_S, sizes = np.unique(answer_S[voted_S], return_inverse=True, return_counts=True)
        shares = np.bincount(group_S, correct_S[voted_S], minlength=len(sizes)) / sizes
        groups = sorted(zip(sizes.tolist(), shares.tolist(), strict=True))  # sorted: the cache finds more
        chances.append(_majority_chance(tuple(groups), int((~voted_S).sum()), k))
    return np.array(chances)


@functools.lru_cache(maxsize=4096)
def _majority_chance(groups: tuple[tuple[int, float], ...], silent: int, k: int) -> float:
    """The chance of a correct majority; groups are (size, share correct), `silent` samples have no answer.

    For each answer and each number m of its votes, count the ways in which the other k - m samples leave no other
    answer with more: a product of polynomials, one an answer, whose exponents are votes and ties.
    """
    won = 0.0
    for chosen, (size, share) in enumerate(groups):
        for m in range(1, min(size, k) + 1) if share else ():
            rest = k - m
            ways = np.zeros((rest // m + 1, rest + 1))  # [other answers with m votes too, samples taken]
            ways[0] = [math.comb(silent, i) for i in range(rest + 1)]
            for other, _ in groups[:chosen] + groups[chosen + 1 :]:
                longer = np.zeros_like(ways)
                for i in range(min(other, m - 1, rest) + 1):
                    longer[:, i:] += math.comb(other, i) * ways[:, : rest + 1 - i]
                if m <= rest:  # math.comb is 0 where the answer has fewer samples
                    longer[1:, m:] += math.comb(other, m) * ways[:-1, : rest + 1 - m]
                ways = longer
            won += share * math.comb(size, m) * float((ways[:, rest] / np.arange(1, len(ways) + 1)).sum())
    return min(won / math.comb(sum(size for size, _ in groups) + silent, k), 1.0)  # rounding


def _checked(correct_PS: np.ndarray, k: int) -> np.ndarray:
    correct_PS = checked_correct("correct_PS", correct_PS)
    if not 1 <= k <= correct_PS.shape[1]:
        raise ValueError(f"k must be from 1 to the number of samples, {correct_PS.shape[1]}, got {k}")
    return correct_PS
