"""pass@k and maj@k: against counting all subsets."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktae.evaluation.at_k import majority_at_k, pass_at_k


@st.composite
def votes(draw):
    """Answers of (P, S) samples, those with the same answer being all right or all wrong, and k."""
    problems, samples = draw(st.integers(1, 3)), draw(st.integers(1, 7))
    answers = st.lists(st.integers(-1, 4), min_size=problems * samples, max_size=problems * samples)
    answer_PS = np.reshape(draw(answers), (problems, samples))
    right = draw(st.sets(st.integers(0, 4)))
    return answer_PS, np.isin(answer_PS, list(right)).astype(int), draw(st.integers(1, samples))


def slow_majority(answer_S, correct_S, k):
    won = []
    for subset in itertools.combinations(range(len(answer_S)), k):
        counts = Counter(answer_S[i] for i in subset if answer_S[i] >= 0)
        winners = [answer for answer, count in counts.items() if count == max(counts.values())]
        won.append(np.mean([correct_S[answer_S == winner].mean() for winner in winners]) if winners else 0.0)
    return np.mean(won)


@given(votes())
def test_pass_at_k_counts_all_subsets(sample):
    _, correct_PS, k = sample
    slow = [np.mean([max(s) for s in itertools.combinations(correct_S, k)]) for correct_S in correct_PS]
    assert pass_at_k(correct_PS, k) == pytest.approx(slow)


@given(votes())
def test_majority_at_k_counts_all_subsets(sample):
    answer_PS, correct_PS, k = sample
    slow = [slow_majority(*problem, k) for problem in zip(answer_PS, correct_PS, strict=True)]
    assert majority_at_k(answer_PS, correct_PS, k) == pytest.approx(slow)


def test_verdicts_on_one_answer_that_differ_count_with_their_share():
    answer_PS, correct_PS = np.array([[1, 1, 2]]), np.array([[1, 0, 0]])
    assert majority_at_k(answer_PS, correct_PS, 3) == pytest.approx([0.5])
    assert majority_at_k(answer_PS, correct_PS, 2) == pytest.approx([slow_majority(answer_PS[0], correct_PS[0], 2)])


@pytest.mark.parametrize("k", [0, 3])
def test_arguments_are_checked(k):
    ones = np.ones((1, 2), dtype=int)
    for function, arrays in ((pass_at_k, [ones]), (majority_at_k, [ones, ones])):
        with pytest.raises(ValueError, match=f"k must be from 1 to the number of samples, 2, got {k}"):
            function(*arrays, k)
    with pytest.raises(ValueError, match=r"correct_PS must have shape \(P, S\)"):
        pass_at_k(np.ones(3), 1)
    with pytest.raises(ValueError, match=r"the shape of correct_PS, \(1, 2\), got \(2, 1\)"):
        majority_at_k(np.ones((2, 1)), np.ones((1, 2)), 1)
