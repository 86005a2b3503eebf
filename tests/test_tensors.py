"""The tensor path, which devices other than the CPU take: its memory, what it waits for, how it splits a batch."""

import pytest
import torch
from allocated import Allocated
from batches import Batch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from ktae import KTAEConfig, advantages, kernels, ktae_advantages

CONFIGS = {
    "default": KTAEConfig(),
    "recommended": KTAEConfig.recommended(),
    "centered": KTAEConfig(context=3, centered=True),
    "excluded": KTAEConfig(context=1, compare="context", exclude_token_ids=(1, 2, 10**12)),
}
configs = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


@pytest.fixture(autouse=True)
def no_kernels(monkeypatch):
    monkeypatch.setattr(kernels, "usable", lambda tensor: False)


def batch_of(groups, size, columns, ids=1000, full=False):
    generator = torch.Generator().manual_seed(0)
    rows = groups * size
    skewed = torch.rand(rows, columns, generator=generator) ** 4 * ids
    lengths = torch.full((rows,), columns) if full else torch.randint(0, columns + 1, (rows,), generator=generator)
    mask = torch.arange(columns) < lengths[:, None]
    rewards = torch.arange(rows) % 3 % 2.0
    return Batch(skewed.long(), mask, rewards, torch.randperm(rows, generator=generator) // size)


@configs
@pytest.mark.parametrize(
    ("ids_dtype", "mask_dtype"),
    [(torch.int32, torch.bool), (torch.int64, torch.bool), (torch.int64, torch.int64)],
    ids=["int32", "int64", "int64, mask int64"],
)
def test_a_large_batch_takes_no_more_than_twice_its_size(ids_dtype, mask_dtype, config, monkeypatch):
    """Result included. 64 groups; a share of the batch is two of them, as it is for any larger batch."""
    monkeypatch.setattr(advantages, "LEAST_AT_ONCE", 1)
    batch = batch_of(64, 8, 1024, full=True)
    batch = batch._replace(token_ids=batch.token_ids.to(ids_dtype), mask=batch.mask.to(mask_dtype))
    with Allocated() as allocated:
        ktae_advantages(*batch, config=config)
    size = batch.token_ids.nbytes + batch.mask.nbytes
    assert 4 * batch.token_ids.numel() < allocated.peak <= 2 * size


def without_waiting(config, n_T, n_F):
    """Shapes and no data: an operation whose result the host would have to read raises."""
    rows = n_T + n_F
    with FakeTensorMode(allow_non_fake_inputs=True):
        ids, counted = torch.zeros(rows, 30, dtype=torch.int32), torch.ones(rows, 30, dtype=torch.bool)
        correct, scored = torch.ones(rows, dtype=torch.bool), torch.ones(rows, dtype=torch.bool)
        group = torch.zeros(rows, dtype=torch.int64)
        return advantages._values(ids, counted, correct, scored, group, 1, 500, {(n_T, n_F)}, config)


@configs
def test_tokens_are_valued_without_waiting_for_the_device(config):
    value = without_waiting(config, 6, 10)
    assert value.shape == (16, 30)
    assert value.dtype == torch.float32


def test_the_margins_of_contexts_are_asked_for_in_large_groups():
    without_waiting(KTAEConfig(context=2), 60, 40)
    with pytest.raises(DataDependentOutputException):
        without_waiting(KTAEConfig.recommended(), 60, 40)


@configs
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
        assert abs(len(advantages._rows_at_once(*sides, 9, 120)) - parts) <= 1


@configs
def test_margins_known_or_asked_for(config, monkeypatch):
    batch = batch_of(3, 16, 60, ids=20)
    known = ktae_advantages(*batch, config=config)
    assert known.any()
    monkeypatch.setattr(advantages, "_MOST_MARGINS", 0)
    assert torch.equal(ktae_advantages(*batch, config=config), known)


def test_groups_without_two_outcomes_are_left_out():
    """Their values are 0 whatever they hold: nothing is counted there."""
    rewards = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, float("nan"), 1.0, float("nan"), 0.0])
    group = torch.tensor([4, 0, 1, 1, 4, 4, 2, 2, 3])
    parts = advantages._rows_at_once(rewards > 0, ~rewards.isnan(), group, 5, 10)
    assert [rows.tolist() for rows in parts] == [[0, 4]]
