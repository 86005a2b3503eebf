"""What the adapters log as `ktae/*` (docs/metrics.md)."""

import torch
from torch import Tensor

from ktae.config import KTAEConfig


def estimator_metrics(
    value_NT: Tensor, generated_NT: Tensor, rewards_N: Tensor, group_N: Tensor, config: KTAEConfig
) -> dict[str, float]:
    """Metrics of one batch of key-token values.

    Args:
        value_NT: (N, T) key-token values.
        generated_NT: (N, T) bool, True for the tokens that the policy generated.
        rewards_N: (N,) outcome rewards, NaN where unscored.
        group_N: (N,) integers, equal for the rollouts of one prompt, in any order.
        config: the estimator's settings.

    Returns:
        A value for each name; NaN where there is nothing to average.

    >>> value = torch.tensor([[0.0, 0.75], [0.0, -0.75]])
    >>> generated = torch.ones(2, 2, dtype=torch.bool)
    >>> estimator_metrics(value, generated, torch.tensor([1.0, 0.0]), torch.tensor([4, 4]), KTAEConfig())
    {'key_token_share': 0.5, 'abs_value_correct': 0.375, 'abs_value_incorrect': 0.375, 'mixed_group_share': 1.0}
    """
    size_NT = value_NT.abs()
    correct_N = rewards_N > config.correct_above
    incorrect_N = rewards_N <= config.correct_above
    groups, index_N = torch.unique(group_N, return_inverse=True)

    def with_any(chosen_N: Tensor) -> Tensor:
        return torch.bincount(index_N[chosen_N], minlength=len(groups)) > 0

    mixed_G = with_any(correct_N) & with_any(incorrect_N)
    return {
        "key_token_share": (size_NT[generated_NT] > abs(config.scale) / 2).float().mean().item(),
        "abs_value_correct": size_NT[generated_NT & correct_N[:, None]].mean().item(),
        "abs_value_incorrect": size_NT[generated_NT & incorrect_N[:, None]].mean().item(),
        "mixed_group_share": mixed_G.float().mean().item(),
    }
