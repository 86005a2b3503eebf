"""START HERE: token advantages = rollout advantage + key-token value (KTAE, arXiv 2505.16826).

The rollouts of a group answer one prompt; each has one reward. For every token id that occurs in the group, a
2x2 table says how many correct and how many incorrect rollouts hold it. The key-token value is large and
positive where holding the token goes with being correct, negative where it goes with being incorrect:

    value = tanh(strength * direction / 2),
    strength = (h1 Fisher score + h2 information gain) / (h1 + h2)    association.py
    direction = Cohen's h + h3 term-frequency contrast                direction.py

Shape suffixes: _B one entry a rollout, _BT one a token, _U one a (group, token id) pair.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ktae import checks, kernels
from ktae.association import fisher, information_gain
from ktae.config import KTAEConfig
from ktae.context import followed_by, preceding
from ktae.contingency import Contingency, contingency, within
from ktae.direction import cohen, term_frequency_contrast
from ktae.rollout import grpo

_AT_ONCE = 2**20  # tokens, padding included, that the tensor path looks at together


def ktae_advantages(
    token_ids: Tensor,
    mask: Tensor,
    rewards: Tensor,
    group_ids: Tensor,
    *,
    config: KTAEConfig = KTAEConfig(),  # noqa: B008 (frozen)
    rollout_advantages: Tensor | None = None,
) -> Tensor:
    """Token advantages A_it = (A_i + K(o_it)) * mask_it.

    Args:
        token_ids: (N, T) integers, the completions' token ids: any non-negative int64 inside the mask,
            anything outside.
        mask: (N, T) of 0 and 1 (bool, integer or float); 1 marks the tokens the policy generated.
        rewards: (N,) one outcome reward a rollout. NaN marks an unscored rollout: its advantages are 0 and no
            table counts it.
        group_ids: (N,) integers, equal for the rollouts of one prompt. Rows may come in any order, groups may
            have any sizes.
        config: the estimator's settings.
        rollout_advantages: (N,) the A_i to add to; GRPO's (`ktae.rollout.grpo`) by default.

    Returns:
        (N, T) float32 on the inputs' device, 0 outside the mask.

    Raises:
        TypeError: an argument is not a tensor or has an unsuitable dtype.
        ValueError: a shape, a device or a value is out of contract; the message names the argument, what was met
            and what was expected.

    Two rollouts of one prompt; token 7 comes with the right answer, 9 with the wrong one, 5 with both:

    >>> ids = torch.tensor([[5, 7], [5, 9]])
    >>> advantages = ktae_advantages(
    ...     ids, torch.ones_like(ids), torch.tensor([1.0, 0.0]), torch.tensor([0, 0])
    ... )
    >>> advantages.round(decimals=3)
    tensor([[ 0.7070,  1.7070],
            [-0.7070, -1.7070]])
    """
    rewards_B = checks.rewards(rewards)
    if rollout_advantages is None:
        rollout_B = grpo(rewards, group_ids)
    else:
        rollout_B = checks.rollout_advantages(rollout_advantages, rewards_B)
    return _token_advantages(token_ids, mask, rewards, group_ids, rollout_B, config)


def key_token_values(
    token_ids: Tensor,
    mask: Tensor,
    rewards: Tensor,
    group_ids: Tensor,
    *,
    config: KTAEConfig = KTAEConfig(),  # noqa: B008 (frozen)
) -> Tensor:
    """Key-token values K(o_it): what each token's presence says about the outcome of its group's rollouts.

    Arguments and errors are those of `ktae_advantages`.

    Returns:
        (N, T) float32 in [-scale, scale]; 0 outside the mask, in unscored rollouts, for excluded token ids
        and in groups whose scored rollouts are all correct or all incorrect.

    >>> ids = torch.tensor([[5, 7], [5, 9]])
    >>> key_token_values(ids, torch.ones_like(ids), torch.tensor([1.0, 0.0]), torch.tensor([0, 0]))
    tensor([[ 0.,  1.],
            [ 0., -1.]])
    """
    return _token_advantages(token_ids, mask, rewards, group_ids, None, config)


def _token_advantages(
    token_ids: Tensor, mask: Tensor, rewards: Tensor, group_ids: Tensor, rollout_B: Tensor | None, config: KTAEConfig
) -> Tensor:
    """Checks the batch and values its tokens, a few groups at a time; no `rollout_B` means zeros."""
    checks.config(config)
    rewards_B = checks.rewards(rewards)
    group_B, groups = checks.group_indices(group_ids, rewards_B)
    checks.token_types(token_ids, mask, rewards_B)
    if rollout_B is None:
        rollout_B = torch.zeros_like(rewards_B)
    scored_B = ~rewards_B.isnan()
    correct_B = rewards > config.correct_above  # in the rewards' own precision: float32(0.1) is not above 0.1

    if kernels.usable(token_ids):
        return kernels.token_advantages(token_ids, mask, rollout_B, correct_B, scored_B, group_B, groups, config=config)
    checks.token_values(token_ids, mask)
    advantage_BT = torch.zeros(token_ids.shape, dtype=torch.float32, device=token_ids.device)
    for rows in _rows_at_once(group_B, groups, token_ids.shape[1]):
        ids_BT, counted_BT = token_ids[rows].long(), (mask[rows] != 0) & scored_B[rows, None]
        value_BT = _values(ids_BT, counted_BT, correct_B[rows], scored_B[rows], group_B[rows], groups, config)
        advantage_BT[rows] = ((rollout_B[rows, None] + value_BT) * counted_BT).float()
    return advantage_BT


def _rows_at_once(group_B: Tensor, groups: int, columns: int) -> list[Tensor]:
    """The rows of a few whole groups at a time: temporaries stay far below the size of a large batch."""
    by_group = torch.argsort(group_B, stable=True)
    end_G = torch.bincount(group_B, minlength=groups).cumsum(0) * columns
    part_G = end_G // _AT_ONCE
    return list(by_group.split(torch.unique(part_G[group_B], return_counts=True)[1].tolist()))


def _values(
    ids_BT: Tensor,
    counted_BT: Tensor,
    correct_B: Tensor,
    scored_B: Tensor,
    group_B: Tensor,
    groups: int,
    config: KTAEConfig,
) -> Tensor:
    """(N, T) float32 key-token values."""
    table = unit_tables(ids_BT, counted_BT, correct_B, scored_B, group_B, groups, config=config)
    value_U = torch.tanh(strength(table, config) * direction(table, config) / 2)
    mixed_U = (table.n_T_U > 0) & (table.n_F_U > 0)
    value_U = torch.where(mixed_U, value_U, 0.0)

    # Index -1, a token that was not counted, picks the zero at the end.
    value_BT = torch.cat([value_U, value_U.new_zeros(1)])[table.unit_index_BT]
    valued_BT = counted_BT
    if config.exclude_token_ids:
        valued_BT = counted_BT & ~torch.isin(ids_BT, torch.tensor(config.exclude_token_ids, device=ids_BT.device))
        value_BT = value_BT.masked_fill(~valued_BT, 0.0)
    if config.centered:
        value_BT = (value_BT - _row_means(value_BT, valued_BT)[:, None]).masked_fill(~valued_BT, 0.0)
    return (config.scale * value_BT).float()


def _row_means(value_BT: Tensor, valued_BT: Tensor) -> Tensor:
    """(N,) float64 means, exactly the same however wide the padding: integers are summed, in units of 2^-40."""
    sum_B = (value_BT * 2**40).round().long().sum(dim=1)
    return sum_B.double() / 2**40 / valued_BT.sum(dim=1).clamp(min=1)


def unit_tables(token_ids_BT: Tensor, counted_BT: Tensor, *rollouts, config: KTAEConfig) -> Contingency:
    """The tables of the configured units: tokens, or tokens in context; against the group, or within the context."""
    if config.context == 0:
        return contingency(token_ids_BT, counted_BT, *rollouts)
    context_BT = preceding(token_ids_BT, counted_BT, config.context)
    table = contingency(followed_by(context_BT, token_ids_BT), counted_BT, *rollouts)
    return within(table, contingency(context_BT, counted_BT, *rollouts)) if config.compare == "context" else table


def strength(table: Contingency, config: KTAEConfig) -> Tensor:
    """(U,) float64 association strengths, (h1 Fisher score + h2 information gain) / (h1 + h2)."""
    h1, h2 = config.fisher_weight, config.information_gain_weight
    return (h1 * fisher(table, config.fisher) + h2 * information_gain(table)) / (h1 + h2)


def direction(table: Contingency, config: KTAEConfig) -> Tensor:
    """(U,) float64 directions, Cohen's h + h3 term-frequency contrast."""
    h3 = config.term_frequency_weight
    return cohen(table) + h3 * term_frequency_contrast(table) if h3 else cohen(table)
