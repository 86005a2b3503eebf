"""What the adapters log as `ktae/*`, and the traps that they name in the log (docs/metrics.md).

Shape suffixes: _N one entry a rollout, _NT one a token, _G one a group.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ktae.estimators import Rollouts

_SATURATED = 0.95  # values this near to the scale, relative to it, count as saturated
_RATIOS = (0.01, 5.0)  # mean absolute values outside of this range, in mean absolute rollout advantages, are named


def measure(value_NT: Tensor, rollouts: Rollouts, scale: float | None = None) -> dict[str, float]:
    """A value for each name of docs/metrics.md; NaN where there is nothing to average.

    `value_NT` (N, T) are the values that an estimator gave, `rollouts` what it was given, and `scale` is the largest
    absolute value that a key token can have, None for other estimators.
    """
    size_NT, generated_NT, correct_N = value_NT.abs(), rollouts.mask != 0, rollouts.correct_B
    contrasted_NT = rollouts.counted_BT & rollouts.mixed_B[:, None]
    advantage = rollouts.rollout_advantages[:, None].expand(size_NT.shape)[contrasted_NT].abs().mean()
    metrics = {
        "abs_value_correct": size_NT[generated_NT & correct_N[:, None]].mean().item(),
        "abs_value_incorrect": size_NT[rollouts.counted_BT & ~correct_N[:, None]].mean().item(),
        "mixed_group_share": _mixed(rollouts) / len(rollouts.group_B.unique()),
        "value_ratio": (size_NT[contrasted_NT].mean() / advantage).item() if advantage else math.nan,
    }
    if scale is not None:
        metrics["key_token_share"] = (size_NT[generated_NT] > scale / 2).float().mean().item()
    return metrics


def traps(value_NT: Tensor, rollouts: Rollouts, scale: float | None, ratio: float) -> dict[str, str]:
    """What in this batch costs a run its signal: the trap's name, and a line with what to change.

    Arguments are those of `measure`, and its `value_ratio`.
    """
    size_G, mixed, (low_G, high_G) = rollouts.group_B.bincount(), _mixed(rollouts), _bounds(rollouts)
    groups, alone, varied = len(size_G), int((size_G == 1).sum()), int((high_G > low_G).sum())
    found: dict[str, str] = {}
    if 2 * alone > groups:
        found["groups of one"] = (
            f"{alone} of {groups} groups have a single rollout, which nothing can be compared with; sample several "
            "rollouts a prompt (num_generations in TRL, actor_rollout_ref.rollout.n in verl)"
        )
    elif varied and not mixed:
        found["one outcome"] = _one_outcome(rollouts, varied, groups)
    elif 2 * varied < groups:
        found["no signal"] = (
            f"{groups - varied} of {groups} groups have rewards that are all equal, and teach nothing; choose "
            "problems that the model solves sometimes (ktae eval -n 8 shows which), or use dynamic sampling"
        )
    size_K = value_NT.abs()[rollouts.counted_BT & rollouts.mixed_B[:, None]]  # _K a token of a group with both outcomes
    if not len(size_K):
        return found

    if not size_K.any():
        found["zero"] = (
            f"the values of all {len(size_K)} tokens in {mixed} groups with both outcomes are 0, so that "
            "only the rollout advantages train; key tokens need larger groups, a smaller context or a scale above 0"
        )
    elif ratio < _RATIOS[0] or ratio > _RATIOS[1]:
        found["scale"] = f"token values are {ratio:.2g} times the rollout advantages; " + (
            f"multiply the estimator's values by {1 / ratio:.2g} to make them equal"
            if scale is None
            else f"scale={scale / ratio:.2g} would make them equal"
        )
    if scale and (saturated := (size_K > _SATURATED * scale).float().mean().item()) > 0.5:
        found["saturated"] = (
            f"{saturated:.0%} of the tokens in groups with both outcomes have a value beyond {_SATURATED:g} of "
            f"scale={scale:g}, which says little but the outcome; set term_frequency_weight=0 or sample larger groups"
        )
    return found


def _mixed(rollouts: Rollouts) -> int:
    """The number of groups with both outcomes."""
    return len(rollouts.group_B[rollouts.mixed_B].unique())


def _bounds(rollouts: Rollouts) -> tuple[Tensor, Tensor]:
    """(G,) lowest and highest reward of each group; inf and -inf if none is scored."""
    group, reward = rollouts.group_B[rollouts.scored_B], rollouts.rewards[rollouts.scored_B].double()
    low_G = reward.new_full((int(rollouts.group_B.max()) + 1,), torch.inf)
    return low_G.scatter_reduce(0, group, reward, "amin"), (-low_G).scatter_reduce(0, group, reward, "amax")


def _one_outcome(rollouts: Rollouts, varied: int, groups: int) -> str:
    """Names the threshold between two rewards that gives the most groups both outcomes; the widest gap among equals."""
    low_G, high_G = _bounds(rollouts)
    values = rollouts.rewards[rollouts.scored_B].double().unique()
    between = (values[1:] + values[:-1]) / 2
    mixed = ((low_G <= between[:, None]) & (high_G > between[:, None])).sum(dim=1)
    best = int(torch.where(mixed == mixed.max(), values.diff(), -1.0).argmax())
    return (
        f"no group has both correct and incorrect rollouts, although rewards differ within {varied} of {groups} "
        f"groups: they lie in {values[0]:g} to {values[-1]:g}, and correct_above={rollouts.correct_above:g} "
        f"splits no group; correct_above={between[best]:g} would split {int(mixed[best])}"
    )
