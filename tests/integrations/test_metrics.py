"""The metrics that the adapters share, and the traps that they name; needs no trainer."""

import logging
import math

import pytest
import torch

from ktae.config import KTAEConfig
from ktae.estimators import Rollouts
from ktae.integrations.credit import TokenCredit
from ktae.integrations.metrics import Batch

VALUE = torch.tensor([[0.9, 0.1], [0.2, 0.0], [0.0, 0.4], [0.6, 0.0], [0.0, 0.0]])
GENERATED = torch.tensor([[1, 1], [1, 0], [1, 1], [1, 1], [0, 0]])
REWARDS = torch.tensor([1.0, 0.0, 1.0, 1.0, math.nan])
GROUPS = torch.tensor([7, 3, 7, 3, 2])  # 3 is mixed, 7 all correct, 2 unscored
ADVANTAGES = torch.tensor([0.5, -1.0, -0.5, 0.25, 0.0])


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [3, 0, 4, 2, 1]])
@pytest.mark.parametrize(("scale", "share"), [(1.0, 2 / 7), (0.3, 4 / 7)])
def test_each_metric_by_hand(order, scale, share):
    """Row order and the groups' numbers do not matter; a key token is one above half the scale."""
    ids = torch.zeros(5, 2, dtype=torch.long)
    rows = (tensor[order] for tensor in (GENERATED, REWARDS, 100 - GROUPS, ADVANTAGES))
    assert Batch(VALUE[order], Rollouts(ids, *rows), scale).metrics() == pytest.approx(
        {
            "key_token_share": share,
            "abs_value_correct": (0.9 + 0.1 + 0.0 + 0.4 + 0.6 + 0.0) / 6,
            "abs_value_incorrect": 0.2,
            "mixed_group_share": 1 / 3,
            "value_ratio": ((0.2 + 0.6 + 0.0) / 3) / ((1.0 + 0.25 + 0.25) / 3),
        }
    )


def test_other_estimators_have_no_scale():
    batch = Batch(VALUE, Rollouts(torch.zeros(5, 2, dtype=torch.long), GENERATED, REWARDS, GROUPS))
    assert "key_token_share" not in batch.metrics()


def warned(caplog, rewards, value=0.5, batches=5, groups=(0, 0, 1, 1), config=KTAEConfig(), estimator=True):  # noqa: B008
    """What is logged over some batches of four rollouts of two tokens, each with this value."""

    def constant(rollouts):
        return value * rollouts.mask

    credit = TokenCredit(config, constant if estimator else None)
    ids = torch.tensor([[1, 2], [3, 3], [4, 5], [6, 6]])
    with caplog.at_level(logging.WARNING, logger="ktae"):
        for step in range(batches):
            row = rewards[step % len(rewards)] if isinstance(rewards[0], list) else rewards
            credit(
                Rollouts(
                    ids,
                    torch.ones_like(ids),
                    torch.tensor(row),
                    torch.tensor(groups),
                    correct_above=config.correct_above,
                )
            )
    return [record.message for record in caplog.records]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            {"rewards": [0.1, 1.0, 0.1, 1.0]},
            ["within 2 of 2 groups", "correct_above=0 splits no group", "=0.55 would split 2"],
        ),
        ({"rewards": [0.0, -1.0, -1.0, 0.0]}, ["they lie in -1 to 0", "correct_above=-0.5 would split 2"]),
        ({"rewards": [1.0, 1.5, 2.0, 4.0]}, ["correct_above=3 would split 1"]),
        ({"rewards": [1.0, 0.0, 1.0, 0.0], "value": 0.0}, ["values of all 8 tokens in 2 groups", "are 0"]),
        ({"rewards": [1.0, 0.0, 1.0, 0.0], "groups": (0, 1, 2, 2), "batches": 1}, ["2 of 3 groups", "num_generations"]),
        ({"rewards": [1.0, 1.0, 0.0, math.nan]}, ["2 of 2 groups have rewards that are all equal", "dynamic sampling"]),
        ({"rewards": [1.0, 0.0, 1.0, 0.0], "value": 7.0707}, ["10 times the rollout advantages", "values by 0.1"]),
        ({"rewards": [1.0, 0.0, 1.0, 0.0], "value": 0.00707}, ["0.01 times the rollout advantages", "values by 1e+02"]),
        (
            {"rewards": [1.0, 0.0, 1.0, 0.0], "estimator": False},
            ["100% of the tokens", "scale=1", "set term_frequency_weight=0"],
        ),
        (
            {"rewards": [1.0, 0.0, 1.0, 0.0], "estimator": False, "config": KTAEConfig(scale=50.0)},
            ["71 times the rollout advantages", "scale=0.71 would make them equal"],
        ),
    ],
)
def test_each_trap_is_named_once_with_numbers(caplog, arguments, words):
    messages = warned(caplog, **arguments)
    assert len([message for message in messages if all(word in message for word in words)]) == 1
    assert len(messages) == len(set(messages)) <= 2


def test_a_batch_now_and_then_is_no_trap(caplog):
    good, bad = [1.0, 0.0, 1.0, 0.0], [0.1, 1.0, 0.1, 1.0]
    assert warned(caplog, [bad, bad, good], batches=9) == []
