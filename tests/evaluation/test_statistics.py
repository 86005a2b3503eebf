"""Estimates and comparisons: against slow or published ones, and how often the intervals hold the truth."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ktae.evaluation.statistics import (
    Estimate,
    average,
    holm,
    mean_interval,
    paired_difference,
    paired_p_value,
    share_interval,
)

HARD, MIXED, EASY = (0.2, 1.8), (1.0, 2.0), (4.0, 0.4)  # beta distributions of a problem's chance to be solved
SIMULATIONS = 1000  # the standard error of a coverage of 0.95 is 0.007
BENCHMARKS = {"hard": HARD, "mixed": MIXED, "easy": EASY}


@st.composite
def outcomes(draw, arrays=1, max_problems=8, max_samples=4):
    """So many (P, S) arrays of 0 and 1 of one shape, extreme ones included."""
    problems, samples = draw(st.integers(1, max_problems)), draw(st.integers(1, max_samples))
    flat = st.lists(st.integers(0, 1), min_size=problems * samples, max_size=problems * samples)
    constant = st.sampled_from([[0] * problems * samples, [1] * problems * samples])
    return [np.reshape(draw(flat | constant), (problems, samples)) for _ in range(arrays)]


def beta(generator, ab, problems):
    return generator.beta(*ab, size=(problems, 1))


def sampled(generator, chance_P1, samples):
    return (generator.random((len(chance_P1), samples)) < chance_P1).astype(int)


def coverage(draw, truth):
    """How often the interval of `draw(generator)` holds the truth."""
    generator = np.random.default_rng(0)
    found = [draw(generator) for _ in range(SIMULATIONS)]
    return sum(one.low <= truth <= one.high for one in found) / SIMULATIONS


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
        return share_interval(sampled(generator, beta(generator, ab, problems), samples).mean(axis=1))

    assert coverage(draw, ab[0] / sum(ab)) >= 0.93


@given(outcomes(), st.randoms())
def test_properties_of_an_accuracy(arrays, random):
    share_P = arrays[0].mean(axis=1)
    found, mirrored = share_interval(share_P), share_interval(1 - share_P)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high
    assert share_interval(random.sample(share_P.tolist(), len(share_P))).low == pytest.approx(found.low)
    assert (1 - mirrored.high, 1 - mirrored.low) == pytest.approx((found.low, found.high))


@pytest.mark.parametrize("values", [[], [[1.0]], [1.5], [-0.5], [math.nan]])
def test_shares_are_checked(values):
    with pytest.raises(ValueError, match="share_P must"):
        share_interval(np.array(values))


@pytest.mark.parametrize("problems", [2, 3, 4, 5, 30, 500])
def test_mean_interval_is_students(problems):
    value_P = np.random.default_rng(problems).lognormal(6, 1, problems)
    expected = stats.t.interval(0.95, problems - 1, loc=value_P.mean(), scale=stats.sem(value_P))
    found = mean_interval(value_P)
    assert found.value == pytest.approx(value_P.mean())
    assert found.high - found.low == pytest.approx(expected[1] - expected[0], rel=2e-3)
    assert found.low + found.high == pytest.approx(sum(expected))


def test_one_length_and_no_task_say_nothing():
    assert mean_interval(np.zeros(4)) == Estimate(0, 0, 0)
    with pytest.raises(ValueError, match=r"at least 2 problems, got \(1,\)"):
        mean_interval(np.array([3.0]))
    with pytest.raises(ValueError, match="must not be empty"):
        average([])


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
    found = paired_difference(ours, theirs)
    assert -1 <= found.low <= found.value + 1e-12
    assert found.value - 1e-12 <= found.high <= 1
    assert found.low < found.high
    turned = paired_difference(theirs, ours)
    assert (-turned.high, -turned.low) == pytest.approx((found.low, found.high))
    order = random.sample(range(len(ours)), len(ours))
    assert paired_difference(ours[order], theirs[order]).low == pytest.approx(found.low)
    assert paired_p_value(ours[order], theirs[order]) == pytest.approx(paired_p_value(ours, theirs))


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        (np.ones((2, 1)), np.ones((3, 1)), "same problems, got 2 and 3"),
        (np.ones((2, 1)), np.full((2, 1), 0.5), "baseline_PS must hold 0 and 1 only"),
        (np.ones(2), np.ones((2, 1)), r"correct_PS must have shape \(P, S\)"),
        (np.ones((2, 1)), np.full((2, 1), math.nan), "baseline_PS must hold 0 and 1 only"),
    ],
)
def test_arrays_are_checked(ours, theirs, message):
    with pytest.raises(ValueError, match=message):
        paired_difference(ours, theirs)


@given(outcomes(arrays=2))
def test_the_exact_p_value_counts_all_exchanges(arrays):
    difference_P = arrays[0].sum(axis=1) - arrays[1].sum(axis=1)
    sums = [abs(np.dot(signs, difference_P)) for signs in itertools.product((-1, 1), repeat=len(difference_P))]
    assert paired_p_value(*arrays) == pytest.approx(np.mean(np.array(sums) >= abs(difference_P.sum())))


@pytest.mark.parametrize(("won", "lost"), [(0, 0), (5, 0), (3, 8), (40, 40), (120, 71)])
def test_one_sample_a_problem_is_mcnemars_exact_test(won, lost):
    ours, theirs = np.ones((won + lost + 20, 1)), np.ones((won + lost + 20, 1))
    theirs[:won] = 0
    ours[won : won + lost] = 0
    expected = stats.binomtest(won, won + lost).pvalue if won + lost else 1
    assert paired_p_value(ours, theirs) == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"same number of samples, got \(\d+, 1\) and \(\d+, 2\)"):
        paired_p_value(ours, np.repeat(theirs, 2, axis=1))


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values):
    rejected = set()
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[i] * (len(p_values) - rank) >= 0.05:
            break
        rejected.add(i)
    assert {i for i, p in enumerate(holm(p_values)) if p < 0.05} == rejected
