"""Intervals and the table's parts."""

import numpy as np
import pytest
from scipy import stats

from ktae.train.summary import accuracy_interval, paired_difference


@pytest.mark.parametrize(("correct", "problems"), [(0, 10), (3, 10), (10, 10), (430, 1000)])
def test_one_answer_a_problem_is_wilsons_interval(correct, problems):
    values = np.zeros((problems, 1))
    values[:correct] = 1
    p, low, high = accuracy_interval(values)
    expected = stats.binomtest(correct, problems).proportion_ci(method="wilson")
    assert p == correct / problems
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_repeating_an_answer_adds_no_certainty():
    generator = np.random.default_rng(0)
    once = (generator.random((200, 1)) < 0.4).astype(float)
    assert accuracy_interval(np.repeat(once, 5, axis=1)) == pytest.approx(accuracy_interval(once))


def test_coverage():
    """Problems of different difficulty, three samples each: about 95 % of the intervals hold the true mean."""
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        difficulty_P = generator.beta(1, 2, size=(150, 1))
        _, low, high = accuracy_interval((generator.random((150, 3)) < difficulty_P).astype(float))
        held += low <= 1 / 3 <= high
    assert 930 <= held <= 970


def test_paired_difference_is_the_one_sample_interval():
    generator = np.random.default_rng(0)
    ours, theirs = (generator.random((50, 2)) < 0.6).astype(float), (generator.random((50, 2)) < 0.4).astype(float)
    difference, half_width = paired_difference(ours, theirs)
    per_problem = ours.mean(axis=1) - theirs.mean(axis=1)
    assert difference == pytest.approx(per_problem.mean())
    assert half_width == pytest.approx(stats.sem(per_problem) * stats.norm.ppf(0.975), rel=1e-5)
