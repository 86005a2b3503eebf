"""Estimates with 95 % intervals from a sample of problems, tests of differences, pass@k and maj@n.

Shape suffixes: _P problems, _S samples (completions) of a problem. Problems are the sampling unit; the samples of a
problem are a cluster. All functions are deterministic, and the order of the problems does not matter. There is no
bootstrap: it has no width when all problems have the same outcome (docs/evaluation.md has the coverage of both).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ktae.extras import require

Z95 = 1.959964


@dataclass(frozen=True)
class Estimate:
    """An estimate and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def share_interval(share_P: np.ndarray) -> Estimate:
    r"""The mean over problems of a quantity in [0, 1]: accuracy, pass@k, maj@n.

    Wilson's score interval (JASA 22, 1927) with an effective number of problems (Korn and Graubard, Survey Methodology
    24, 1998), n = P q (1 - q) / v, where v is the variance of the P values and q their mean. With one sample a problem
    n = P and this is Wilson's interval itself; values that differ less, because samples average out, count for more
    problems. For q and v alone, two imaginary problems are added, one never solved and one always: they keep n at P
    when all problems have the same outcome. The price is an interval that is too wide if all problems are equally hard.

    Takes (P,) values, such as the share of a problem's samples that are correct. The interval is within [0, 1] and
    never without width. Raises a ValueError if there are no problems, or a value is outside [0, 1].
    """
    share_P = np.asarray(share_P, dtype=float)
    if share_P.ndim != 1 or not len(share_P):
        raise ValueError(f"share_P must have shape (P,) and not be empty, got shape {share_P.shape}")
    if not ((share_P >= 0) & (share_P <= 1)).all():  # this way round, NaN fails too
        raise ValueError(f"share_P must be between 0 and 1, got {share_P.min()} to {share_P.max()}")
    p, padded = float(share_P.mean()), np.append(share_P, (0.0, 1.0))
    q = float(padded.mean())
    n = len(share_P) * q * (1 - q) / float(padded.var())
    center = (p + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(p * (1 - p) / n + Z95**2 / (4 * n**2))
    # Rounding: at p = 0 and 1 one end of the interval is p.
    return Estimate(p, min(max(center - half, 0.0), p), max(min(center + half, 1.0), p))


def mean_interval(value_P: np.ndarray) -> Estimate:
    """The mean of any quantity over problems, such as a length in tokens: Student's interval.

    Raises a ValueError if there are fewer than two problems, which say nothing about the spread.
    """
    value_P = np.asarray(value_P, dtype=float)
    if value_P.ndim != 1 or len(value_P) < 2:
        raise ValueError(f"value_P must have shape (P,) with at least 2 problems, got {value_P.shape}")
    quantile = float(require("scipy.stats", extra="train").t.ppf(0.975, len(value_P) - 1))
    mean, half = float(value_P.mean()), quantile * float(value_P.std(ddof=1)) / math.sqrt(len(value_P))
    return Estimate(mean, mean - half, mean + half)


def average(estimates: Sequence[Estimate]) -> Estimate:
    """The plain average over one or more independent tasks.

    The interval squares and adds the distances to the tasks' own ends (method of variance estimates recovery; Zou and
    Donner, Statistics in Medicine 27, 2008).

    >>> average([Estimate(0.5, 0.25, 0.75), Estimate(0.75, 0.75, 0.75)])
    Estimate(value=0.625, low=0.5, high=0.75)
    """
    value = math.fsum(e.value for e in estimates) / len(estimates)
    below = math.hypot(*(e.value - e.low for e in estimates)) / len(estimates)
    above = math.hypot(*(e.high - e.value for e in estimates)) / len(estimates)
    return Estimate(value, value - below, value + above)


def paired_difference(correct_PS: np.ndarray, baseline_PS: np.ndarray) -> Estimate:
    """The difference of two accuracies on the same problems, correct minus baseline.

    The interval is Wald's for the mean of the problems' differences, after two imaginary problems are added that differ
    by +s and -s with s^2 = (1/S + 1/S') / 2. With one sample a problem this is the adjusted interval of Bonett and
    Price (Journal of Educational and Behavioral Statistics 37, 2012). It always has a width, but it knows nothing of
    kinds of problem too rare for the sample.

    Takes (P, S) and (P, S') of 0 and 1 for the same problems. Raises a ValueError if an array is empty or holds other
    values, or the numbers of problems differ.
    """
    difference_P = _differences(correct_PS, baseline_PS)
    step = math.sqrt((1 / np.shape(correct_PS)[1] + 1 / np.shape(baseline_PS)[1]) / 2)
    padded = np.append(difference_P, (step, -step))
    center, half = float(padded.mean()), Z95 * float(padded.std()) / math.sqrt(len(padded))
    return Estimate(float(difference_P.mean()), max(center - half, -1.0), min(center + half, 1.0))


def paired_p_value(correct_PS: np.ndarray, baseline_PS: np.ndarray) -> float:
    """Two-sided exact p-value, in (0, 1], of the difference of two accuracies on the same problems.

    The share of the 2^P exchanges of the two on a problem whose difference is at least as large as the observed one
    (Fisher's permutation test of pairs). With one sample a problem this is McNemar's exact test. Arguments and errors
    are those of `paired_difference`, but the numbers of samples must agree: otherwise the two cannot be exchanged.
    """
    shapes = np.shape(correct_PS), np.shape(baseline_PS)
    if shapes[0][1:] != shapes[1][1:]:
        raise ValueError(f"both must have the same number of samples, got {shapes[0]} and {shapes[1]}")
    # In samples: all sums are integers, and equal ones are equal.
    difference_P = np.rint(_differences(correct_PS, baseline_PS) * shapes[0][1]).astype(int)
    sizes = np.abs(difference_P[difference_P != 0])
    largest = int(sizes.sum())
    chance = np.zeros(largest + 1)  # of the total size of the problems with a positive sign
    chance[0] = 1.0
    for size in sizes:
        chance[size:] = chance[size:] / 2 + chance[:-size] / 2
        chance[:size] /= 2
    sums = 2 * np.arange(largest + 1) - largest
    return min(float(chance[np.abs(sums) >= abs(int(difference_P.sum()))].sum()), 1.0)


def pass_at_k(correct_PS: np.ndarray, k: int) -> np.ndarray:
    """The chance that one of k samples is correct, 1 - C(n - c, k) / C(n, k) for c of n correct.

    Unbiased: k of the n samples, drawn without replacement (Chen et al. 2021, arXiv:2107.03374, equation 1).

    Takes (P, S) of 0 and 1, and k from 1 to S; returns (P,) chances, whose mean is pass@k. Raises a ValueError if the
    array is empty or holds other values, or k is out of range.
    """
    correct_PS = _checked("correct_PS", correct_PS)
    n = correct_PS.shape[1]
    if not 1 <= k <= n:
        raise ValueError(f"k must be from 1 to the number of samples, {n}, got {k}")
    # Python's integers are exact, and so each chance is the correctly rounded one.
    chance = np.array([1 - math.comb(n - c, k) / math.comb(n, k) for c in range(n + 1)])
    return chance[correct_PS.sum(axis=1)]


def majority(answer_PS: np.ndarray, correct_PS: np.ndarray) -> np.ndarray:
    """Whether the most frequent answer of a problem's samples is correct; the mean is maj@n.

    Of equally frequent answers one is taken at random, which makes it a chance. Samples without an answer do not vote;
    without any vote the problem counts as not solved. If the verdicts on one answer differ (a comparison timed out,
    say), it counts with the share that is correct.

    Takes (P, S) integers, of which samples of a problem with the same number gave the same answer and -1 gave none, and
    (P, S) of 0 and 1; returns (P,) chances. Raises a ValueError if the shapes differ, or as `pass_at_k`.

    >>> majority(np.array([[7, 7, 3], [7, 3, -1]]), np.array([[1, 1, 0], [1, 0, 0]]))
    array([1. , 0.5])
    """
    correct_PS, answer_PS = _checked("correct_PS", correct_PS), np.asarray(answer_PS)
    if answer_PS.shape != correct_PS.shape:
        raise ValueError(f"answer_PS must have the shape of correct_PS, {correct_PS.shape}, got {answer_PS.shape}")
    chances = []
    for answer_S, correct_S in zip(answer_PS, correct_PS, strict=True):
        answers, votes = np.unique(answer_S[answer_S >= 0], return_counts=True)
        winners = answers[votes == votes.max(initial=0)]
        chances.append(np.mean([correct_S[answer_S == winner].mean() for winner in winners]) if len(winners) else 0.0)
    return np.array(chances)


def _checked(name: str, correct_PS: np.ndarray) -> np.ndarray:
    """The array as integers; a ValueError with `name` unless it is (P, S), not empty, and holds 0 and 1 only."""
    correct_PS = np.asarray(correct_PS)
    if correct_PS.ndim != 2 or not correct_PS.size:
        raise ValueError(f"{name} must have shape (P, S) and not be empty, got shape {correct_PS.shape}")
    if not np.isin(correct_PS, (0, 1)).all():
        raise ValueError(f"{name} must hold 0 and 1 only, got {correct_PS.min()} to {correct_PS.max()}")
    return correct_PS.astype(int)


def _differences(correct_PS: np.ndarray, baseline_PS: np.ndarray) -> np.ndarray:
    correct_PS = _checked("correct_PS", correct_PS)
    baseline_PS = _checked("baseline_PS", baseline_PS)
    if len(correct_PS) != len(baseline_PS):
        raise ValueError(f"both must have the same problems, got {len(correct_PS)} and {len(baseline_PS)}")
    return correct_PS.mean(axis=1) - baseline_PS.mean(axis=1)
