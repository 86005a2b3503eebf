"""Rollout advantages against the oracle and by hand; what must not change them is in test_properties.py."""

import math

import numpy as np
import oracle
import pytest
import torch
from batches import batches
from hypothesis import given

from ktae.rollout import dr_grpo, grpo, rloo

ESTIMATORS = pytest.mark.parametrize("estimator", [grpo, dr_grpo, rloo], ids=lambda f: f.__name__)


def tensors(rewards, group_ids):
    return torch.tensor(rewards), torch.tensor(group_ids)


@ESTIMATORS
@given(batch=batches())
def test_matches_the_oracle(estimator, batch):
    expected = getattr(oracle, estimator.__name__)(batch.rewards.numpy(), batch.group_ids.numpy())
    actual = estimator(batch.rewards, batch.group_ids)
    assert actual.dtype == torch.float64
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-9, atol=1e-9)


# Two groups whose rows alternate: rewards 1, 0, 0, 1 and 2, 4, 6.
REWARDS = [1.0, 2.0, 0.0, 4.0, 0.0, 6.0, 1.0]
GROUPS = [7, -3, 7, -3, 7, -3, 7]
STD = math.sqrt(1 / 3) + 1e-6, 2 + 1e-6
BY_HAND = {
    "grpo": [0.5 / STD[0], -2 / STD[1], -0.5 / STD[0], 0, -0.5 / STD[0], 2 / STD[1], 0.5 / STD[0]],
    "dr_grpo": [0.5, -2, -0.5, 0, -0.5, 2, 0.5],
    "rloo": [2 / 3, -3, -2 / 3, 0, -2 / 3, 3, 2 / 3],
}


@ESTIMATORS
def test_by_hand(estimator):
    actual = estimator(*tensors(REWARDS, GROUPS))
    np.testing.assert_allclose(actual.numpy(), BY_HAND[estimator.__name__], rtol=1e-12, atol=1e-12)


@ESTIMATORS
@pytest.mark.parametrize("constant", [0.0, 1.0, 0.1, -1.5])
@pytest.mark.parametrize("size", [2, 3, 7, 16])
def test_equal_rewards_carry_no_advantage(estimator, constant, size):
    advantages = estimator(*tensors([constant] * size, [0] * size))
    assert advantages.abs().max() < 1e-8


@ESTIMATORS
def test_a_common_offset_costs_no_digits(estimator):
    """Rewards far from 0 keep their differences: mean and variance are not accumulated in float32."""
    rewards, group_ids = tensors([1.0, 0.0, 0.0, 1.0, 0.0], [0, 0, 0, 0, 0])
    shifted = estimator(rewards.double() + 100_000, group_ids)
    np.testing.assert_allclose(shifted.numpy(), estimator(rewards, group_ids).numpy(), rtol=0, atol=1e-8)
