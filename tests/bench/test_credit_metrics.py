import math
import statistics
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ktae.bench import metrics
from ktae.bench.controls import ESTIMATORS
from ktae.bench.labelled import LabelledRollouts
from ktae.bench.metrics import METRICS
from ktae.chain.labels import Label
from ktae.estimators import Rollouts, token_values

OTHER, RIGHT, SLIP, PROPAGATED = Label


def make(labels, values, rewards, groups, true=None, mask=None):
    """Rollouts and values from lists; a shorter row is padded outside the mask, with labels that would mislead."""
    width = max(len(row) for row in labels)

    def pad(rows, filler):
        return [list(row) + [filler] * (width - len(row)) for row in rows]

    mask = torch.tensor(pad(mask or [[True] * len(row) for row in labels], False))
    rollouts = LabelledRollouts(
        token_ids=torch.tensor(pad(labels, 0)),
        mask=mask,
        rewards=torch.tensor(rewards, dtype=torch.float32),
        group_ids=torch.tensor(groups),
        entropies=torch.rand(mask.shape, generator=torch.Generator().manual_seed(0)),
        labels=torch.tensor(pad(labels, int(SLIP)), dtype=torch.int8),
        calculations=torch.zeros(mask.shape, dtype=torch.int64),
        true_advantages=None if true is None else torch.tensor(pad(true, 9.0), dtype=torch.float32),
    )
    return rollouts, torch.tensor(pad(values, -9.0))


@st.composite
def judged(draw):
    """Any labels and values; few different values, so that ties are common; holes in the mask."""
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    n, t = sum(sizes), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.sampled_from([1, 2, 5, 1000]))
    return make(
        labels=rng.choice(4, (n, t), p=[0.3, 0.3, 0.2, 0.2]).tolist(),
        values=(rng.integers(-levels, levels + 1, (n, t)) / levels).tolist(),
        rewards=rng.integers(0, 2, n).astype(float).tolist(),
        groups=rng.permutation(np.repeat(rng.integers(-100, 100, len(sizes)), sizes)).tolist(),
        true=np.where(rng.random((n, t)) < 0.5, np.nan, rng.normal(size=(n, t))).tolist(),
        mask=(rng.random((n, t)) < draw(st.sampled_from([0.5, 0.9, 1.0]))).tolist(),
    )


def oracle(rollouts, values):
    """Every metric from its definition, one rollout and one pair at a time."""
    found, pairs, outcomes = {name: [] for name in METRICS}, {True: [], False: []}, {}
    correct = (rollouts.rewards > 0).tolist()
    for group, is_correct in zip(rollouts.group_ids.tolist(), correct, strict=True):
        outcomes.setdefault(group, set()).add(is_correct)

    def auroc(at_fault, others):
        wins = [1.0 if a < b else 0.5 if a == b else 0.0 for a in at_fault for b in others]
        return [sum(wins) / len(wins)] if wins else []

    for i, group in enumerate(rollouts.group_ids.tolist()):
        if len(outcomes[group]) < 2:
            continue
        value = {t: float(values[i, t]) for t in rollouts.mask[i].nonzero()[:, 0].tolist()}
        label = {t: Label(int(rollouts.labels[i, t])) for t in value}
        slips = [t for t in value if label[t] is SLIP]
        found["sign"] += [label[t] is SLIP for t in value if value[t] < 0 and label[t] is not OTHER]
        true = {t: float(rollouts.true_advantages[i, t]) for t in value}
        pairs[correct[i]] += [(value[t], true[t]) for t in value if not math.isnan(true[t])]
        if correct[i] or not slips:
            continue
        found["slip"] += auroc([value[t] for t in slips], [value[t] for t in value if label[t] is not SLIP])
        first = min(slips)
        found["before"] += auroc([value[first]], [value[t] for t in value if label[t] is RIGHT and t < first])
        found["after"] += auroc([value[first]], [value[t] for t in value if label[t] is PROPAGATED])
        lowest = [t for t in value if value[t] == min(value.values())]
        found["top"].append((first in lowest) / len(lowest))

    means = {name: statistics.fmean(x) if x else math.nan for name, x in found.items()}
    for name, of_outcome in (("true_incorrect", pairs[False]), ("true_correct", pairs[True])):
        with suppress(TypeError, statistics.StatisticsError):  # too few, or no spread
            means[name] = statistics.correlation(*zip(*of_outcome, strict=True))
    return means


@given(judged())
def test_every_metric_is_what_its_definition_says(batch):
    sums, want = metrics.group_sums(*batch), oracle(*batch)
    for name in METRICS:
        got = metrics.estimate(sums[name], sums[name], 0)[0]
        assert got == pytest.approx(want[name], abs=1e-6, nan_ok=True), name


def test_the_interval_of_a_mean_over_many_groups_is_the_normal_one():
    share_G = np.random.default_rng(0).uniform(size=400)
    sums = np.stack([10 * share_G, np.full(400, 10.0)], axis=1)
    value, low, high = metrics.estimate(sums, sums, 0)[:3]
    error = 1.96 * share_G.std() / 20
    assert value == pytest.approx(share_G.mean())
    assert (low, high) == pytest.approx((value - error, value + error), abs=0.15 * error)


def test_more_rollouts_in_the_same_groups_make_an_interval_no_narrower():
    sums = np.stack([np.random.default_rng(0).uniform(size=30), np.ones(30)], axis=1)
    assert metrics.estimate(sums, sums, 0) == pytest.approx(metrics.estimate(100 * sums, sums, 0))


def test_differences_are_paired():
    rng = np.random.default_rng(0)
    sums = np.stack([rng.uniform(size=30), np.ones(30)], axis=1)
    _, low, high, *difference = metrics.estimate(sums + np.array([0.01, 0.0]), sums, 0)
    assert difference == pytest.approx([0.01] * 3)
    assert high - low > 0.1


@pytest.mark.parametrize("columns", [2, 6], ids=["ratio", "correlation"])
def test_there_is_no_interval_without_anything_to_measure(columns):
    sums = np.zeros((5, columns))
    assert np.isnan(metrics.estimate(sums, sums, 0)).all()


def test_rollouts_check_their_labels():
    rollouts, _ = make([[RIGHT, SLIP], [RIGHT]], [[0.1, -0.1], [0.2]], [0.0, 1.0], [0, 0])
    with pytest.raises(ValueError, match=r"labels must be torch\.int8 .* got torch\.int64"):
        replace(rollouts, labels=rollouts.labels.long())
    with pytest.raises(TypeError, match="oracle needs LabelledRollouts, got Rollouts"):
        ESTIMATORS["oracle"](Rollouts(*(torch.ones(1, *shape).long() for shape in ((1,), (1,), (), ()))))
    assert rollouts.first_slip_BT.tolist() == [[False, True], [False, False]]
    assert rollouts.rows(torch.tensor([1])).labels.tolist() == [[RIGHT, SLIP]]


def test_controls_by_hand():
    rollouts, _ = make([[RIGHT, SLIP, PROPAGATED], [RIGHT]], [[0.0] * 3, [0.0]], [0.0, 1.0], [0, 0])
    values = {name: ESTIMATORS[name](rollouts).tolist() for name in ("oracle", "own_outcome", "position")}
    assert values["oracle"] == [[1, -1, 0], [1, 0, 0]]
    assert values["own_outcome"] == [[-1, -1, -1], [1, 0, 0]]
    assert values["position"] == [[0, 0.5, 1], [0, 0, 0]]


@pytest.mark.parametrize("name", ESTIMATORS)
@settings(max_examples=10)
@given(batch=judged(), random=st.randoms(use_true_random=False))
def test_estimators_give_every_row_the_same_whatever_the_order(name, batch, random):
    rollouts, _ = batch
    order = torch.tensor(random.sample(range(len(rollouts.rewards)), len(rollouts.rewards)))
    values = token_values(ESTIMATORS[name], rollouts)
    torch.testing.assert_close(values[order], token_values(ESTIMATORS[name], rollouts.rows(order)))
