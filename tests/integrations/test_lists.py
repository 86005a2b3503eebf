"""Ragged lists give the numbers of the tensor functions, rollout by rollout."""

import math

import numpy as np
import pytest
import torch
from batches import batches, configs
from hypothesis import given
from hypothesis import strategies as st

import ktae
from ktae.integrations import lists
from ktae.integrations.credit import TokenCredit


def ragged(batch, data):
    """The batch as lists: each rollout cut at a random place behind its last counted token, uids for groups."""
    lengths = []
    for row in batch.mask.tolist():
        last = max((column + 1 for column, counted in enumerate(row) if counted), default=0)
        lengths.append(data.draw(st.integers(last, len(row))))
    token_ids = [row[:length] for row, length in zip(batch.token_ids.tolist(), lengths, strict=True)]
    masks = [row[:length] for row, length in zip(batch.mask.tolist(), lengths, strict=True)]
    rewards = [None if math.isnan(reward) else reward for reward in batch.rewards.tolist()]
    return token_ids, masks, rewards, [f"uid {group}" for group in batch.group_ids.tolist()]


def assert_rows(actual, wanted_BT, token_ids):
    assert [len(row) for row in actual] == [len(row) for row in token_ids]
    for row, wanted in zip(actual, wanted_BT.tolist(), strict=True):
        assert row == pytest.approx(wanted[: len(row)], abs=1e-6)
        assert not any(wanted[len(row) :])


@given(st.data())
def test_the_numbers_of_padded_tensors(data):
    batch = data.draw(batches())
    config = ktae.KTAEConfig(**data.draw(configs(batch)))
    arguments, credit = ragged(batch, data), TokenCredit(config)
    own = data.draw(st.lists(st.floats(-5, 5), min_size=len(batch.rewards), max_size=len(batch.rewards)))
    with_own = ktae.ktae_advantages(*batch, config=config, rollout_advantages=torch.tensor(own, dtype=torch.float64))
    values, advantages = ktae.key_token_values(*batch, config=config), ktae.ktae_advantages(*batch, config=config)
    assert_rows(lists.advantages(*arguments, credit=credit), advantages, arguments[0])
    assert_rows(lists.advantages(*arguments, own, credit=credit), with_own, arguments[0])
    assert_rows(lists.values(*arguments, credit=credit), values, arguments[0])


IDS = [[1, 2], [1, 3, 3], [], [2]]
REWARDS = [1.0, 0.0, 0.0, 1.0]
GROUPS = ["a", "a", "a", "a"]
OWN = ktae.rollout.grpo(torch.tensor(REWARDS), torch.zeros(4, dtype=torch.long)).tolist()
MASKS = [[1] * len(ids) for ids in IDS]


def tensors(rows, dtype):
    return [torch.tensor(row, dtype=dtype) for row in rows]


@pytest.mark.parametrize(
    "arguments",
    [
        ([tuple(ids) for ids in IDS], MASKS, tuple(REWARDS), tuple(GROUPS)),
        (tensors(IDS, torch.int32), tensors(MASKS, torch.bfloat16), torch.tensor(REWARDS), torch.zeros(4).long()),
        ([np.array(ids, dtype=np.uint16) for ids in IDS], MASKS, np.array(REWARDS), np.zeros(4, dtype=int)),
        (IDS, None, tensors(REWARDS, torch.bfloat16), [("a", 1)] * 4),
        (IDS, None, [True, False, np.False_, 1], GROUPS, OWN),
    ],
)
def test_rows_of_any_kind(arguments):
    assert lists.advantages(*arguments) == lists.advantages(IDS, None, REWARDS, GROUPS)


def test_a_rollout_without_tokens_still_counts():
    assert lists.values([[7], [7], []], None, [1, 1, 0], GROUPS[:3])[0][0] > 0
    assert lists.advantages([[], []], None, [1, 0], ["a", "a"]) == [[], []]


def test_other_estimators_and_what_they_take():
    def entropy(rollouts):
        rollouts.require("entropies")
        return rollouts.entropies * rollouts.mask

    more = {"credit": TokenCredit(entropy), "entropies": [[0.5, 1.0], [0.25, 2.0, 3.0], [], [4.0]]}
    values = lists.values(IDS, None, [1.0, 0.0, 0.0, None], GROUPS, **more)
    assert values == [[0.5, 1.0], [0.25, 2.0, 3.0], [], [0.0]]
    advantages = lists.advantages(IDS, None, REWARDS, GROUPS, [1, -1, -1, 1], **more)
    assert advantages == [[1.5, 2.0], [-0.75, 1.0, 2.0], [], [5.0]]
    more["entropies"][3] = [1.0, 2.0]
    with pytest.raises(ValueError, match=r"entropies\[3\] must be as long .* expected 1 entries, got 2"):
        lists.values(IDS, None, REWARDS, GROUPS, **more)


@pytest.mark.parametrize("own", [None, [*OWN, None]])
def test_an_unscored_rollout_gets_nothing_and_changes_nothing(own):
    found = lists.advantages([*IDS, [1, 3]], None, [*REWARDS, None], [*GROUPS, "a"], own)
    assert found == [*lists.advantages(IDS, None, REWARDS, GROUPS), [0.0, 0.0]]


@pytest.mark.parametrize("kind", [np.float32, lambda value: torch.tensor(value, dtype=torch.float32)])
@pytest.mark.parametrize("others", [[0.0], [0.0, None]])
def test_rewards_keep_their_precision(kind, others):
    """float32's 0.1 is a little above 0.1, and not correct where only more than 0.1 is."""
    rewards = [kind(0.1), *(None if value is None else kind(value) for value in others)]
    credit = TokenCredit(ktae.KTAEConfig(correct_above=0.1))
    values = lists.values([[1]] + [[2]] * len(others), None, rewards, ["a"] * len(rewards), credit=credit)
    assert not any(any(row) for row in values)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"masks": [[1, 1], [1, 1], [], [1]]}, ValueError, r"masks\[1\] must be as long .* expected 3 entries, got 2"),
        ({"masks": [[1, 1]]}, ValueError, r"masks must have one entry for each of the 4 rollouts .* got 1"),
        ({"masks": [[1, 1], [1, 2, 1], [], [1]]}, ValueError, r"only 0 and 1, got 2 at \[1, 1\]"),
        ({"masks": [[1, 1], [1, "x", 1], [], [1]]}, TypeError, r"masks\[1\] must be a flat sequence of numbers"),
        ({"rewards": [1.0]}, ValueError, r"rewards must have one entry for each of the 4 rollouts .* got 1"),
        ({"rewards": [1.0, "0", 0.0, 1.0]}, TypeError, r"rewards\[1\] must be a number or None, got '0'"),
        ({"rewards": [1.0, 0.0, math.inf, 1.0]}, ValueError, r"rewards must be finite .* got inf at index 2"),
        ({"groups": ["a", "a", None, "a"]}, TypeError, r"groups\[2\] must be a hashable .* got None"),
        ({"groups": [0.0, math.nan, 0.0, 0.0]}, TypeError, r"groups\[1\] must be a hashable .* got nan"),
        ({"token_ids": [[1, 2], [1, 3, 3], [], [0.5]]}, TypeError, r"token_ids\[3\] must hold integers, got \[0.5\]"),
        ({"token_ids": [[1, 2], [1, 3, 3], [], 2]}, ValueError, r"token_ids\[3\] must be a flat sequence, got shape"),
        ({"token_ids": [[1, 2], [1, None], [], [2]]}, TypeError, r"token_ids\[1\] must be a flat sequence of numbers"),
        ({"token_ids": [[1, 2], [1, -3, 3], [], [2]]}, ValueError, r"token_ids must be >= 0 .* got -3 at \[1, 1\]"),
        ({"rollout_advantages": [1.0]}, ValueError, r"rollout_advantages must have one entry for each of the 4"),
        ({"rollout_advantages": [1.0, None, 0.0, 0.0]}, ValueError, r"rollout_advantages must be finite.* at index 1"),
    ],
)
def test_errors_name_the_rollout(changes, error, message):
    arguments = {"token_ids": IDS, "masks": None, "rewards": REWARDS, "groups": GROUPS} | changes
    with pytest.raises(error, match=message):
        lists.advantages(**arguments)
