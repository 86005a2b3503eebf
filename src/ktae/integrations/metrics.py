"""What the adapters log as `ktae/*`, and the traps that they name in the log (docs/metrics.md).

Shape suffixes: _N one entry a rollout, _NT one a token, _G one a group.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ktae.estimators import Rollouts

# Values this near to the scale, relative to it, count as saturated.
_SATURATED = 0.95
# Mean absolute values outside of this range, in mean absolute rollout advantages, are named.
_RATIOS = (0.01, 5.0)

PATIENCE = {"groups of one": 1}
"""Batches in a row that a trap must show in before it is named; 3 where nothing is said."""


@dataclass(frozen=True)
class Batch:
    """One batch's token-level credit.

    Attributes:
        value_NT: (N, T) the values that an estimator gave.
        rollouts: what it was given.
        scale: the largest absolute value that a key token can have; None for other estimators.
    """

    value_NT: Tensor
    rollouts: Rollouts
    scale: float | None = None

    @cached_property
    def _bounds(self) -> tuple[Tensor, Tensor]:
        """(G,) lowest and highest reward of each group; inf and -inf if none is scored."""
        scored_N, group_N = self.rollouts.scored_B, self.rollouts.group_B
        low_G = torch.full((int(group_N.max()) + 1,), torch.inf, dtype=torch.float64, device=group_N.device)
        group, reward = group_N[scored_N], self.rollouts.rewards[scored_N].double()
        return low_G.scatter_reduce(0, group, reward, "amin"), (-low_G).scatter_reduce(0, group, reward, "amax")

    @cached_property
    def _mixed(self) -> int:
        """The number of groups with both outcomes."""
        return len(self.rollouts.group_B[self.rollouts.mixed_B].unique())

    @cached_property
    def _counted_NT(self) -> Tensor:
        return self.rollouts.counted_BT & self.rollouts.mixed_B[:, None]

    @cached_property
    def _sizes(self) -> tuple[Tensor, Tensor]:
        """Mean absolute value and mean absolute rollout advantage of the tokens in groups with both outcomes."""
        advantage_NT = self.rollouts.rollout_advantages[:, None].expand(self._counted_NT.shape)
        return self.value_NT.abs()[self._counted_NT].mean(), advantage_NT.abs()[self._counted_NT].mean()

    def metrics(self) -> dict[str, float]:
        """A value for each name of docs/metrics.md; NaN where there is nothing to average.

        >>> rollouts = Rollouts(torch.tensor([[5, 7], [5, 9]]), torch.ones(2, 2), torch.tensor([1.0, 0.0]),
        ...                     torch.tensor([4, 4]), rollout_advantages=torch.tensor([1.0, -1.0]))
        >>> Batch(torch.tensor([[0.0, 0.75], [0.0, -0.75]]), rollouts, scale=1.0).metrics()
        ... # doctest: +NORMALIZE_WHITESPACE
        {'abs_value_correct': 0.375, 'abs_value_incorrect': 0.375, 'mixed_group_share': 1.0, 'value_ratio': 0.375,
         'key_token_share': 0.5}
        """
        size_NT, generated_NT = self.value_NT.abs(), self.rollouts.mask != 0
        correct_N, scored_N = self.rollouts.correct_B, self.rollouts.scored_B
        value, advantage = self._sizes
        metrics = {
            "abs_value_correct": size_NT[generated_NT & correct_N[:, None]].mean().item(),
            "abs_value_incorrect": size_NT[generated_NT & (scored_N & ~correct_N)[:, None]].mean().item(),
            "mixed_group_share": self._mixed / len(self._bounds[0]),
            "value_ratio": (value / advantage).item() if advantage else math.nan,
        }
        if self.scale is not None:
            metrics["key_token_share"] = (size_NT[generated_NT] > self.scale / 2).float().mean().item()
        return metrics

    def traps(self) -> dict[str, str]:
        """What in this batch costs a run its signal: the trap's name, and a line with what to change."""
        low_G, high_G = self._bounds
        groups, varied, mixed = len(low_G), int((high_G > low_G).sum()), self._mixed
        found: dict[str, str] = {}
        alone = int((self.rollouts.group_B.bincount() == 1).sum())
        if 2 * alone > groups:
            found["groups of one"] = (
                f"{alone} of {groups} groups have a single rollout, which nothing can be compared with; sample several "
                "rollouts a prompt (num_generations in TRL, actor_rollout_ref.rollout.n in verl)"
            )
        elif varied and not mixed:
            found["one outcome"] = self._one_outcome(varied, groups)
        elif 2 * varied < groups:
            found["no signal"] = (
                f"{groups - varied} of {groups} groups have rewards that are all equal, and teach nothing; choose "
                "problems that the model solves sometimes (ktae eval -n 8 shows which), or use dynamic sampling"
            )
        if not mixed:
            return found

        (value, advantage), counted_NT = map(float, self._sizes), self._counted_NT
        if value == 0:
            found["zero"] = (
                f"the values of all {int(counted_NT.sum())} tokens in {mixed} groups with both outcomes are 0, so that "
                "only the rollout advantages train; key tokens need larger groups, a smaller context or a scale above 0"
            )
        elif advantage and not _RATIOS[0] <= value / advantage <= _RATIOS[1]:
            found["scale"] = (
                f"token values are {value / advantage:.2g} times the rollout advantages (mean sizes {value:.2g} and "
                f"{advantage:.2g}); "
                + (
                    f"scale={self.scale * advantage / value:.2g} would make them equal"
                    if self.scale is not None
                    else f"multiply the estimator's values by {advantage / value:.2g} to make them equal"
                )
            )
        if self.scale and counted_NT.any():
            saturated = float((self.value_NT.abs()[counted_NT] > _SATURATED * self.scale).float().mean())
            if saturated > 0.5:
                found["saturated"] = (
                    f"{saturated:.0%} of the tokens in groups with both outcomes have a value beyond {_SATURATED:g} of "
                    f"scale={self.scale:g}, which says little but the outcome; set term_frequency_weight=0 or sample "
                    "larger groups"
                )
        return found

    def _one_outcome(self, varied: int, groups: int) -> str:
        """The threshold between two rewards that gives the most groups both outcomes; the widest gap among equals."""
        low_G, high_G = self._bounds
        values = self.rollouts.rewards[self.rollouts.scored_B].double().unique()
        between = (values[1:] + values[:-1]) / 2
        mixed = ((low_G <= between[:, None]) & (high_G > between[:, None])).sum(dim=1)
        best = int(torch.where(mixed == mixed.max(), values.diff(), -1.0).argmax())
        return (
            f"no group has both correct and incorrect rollouts, although rewards differ within {varied} of {groups} "
            f"groups: they lie in {values[0]:g} to {values[-1]:g}, and correct_above={self.rollouts.correct_above:g} "
            f"splits no group; correct_above={between[best]:g} would split {int(mixed[best])}"
        )
