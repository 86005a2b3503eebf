"""Token advantages against the oracle, on random batches and at the size of a large group."""

import dataclasses

import numpy as np
import oracle
import pytest
import torch
from batches import batches, configs, states
from hypothesis import given
from hypothesis import strategies as st

import ktae
from ktae import KTAEConfig, key_token_values, ktae_advantages

pytestmark = pytest.mark.usefixtures("both_paths")

TOLERANCE = 1e-6
NAN = float("nan")


def assert_close(actual, expected, tolerance=TOLERANCE):
    assert actual.dtype == torch.float32
    np.testing.assert_allclose(actual.numpy(), expected, rtol=0, atol=tolerance)


# Against the oracle


@given(data=st.data(), batch=batches())
def test_matches_the_oracle(data, batch):
    fields, state = data.draw(st.just({}) | configs(batch)), data.draw(states(batch))
    config = KTAEConfig(**fields)
    values = key_token_values(*batch, config=config, states=state)
    assert_close(values, oracle.key_token_values(*batch.numpy(), **fields, states=state))
    assert values.abs().max() <= config.scale * (1 + config.centered)
    advantages = ktae_advantages(*batch, config=config, states=state)
    assert_close(advantages, oracle.ktae_advantages(*batch.numpy(), **fields, states=state))


@pytest.mark.parametrize("fisher", ["exact", "released"])
def test_a_group_of_1024_rollouts(fisher):
    rng = np.random.default_rng(0)
    n, t = 1024, 48
    token_ids = np.minimum(rng.zipf(1.3, (n, t)), 400)  # some ids in every rollout, many in a single one
    mask = np.arange(t) < rng.integers(1, t + 1, n)[:, None]
    says_42 = (token_ids == 42).any(axis=1) | (rng.random(n) < 0.4)
    rewards = says_42.astype(np.float32)
    arrays = token_ids, mask, rewards, np.zeros(n, dtype=np.int64)
    tensors = [torch.from_numpy(array) for array in arrays]
    values = key_token_values(*tensors, config=KTAEConfig(fisher=fisher))
    assert_close(values, oracle.key_token_values(*arrays, fisher=fisher))
    assert values.unique().numel() > 100


# By hand: token 7 in both correct rollouts, 5 everywhere, 9 in one of two incorrect rollouts, twice.
IDS = torch.tensor([[5, 7, 0], [7, 5, 0], [5, 9, 9], [5, 0, 0]])
MASK = torch.tensor([[1, 1, 0], [1, 1, 0], [1, 1, 1], [1, 0, 0]])
REWARDS = torch.tensor([1.0, 1.0, 0.0, 0.0])
GROUP = torch.tensor([0, 0, 0, 0])


def test_by_hand():
    """Both documents hold 4 tokens, so each tf is 3f / (f + 2)."""
    tf_5 = 3 * 0.5 / 2.5  # the same in both: no contrast, and no association either
    tf_7, tf_9 = 3 * 0.5 / 2.5, 3 * 0.5 / 2.5
    assert tf_5 == tf_7
    fisher_7 = np.exp(-2 / 3)  # 2/2 against 0/2: p = (1 + 1) / 6
    gain_9 = 1 - 0.75 * (np.log2(3) - 2 / 3)  # 0/2 against 1/2; p = 1, so no Fisher score
    direction_7 = np.pi / 2 + tf_7 / 1e-5
    direction_9 = -np.pi / 4 - tf_9 / 1e-5
    value_7 = np.tanh((fisher_7 + 1) / 2 * direction_7 / 2)
    value_9 = np.tanh(gain_9 / 2 * direction_9 / 2)
    expected = [[0, value_7, 0], [value_7, 0, 0], [0, value_9, value_9], [0, 0, 0]]
    assert_close(key_token_values(IDS, MASK, REWARDS, GROUP), expected)

    no_tf = KTAEConfig(term_frequency_weight=0.0)
    value_7 = np.tanh((fisher_7 + 1) / 2 * (np.pi / 2) / 2)
    value_9 = np.tanh(gain_9 / 2 * (-np.pi / 4) / 2)
    expected = np.array([[0, value_7, 0], [value_7, 0, 0], [0, value_9, value_9], [0, 0, 0]])
    assert_close(key_token_values(IDS, MASK, REWARDS, GROUP, config=no_tf), expected)
    rollout = 0.5 / (np.sqrt(1 / 3) + 1e-6)
    expected = (expected + rollout * np.array([[1], [1], [-1], [-1]])) * MASK.numpy()
    assert_close(ktae_advantages(IDS, MASK, REWARDS, GROUP, config=no_tf), expected)


# Settings


@given(batch=batches(), seed=st.integers(0, 2**32 - 1))
def test_own_rollout_advantages(batch, seed):
    """They are added wherever a token counts, so not in unscored rollouts."""
    own = torch.from_numpy(np.random.default_rng(seed).normal(size=len(batch.rewards)))
    expected = (own[:, None] + key_token_values(*batch)) * (batch.mask & ~batch.rewards.isnan()[:, None])
    for dtype in (torch.float64, torch.float32):
        assert_close(ktae_advantages(*batch, rollout_advantages=own.to(dtype)), expected.numpy())


@given(batch=batches(rewards=["0 or 1"], unscored=(0.0,)))
def test_excluded_ids_keep_the_rollout_advantage_and_nothing_else_moves(batch):
    first_id = int(batch.token_ids[batch.mask][0]) if batch.mask.any() else 0
    config = KTAEConfig(exclude_token_ids=(first_id,))
    excluded = batch.mask & (batch.token_ids == first_id)
    values, all_values = key_token_values(*batch, config=config), key_token_values(*batch)
    assert torch.equal(values, all_values.masked_fill(excluded, 0.0))
    rollout = ktae.rollout.grpo(batch.rewards, batch.group_ids).float()[:, None].expand_as(values)
    assert torch.equal(ktae_advantages(*batch, config=config)[excluded], rollout[excluded])


@given(batch=batches(rewards=["overlong"], unscored=(0.0,)))
def test_overlong_punishment_below_the_threshold_leaves_correctness_alone(batch):
    """DAPO subtracts up to 0.5 from 1 or -1: the sign, so the default threshold, still tells correctness."""
    punished = key_token_values(*batch)
    plain = batch.rewards.sign()
    assert torch.equal(punished, key_token_values(*batch._replace(rewards=plain)))


@given(batch=batches(rewards=["real", "ties at 0"]), threshold=st.sampled_from([-0.25, 0.25, 0.5]))
def test_correct_means_above_the_threshold(batch, threshold):
    values = key_token_values(*batch, config=KTAEConfig(correct_above=threshold))
    labels = torch.where(batch.rewards > threshold, 1.0, 0.0).masked_fill(batch.rewards.isnan(), NAN)
    assert torch.equal(values, key_token_values(*batch._replace(rewards=labels)))


def test_config_is_frozen_and_presets_take_changes():
    with pytest.raises(dataclasses.FrozenInstanceError):
        KTAEConfig().scale = 2.0
    assert KTAEConfig.released() == KTAEConfig(fisher="released") != KTAEConfig()
    changed = KTAEConfig.recommended(correct_above=0.5, scale=4.0)
    assert changed == dataclasses.replace(KTAEConfig.recommended(), correct_above=0.5, scale=4.0)
