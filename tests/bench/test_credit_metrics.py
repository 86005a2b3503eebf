import math
import statistics
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ktae.bench import credit, metrics
from ktae.bench.estimators import ESTIMATORS
from ktae.bench.labelled import Label, Rollouts
from ktae.bench.metrics import LOCALISATION, METRICS

OTHER, RIGHT, SLIP, PROPAGATED = Label


def make(labels, values, rewards, groups, steps=None, true=None, mask=None):
    """Rollouts and values from lists; a shorter row is padded outside the mask, with labels that would mislead."""
    width = max(len(row) for row in labels)

    def pad(rows, filler):
        return [list(row) + [filler] * (width - len(row)) for row in rows]

    mask = torch.tensor(pad(mask or [[True] * len(row) for row in labels], False))
    labels_BT = torch.tensor(pad(labels, int(SLIP)), dtype=torch.int8)
    slip_BT = (labels_BT == SLIP) & mask
    rollouts = Rollouts(
        token_ids=torch.zeros(mask.shape, dtype=torch.int64),
        mask=mask,
        rewards=torch.tensor(rewards, dtype=torch.float32),
        group_ids=torch.tensor(groups),
        step_index=torch.tensor(pad(steps or [[-1] * len(row) for row in labels], 0)),
        labels=labels_BT,
        first_error=torch.where(slip_BT.any(dim=1), slip_BT.int().argmax(dim=1), -1),
        true_advantages=None if true is None else torch.tensor(pad(true, 9.0), dtype=torch.float32),
    )
    return rollouts, torch.tensor(pad(values, -9.0))


def measure(rollouts, values):
    sums = metrics.group_sums(rollouts, values)
    return {name: metrics.interval(name, sums[name], 0).value for name in METRICS}


# --- the metrics -------------------------------------------------------------------------------------------


def test_an_example_by_hand():
    """The slip is blamed more than one of two earlier right tokens and ties with one of two propagated ones."""
    rollouts, values = make(
        labels=[[RIGHT, OTHER, RIGHT, SLIP, PROPAGATED, PROPAGATED], [RIGHT, RIGHT]],
        values=[[-0.5, 0.0, 0.2, -0.4, -0.4, 0.3], [1.0, 1.0]],
        rewards=[0.0, 1.0],
        groups=[7, 7],
        steps=[[0, 0, 1, 2, 2, 3], [0, 1]],
        true=[[math.nan, math.nan, 0.25, -0.5, math.nan, 0.0], [0.5, math.nan]],
    )
    got = measure(rollouts, values)
    assert got["before"] == 0.5
    assert got["after"] == 0.75
    assert got["slip"] == pytest.approx(3.5 / 5)
    assert got["top"] == 0.0
    assert (got["step"], got["low"]) == (1.0, 0.5)  # means -.25, .2 and -.4; lowest -.5, .2 and -.4
    assert got["sign"] == pytest.approx(1 / 3)
    assert got["full"] == pytest.approx(2 / 8)
    assert got["true"] == pytest.approx(statistics.correlation([0.2, -0.4, 0.3, 1.0], [0.25, -0.5, 0.0, 0.5]))


def test_tokens_that_tie_for_the_top_share_it():
    rollouts, values = make([[SLIP, OTHER, OTHER, OTHER], [RIGHT]], [[0.0] * 4, [0.0]], [0.0, 1.0], [0, 0])
    assert measure(rollouts, values)["top"] == 0.25


@pytest.mark.parametrize(
    ("rewards", "groups", "counts"),
    [([0.0, 1.0], [0, 0], True), ([0.0, 0.0], [0, 0], False), ([1.0, 0.0], [0, 0], False), ([0.0, 1.0], [0, 1], False)],
    ids=["mixed", "all incorrect", "correct in spite of a slip", "groups of one"],
)
def test_which_rollouts_count(rewards, groups, counts):
    rollouts, values = make([[RIGHT, SLIP], [RIGHT, RIGHT]], [[0.1, -0.1], [0.2, 0.2]], rewards, groups)
    assert (measure(rollouts, values)["slip"] == 1.0) == counts
    assert math.isnan(measure(rollouts, values)["slip"]) != counts


@st.composite
def judged(draw):
    """Any labels, steps and values; few different values, so that ties are common; holes in the mask."""
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    n, t = sum(sizes), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.sampled_from([1, 2, 5, 1000]))
    return make(
        labels=rng.choice(4, (n, t), p=[0.3, 0.3, 0.2, 0.2]).tolist(),
        values=(rng.integers(-levels, levels + 1, (n, t)) / levels).tolist(),
        rewards=rng.integers(0, 2, n).astype(float).tolist(),
        groups=rng.permutation(np.repeat(rng.integers(-100, 100, len(sizes)), sizes)).tolist(),
        steps=rng.integers(-1, 4, (n, t)).tolist(),
        true=np.where(rng.random((n, t)) < 0.5, np.nan, rng.normal(size=(n, t))).tolist(),
        mask=(rng.random((n, t)) < draw(st.sampled_from([0.5, 0.9, 1.0]))).tolist(),
    )


def oracle(rollouts, values):
    """Every metric from its definition, one rollout and one pair at a time."""
    found = {name: [] for name in METRICS}
    rows = range(len(rollouts.rewards))
    outcomes = {}
    for i in rows:
        outcomes.setdefault(int(rollouts.group_ids[i]), set()).add(bool(rollouts.rewards[i] > 0))
    mixed = [i for i in rows if len(outcomes[int(rollouts.group_ids[i])]) == 2]

    def tokens(i):
        return [t for t in range(rollouts.mask.shape[1]) if rollouts.mask[i, t]]

    def auroc(at_fault, others):
        wins = [1.0 if a < b else 0.5 if a == b else 0.0 for a in at_fault for b in others]
        return [sum(wins) / len(wins)] if wins else []

    for i in mixed:
        value = {t: float(values[i, t]) for t in tokens(i)}
        label = {t: Label(int(rollouts.labels[i, t])) for t in tokens(i)}
        slips = [t for t in value if label[t] is SLIP]
        if rollouts.rewards[i] > 0 or not slips:
            continue
        first = min(slips)
        found["slip"] += auroc([value[t] for t in slips], [value[t] for t in value if label[t] is not SLIP])
        found["before"] += auroc([value[first]], [value[t] for t in value if label[t] is RIGHT and t < first])
        found["after"] += auroc([value[first]], [value[t] for t in value if label[t] is PROPAGATED])
        lowest = [t for t in value if value[t] == min(value.values())]
        found["top"].append((first in lowest) / len(lowest))
        by_step = {}
        for t in value:
            by_step.setdefault(int(rollouts.step_index[i, t]), []).append(value[t])
        wrong = int(rollouts.step_index[i, first])
        earlier = [step for step in by_step if 0 <= step < wrong]
        for name, summary in (("step", lambda x: round(math.fsum(x) / len(x), 12)), ("low", min)):
            found[name] += auroc([summary(by_step[wrong])], [summary(by_step[step]) for step in earlier])

    largest = max((abs(float(values[i, t])) for i in mixed for t in tokens(i)), default=0.0)
    pairs = []
    for i in mixed:
        for t in tokens(i):
            value, true = float(values[i, t]), float(rollouts.true_advantages[i, t])
            found["full"].append(abs(value) > 0.99 * largest)
            if value < 0 and rollouts.labels[i, t] != OTHER:
                found["sign"].append(int(rollouts.labels[i, t]) == SLIP)
            if not math.isnan(true):
                pairs.append((value, true))
    means = {name: statistics.fmean(x) if x else math.nan for name, x in found.items()}
    try:
        means["true"] = statistics.correlation(*zip(*pairs, strict=True))
    except (TypeError, statistics.StatisticsError):  # too few, or no spread
        means["true"] = math.nan
    return means


@given(judged())
def test_every_metric_is_what_its_definition_says(batch):
    got, want = measure(*batch), oracle(*batch)
    for name in METRICS:
        assert got[name] == pytest.approx(want[name], abs=1e-6, nan_ok=True), name


@given(judged(), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_plays_no_part(batch, random):
    rollouts, values = batch
    order = torch.tensor(random.sample(range(len(values)), len(values)))
    sums, shuffled = metrics.group_sums(rollouts, values), metrics.group_sums(rollouts.rows(order), values[order])
    for name in METRICS:
        np.testing.assert_allclose(sums[name], shuffled[name], rtol=1e-12, atol=1e-12)


@given(judged())
def test_only_the_order_of_the_values_counts_for_single_tokens(batch):
    rollouts, values = batch
    sums, stretched = (metrics.group_sums(rollouts, v) for v in (values, values.double() ** 3 + values))
    for name in ("slip", "before", "after", "top", "low", "sign"):
        np.testing.assert_array_equal(sums[name], stretched[name])


@given(judged())
def test_calibration_counts_every_token_of_known_label_once(batch):
    rollouts, values = batch
    bins = metrics.calibration(rollouts, values)
    counted = rollouts.mask & metrics.mixed(rollouts)[:, None] & (rollouts.labels != OTHER)
    scale = values[rollouts.mask & metrics.mixed(rollouts)[:, None]].abs().max().item() if counted.any() else 1.0
    slips = negative = 0
    true = 0.0
    for i, t in counted.nonzero().tolist():
        relative = float(values[i, t]) / (scale or 1.0)
        holds = [b for b in bins if b.low <= relative < b.high or relative == b.high == 1]
        assert len(holds) == 1
        slips += int(rollouts.labels[i, t]) == SLIP
        advantage = float(rollouts.true_advantages[i, t])
        negative += advantage < 0
        true += 0.0 if math.isnan(advantage) else advantage
    assert sum(b.tokens for b in bins) == int(counted.sum())
    assert sum(b.slips * b.tokens for b in bins if b.tokens) == pytest.approx(slips)
    assert sum(b.negative * b.measured for b in bins if b.measured) == pytest.approx(negative)
    assert sum(b.advantage * b.measured for b in bins if b.measured) == pytest.approx(true)


def test_values_of_another_shape_or_not_finite_are_refused():
    rollouts, values = make([[RIGHT, SLIP], [RIGHT]], [[0.1, -0.1], [0.2]], [0.0, 1.0], [0, 0])
    with pytest.raises(ValueError, match=r"values must have the shape \(2, 2\), got \(2, 1\)"):
        metrics.group_sums(rollouts, values[:, :1])
    values[1, 1] = math.nan  # outside the mask
    metrics.group_sums(rollouts, values)
    values[0, 0] = math.nan
    with pytest.raises(ValueError, match="finite"):
        metrics.group_sums(rollouts, values)


# --- intervals ---------------------------------------------------------------------------------------------


def test_the_interval_of_a_mean_over_many_groups_is_the_normal_one():
    share_G = np.random.default_rng(0).uniform(size=400)
    got = metrics.interval("slip", np.stack([10 * share_G, np.full(400, 10.0)], axis=1), 0)
    error = 1.96 * share_G.std() / 20
    assert got.value == pytest.approx(share_G.mean())
    assert (got.low, got.high) == pytest.approx((got.value - error, got.value + error), abs=0.15 * error)


def test_more_rollouts_in_the_same_groups_make_an_interval_no_narrower():
    sums = np.stack([np.random.default_rng(0).uniform(size=30), np.ones(30)], axis=1)
    few, many = metrics.interval("slip", sums, 0), metrics.interval("slip", 100 * sums, 0)
    assert (few.value, few.low, few.high) == pytest.approx((many.value, many.low, many.high))


def test_differences_are_paired():
    rng = np.random.default_rng(0)
    sums = np.stack([rng.uniform(size=30), np.ones(30)], axis=1)
    better = sums + np.array([0.01, 0.0])
    got = metrics.difference("slip", better, sums, 0)
    assert (got.value, got.low, got.high) == pytest.approx((0.01, 0.01, 0.01))
    assert metrics.interval("slip", sums, 0).high - metrics.interval("slip", sums, 0).low > 0.1


@pytest.mark.parametrize("name", ["slip", "true"])
def test_there_is_no_interval_without_anything_to_measure(name):
    got = metrics.interval(name, np.zeros((5, 6)), 0)
    assert math.isnan(got.value)
    assert math.isnan(got.low)
    assert math.isnan(got.high)


# --- ranks, rollouts, estimators ---------------------------------------------------------------------------


def test_ranks_average_over_sources_and_share_ties():
    def source(**values):
        return {"estimators": {name: {key: {"value": v} for key in LOCALISATION} for name, v in values.items()}}

    results = {
        "x": source(a=0.9, b=0.5, c=0.5),
        "y": source(a=0.1, b=0.2, c=0.3),
        "z": source(a=0.1, b=0.2, c=math.nan),
    }
    ranks = credit.ranks(results, ["a", "b", "c"])
    assert {name: of_metric["mean"] for name, of_metric in ranks.items()} == {"a": 2.0, "b": 2.25, "c": 1.75}


def test_rollouts_check_their_fields():
    rollouts, _ = make([[RIGHT, SLIP], [RIGHT]], [[0.1, -0.1], [0.2]], [0.0, 1.0], [0, 0])
    with pytest.raises(ValueError, match=r"labels must be torch\.int8 .* got torch\.int64"):
        replace(rollouts, labels=rollouts.labels.long())
    with pytest.raises(ValueError, match="row 0 has 0, and its labels say 1"):
        replace(rollouts, first_error=torch.tensor([0, -1]))
    assert rollouts.rows(torch.tensor([1])).rewards.tolist() == [1.0]


@pytest.mark.parametrize("name", ESTIMATORS)
@settings(max_examples=20)
@given(batch=judged(), random=st.randoms(use_true_random=False))
def test_estimators_give_every_row_the_same_whatever_the_order(name, batch, random):
    rollouts, _ = batch
    rollouts = replace(rollouts, token_ids=rollouts.step_index + 1, entropies=(rollouts.step_index + 2).float())
    order = torch.tensor(random.sample(range(len(rollouts.rewards)), len(rollouts.rewards)))
    values = ESTIMATORS[name](rollouts)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values[order], ESTIMATORS[name](rollouts.rows(order)))
