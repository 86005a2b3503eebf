"""The methods that are compared, by name: estimators of `ktae.estimators`, settings of theirs, and controls."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ktae.bench.controls import oracle
from ktae.config import KTAEConfig
from ktae.estimators import Estimator, Rollouts, load_estimator
from ktae.estimators.key_tokens import key_tokens

RECOMMENDED = KTAEConfig.recommended()


def nothing(rollouts: Rollouts) -> Tensor:
    """Every token keeps its rollout's advantage."""
    return torch.zeros(rollouts.mask.shape)


def advantages_x3(rollouts: Rollouts) -> Tensor:
    """A control: all advantages three times as large."""
    return 2 * rollouts.rollout_advantages[:, None].float() * rollouts.counted_BT


def ktae_mean(rollouts: Rollouts) -> Tensor:
    """A control without token information: the mean key-token value of the rollout, at each of its tokens."""
    key_BT = load_estimator("ktae")(rollouts)
    mean_B = key_BT.sum(dim=1) / rollouts.counted_BT.sum(dim=1).clamp(min=1)
    return mean_B[:, None] * rollouts.counted_BT


def _ktae(**fields) -> Estimator:
    return key_tokens(KTAEConfig(**fields))


METHODS = {
    "": nothing,
    "x3": advantages_x3,
    "ktae_mean": ktae_mean,
    "oracle": oracle,
    # By the names of the runs in runs.jsonl.
    "context": load_estimator("ktae_context"),
    "tempo": load_estimator("prefix_tree"),
    "gtpo": load_estimator("entropy_weighting"),
    "context_centered": key_tokens(replace(RECOMMENDED, centered=True)),
    # The paper's ablations and settings.
    "ktae_no_fisher": _ktae(fisher_weight=0.0),
    "ktae_no_ig": _ktae(information_gain_weight=0.0),
    "ktae_no_tf": _ktae(term_frequency_weight=0.0),
    "ktae_h2_2": _ktae(information_gain_weight=2.0),
    "ktae_released": key_tokens(KTAEConfig.released()),
    "ktae_x4": _ktae(scale=4.0),
    "context_x2": key_tokens(replace(RECOMMENDED, scale=2.0)),
    "context_x4": key_tokens(replace(RECOMMENDED, scale=4.0)),
    "context_x16": key_tokens(replace(RECOMMENDED, scale=16.0)),
    "context_1": key_tokens(replace(RECOMMENDED, context=1)),
    "context_4": key_tokens(replace(RECOMMENDED, context=4)),
}


def method(name: str) -> Estimator:
    """Of "grpo", "dapo+context", "grpo+surprise", ...: what the estimator after the sign adds.

    One of `METHODS`, a name of `ktae.estimators`, or an import path.
    """
    after = name.partition("+")[2]
    return METHODS[after] if after in METHODS else load_estimator(after)
