"""What the adapters share: an estimator asked for by name or settings, metrics, traps; needs no trainer."""

import logging
import math

import pytest
import torch

from ktae.config import KTAEConfig
from ktae.estimators import Rollouts
from ktae.integrations.credit import TokenCredit, from_settings
from ktae.integrations.metrics import measure

VALUE = torch.tensor([[0.9, 0.1], [0.2, 0.0], [0.0, 0.4], [0.6, 0.0], [0.0, 0.0]])
GENERATED = torch.tensor([[1, 1], [1, 0], [1, 1], [1, 1], [0, 0]])
REWARDS = torch.tensor([1.0, 0.0, 1.0, 1.0, math.nan])
GROUPS = torch.tensor([7, 3, 7, 3, 2])  # 3 is mixed, 7 all correct, 2 unscored
ADVANTAGES = torch.tensor([0.5, -1.0, -0.5, 0.25, 0.0])


@pytest.mark.parametrize(("scale", "share"), [(1.0, 2 / 7), (0.3, 4 / 7), (None, None)])
def test_each_metric_by_hand(scale, share):
    """A key token is one above half the scale, which other estimators have not."""
    rollouts = Rollouts(torch.zeros(5, 2, dtype=torch.long), GENERATED, REWARDS, GROUPS, ADVANTAGES)
    assert measure(VALUE, rollouts, scale) == pytest.approx(
        ({} if scale is None else {"key_token_share": share})
        | {
            "abs_value_correct": (0.9 + 0.1 + 0.0 + 0.4 + 0.6 + 0.0) / 6,
            "abs_value_incorrect": 0.2,
            "mixed_group_share": 1 / 3,
            "value_ratio": ((0.2 + 0.6 + 0.0) / 3) / ((1.0 + 0.25 + 0.25) / 3),
        }
    )


def warned(caplog, rewards, value=0.5, batches=5, groups=(0, 0, 1, 1), config=None):
    """What is logged over some batches of four rollouts of two tokens, each with this value."""
    credit = TokenCredit(config or (lambda rollouts: value * rollouts.mask))
    ids = torch.tensor([[1, 2], [3, 3], [4, 5], [6, 6]])
    with caplog.at_level(logging.WARNING, logger="ktae"):
        for step in range(batches):
            row = torch.tensor(rewards[step % len(rewards)] if isinstance(rewards[0], list) else rewards)
            credit(Rollouts(ids, torch.ones_like(ids), row, torch.tensor(groups)))
    return [record.message for record in caplog.records]


GOOD = [1.0, 0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"rewards": [0.1, 1.0, 0.1, 1.0]}, ["within 2 of 2", "=0 splits no group", "=0.55 would split 2"]),
        ({"rewards": [0.0, -1.0, -1.0, 0.0]}, ["they lie in -1 to 0", "correct_above=-0.5 would split 2"]),
        ({"rewards": [1.0, 1.5, 2.0, 4.0]}, ["correct_above=3 would split 1"]),
        ({"rewards": [[0.1, 1.0, 0.1, 1.0]] * 2 + [GOOD], "batches": 9}, []),
        ({"rewards": GOOD, "value": 0.0}, ["values of all 8 tokens in 2 groups", "are 0"]),
        ({"rewards": GOOD, "groups": (0, 1, 2, 2)}, ["2 of 3 groups", "num_generations"]),
        ({"rewards": [1.0, 1.0, 0.0, math.nan]}, ["2 of 2 groups have rewards that are all equal", "dynamic sampling"]),
        ({"rewards": GOOD, "value": 7.0707}, ["10 times the rollout advantages", "values by 0.1"]),
        ({"rewards": GOOD, "value": 0.00707}, ["0.01 times the rollout advantages", "values by 1e+02"]),
        ({"rewards": GOOD, "config": KTAEConfig()}, ["100% of the tokens", "scale=1", "set term_frequency_weight=0"]),
        ({"rewards": GOOD, "config": KTAEConfig(scale=50.0)}, ["71 times the rollout advantages", "scale=0.71 would"]),
    ],
)
def test_each_trap_is_named_once_with_numbers(caplog, arguments, words):
    """A batch now and then is none."""
    messages = warned(caplog, **arguments)
    assert len([message for message in messages if words and all(word in message for word in words)]) == bool(words)
    assert len(messages) == len(set(messages)) <= 2 * bool(words)


# What is asked for


def third(rollouts):
    rollouts.require("entropies")
    return rollouts.mask / 3


def place(rollout):
    return range(len(rollout["token_ids"]))


def asked_for(settings, *given):
    return from_settings(settings, "algorithm.ktae", "this trainer", "states", *given)


@pytest.mark.parametrize(
    ("settings", "config"),
    [
        (None, KTAEConfig()),
        ({"preset": "released", "exclude_token_ids": [7]}, KTAEConfig(fisher="released", exclude_token_ids=(7,))),
        ({"preset": "recommended"}, KTAEConfig.recommended()),
        ({"context": 1, "scale": 2, "correct_above": 0.5}, KTAEConfig(context=1, scale=2, correct_above=0.5)),
    ],
)
def test_key_tokens_from_settings(settings, config):
    credit = asked_for(settings)
    (cell,) = credit.estimator.__closure__  # the settings with which key tokens are computed
    assert cell.cell_contents == config
    assert (credit.correct_above, credit.scale, credit.states) == (config.correct_above, config.scale, None)


def test_an_estimator_and_states_by_import_path():
    settings = {"estimator": "test_credit:third", "states": "test_credit:place", "correct_above": 0.5}
    credit = asked_for(settings, "entropies")
    assert (credit.needs, credit.correct_above, credit.scale) == (("entropies",), 0.5, None)
    assert credit.state_rows([{"token_ids": [5, 5]}, {"token_ids": [7]}], 3).tolist() == [[0, 1, 0], [0, 0, 0]]
    with pytest.raises(ValueError, match=r"an integer for each of the rollout's 2 tokens, got \[0\]"):
        TokenCredit(states=lambda rollout: [0]).state_rows([{"token_ids": [5, 5]}], 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"h1": 2}, r"ktae\.h1 is unknown; algorithm\.ktae may hold preset, .*, states, fisher_weight, .*"),
        ({"preset": "best"}, r"ktae\.preset must be one of paper, released, recommended, got 'best'"),
        ({"context": -1}, r"ktae\.context must be an integer in 0\.\.64, got -1"),
        ("recommended", r"ktae must hold some of preset, .*; got 'recommended'"),
        ({"estimator": "nothing"}, r"ktae\.estimator must be one of .* got 'nothing'"),
        ({"estimator": 3}, r"ktae\.estimator must be .* got 3"),
        ({"estimator": "surprise", "scale": 2}, r"ktae\.scale is a setting of key tokens; .* 'surprise' does not read"),
        ({"estimator": "surprise", "correct_above": "a"}, r"ktae\.correct_above must be a finite number .*, got 'a'"),
        ({"estimator": "test_credit:third"}, r"ktae\.estimator .*:third' needs the rollouts' entropies, which this tr"),
        ({"estimator": "turn_groups"}, r"ktae\.estimator 'turn_groups' needs the rollouts' states, which this trainer"),
        ({"states": "nowhere"}, r"ktae\.states must be an import path .* 'nowhere'"),
        ({"states": "test_credit:nothing"}, r"ktae\.states .* has no function 'nothing'"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises((ValueError, TypeError), match=r"^algorithm\." + message):
        asked_for(settings)
