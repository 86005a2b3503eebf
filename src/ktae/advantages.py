"""START HERE: token advantages = rollout advantage + key-token value (KTAE, arXiv 2505.16826).

The rollouts of a group answer one prompt; each has one reward. For every token that occurs in the group, a 2x2 table
says how many correct and how many incorrect rollouts hold it. The key-token value is large and positive where holding
the token goes with being correct, negative where it goes with being incorrect:

    rollout_B = grpo(rewards_B, group_B)                                   rollout.py
    units_BT, within_BT = units(token_ids_BT, mask_BT, states_BT)          units.py
    table = contingency(units_BT, mask_BT, correct_B, group_B, within_BT)  contingency.py, compiled in kernels/
    value_U = key_token_values(table)                                      scores.py
    advantage_BT = (rollout_B[:, None] + value_U[table.unit_index_BT]) * mask_BT

Shape suffixes: _B one entry a rollout, _BT one a token, _G one a group, _U one a (group, unit) pair.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ktae import checks, kernels, scores
from ktae.config import KTAEConfig
from ktae.contingency import contingency
from ktae.rollout import grpo
from ktae.units import units

# The tensor path looks at a share of the batch at a time, padding included, or at a group if that is more: what it
# knows of a token takes 150 to 250 bytes meanwhile, and a token of the batch 5 to 16.
SHARE, LEAST_AT_ONCE = 1 / 64, 2**16


def ktae_advantages(
    token_ids: Tensor,
    mask: Tensor,
    rewards: Tensor,
    group_ids: Tensor,
    *,
    config: KTAEConfig = KTAEConfig(),  # noqa: B008 (frozen)
    rollout_advantages: Tensor | None = None,
    states: Tensor | None = None,
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
        states: (N, T) integers, the state in which each token was chosen: a turn, a state of the environment, a line.
            A token is then compared among the group's rollouts that reached the same state, instead of among all.

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
    rewards_B, group_ids_B = checks.on_host(rewards, group_ids)
    checks.token_types(token_ids, mask, rewards)
    if rollout_advantages is None:
        rollout_B = grpo(rewards_B, group_ids_B)
    else:
        rollout_B = checks.rollout_advantages(rollout_advantages, rewards)
    return _token_advantages(token_ids, mask, rewards_B, group_ids_B, rollout_B, states, config)


def key_token_values(
    token_ids: Tensor,
    mask: Tensor,
    rewards: Tensor,
    group_ids: Tensor,
    *,
    config: KTAEConfig = KTAEConfig(),  # noqa: B008 (frozen)
    states: Tensor | None = None,
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

    Token 7 is chosen by a correct and by an incorrect rollout, but in two states:

    >>> ids, states = torch.tensor([[7, 8], [9, 7]]), torch.tensor([[1, 2], [1, 2]])
    >>> inputs = ids, torch.ones_like(ids), torch.tensor([1.0, 0.0]), torch.tensor([0, 0])
    >>> config = KTAEConfig(term_frequency_weight=0)
    >>> key_token_values(*inputs, config=config), key_token_values(*inputs, config=config, states=states)
    (tensor([[ 0.0000,  0.3737],
            [-0.3737,  0.0000]]), tensor([[ 0.3737,  0.3737],
            [-0.3737, -0.3737]]))
    """
    rewards_B, group_ids_B = checks.on_host(rewards, group_ids)
    checks.token_types(token_ids, mask, rewards)
    nothing_B = torch.zeros_like(rewards_B, dtype=torch.float64)
    return _token_advantages(token_ids, mask, rewards_B, group_ids_B, nothing_B, states, config)


def _token_advantages(
    token_ids: Tensor,
    mask: Tensor,
    rewards_B: Tensor,
    group_ids_B: Tensor,
    rollout_B: Tensor,
    states: Tensor | None,
    config: KTAEConfig,
) -> Tensor:
    """Checks the values and takes the path; what there is one of for each rollout is on the CPU."""
    checks.config(config)
    checks.states(states, token_ids)
    scored_B = ~checks.rewards(rewards_B).isnan()
    correct_B = rewards_B > config.correct_above  # in the rewards' own precision: float32(0.1) is not above 0.1
    group_B = checks.group_indices(group_ids_B, rewards_B)
    path = kernels.token_advantages if kernels.usable(token_ids) else _by_tensors
    return path(token_ids, mask, states, rollout_B, correct_B, scored_B, group_B, config)


def _by_tensors(
    token_ids: Tensor,
    mask: Tensor,
    states: Tensor | None,
    rollout_B: Tensor,
    correct_B: Tensor,
    scored_B: Tensor,
    group_B: Tensor,
    config: KTAEConfig,
) -> Tensor:
    """`ktae.kernels.token_advantages` in tensor operations, on any device: some whole groups at a time."""
    mask_BT = checks.token_values(token_ids, mask)
    device = mask_BT.device
    advantage_BT = torch.where(mask_BT, rollout_B.float().to(device)[:, None], 0.0)
    for rows_B in _mixed_groups(correct_B, scored_B, group_B, mask_BT.shape[1]):
        group = torch.unique_consecutive(group_B[rows_B], return_inverse=True)[1]
        rows, correct, group = (part.to(device) for part in (rows_B, correct_B[rows_B], group))
        states_BT = None if states is None else states[rows].long()
        advantage_BT[rows] += _values(token_ids[rows].long(), mask_BT[rows], correct, group, states_BT, config)
    return advantage_BT


def _values(
    ids_BT: Tensor, mask_BT: Tensor, correct_B: Tensor, group_B: Tensor, states_BT: Tensor | None, config: KTAEConfig
) -> Tensor:
    """(N, T) float32 key-token values of whole groups with both outcomes; 0 outside the mask."""
    units_BT, within_BT = units(ids_BT, mask_BT, states_BT, config)
    table = contingency(units_BT, mask_BT, correct_B, group_B, within_BT)
    value_U = scores.key_token_values(table, config)
    value_U = torch.cat([value_U, value_U.new_zeros(1)])  # the last is for tokens outside the mask, whose index is -1
    excluded = torch.tensor(config.exclude_token_ids, dtype=torch.int64, device=ids_BT.device)
    valued_BT = mask_BT & ~torch.isin(ids_BT, excluded)
    if config.centered:
        value_BT = config.scale * _less_row_means(value_U, table.unit_index_BT, valued_BT)
    else:
        value_BT = (config.scale * value_U).float()[table.unit_index_BT]
    return value_BT.masked_fill_(~valued_BT, 0.0)


def _mixed_groups(correct_B: Tensor, scored_B: Tensor, group_B: Tensor, columns: int) -> Sequence[Tensor]:
    """Scored rows of the groups with both outcomes, by group, some whole groups at a time. Elsewhere values are 0."""
    groups = int(group_B.max()) + 1
    n_T_G = torch.bincount(group_B[scored_B & correct_B], minlength=groups)
    n_F_G = torch.bincount(group_B[scored_B & ~correct_B], minlength=groups)
    size_G = torch.where((n_T_G > 0) & (n_F_G > 0), n_T_G + n_F_G, 0)
    row_B = torch.argsort(group_B, stable=True)
    row_B = row_B[(scored_B & (size_G > 0)[group_B])[row_B]]
    at_once = max(LEAST_AT_ONCE, SHARE * len(group_B) * columns) / columns
    sizes = [0]
    for size in size_G.tolist():
        if sizes[-1] and sizes[-1] + size > at_once:
            sizes.append(0)
        sizes[-1] += size
    return [rows for rows in row_B.split(sizes) if len(rows)]


def _less_row_means(value_U: Tensor, unit_index_BT: Tensor, valued_BT: Tensor) -> Tensor:
    """(N, T) float32 values less their mean over the row's valued tokens.

    Integers are summed, in units of 2^-40: the same bits however wide the padding.
    """
    value_BT = (value_U * 2**40).round().long()[unit_index_BT].masked_fill_(~valued_BT, 0)
    number_B = valued_BT.sum(dim=1).clamp(min=1)
    mean_B = (2 * value_BT.sum(dim=1) + number_B).div(2 * number_B, rounding_mode="floor")
    return (value_BT - mean_B[:, None]).float() / 2**40
