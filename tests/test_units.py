"""Hashes of contexts: no two alike that should not be, and both paths the same."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ktae import KTAEConfig, key_token_values
from ktae.units import START, joined

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
