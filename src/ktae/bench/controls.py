"""What the benchmark compares: the estimators of `ktae.estimators`, other settings of theirs, and controls."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ktae.bench.labelled import LabelledRollouts
from ktae.chain.labels import Label
from ktae.config import KTAEConfig
from ktae.estimators import ESTIMATORS as PUBLISHED
from ktae.estimators import NEEDS, Estimator, Rollouts, load_estimator
from ktae.estimators.back_off import back_off
from ktae.estimators.key_tokens import key_tokens
from ktae.seeds import derived_seed


def random(rollouts: Rollouts) -> Tensor:
    """Uniform in [-1, 1). A row's draws depend on its group and its tokens: the order of the rows plays no part."""
    value_BT = torch.zeros(rollouts.token_ids.shape)
    for row, (counted_T, group) in enumerate(zip(rollouts.counted_BT, rollouts.group_ids.tolist(), strict=True)):
        ids = rollouts.token_ids[row, counted_T].tolist()
        draws = np.random.default_rng(derived_seed(group, *ids)).uniform(-1, 1, len(ids))
        value_BT[row, counted_T] = torch.from_numpy(draws).float()
    return value_BT


def position(rollouts: Rollouts) -> Tensor:
    """How far into its rollout a token is, from 0 to 1: blames the early ones, whatever they are."""
    counted_BT = rollouts.counted_BT
    place_BT = counted_BT.cumsum(dim=1) - 1
    return place_BT / (counted_BT.sum(dim=1, keepdim=True) - 1).clamp(min=1) * counted_BT


def own_outcome(rollouts: Rollouts) -> Tensor:
    """1 in correct rollouts and -1 in incorrect ones: no token information at all."""
    return torch.where(rollouts.correct_B, 1.0, -1.0)[:, None] * rollouts.counted_BT


def oracle(rollouts: Rollouts) -> Tensor:
    """An upper bound that reads the labels: +1 at right results and -1 at slips, in groups with both outcomes."""
    labels = _labelled("oracle", rollouts).labels
    value_BT = (labels == Label.RIGHT).float() - (labels == Label.SLIP).float()
    return value_BT * (rollouts.counted_BT & rollouts.mixed_B[:, None])


def in_calculations(estimator: Estimator) -> Estimator:
    """The estimator with what was calculated before a token as its state (`ktae.states`)."""

    def in_calculations(rollouts: Rollouts) -> Tensor:
        return estimator(replace(rollouts, states=_labelled(estimator.__name__, rollouts).calculations))

    return in_calculations


def _labelled(name: str, rollouts: Rollouts) -> LabelledRollouts:
    if not isinstance(rollouts, LabelledRollouts):
        raise TypeError(f"{name} needs LabelledRollouts, got {type(rollouts).__name__}")
    return rollouts


NO_TERM_FREQUENCY = KTAEConfig(term_frequency_weight=0.0)
REFERENCE = "surprise"  # the others are compared with it: who is below knows nothing of outcomes
CONTROLS = (REFERENCE, "own_outcome")  # in every table
ESTIMATORS: dict[str, Estimator] = {
    **{name: load_estimator(name) for name in PUBLISHED},
    **{name: in_calculations(load_estimator(name)) for name in PUBLISHED if NEEDS.get(name) == "states"},
    "ktae_no_tf": key_tokens(NO_TERM_FREQUENCY),
    "ngrams_3": key_tokens(replace(NO_TERM_FREQUENCY, ngram=3)),
    **{f"context_{length}": key_tokens(replace(NO_TERM_FREQUENCY, context=length)) for length in (1, 3, 4)},
    "back_off_8": partial(back_off, orders=8),
    "own_outcome": own_outcome,
    "position": position,
    "random": random,
    "oracle": oracle,
}
