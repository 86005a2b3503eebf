"""The metrics that the TRL and verl adapters share; needs no verl."""

import math

import pytest
import torch

from ktae.config import KTAEConfig
from ktae.integrations.metrics import estimator_metrics

VALUE = torch.tensor([[0.9, 0.1], [0.2, 0.9], [0.0, 0.4], [0.6, 0.0], [0.9, 0.9]])
GENERATED = torch.tensor([[1, 1], [1, 0], [1, 1], [1, 1], [0, 0]]).bool()
REWARDS = torch.tensor([1.0, 0.0, 1.0, 1.0, math.nan])
GROUPS = torch.tensor([7, 3, 7, 3, 2])  # 3 is mixed, 7 all correct, 2 unscored


def test_each_metric_by_hand():
    metrics = estimator_metrics(VALUE, GENERATED, REWARDS, GROUPS, KTAEConfig())
    expected = {
        "key_token_share": 2 / 7,
        "abs_value_correct": (0.9 + 0.1 + 0.0 + 0.4 + 0.6 + 0.0) / 6,
        "abs_value_incorrect": 0.2,
        "mixed_group_share": 1 / 3,
    }
    assert metrics == pytest.approx(expected)


def test_a_key_token_is_one_above_half_the_scale():
    metrics = estimator_metrics(VALUE, GENERATED, REWARDS, GROUPS, KTAEConfig(scale=-0.3))
    assert metrics["key_token_share"] == pytest.approx(4 / 7)


def test_row_order_and_group_numbers_do_not_matter():
    order = torch.tensor([3, 0, 4, 2, 1])
    rows = (tensor[order] for tensor in (VALUE, GENERATED, REWARDS, 100 - GROUPS))
    expected = estimator_metrics(VALUE, GENERATED, REWARDS, GROUPS, KTAEConfig())
    assert estimator_metrics(*rows, KTAEConfig()) == pytest.approx(expected)
