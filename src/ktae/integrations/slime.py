"""Token-level credit in slime, on top of slime's own GRPO advantages. Written for slime 0.3.1.

    --advantage-estimator grpo
    --custom-advantage-function-path ktae.integrations.slime.advantages
    --custom-config-path ktae.yaml    # optional; for example: "ktae: {context: 2, scale: 8.0}"

slime splits a batch, and with it the groups, over the data-parallel ranks: they are gathered first.
"""

from __future__ import annotations

import functools
import json
from typing import Any

import torch
import torch.distributed as dist

from ktae.integrations import lists
from ktae.integrations.credit import TokenCredit, expect, from_settings

_FIELDS = ("tokens", "response_lengths", "loss_masks", "rewards", "sample_indices")


def advantages(args: Any, rollout_data: dict[str, Any]) -> None:
    """`set_advantages` with Megatron's data-parallel group; slime calls it on every rank of its last pipeline stage."""
    from megatron.core import mpu  # pyright: ignore[reportMissingImports]

    set_advantages(args, rollout_data, mpu.get_data_parallel_group())


def set_advantages(args: Any, rollout_data: dict[str, Any], data_parallel_group: dist.ProcessGroup | None) -> None:
    """Sets `rollout_data["advantages"]` to A_i + V_it for each response token, "returns" to A_i alone.

    A_i is slime's `rewards` entry, normalised in the group unless `--disable-rewards-normalization` is given. With
    normalised rewards a rollout is correct when its reward is above its group's mean, which for rewards of two values
    is the higher one; otherwise when its reward is greater than `correct_above`. `args.ktae`, which
    `--custom-config-path` can set, holds settings (`from_settings`); `rollout_data` has lists over this rank's samples,
    the ranks of `data_parallel_group` (None: all processes) have the batch.

    Raises a ValueError for a setting that this hook cannot work with.
    """
    credit = _credit(json.dumps(getattr(args, "ktae", None), sort_keys=True))
    expect(args, "--advantage-estimator", "its rewards are the advantages", "grpo")
    expect(args, "--context-parallel-size", "a rank would hold parts of responses", 1)
    if args.rewards_normalization:
        why = "rewards are normalised in the group; --disable-rewards-normalization keeps them as they are"
        expect(credit, "correct_above", why, 0)
    samples = [
        (tokens[len(tokens) - length :].tolist(), mask.tolist(), float(reward), index // args.n_samples_per_prompt)
        for tokens, length, mask, reward, index in zip(*(rollout_data[name] for name in _FIELDS), strict=True)
    ]
    gathered: list[Any] = [None] * dist.get_world_size(data_parallel_group)
    dist.all_gather_object(gathered, samples, group=data_parallel_group)
    ids, masks, rewards, groups = zip(*(sample for part in gathered for sample in part), strict=True)
    values = lists.values(ids, masks, rewards, groups, rewards, credit=credit)

    mine = values[sum(map(len, gathered[: dist.get_rank(data_parallel_group)])) :][: len(samples)]
    rollout_data["returns"], rollout_data["advantages"] = [], []
    for row, reward, mask in zip(mine, rollout_data["rewards"], rollout_data["loss_masks"], strict=True):
        returns = torch.full(mask.shape, float(reward), dtype=torch.float32, device=mask.device)
        rollout_data["returns"].append(returns)
        rollout_data["advantages"].append(returns + torch.tensor(row, dtype=torch.float32, device=mask.device))


@functools.cache
def _credit(settings: str) -> TokenCredit:
    """One a run: slime calls a function, which has no place for what lasts."""
    return from_settings(json.loads(settings), "ktae", "slime's hook")
