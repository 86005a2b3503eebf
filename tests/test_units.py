"""Hashes of contexts: no two alike that should not be, and both paths the same."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ktae import KTAEConfig, key_token_values
from ktae.units import START, joined, units

INT64 = st.integers(-(2**63), 2**63 - 1)


def random_integers(seed, n=200_000):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(-(2**63), 2**63 - 1, n, endpoint=True))


def test_nothing_but_chance_makes_two_hashes_alike():
    """An arithmetic shift confuses x and ~x; small and neighbouring numbers are what token ids are."""
    x = random_integers(0)
    few = torch.arange(-500, 500)
    pairs = torch.cartesian_prod(few, few).T
    for first, second in ((torch.cat([x, ~x]), torch.zeros(1).long()), (x, x), tuple(pairs)):
        hashes = joined(joined(START, first), second)
        assert hashes.unique().numel() == torch.broadcast_tensors(first, second)[0].numel()


def test_all_of_the_space_is_used():
    hashes = joined(random_integers(1), random_integers(2))
    bits = torch.stack([(hashes >> bit) & 1 for bit in range(64)]).double().mean(dim=1)
    assert ((bits - 0.5).abs() < 0.01).all()


@given(first=INT64, second=INT64, bit=st.integers(0, 63))
def test_one_bit_changes_the_hash(first, second, bit):
    flip = np.uint64(1 << bit).astype(np.int64)
    a, b, f = (torch.tensor([int(number)]) for number in (first, second, flip))
    assert joined(a, b) != joined(a ^ f, b)
    assert joined(a, b) != joined(a, b ^ f)


@pytest.mark.usefixtures("both_paths")
def test_thue_morse_contexts_are_told_apart():
    """Polynomial hashes modulo 2^64 give one number to these two contexts of 64 tokens, whatever the odd multiplier.

    They differ by (a - b) times the product of (m^(2^i) - 1) for i < 6, which is a multiple of 2^26, and a - b is 2^40.
    """
    bits = torch.tensor([bin(i).count("1") % 2 for i in range(64)]) * 2**40
    ids = torch.stack([torch.cat([row, torch.tensor([8])]) for row in (bits, 2**40 - bits)] * 2)
    ids[2:, -1] = 9  # in each of the two contexts a correct rollout goes on with 8, in one an incorrect one with 9
    rewards, groups = torch.tensor([1.0, 0.0, 0.0, 1.0]), torch.zeros(4).long()
    config = KTAEConfig(context=64, term_frequency_weight=0.0)
    values = key_token_values(ids, torch.ones_like(ids), rewards, groups, config=config)
    assert (values[:, -1] * torch.tensor([1, -1, -1, 1]) > 0).all()


@pytest.mark.usefixtures("both_paths")
def test_states_tell_the_same_token_apart():
    """Token 7 is right in state 1 and wrong in state 2; among all rollouts it says nothing."""
    ids = torch.tensor([[7, 8], [9, 8], [9, 7], [8, 7]])
    states = torch.tensor([[1, 2], [1, 2], [1, 2], [1, 2]])
    inputs = ids, torch.ones_like(ids), torch.tensor([1.0, 0.0, 0.0, 1.0]), torch.zeros(4).long()
    config = KTAEConfig(term_frequency_weight=0.0)
    in_state = key_token_values(*inputs, config=config, states=states)
    assert in_state[0, 0] > 0
    assert (in_state[1:3, 0] < 0).all()
    assert not in_state[:, 1].any()  # 8 and 7 in state 2 have one correct and one incorrect rollout each
    relabelled = key_token_values(*inputs, config=config, states=5 - states * 2**40)
    assert torch.equal(relabelled, in_state)


def test_a_plain_token_is_its_own_unit():
    ids, mask = torch.tensor([[3, 2**62]]), torch.ones(1, 2).bool()
    unit_BT, within_BT = units(ids, mask, None, KTAEConfig())
    assert unit_BT is ids
    assert within_BT is None
