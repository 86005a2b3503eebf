"""START HERE: token advantages = rollout advantage + key-token value (KTAE, arXiv 2505.16826).

The rollouts of a group answer one prompt; each has one reward. For every token id that occurs in the group, a
2x2 table says how many correct and how many incorrect rollouts hold it. The key-token value is large and
positive where holding the token goes with being correct, negative where it goes with being incorrect:

    value = tanh(strength * direction / 2),
    strength = (h1 Fisher score + h2 information gain) / (h1 + h2)    association.py
    direction = Cohen's h + h3 term-frequency contrast                direction.py

On a GPU the host decides beforehand, from the rewards, the group ids and the lengths of the rows, what is to be done;
the tokens are then counted without the host waiting for the device (docs/performance.md).

Shape suffixes: _B one entry a rollout, _BT one a token, _G one a group, _U one a (group, token id) pair.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ktae import checks, kernels
from ktae.association import Margins, fisher, information_gain, margins_of
from ktae.config import KTAEConfig
from ktae.context import followed_by, preceding
from ktae.contingency import Contingency, contingency, within
from ktae.direction import cohen, term_frequency_contrast
from ktae.rollout import grpo

# The tensor path looks at a share of the batch at a time, padding included, or at a group if that is more: what it
# knows of a token takes 140 to 200 bytes meanwhile, and a token of the batch 5 to 16.
SHARE, LEAST_AT_ONCE = 1 / 32, 2**16
_MOST_MARGINS = 2**9  # enough for groups of 22; all score tables of so many margins take a tenth of a second, once


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
    rewards_B, group_ids_B = checks.on_host(rewards, group_ids)
    checks.token_types(token_ids, mask, rewards)
    if rollout_advantages is None:
        rollout_B = grpo(rewards_B, group_ids_B)
    else:
        rollout_B = checks.rollout_advantages(rollout_advantages, rewards)
    return _token_advantages(token_ids, mask, rewards_B, group_ids_B, rollout_B, config)


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
    rewards_B, group_ids_B = checks.on_host(rewards, group_ids)
    checks.token_types(token_ids, mask, rewards)
    nothing_B = torch.zeros(len(rewards_B), dtype=torch.float64)
    return _token_advantages(token_ids, mask, rewards_B, group_ids_B, nothing_B, config)


def _token_advantages(
    token_ids: Tensor, mask: Tensor, rewards_B: Tensor, group_ids_B: Tensor, rollout_B: Tensor, config: KTAEConfig
) -> Tensor:
    """Checks the values and takes the path; what there is one of for each rollout is on the CPU."""
    checks.config(config)
    scored_B = ~checks.rewards(rewards_B).isnan()
    correct_B = rewards_B > config.correct_above  # in the rewards' own precision: float32(0.1) is not above 0.1
    group_B, groups = checks.group_indices(group_ids_B, rewards_B)
    path = kernels.token_advantages if kernels.usable(token_ids) else _by_tensors
    return path(token_ids, mask, rollout_B, correct_B, scored_B, group_B, groups, config=config)


def _by_tensors(
    token_ids: Tensor,
    mask: Tensor,
    rollout_B: Tensor,
    correct_B: Tensor,
    scored_B: Tensor,
    group_B: Tensor,
    groups: int,
    *,
    config: KTAEConfig,
) -> Tensor:
    """`ktae.kernels.token_advantages` in tensor operations, on any device: values first, rollout advantages added."""
    length_B = checks.token_values(token_ids, mask)
    token_ids, mask_BT = checks.int32_or_int64(token_ids), mask if mask.dtype == torch.bool else mask != 0
    advantage_BT = torch.zeros(token_ids.shape, dtype=torch.float32, device=token_ids.device)

    def on_device(tensor_B: Tensor) -> Tensor:
        return tensor_B.to(token_ids.device, non_blocking=True)

    for rows_B in _rows_at_once(correct_B, scored_B, group_B, groups, token_ids.shape[1]):
        tokens = int(length_B[rows_B].sum())
        if tokens:
            right_B = correct_B[rows_B]
            index_B = torch.unique_consecutive(group_B[rows_B], return_inverse=True)[1]
            n_T_G, n_F_G = index_B[right_B].bincount(), index_B[~right_B].bincount()
            margins = set(zip(n_T_G.tolist(), n_F_G.tolist(), strict=True))
            rollouts = on_device(right_B), on_device(scored_B[rows_B]), on_device(index_B), len(n_T_G)
            rows = on_device(rows_B)
            ids_BT, counted_BT = token_ids[rows], mask_BT[rows]
            advantage_BT[rows] = _values(ids_BT, counted_BT, *rollouts, tokens, margins, config)
    advantage_BT += on_device(rollout_B.detach().float())[:, None]
    return advantage_BT.masked_fill_(~mask_BT, 0.0)


def _rows_at_once(correct_B: Tensor, scored_B: Tensor, group_B: Tensor, groups: int, columns: int) -> Sequence[Tensor]:
    """Rows of a few whole groups at a time, by group, on the CPU.

    Unscored rows are left out, and groups that do not hold both correct and incorrect rows: their values are 0.
    """
    n_T_G = torch.bincount(group_B[scored_B & correct_B], minlength=groups)
    n_F_G = torch.bincount(group_B[scored_B & ~correct_B], minlength=groups)
    size_G = torch.where((n_T_G > 0) & (n_F_G > 0), n_T_G + n_F_G, 0)
    by_group = torch.argsort(group_B, stable=True)
    by_group = by_group[(scored_B & (size_G > 0)[group_B])[by_group]]
    most = max(LEAST_AT_ONCE, SHARE * len(group_B) * columns) / columns
    parts = [0]
    for size in size_G.tolist():
        if parts[-1] > 0 and parts[-1] + size > most:
            parts.append(0)
        parts[-1] += size
    return by_group.split(parts)


def _values(
    ids_BT: Tensor,
    counted_BT: Tensor,
    correct_B: Tensor,
    scored_B: Tensor,
    group_B: Tensor,
    groups: int,
    tokens: int,
    margins: Margins,
    config: KTAEConfig,
) -> Tensor:
    """(N, T) float32 key-token values of some groups; the host knows their counted tokens and (n_T, n_F) already."""
    table = unit_tables(ids_BT, counted_BT, correct_B, scored_B, group_B, groups, config=config, tokens=tokens)
    known = _margins_of_contexts(margins) if config.compare == "context" else margins
    value_U = torch.tanh(strength(table, config, known) * direction(table, config) / 2)
    value_U = torch.where((table.n_T_U > 0) & (table.n_F_U > 0), value_U, 0.0)

    unit_index_BT = table.unit_index_BT.clamp_(min=0)
    valued_BT = counted_BT & ~_among(config.exclude_token_ids, ids_BT) if config.exclude_token_ids else counted_BT
    if config.centered:
        value_BT = config.scale * _less_row_means(value_U, unit_index_BT, valued_BT)
    else:
        value_BT = (config.scale * value_U).float()[unit_index_BT]
    return value_BT.masked_fill_(~valued_BT, 0.0)


def _margins_of_contexts(margins: Margins) -> Margins | None:
    """All that contexts can have in groups with these; None, for the device to be asked, where there are too many."""
    most_T, most_F = (max(side) for side in zip(*margins, strict=True))
    if (most_T + 1) * (most_F + 1) > _MOST_MARGINS:
        return None
    return [(n_T, n_F) for n_T in range(most_T + 1) for n_F in range(most_F + 1) if n_T + n_F]


def _less_row_means(value_U: Tensor, unit_index_BT: Tensor, valued_BT: Tensor) -> Tensor:
    """(N, T) float32 values less their mean over the row's valued tokens.

    Integers are summed, in units of 2^-40: the mean is exactly the same however wide the padding.
    """
    value_BT = (value_U * 2**40).round().long()[unit_index_BT].masked_fill_(~valued_BT, 0)
    mean_B = (value_BT.sum(dim=1).double() / valued_BT.sum(dim=1).clamp(min=1)).round().long()
    return (value_BT - mean_B[:, None]).float() / 2**40


def _among(token_ids: Sequence[int], ids_BT: Tensor) -> Tensor:
    """(N, T) bool, whether an id is one of `token_ids`; `torch.isin` would wait for the device."""
    listed = sorted(i for i in token_ids if i <= torch.iinfo(ids_BT.dtype).max)
    listed_E = torch.tensor([-1, *listed], dtype=ids_BT.dtype).to(ids_BT.device, non_blocking=True)
    return listed_E[torch.searchsorted(listed_E, ids_BT).clamp_(max=len(listed))] == ids_BT


def unit_tables(
    token_ids_BT: Tensor, counted_BT: Tensor, *rollouts, config: KTAEConfig, tokens: int | None = None
) -> Contingency:
    """The tables of the configured units: tokens, or tokens in context; against the group, or within the context.

    Arguments are those of `contingency`.
    """
    if config.context == 0:
        return contingency(token_ids_BT, counted_BT, *rollouts, tokens=tokens)
    context_BT = preceding(token_ids_BT, counted_BT, config.context, tokens)
    table = contingency(followed_by(context_BT, token_ids_BT), counted_BT, *rollouts, tokens=tokens)
    if config.compare == "group":
        return table
    contexts = contingency(context_BT, counted_BT, *rollouts, tokens=tokens)
    del context_BT  # before more tables are made
    return within(table, contexts)


def strength(table: Contingency, config: KTAEConfig, margins: Margins | None = None) -> Tensor:
    """(U,) float64 association strengths, (h1 Fisher score + h2 information gain) / (h1 + h2).

    Where the caller knows all (n_T, n_F) of the tables, `margins`, the device is not asked for them.
    """
    h1, h2 = config.fisher_weight, config.information_gain_weight
    margins = margins_of(table) if margins is None else margins
    return (h1 * fisher(table, config.fisher, margins) + h2 * information_gain(table, margins)) / (h1 + h2)


def direction(table: Contingency, config: KTAEConfig) -> Tensor:
    """(U,) float64 directions, Cohen's h + h3 term-frequency contrast."""
    h3 = config.term_frequency_weight
    return cohen(table) + h3 * term_frequency_contrast(table) if h3 else cohen(table)
