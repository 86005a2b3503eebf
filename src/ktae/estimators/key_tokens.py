"""Key tokens: what a token's presence says about the outcome of its group's rollouts (KTAE, arXiv 2505.16826).

A token that correct rollouts of the prompt hold more often than incorrect ones is valued, one that incorrect rollouts
hold more often is blamed. In context, rollouts are compared that came to the same place and went on in different ways.
Needs token ids and rewards; the equations stand in `ktae.advantages` and docs/algorithm.md.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from ktae.advantages import key_token_values
from ktae.config import KTAEConfig
from ktae.estimators.interface import Estimator, Rollouts


def ktae(rollouts: Rollouts) -> Tensor:
    """The paper's formula, `KTAEConfig()`: (N, T) values in [-1, 1]; 0 in groups with one outcome."""
    return key_tokens(KTAEConfig())(rollouts)


def ktae_context(rollouts: Rollouts) -> Tensor:
    """Tokens compared in context, `KTAEConfig.recommended()`: (N, T) values in [-8, 8]; 0 where one outcome is."""
    return key_tokens(KTAEConfig.recommended())(rollouts)


def ktae_calculation(rollouts: Rollouts) -> Tensor:
    """Tokens compared in the rollouts' states, `KTAEConfig.recommended(context=0)`: (N, T) values in [-8, 8].

    Needs states, made for those of `ktae.states.calculation`: what was calculated before the token, words left out.
    """
    rollouts.require("states")
    return key_tokens(KTAEConfig.recommended(context=0))(rollouts)


def key_tokens(config: KTAEConfig) -> Estimator:
    """The key-token values of any settings, within the rollouts' states if there are any; `correct_above` is theirs."""

    def key_tokens(rollouts: Rollouts) -> Tensor:
        settings = replace(config, correct_above=rollouts.correct_above)
        tensors = rollouts.token_ids, rollouts.mask, rollouts.rewards, rollouts.group_ids
        return key_token_values(*tensors, config=settings, states=rollouts.states)

    return key_tokens
