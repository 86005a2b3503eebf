"""The variants' tables and statistics against plain Python."""

import math

import pytest
import torch
from hypothesis import given, settings
from scipy import stats
from test_rivals import groups_of, labelled

from ktae.bench import variants


def rate(n_t, n_f):
    return n_t / (n_t + n_f) if n_t + n_f else 0.0


STATISTICS = {
    variants.shrunk_difference: lambda a, b, t, f: (a + rate(t, f)) / (a + b + 1) - rate(t, f),
    variants.share_difference: lambda a, b, t, f: a / t - b / f,
    variants.exonerated: lambda a, b, t, f: 1.0 if a else (1 - rate(t, f)) ** b - 1,
    variants.z_score: lambda a, b, t, f: _z_score(a, b, t, f),
    variants.supported(variants.z_score, 2): lambda a, b, t, f: _z_score(a, b, t, f) if a + b >= 2 else 0.0,
    variants.significant(variants.share_difference, 0.371): lambda a, b, t, f: (
        a / t - b / f if stats.fisher_exact([[a, t - a], [b, f - b]]).pvalue <= 0.371 else 0.0
    ),
}


def _z_score(a, b, n_t, n_f):
    n, held = n_t + n_f, a + b
    if held in (0, n) or n == 1:
        return 0.0
    variance = n_t * n_f * held * (n - held) / (n * n * (n - 1))
    return math.tanh((a - held * n_t / n) / math.sqrt(variance) / 2)


def places(rollouts, row, context):
    columns = rollouts.mask[row].nonzero()[:, 0].tolist()
    tokens = rollouts.token_ids[row, columns].tolist()
    return [(t, tuple(tokens[max(0, i - context) : i]), tokens[i]) for i, t in enumerate(columns)]


def table(rollouts, rows, context, before, token):
    """a, b, n_T, n_F: those that went on with the token, and those that reached the context (any, without one)."""
    counts = [0, 0, 0, 0]
    for row in rows:
        here = [(c, x) for _, c, x in places(rollouts, row, context)]
        side = 0 if rollouts.rewards[row] > 0 else 1
        counts[side] += (before, token) in here
        counts[2 + side] += any(c == before for c, _ in here) or context == 0
    return counts


@pytest.mark.parametrize("context", [0, 1, 2])
@pytest.mark.parametrize("leave_one_out", [False, True])
@settings(max_examples=15)
@given(rollouts=labelled())
def test_in_context(context, leave_one_out, rollouts):
    estimators = {s: variants.in_context(s, context, leave_one_out=leave_one_out) for s in STATISTICS}
    values = {s: estimator(rollouts) for s, estimator in estimators.items()}
    for rows in groups_of(rollouts):
        for row in rows:
            for t, before, token in places(rollouts, row, context):
                a, b, n_t, n_f = table(rollouts, rows, context, before, token)
                if leave_one_out and rollouts.rewards[row] > 0:
                    a, n_t = a - 1, n_t - 1
                elif leave_one_out:
                    b, n_f = b - 1, n_f - 1
                for statistic, plain in STATISTICS.items():
                    wanted = plain(a, b, n_t, n_f) if n_t and n_f else 0.0
                    assert float(values[statistic][row, t]) == pytest.approx(wanted, abs=1e-5)


@settings(max_examples=30)
@given(labelled())
def test_back_off(rollouts):
    values = variants.back_off(2, pseudo=1.5, support=2)(rollouts)
    for rows in groups_of(rollouts):
        mean = sum(float(r > 0) for r in rollouts.rewards[rows]) / len(rows)
        for row in rows:
            contexts = [places(rollouts, row, n) for n in range(3)]
            for (t, _, _), *_ in zip(*contexts, strict=True):
                q = v = mean
                for n in range(3):
                    _, before, token = next(place for place in contexts[n] if place[0] == t)
                    a, b, n_t, n_f = table(rollouts, rows, n, before, token)
                    if n_t + n_f >= 2:
                        q, v = (a + 1.5 * q) / (a + b + 1.5), (n_t + 1.5 * v) / (n_t + n_f + 1.5)
                assert float(values[row, t]) == pytest.approx(q - v, abs=1e-5)


def test_first_only_leaves_what_follows_a_conviction_alone():
    from ktae.bench.labelled import Rollouts

    # 1 then 2 succeeds four times; 1 then 3 fails four times and goes on with 4, which nobody else says.
    ids = torch.tensor([[1, 2, 5]] * 4 + [[1, 3, 4]] * 4)
    rollouts = Rollouts(
        token_ids=ids,
        mask=torch.ones(8, 3, dtype=torch.bool),
        rewards=torch.tensor([1.0] * 4 + [0.0] * 4),
        group_ids=torch.zeros(8, dtype=torch.int64),
        step_index=torch.full((8, 3), -1),
        labels=torch.zeros(8, 3, dtype=torch.int8),
        first_error=torch.full((8,), -1),
    )
    everything = variants.in_context(variants.share_difference, 0)(rollouts)
    first = variants.in_context(variants.share_difference, 0, first_only=True)(rollouts)
    assert everything[4].tolist() == [0.0, -1.0, -1.0]
    assert first[4].tolist() == [0.0, -1.0, 0.0]
    assert first[0].tolist() == everything[0].tolist()
