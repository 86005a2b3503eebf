"""The rivals against plain Python, on random batches."""

import math
from collections import defaultdict

import numpy as np
import oracle as slow
import pytest
import torch
from batches import batches
from hypothesis import given, settings
from hypothesis import strategies as st

from ktae.bench import rivals
from ktae.bench.estimators import ESTIMATORS, beyond_rollout
from ktae.bench.labelled import Label, Rollouts
from ktae.config import KTAEConfig


@st.composite
def labelled(draw):
    """A random batch with random labels and entropies."""
    batch = draw(batches(rewards=["0 or 1"], unscored=(0.0,)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = batch.token_ids.shape
    labels = torch.from_numpy(rng.integers(0, 4, shape)).to(torch.int8)
    slip_BT = (labels == Label.SLIP) & batch.mask
    return Rollouts(
        token_ids=batch.token_ids.masked_fill(~batch.mask, 0),
        mask=batch.mask,
        rewards=batch.rewards.float(),
        group_ids=batch.group_ids,
        step_index=torch.full(shape, -1),
        labels=labels,
        first_error=torch.where(slip_BT.any(1), slip_BT.int().argmax(1), -1),
        entropies=torch.from_numpy(rng.exponential(0.5, shape)).float(),
    )


def groups_of(rollouts):
    groups = defaultdict(list)
    for row, group in enumerate(rollouts.group_ids.tolist()):
        groups[group].append(row)
    return groups.values()


def rollout_advantages(rollouts):
    return torch.from_numpy(slow.grpo(rollouts.rewards.numpy(), rollouts.group_ids.numpy()))


def deviation(values):
    mean = sum(values) / len(values)
    return math.sqrt(sum((v - mean) ** 2 for v in values) / max(len(values) - 1, 1))


@settings(max_examples=30)
@given(labelled())
def test_prefix_tree(rollouts):
    advantage_B = rollout_advantages(rollouts)
    got = rivals.prefix_tree(rollouts, advantage_B)
    rewards = rollouts.rewards.tolist()
    for rows in groups_of(rollouts):
        scale = deviation([rewards[row] for row in rows]) + 1e-6

        def value(row, end, rows=rows):
            """Mean reward of the rollouts that agree with `row` up to the column `end`, gaps in the mask included."""

            def prefix(r):
                return [int(rollouts.token_ids[r, t]) if rollouts.mask[r, t] else None for t in range(end)]

            same = [rewards[r] for r in rows if prefix(r) == prefix(row)]
            return sum(same) / len(same)

        for row in rows:
            before = value(row, 0)
            for t in range(rollouts.mask.shape[1]):
                if not rollouts.mask[row, t]:
                    assert got[row, t] == 0
                    continue
                after = value(row, t + 1)
                assert got[row, t] == pytest.approx(float(advantage_B[row]) + (after - before) / scale, abs=1e-5)
                before = after


@settings(max_examples=30)
@given(labelled())
def test_entropy_weighted(rollouts):
    advantage_B = rollout_advantages(rollouts)
    got = rivals.entropy_weighted(rollouts, advantage_B)
    width = rollouts.mask.shape[1]
    for rows in groups_of(rollouts):
        sides = {sign: [r for r in rows if (rollouts.rewards[r] > 0) == (sign > 0)] for sign in (1, -1)}
        if not all(sides.values()):
            np.testing.assert_allclose(got[rows], (advantage_B[rows, None] * rollouts.mask[rows]).numpy(), atol=1e-5)
            continue
        reward = {}
        for sign, side in sides.items():
            for t in range(width):
                alive = [r for r in side if rollouts.mask[r, t]]
                weight = {r: max(float(rollouts.entropies[r, t]), 1e-6) ** sign for r in alive}
                for r in alive:
                    reward[r, t] = sign * (0.5 + 0.5 * len(alive) * weight[r] / sum(weight.values()))
        if len(reward) < 2:
            continue
        mean, spread = sum(reward.values()) / len(reward), deviation(list(reward.values()))
        for (r, t), value in reward.items():
            assert got[r, t] == pytest.approx((value - mean) / (spread + 1e-6), abs=1e-3)


@settings(max_examples=30)
@given(labelled())
def test_high_entropy_only_keeps_a_fifth(rollouts):
    counted = int(rollouts.mask.sum())
    if counted == 0:
        return
    kept_BT = rivals.high_entropy_only(rollouts, torch.ones(len(rollouts.mask), dtype=torch.float64)) != 0
    assert not (kept_BT & ~rollouts.mask).any()
    assert 0.2 * counted - 1 <= int(kept_BT.sum()) <= 0.2 * counted + 1
    dropped_BT = rollouts.mask & ~kept_BT
    if dropped_BT.any():
        assert rollouts.entropies[kept_BT].min() >= rollouts.entropies[dropped_BT].max()


@settings(max_examples=30)
@given(labelled())
def test_oracle_and_controls(rollouts):
    advantage_B = rollout_advantages(rollouts)
    values = rivals.oracle(rollouts, advantage_B) - rivals.uniform(rollouts, advantage_B)
    key = slow.key_token_values(
        *(x.numpy() for x in (rollouts.token_ids, rollouts.mask, rollouts.rewards, rollouts.group_ids))
    )
    mean = rivals.key_mean(KTAEConfig())(rollouts, advantage_B)
    for rows in groups_of(rollouts):
        mixed = 0 < sum(rollouts.rewards[rows].tolist()) < len(rows)
        for row in rows:
            columns = rollouts.mask[row].nonzero()[:, 0].tolist()
            for t in columns:
                label = int(rollouts.labels[row, t])
                wanted = {Label.RIGHT: 1.0, Label.SLIP: -1.0}.get(label, 0.0) if mixed else 0.0
                assert float(values[row, t]) == pytest.approx(wanted, abs=1e-6)
                expected = float(advantage_B[row]) + key[row, columns].mean()
                assert float(mean[row, t]) == pytest.approx(expected, abs=1e-5)


def test_entropies_are_needed():
    rollouts = Rollouts(
        token_ids=torch.tensor([[1]]),
        mask=torch.tensor([[True]]),
        rewards=torch.tensor([1.0]),
        group_ids=torch.tensor([0]),
        step_index=torch.tensor([[-1]]),
        labels=torch.zeros(1, 1, dtype=torch.int8),
        first_error=torch.tensor([-1]),
    )
    for rival in (rivals.entropy_weighted, rivals.high_entropy_only):
        with pytest.raises(ValueError, match="needs the rollouts' entropies"):
            rival(rollouts, torch.zeros(1, dtype=torch.float64))


@settings(max_examples=30)
@given(labelled())
def test_estimators_are_finite_zero_outside_the_mask_and_the_same_in_any_order(rollouts):
    order = torch.arange(len(rollouts.mask) - 1, -1, -1)
    for name, estimator in ESTIMATORS.items():
        values = estimator(rollouts)
        assert values.isfinite().all(), name
        if name not in ("random", "position"):
            assert (values[~rollouts.mask] == 0).all(), name
        np.testing.assert_allclose(estimator(rollouts.rows(order)), values[order], atol=1e-6, err_msg=name)


@settings(max_examples=30)
@given(labelled())
def test_what_uniform_adds_is_nothing(rollouts):
    assert (beyond_rollout(rivals.uniform)(rollouts) == 0).all()
