"""The estimators that the credit-assignment benchmark compares: rollouts in, one value a token out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ktae.advantages import key_token_values
from ktae.bench import rivals, variants
from ktae.bench.labelled import Rollouts
from ktae.config import KTAEConfig
from ktae.rollout import grpo
from ktae.seeds import derived_seed

# Values are (N, T) float32; the lower a token's value, the more it is blamed.
Estimator = Callable[[Rollouts], Tensor]


def key_tokens(config: KTAEConfig) -> Estimator:
    """The key-token values of these settings."""
    return lambda r: key_token_values(r.token_ids, r.mask, r.rewards, r.group_ids, config=config)


def random(rollouts: Rollouts) -> Tensor:
    """Uniform in [-1, 1), whatever the rollouts.

    A row's draws depend on its group and its tokens only, so that the order of the rows plays no part.
    """
    values_BT = torch.zeros(rollouts.token_ids.shape)
    for row, (ids_T, mask_T, group) in enumerate(
        zip(rollouts.token_ids, rollouts.mask, rollouts.group_ids.tolist(), strict=True)
    ):
        seed = derived_seed(group, *ids_T[mask_T].tolist())
        values_BT[row] = torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, len(ids_T))).float()
    return values_BT


def position(rollouts: Rollouts) -> Tensor:
    """How far into its rollout a token is, from 0 to 1: blames the early ones, whatever they are."""
    index_BT = rollouts.mask.cumsum(dim=1) - 1
    return index_BT / (rollouts.mask.sum(dim=1, keepdim=True) - 1).clamp(min=1)


def beyond_rollout(method: rivals.Method) -> Estimator:
    """What a method adds to GRPO's rollout advantage at each token."""

    def values(rollouts: Rollouts) -> Tensor:
        rollout_B = grpo(rollouts.rewards, rollouts.group_ids)
        return method(rollouts, rollout_B) - rivals.uniform(rollouts, rollout_B)

    return values


def _ngrams(length: int) -> Estimator:
    return key_tokens(KTAEConfig(ngram=length, term_frequency_weight=0.0))


def _in_context(length: int) -> Estimator:
    return key_tokens(KTAEConfig(context=length, term_frequency_weight=0.0))


REFERENCE = "ktae"  # the paper's formula: the others are compared with it
ESTIMATORS: dict[str, Estimator] = {
    REFERENCE: key_tokens(KTAEConfig()),
    "ktae_no_tf": key_tokens(KTAEConfig(term_frequency_weight=0.0)),
    "ngrams_3": _ngrams(3),
    "ngrams_1_3_5_8": variants.mean_of(*(_ngrams(n) for n in (1, 3, 5, 8))),
    "context_1": _in_context(1),
    "context_2": key_tokens(KTAEConfig.recommended()),
    "context_3": _in_context(3),
    "context_4": _in_context(4),
    "context_1_2_4": variants.mean_of(*(_in_context(n) for n in (1, 2, 4))),
    "context_2_and_ktae": variants.mean_of(_in_context(2), key_tokens(KTAEConfig())),
    "context_2_z": variants.in_context(variants.z_score, 2),
    "context_2_z_held_by_2": variants.in_context(variants.supported(variants.z_score, 2), 2),
    "context_2_z_held_by_4": variants.in_context(variants.supported(variants.z_score, 4), 2),
    "context_2_z_significant": variants.in_context(variants.significant(variants.z_score, 0.1), 2),
    "context_2_difference": variants.in_context(variants.shrunk_difference, 2),
    "context_2_exonerated": variants.in_context(variants.exonerated, 2),
    "context_2_first": variants.in_context(variants.z_score, 2, first_only=True),
    "context_2_leave_one_out": variants.in_context(variants.shrunk_difference, 2, leave_one_out=True),
    "back_off_3": variants.back_off(3),
    "back_off_8": variants.back_off(8),
    "tempo": beyond_rollout(rivals.prefix_tree),
    "gtpo": beyond_rollout(rivals.entropy_weighted),
    "high_entropy": beyond_rollout(rivals.high_entropy_only),
    "position": position,
    "random": random,
    "oracle": beyond_rollout(rivals.oracle),
}
NEED_ENTROPIES = ("gtpo", "high_entropy")  # left out where the rollouts have no policy
