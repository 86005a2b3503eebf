"""The methods that are compared, by name."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from ktae.bench import rivals
from ktae.bench.labelled import Rollouts
from ktae.config import KTAEConfig

RECOMMENDED = KTAEConfig.recommended()


def positive(rollouts: Rollouts, rollout_advantages: Tensor) -> Tensor:
    """A control without token information: +1 at every token of the correct rollouts of groups with both outcomes."""
    mixed_B = rollout_advantages != 0
    return rivals.uniform(rollouts, rollout_advantages + ((rollouts.rewards > 0) & mixed_B).double())


def _ktae(**fields) -> rivals.Method:
    return rivals.key_tokens(KTAEConfig(**fields))


METHODS = {
    "": rivals.uniform,
    "ktae": _ktae(),
    "ktae_mean": rivals.key_mean(KTAEConfig()),
    "context": rivals.key_tokens(RECOMMENDED),
    "context_centered": rivals.key_tokens(replace(RECOMMENDED, centered=True)),
    "positive": positive,
    "tempo": rivals.prefix_tree,
    "gtpo": rivals.entropy_weighted,
    "high_entropy": rivals.high_entropy_only,
    "oracle": rivals.oracle,
    # The paper's ablations and settings.
    "ktae_no_fisher": _ktae(fisher_weight=0.0),
    "ktae_no_ig": _ktae(information_gain_weight=0.0),
    "ktae_no_tf": _ktae(term_frequency_weight=0.0),
    "ktae_h2_2": _ktae(information_gain_weight=2.0),
    "ktae_released": rivals.key_tokens(KTAEConfig.released()),
    "ktae_x4": _ktae(scale=4.0),
    "context_x2": rivals.key_tokens(replace(RECOMMENDED, scale=2.0)),
    "context_x4": rivals.key_tokens(replace(RECOMMENDED, scale=4.0)),
    "context_x16": rivals.key_tokens(replace(RECOMMENDED, scale=16.0)),
    "context_1": rivals.key_tokens(replace(RECOMMENDED, context=1)),
    "context_4": rivals.key_tokens(replace(RECOMMENDED, context=4)),
}


def method(name: str) -> rivals.Method:
    """Of "grpo", "dapo+ktae", ...: what comes after the sign."""
    return METHODS[name.partition("+")[2]]
