"""Token advantages against the oracle, on random batches and at the size of a large group."""

import dataclasses

import numpy as np
import oracle
import pytest
import torch
from batches import batch_of, batches, configs, states
from hypothesis import given
from hypothesis import strategies as st

from ktae import KTAEConfig, key_token_values, ktae_advantages

pytestmark = pytest.mark.usefixtures("both_paths")


def assert_close(actual, expected):
    assert actual.dtype == torch.float32
    np.testing.assert_allclose(actual.numpy(), expected, rtol=0, atol=1e-6)


@given(data=st.data(), batch=batches())
def test_matches_the_oracle(data, batch):
    fields, state = data.draw(st.just({}) | configs(batch)), data.draw(states(batch))
    config = KTAEConfig(**fields)
    values = key_token_values(*batch, config=config, states=state)
    assert_close(values, oracle.key_token_values(*batch.numpy(), **fields, states=state))
    assert values.abs().max() <= config.scale * (1 + config.centered)
    own = data.draw(st.none() | st.sampled_from([torch.float64, torch.float32]))  # rollout advantages
    own = own and torch.from_numpy(np.random.default_rng(0).normal(size=len(batch.rewards))).to(own)
    advantages = ktae_advantages(*batch, config=config, states=state, rollout_advantages=own)
    assert_close(advantages, oracle.ktae_advantages(*batch.numpy(), **fields, states=state, rollout_advantages=own))


@pytest.mark.parametrize("fisher", ["exact", "released"])
def test_a_group_of_1024_rollouts(fisher):
    batch = batch_of(1, 1024, 48, ids=400)
    values = key_token_values(*batch, config=KTAEConfig(fisher=fisher))
    assert_close(values, oracle.key_token_values(*batch.numpy(), fisher=fisher))
    assert values.unique().numel() > 100


def test_by_hand():
    """Token 7 in both correct rollouts, 5 everywhere, 9 in one of two incorrect rollouts, twice.

    Both documents hold 4 tokens, so each tf is 3f / (f + 2), of each of the three tokens 3 * 0.5 / 2.5.
    """
    mask = torch.tensor([[1, 1, 0], [1, 1, 0], [1, 1, 1], [1, 0, 0]])
    rewards, groups = torch.tensor([1.0, 1.0, 0.0, 0.0]), torch.zeros(4, dtype=torch.int64)
    batch = torch.tensor([[5, 7, 0], [7, 5, 0], [5, 9, 9], [5, 0, 0]]), mask, rewards, groups
    fisher_7 = np.exp(-2 / 3)  # 2/2 against 0/2: p = (1 + 1) / 6
    gain_9 = 1 - 0.75 * (np.log2(3) - 2 / 3)  # 0/2 against 1/2; p = 1, so no Fisher score
    for weight in (1.0, 0.0):
        contrast = weight * 3 * 0.5 / 2.5 / 1e-5
        value_7 = np.tanh((fisher_7 + 1) / 2 * (np.pi / 2 + contrast) / 2)
        value_9 = np.tanh(gain_9 / 2 * (-np.pi / 4 - contrast) / 2)
        expected = np.array([[0, value_7, 0], [value_7, 0, 0], [0, value_9, value_9], [0, 0, 0]])
        config = KTAEConfig(term_frequency_weight=weight)
        assert_close(key_token_values(*batch, config=config), expected)
        rollout = 0.5 / (np.sqrt(1 / 3) + 1e-6) * np.array([[1], [1], [-1], [-1]])
        assert_close(ktae_advantages(*batch, config=config), (expected + rollout) * mask.numpy())


def test_config_is_frozen_and_presets_take_changes():
    with pytest.raises(dataclasses.FrozenInstanceError):
        KTAEConfig().scale = 2.0
    assert KTAEConfig.released() == KTAEConfig(fisher="released") != KTAEConfig()
    changed = KTAEConfig.recommended(correct_above=0.5, scale=4.0)
    assert changed == dataclasses.replace(KTAEConfig.recommended(), correct_above=0.5, scale=4.0)
