"""Estimates and comparisons: against slow or published ones, and how often the intervals hold the truth."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ktae.evaluation.statistics import (
    Estimate,
    majority,
    mean_interval,
    paired_difference,
    paired_p_value,
    pass_at_k,
    share_interval,
)

# Beta distributions of a problem's chance to be solved.
BENCHMARKS = {"hard": (0.2, 1.8), "mixed": (1.0, 2.0), "easy": (4.0, 0.4)}


@st.composite
def outcomes(draw, arrays=1, max_samples=4):
    """So many (P, S) arrays of 0 and 1 of one shape, extreme ones included."""
    problems, samples = draw(st.integers(1, 8)), draw(st.integers(1, max_samples))
    flat = st.lists(st.integers(0, 1), min_size=problems * samples, max_size=problems * samples)
    constant = st.sampled_from([[0] * problems * samples, [1] * problems * samples])
    return [np.reshape(draw(flat | constant), (problems, samples)) for _ in range(arrays)]


def sampled(generator, chance_P1, samples):
    return (generator.random((len(chance_P1), samples)) < chance_P1).astype(int)


def coverage(draw, truth):
    """How often the interval of `draw(generator)` holds the truth; of 0.95 the standard error is 0.007."""
    generator = np.random.default_rng(0)
    return np.mean([one.low <= truth <= one.high for one in (draw(generator) for _ in range(1000))])


@pytest.mark.parametrize(("correct", "problems"), [(0, 1), (1, 1), (0, 10), (3, 10), (10, 10), (430, 1000)])
def test_one_sample_a_problem_is_wilsons_interval(correct, problems):
    found = share_interval(np.arange(problems) < correct)
    expected = stats.binomtest(correct, problems).proportion_ci(method="wilson")
    assert found.value == correct / problems
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-6)


@pytest.mark.parametrize("samples", [1, 16])
@pytest.mark.parametrize("problems", [30, 500])
@pytest.mark.parametrize("ab", BENCHMARKS.values(), ids=BENCHMARKS)
def test_coverage_of_an_accuracy(ab, problems, samples):
    def draw(generator):
        return share_interval(sampled(generator, generator.beta(*ab, (problems, 1)), samples).mean(axis=1))

    assert coverage(draw, ab[0] / sum(ab)) >= 0.93


@given(outcomes(), st.randoms())
def test_properties_of_an_accuracy(arrays, random):
    share_P = arrays[0].mean(axis=1)
    found, mirrored = share_interval(share_P), share_interval(1 - share_P)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high
    assert share_interval(random.sample(share_P.tolist(), len(share_P))).low == pytest.approx(found.low)
    assert (1 - mirrored.high, 1 - mirrored.low) == pytest.approx((found.low, found.high))


@pytest.mark.parametrize("problems", [2, 3, 4, 5, 30, 500])
def test_mean_interval_is_students(problems):
    value_P = np.random.default_rng(problems).lognormal(6, 1, problems)
    expected = stats.t.interval(0.95, problems - 1, loc=value_P.mean(), scale=stats.sem(value_P))
    found = mean_interval(value_P)
    assert found.value == pytest.approx(value_P.mean())
    assert found.high - found.low == pytest.approx(expected[1] - expected[0], rel=1e-9)
    assert found.low + found.high == pytest.approx(sum(expected))
    assert mean_interval(np.zeros(problems)) == Estimate(0, 0, 0)


@given(outcomes(arrays=2, max_samples=1))
def test_one_sample_a_problem_is_the_interval_of_bonett_and_price(arrays):
    ours_P, theirs_P = (array[:, 0] for array in arrays)
    n, won, lost = len(ours_P), int((ours_P > theirs_P).sum()), int((ours_P < theirs_P).sum())
    p, q = (won + 1) / (n + 2), (lost + 1) / (n + 2)
    half = stats.norm.ppf(0.975) * math.sqrt((p + q - (p - q) ** 2) / (n + 2))
    found = paired_difference(*arrays)
    assert found.value == pytest.approx((won - lost) / n)
    assert (found.low, found.high) == pytest.approx((max(p - q - half, -1), min(p - q + half, 1)), abs=1e-6)


@pytest.mark.parametrize("samples", [(1, 1), (16, 16), (1, 16)])
@pytest.mark.parametrize("problems", [30, 500])
def test_coverage_of_a_difference(problems, samples):
    """Ours solves every problem with a chance that is higher by a random amount in log-odds."""

    def chances(generator, problems):
        odds_P2 = generator.normal(0, 3, (problems, 1)) + generator.normal((0.5, 0), (0.7, 0.0), (problems, 2))
        return np.split(1 / (1 + np.exp(-odds_P2)), 2, axis=1)

    def draw(generator):
        pairs = zip(chances(generator, problems), samples, strict=True)
        return paired_difference(*(sampled(generator, chance_P1, s) for chance_P1, s in pairs))

    ours, theirs = chances(np.random.default_rng(1), 1_000_000)
    assert 0.93 <= coverage(draw, float((ours - theirs).mean())) <= 0.985


@given(outcomes(arrays=2), st.randoms())
def test_properties_of_a_difference(arrays, random):
    ours, theirs = arrays
    found, turned = paired_difference(ours, theirs), paired_difference(theirs, ours)
    assert -1 <= found.low <= found.value + 1e-12
    assert found.value - 1e-12 <= found.high <= 1
    assert found.low < found.high
    assert (-turned.high, -turned.low) == pytest.approx((found.low, found.high))
    order = random.sample(range(len(ours)), len(ours))
    assert paired_difference(ours[order], theirs[order]).low == pytest.approx(found.low)
    assert paired_p_value(ours[order], theirs[order]) == pytest.approx(paired_p_value(ours, theirs))


@given(outcomes(arrays=2))
def test_the_exact_p_value_counts_all_exchanges(arrays):
    difference_P = arrays[0].sum(axis=1) - arrays[1].sum(axis=1)
    sums = [abs(np.dot(signs, difference_P)) for signs in itertools.product((-1, 1), repeat=len(difference_P))]
    assert paired_p_value(*arrays) == pytest.approx(np.mean(np.array(sums) >= abs(difference_P.sum())))


@pytest.mark.parametrize(("won", "lost"), [(40, 40), (120, 71)])
def test_of_many_problems_it_is_mcnemars_exact_test(won, lost):
    ours, theirs = np.ones((won + lost + 20, 1)), np.ones((won + lost + 20, 1))
    theirs[:won] = ours[won : won + lost] = 0
    assert paired_p_value(ours, theirs) == pytest.approx(stats.binomtest(won, won + lost).pvalue)


@st.composite
def votes(draw):
    """Answers and verdicts of (P, S) samples, the verdicts on one answer not always the same, and k."""
    problems, samples = draw(st.integers(1, 3)), draw(st.integers(1, 7))
    flat = [st.lists(st.integers(least, most), min_size=21, max_size=21) for least, most in ((-1, 4), (0, 1))]
    answer_PS, correct_PS = (np.array(draw(values))[: problems * samples].reshape(problems, samples) for values in flat)
    return answer_PS, correct_PS, draw(st.integers(1, samples))


@given(votes())
def test_pass_at_k_and_majority_by_plain_counting(sample):
    answer_PS, correct_PS, k = sample
    passed, won = [], []
    for answer_S, correct_S in zip(answer_PS, correct_PS, strict=True):
        passed.append(np.mean([max(subset) for subset in itertools.combinations(correct_S, k)]))
        counts = Counter(answer for answer in answer_S.tolist() if answer >= 0)
        winners = [answer for answer, count in counts.items() if count == max(counts.values())]
        won.append(np.mean([correct_S[answer_S == winner].mean() for winner in winners]) if winners else 0.0)
    assert pass_at_k(correct_PS, k) == pytest.approx(passed)
    assert majority(answer_PS, correct_PS) == pytest.approx(won)


ONES = np.ones((2, 1))


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        *((share_interval, [np.array(x)], "share_P must") for x in ([], [[1.0]], [1.5], [-0.5], [math.nan])),
        (mean_interval, [np.array([3.0])], r"at least 2 problems, got \(1,\)"),
        (paired_difference, [ONES, np.ones((3, 1))], "same problems, got 2 and 3"),
        (paired_difference, [ONES, ONES / 2], "baseline_PS must hold 0 and 1 only"),
        (paired_difference, [ONES, ONES * math.nan], "baseline_PS must hold 0 and 1 only"),
        (paired_difference, [np.ones(2), ONES], r"correct_PS must have shape \(P, S\)"),
        (paired_p_value, [ONES, np.ones((2, 2))], r"same number of samples, got \(2, 1\) and \(2, 2\)"),
        *((pass_at_k, [ONES, k], f"k must be from 1 to the number of samples, 1, got {k}") for k in (0, 2)),
        (pass_at_k, [np.ones(3), 1], r"correct_PS must have shape \(P, S\)"),
        (majority, [np.ones((1, 2)), ONES], r"the shape of correct_PS, \(2, 1\), got \(1, 2\)"),
    ],
)
def test_arguments_are_checked(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)
