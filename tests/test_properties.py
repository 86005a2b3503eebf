"""What must not change an advantage, what must flip it, and the edges of the input contract."""

import numpy as np
import pytest
import torch
from batches import INT64, Batch, batches
from hypothesis import given
from hypothesis import strategies as st

from ktae import KTAEConfig, key_token_values, ktae_advantages
from ktae.rollout import dr_grpo, grpo, rloo

pytestmark = pytest.mark.usefixtures("both_paths")

OF_TOKENS = {function.__name__: function for function in (ktae_advantages, key_token_values)}
# Rollout advantages, of which each must hold as well.
OF_ROLLOUTS = {f.__name__: lambda ids, mask, *outcomes, f=f: f(*outcomes) for f in (grpo, dr_grpo, rloo)}
TOKENS = pytest.mark.parametrize("function", OF_TOKENS.values(), ids=OF_TOKENS)
ALL = OF_TOKENS | OF_ROLLOUTS
FUNCTIONS = pytest.mark.parametrize("function", ALL.values(), ids=ALL)
seeds = st.integers(0, 2**32 - 1)


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)


def example(rewards, group_ids, token_ids=((1, 2), (1, 3), (3, 2), (4, 1))):
    token_ids = torch.tensor(token_ids)
    return Batch(token_ids, torch.ones_like(token_ids), torch.tensor(rewards), torch.tensor(group_ids))


@FUNCTIONS
@given(batch=batches(), seed=seeds)
def test_order_of_the_rows(function, batch, seed):
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(batch.rewards)))
    assert torch.equal(function(*batch.rows(order)), function(*batch)[order])


@FUNCTIONS
@given(batch=batches(), seed=seeds)
def test_names_of_the_groups(function, batch, seed):
    groups, index = batch.group_ids.unique(return_inverse=True)
    names = torch.from_numpy(np.random.default_rng(seed).permutation(len(groups)))
    for new_ids in (names[index], names[index] - 5, INT64.max - names[index], names[index] * 2**40):
        assert torch.equal(function(*batch._replace(group_ids=new_ids)), function(*batch))


@TOKENS
@given(batch=batches(), seed=seeds)
def test_names_of_the_tokens(function, batch, seed):
    vocabulary, index = batch.token_ids.unique(return_inverse=True)
    names = torch.from_numpy(np.random.default_rng(seed).permutation(len(vocabulary)))
    for new_ids in (names[index], INT64.max - names[index], names[index] * 2**40):
        assert torch.equal(function(*batch._replace(token_ids=new_ids)), function(*batch))


@TOKENS
@given(batch=batches(), fill=st.sampled_from([-100, 0, INT64.max, INT64.min]))
def test_content_under_the_mask(function, batch, fill):
    """Padding may even repeat a counted token."""
    changed = batch._replace(token_ids=batch.token_ids.masked_fill(~batch.mask, fill))
    assert torch.equal(function(*changed), function(*batch))


@TOKENS
@given(batch=batches(), columns=st.integers(1, 5))
def test_more_padding(function, batch, columns):
    ids, mask = (torch.nn.functional.pad(x, (columns, columns)) for x in (batch.token_ids, batch.mask))
    padded = function(*batch._replace(token_ids=ids, mask=mask))
    assert torch.equal(padded[:, columns:-columns], function(*batch))
    assert not padded[:, :columns].any()
    assert not padded[:, -columns:].any()


@FUNCTIONS
@given(batch=batches())
def test_a_group_does_not_see_the_others(function, batch):
    together = function(*batch)
    for group in batch.group_ids.unique():
        rows = batch.group_ids == group
        assert torch.equal(function(*batch.rows(rows)), together[rows])


@FUNCTIONS
@given(batch=batches())
def test_unscored_rollouts_are_as_good_as_absent(function, batch):
    result, scored = function(*batch), ~batch.rewards.isnan()
    assert not result[~scored].any()
    if scored.any():
        assert torch.equal(function(*batch.rows(scored)), result[scored])


@FUNCTIONS
@given(batch=batches())
def test_repeatable_finite_and_without_side_effects(function, batch):
    before = [tensor.clone() for tensor in batch]
    first = function(*batch)
    assert torch.equal(first, function(*batch))
    assert first.isfinite().all()
    assert first.ndim == 1 or not first[~batch.mask].any()
    for tensor, copy in zip(batch, before, strict=True):
        torch.testing.assert_close(tensor, copy, rtol=0, atol=0, equal_nan=True)


@given(batch=batches(rewards=["-1 or 1"]), h3=st.sampled_from([0.0, 1.0]))
def test_swapping_correct_and_incorrect_flips_every_sign(batch, h3):
    config = KTAEConfig(term_frequency_weight=h3)
    swapped = batch._replace(rewards=-batch.rewards)
    close(key_token_values(*swapped, config=config), -key_token_values(*batch, config=config))
    close(ktae_advantages(*swapped, config=config), -ktae_advantages(*batch, config=config))


@pytest.mark.parametrize("empty_rows", [[0, 1], [2, 3], [0, 1, 2, 3], [0], [3]])
@pytest.mark.parametrize("h3", [0.0, 1.0])
def test_empty_completions(empty_rows, h3):
    """A class without a single token has term frequencies 0; its rollouts still count as lacking each token."""
    batch = example([1.0, 1.0, 0.0, 0.0], [0] * 4)
    batch.mask[empty_rows] = 0
    values = key_token_values(*batch, config=KTAEConfig(term_frequency_weight=h3))
    assert values.isfinite().all()
    assert not values[empty_rows].any()
    if empty_rows == [0, 1]:
        assert (values[2:] < 0).all()
    if empty_rows == [2, 3]:
        assert (values[:2] > 0).all()


# Dtypes and memory layout

INTEGERS = [
    torch.uint8, torch.int8, torch.uint16, torch.int16, torch.uint32, torch.int32, torch.uint64, torch.int64
]  # fmt: skip
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool]


@FUNCTIONS
@pytest.mark.parametrize(
    ("argument", "dtype"),
    [
        *((argument, dtype) for argument in Batch._fields for dtype in INTEGERS),
        *((argument, dtype) for argument in ("mask", "rewards") for dtype in FLOATS),
    ],
    ids=str,
)
def test_dtypes(function, argument, dtype):
    batch = example([1, 0, 1, 0], [0, 0, 1, 1], token_ids=[[1, 2], [2, 3], [127, 2], [0, 127]])
    batch.mask[0, 1] = batch.mask[3, 0] = 0
    changed = batch._replace(**{argument: getattr(batch, argument).to(dtype)})
    assert torch.equal(function(*changed), function(*batch))
    assert function(*batch).any()


@FUNCTIONS
@given(batch=batches())
def test_memory_layout(function, batch):
    """Slices, transposes and expanded rows."""
    expected = function(*batch)
    strided = [tensor.repeat_interleave(2, dim=0)[::2] for tensor in batch]
    wide = [tensor.repeat_interleave(3, dim=1)[:, 1::3] for tensor in strided[:2]]
    for tokens in (wide, strided[:2], [tensor.T.contiguous().T for tensor in batch[:2]]):
        assert torch.equal(function(*tokens, *strided[2:]), expected)
    same = batch._replace(token_ids=batch.token_ids[:1].clamp(min=0).expand_as(batch.token_ids))
    assert torch.equal(function(*same), function(*same._replace(token_ids=same.token_ids.contiguous())))
