"""Every estimator against its slow version on random batches, and what all of them owe the caller."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from batches import batches
from hypothesis import given, settings
from hypothesis import strategies as st
from slow import Slow

from ktae.estimators import ESTIMATORS, NEEDS, Rollouts, load_estimator, token_values
from ktae.rollout import grpo


@st.composite
def rollouts(draw):
    """A random batch with entropies, states and NaN outside the mask."""
    batch = draw(batches())
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = batch.token_ids.shape
    entropies = torch.from_numpy(rng.exponential(0.5, shape)).float().masked_fill(~batch.mask, math.nan)
    states = torch.from_numpy(rng.integers(-1, draw(st.integers(1, 4)), shape).cumsum(1) // 2)
    correct_above = draw(st.sampled_from([0.0, 0.25]))
    return Rollouts(*batch, entropies=entropies, states=states, correct_above=correct_above)


def example(**fields):
    ids = torch.tensor([[1, 2], [1, 3]])
    return Rollouts(ids, torch.ones_like(ids), torch.tensor([1.0, 0.0]), torch.tensor([5, 5]), **fields)


@pytest.mark.parametrize("name", ESTIMATORS)
@settings(max_examples=40)
@given(batch=rollouts())
def test_an_estimator_is_its_slow_version(name, batch):
    expected = np.zeros(batch.token_ids.shape)
    for (row, column), value in getattr(Slow(batch), name)().items():
        expected[row, column] = value
    np.testing.assert_allclose(token_values(load_estimator(name), batch), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ESTIMATORS)
@settings(max_examples=20)
@given(batch=rollouts(), random=st.randoms(use_true_random=False))
def test_values_depend_neither_on_the_order_of_rows_nor_on_padding_nor_on_what_is_unscored(name, batch, random):
    estimator = load_estimator(name)
    values = token_values(estimator, batch)
    assert values.dtype == torch.float32
    unscored_B = batch.rewards.isnan()
    assert (values[unscored_B] == 0).all()

    order = torch.tensor(random.sample(range(len(values)), len(values)))
    np.testing.assert_array_equal(token_values(estimator, batch.rows(order)), values[order])

    fillers = {"token_ids": 1, "mask": False, "entropies": 9.0, "states": 1}
    wide = replace(
        batch,
        **{name: torch.nn.functional.pad(getattr(batch, name), (2, 3), value=value) for name, value in fillers.items()},
    )
    np.testing.assert_array_equal(token_values(estimator, wide)[:, 2:-3], values)
    if not unscored_B.all():
        np.testing.assert_array_equal(token_values(estimator, batch.rows(~unscored_B)), values[~unscored_B])


@pytest.mark.parametrize("name", ESTIMATORS)
def test_batches_without_tokens_or_without_rewards_have_no_values(name):
    batch = example(entropies=torch.ones(2, 2), states=torch.zeros(2, 2, dtype=torch.int64))
    for nothing in (replace(batch, mask=torch.zeros(2, 2)), replace(batch, rewards=torch.full((2,), math.nan))):
        assert (token_values(load_estimator(name), replace(nothing, rollout_advantages=None)) == 0).all()


def test_equal_turns_have_equal_values_wherever_they_stand():
    """A vector's powers of the discount differ in the last bit from lane to lane."""
    rows, turns = 37, 31
    ids = torch.ones(rows, turns, dtype=torch.int64)
    rewards = 1 - torch.arange(rows) % 2.0
    states = torch.arange(turns).expand(rows, turns)
    batch = Rollouts(ids, ids, rewards, torch.zeros(rows, dtype=torch.int64), states=states)
    values = token_values(load_estimator("turn_groups"), batch)
    for outcome in (0, 1):
        assert (values[rewards == outcome] == values[1 - outcome]).all()


def test_rollouts_fill_in_grpos_advantages_and_ignore_those_of_unscored_rows():
    assert example().rollout_advantages.tolist() == grpo(torch.tensor([1.0, 0.0]), torch.tensor([0, 0])).tolist()
    batch = replace(example(), rewards=torch.tensor([1.0, math.nan]), rollout_advantages=torch.tensor([3.0, math.nan]))
    assert batch.rollout_advantages.tolist() == [3.0, 0.0]


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"mask": torch.ones(2, 3)}, ValueError, r"mask must have the shape of token_ids, \(2, 2\), got \(2, 3\)"),
        ({"mask": torch.full((2, 2), 2)}, ValueError, r"mask must hold only 0 and 1, got 2 at \[0, 0\]"),
        ({"token_ids": torch.tensor([[1, 2], [1, -3]])}, ValueError, r"token_ids must be >= 0 .* got -3 at \[1, 1\]"),
        ({"rollout_advantages": torch.ones(3)}, ValueError, "rollout_advantages must have one row for each of the 2"),
        ({"rollout_advantages": torch.tensor([1.0, math.nan])}, ValueError, "rollout_advantages must be finite"),
        ({"group_ids": torch.tensor([0])}, ValueError, "group_ids must have one row for each of the 2"),
        ({"states": torch.zeros(2, 2)}, TypeError, r"states must hold integers, got torch\.float32"),
        ({"entropies": torch.zeros(2, 1)}, ValueError, r"entropies must have the shape and device of token_ids"),
        ({"entropies": [[1.0]]}, TypeError, r"entropies must be a torch\.Tensor of shape \(N, T\), got list"),
        ({"log_probs": torch.tensor([[0.0, math.nan]] * 2)}, ValueError, r"log_probs must be finite .* at \[0, 1\]"),
    ],
)
def test_rollouts_check_their_fields(fields, error, message):
    with pytest.raises(error, match=message):
        replace(example(), **fields)


@pytest.mark.parametrize(("name", "field"), NEEDS.items())
def test_what_is_missing_is_named(name, field):
    with pytest.raises(ValueError, match=f"this estimator needs the rollouts' {field}, got None"):
        load_estimator(name)(example())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("back_of", "got 'back_of'; did you mean 'back_off'?"),
        ("no_such_module:f", "there is no module 'no_such_module'"),
        ("ktae.estimators.surprise:f", "ktae.estimators.surprise has no function 'f'"),
        ("math:", "estimator must be one of back_off, "),
    ],
)
def test_unknown_estimators_are_refused(name, message):
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        load_estimator(name)
    assert load_estimator("ktae.estimators.positive:positive") is load_estimator("positive")


@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        ([0.0], TypeError, "must return a torch.Tensor, got list"),
        (torch.zeros(2, 1), ValueError, r"must return values of shape \(2, 2\) on cpu, got \(2, 1\) on cpu"),
        (torch.tensor([[0.0, math.inf]] * 2), ValueError, r"must return finite values, got inf at \[0, 1\]"),
        (torch.ones(2, 2), ValueError, r"must return 0 outside the mask, got 1.0 at \[1, 1\]"),
    ],
)
def test_an_estimator_of_ones_own_is_checked(returned, error, message):
    def mine(rollouts):
        return returned

    with pytest.raises(error, match="estimator mine " + message):
        token_values(mine, replace(example(), mask=torch.tensor([[1, 1], [1, 0]])))
