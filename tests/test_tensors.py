"""The tensor path, which devices other than the CPU take: its memory, how it splits a batch."""

import pytest
import torch
from allocated import Allocated
from batches import batch_of, of_every_kind

from ktae import advantages, kernels, ktae_advantages


@pytest.fixture(autouse=True)
def no_kernels(monkeypatch):
    monkeypatch.setattr(kernels, "usable", lambda tensor: False)


@of_every_kind
@pytest.mark.parametrize(
    ("ids_dtype", "mask_dtype"),
    [(torch.int32, torch.bool), (torch.int64, torch.bool), (torch.int64, torch.int64)],
    ids=["int32", "int64", "int64, mask int64"],
)
def test_a_large_batch_takes_no_more_than_twice_its_size(ids_dtype, mask_dtype, config, monkeypatch):
    """Result included. 64 groups; a share of the batch is one of them, as it is for any larger batch."""
    monkeypatch.setattr(advantages, "LEAST_AT_ONCE", 1)
    batch = batch_of(64, 8, 1024, full=True)
    batch = batch._replace(token_ids=batch.token_ids.to(ids_dtype), mask=batch.mask.to(mask_dtype))
    with Allocated() as allocated:
        ktae_advantages(*batch, config=config)
    size = batch.token_ids.nbytes + batch.mask.nbytes
    assert 4 * batch.token_ids.numel() < allocated.peak <= 2 * size


@of_every_kind
def test_the_split_changes_no_bit(config, monkeypatch):
    batch = batch_of(9, 8, 120, ids=60)
    batch.rewards[::7] = float("nan")
    whole = ktae_advantages(*batch, config=config)
    assert whole.unique().numel() > 20
    for least, share, parts in ((1, 1 / 10**6, 9), (3000, 1 / 10**6, 4), (1, 1 / 3, 3)):
        monkeypatch.setattr(advantages, "LEAST_AT_ONCE", least)
        monkeypatch.setattr(advantages, "SHARE", share)
        assert torch.equal(ktae_advantages(*batch, config=config), whole)
        sides = batch.rewards > 0, ~batch.rewards.isnan(), batch.group_ids
        assert abs(len(advantages._mixed_groups(*sides, 120)) - parts) <= 1


def test_groups_without_two_outcomes_are_left_out():
    """Their values are 0 whatever they hold: nothing is counted there."""
    rewards = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, float("nan"), 1.0, float("nan"), 0.0])
    group = torch.tensor([4, 0, 1, 1, 4, 4, 2, 2, 3])
    parts = advantages._mixed_groups(rewards > 0, ~rewards.isnan(), group, 10)
    assert [rows.tolist() for rows in parts] == [[0, 4]]
