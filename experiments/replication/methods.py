"""What is added to GRPO's advantages, by name: estimators of `ktae.estimators`, controls, and candidates."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ktae.bench.controls import ESTIMATORS, oracle, random
from ktae.config import KTAEConfig
from ktae.estimators import Estimator, Rollouts, load_estimator
from ktae.estimators.key_tokens import key_tokens

RECOMMENDED = KTAEConfig.recommended()
CENTERED = key_tokens(KTAEConfig.recommended(centered=True))


def nothing(rollouts: Rollouts) -> Tensor:
    """Every token keeps its rollout's advantage."""
    return torch.zeros(rollouts.mask.shape)


def advantages_x3(rollouts: Rollouts) -> Tensor:
    """A control: all advantages three times as large."""
    return 2 * rollouts.rollout_advantages[:, None].float() * rollouts.counted_BT


def in_share(estimator: Estimator, share: float) -> Estimator:
    """A scale without a knob: in each group, the root mean square of the values is `share` of the rollout advantages'.

    The values' is over the tokens that have one.
    """

    def in_share(rollouts: Rollouts) -> Tensor:
        value_BT, group_B = estimator(rollouts), rollouts.group_B
        groups = int(group_B.max()) + 1
        sizes = torch.zeros(3, groups, dtype=torch.float64)
        sizes[0].index_add_(0, group_B, value_BT.double().square().sum(1))
        sizes[1].index_add_(0, group_B, (value_BT != 0).sum(1).double())
        sizes[2].index_add_(0, group_B, rollouts.rollout_advantages.double().square())
        rms_G = (sizes[0] / sizes[1].clamp(min=1)).sqrt()
        advantage_G = (sizes[2] / group_B.bincount(minlength=groups)).sqrt()
        factor_G = torch.where(rms_G > 0, share * advantage_G / rms_G.clamp(min=1e-12), 0.0)
        return (value_BT * factor_G[group_B][:, None]).float()

    return in_share


def surprise_and_context(rollouts: Rollouts) -> Tensor:
    """Rare tokens by their rollout's own outcome, and six times what the others' outcomes say of them in context."""
    return load_estimator("surprise")(rollouts) + 6 / RECOMMENDED.scale * load_estimator("ktae_context")(rollouts)


def most_blamed(estimator: Estimator) -> Estimator:
    """-1 at the token of each incorrect rollout with the lowest value, if that is below 0; tokens that tie share it."""

    def most_blamed(rollouts: Rollouts) -> Tensor:
        value_BT = torch.where(rollouts.counted_BT & rollouts.mixed_B[:, None], estimator(rollouts), 0.0)
        lowest_BT = (value_BT == value_BT.amin(dim=1, keepdim=True)) & (value_BT < 0) & ~rollouts.correct_B[:, None]
        return -lowest_BT.float() / lowest_BT.sum(dim=1, keepdim=True).clamp(min=1)

    return most_blamed


def and_positive(estimator: Estimator) -> Estimator:
    """The values on top of the control at its tuned scale."""

    def and_positive(rollouts: Rollouts) -> Tensor:
        return 2 * load_estimator("positive")(rollouts) + estimator(rollouts)

    return and_positive


def part_of_oracle(sign: int, correct: bool) -> Estimator:
    """The oracle's values of one sign, in correct or in incorrect rollouts only."""

    def part_of_oracle(rollouts: Rollouts) -> Tensor:
        value_BT = oracle(rollouts)
        return value_BT * ((value_BT * sign > 0) & (rollouts.correct_B == correct)[:, None])

    return part_of_oracle


def strongest(rollouts: Rollouts) -> Tensor:
    """The value in contexts of one to four tokens that is largest in magnitude, the shortest on a tie."""
    value_KBT = torch.stack([key_tokens(replace(RECOMMENDED, context=k))(rollouts) for k in (1, 2, 3, 4)])
    return value_KBT.gather(0, value_KBT.abs().argmax(0, keepdim=True))[0]


def times(estimator: Estimator, factor: float) -> Estimator:
    """The values times `factor`; where nothing is added, the rollout advantages times it."""
    if factor == 1:
        return estimator

    def times(rollouts: Rollouts) -> Tensor:
        advantages_BT = (factor - 1) * rollouts.rollout_advantages[:, None].float() * rollouts.counted_BT
        return advantages_BT if estimator is nothing else factor * estimator(rollouts)

    return times


METHODS = {
    "": nothing,
    "x3": advantages_x3,
    "oracle": oracle,
    "oracle_slips": part_of_oracle(-1, correct=False),
    "oracle_in_incorrect": part_of_oracle(+1, correct=False),
    "oracle_in_correct": part_of_oracle(+1, correct=True),
    "context": load_estimator("ktae_context"),
    "context_centered": CENTERED,
    "positive_context": and_positive(CENTERED),
    "blame_one": most_blamed(ESTIMATORS["ktae_calculation"]),
    "positive_blame_one": and_positive(most_blamed(ESTIMATORS["ktae_calculation"])),
    "positive_blame_random": and_positive(most_blamed(random)),
    "calculation": ESTIMATORS["ktae_calculation"],
    "context_in_share": in_share(load_estimator("ktae_context"), 1.0),
    "surprise_context": surprise_and_context,
    "strongest": strongest,
}


def method(name: str) -> Estimator:
    """Of "grpo", "dapo+context", "grpo+surprise", ...: what the estimator after the sign adds.

    One of `METHODS`, an estimator of the benchmark, or an import path.
    """
    known, after = ESTIMATORS | METHODS, name.partition("+")[2]
    return known[after] if after in known else load_estimator(after)
