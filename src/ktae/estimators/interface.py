"""What an estimator is given and what it returns, and how one is named.

An estimator is a pure function: `estimator(rollouts) -> (N, T)`, the values to add to the rollouts' advantages.

Shape suffixes: _B one entry a rollout, _BT one a token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from ktae import checks
from ktae.extras import load_function
from ktae.rollout import grpo


@dataclass(frozen=True)
class Rollouts:
    """N rollouts of up to T generated tokens, with their rewards; rows may come in any order.

    Attributes:
        token_ids: (N, T) integers, the completions' token ids; anything outside the mask.
        mask: (N, T) of 0 and 1; 1 marks the tokens that the policy generated.
        rewards: (N,) outcome rewards; NaN marks an unscored rollout.
        group_ids: (N,) integers, equal for the rollouts of one prompt.
        rollout_advantages: (N,) float, one a rollout; GRPO's of the rewards if None is given. 0 for unscored rollouts.
        log_probs: (N, T) float, the log-probability, in nats, that the policy gave each token when it sampled it; None
            if unknown.
        entropies: (N, T) float, the policy's entropy where it chose the token, in nats; None if unknown.
        states: (N, T) integers, the state in which each token was chosen; None if there are none.
        correct_above: a rollout is correct when its reward is greater than this.

    Raises:
        TypeError, ValueError: a field is out of contract; the message names it.
    """

    token_ids: Tensor
    mask: Tensor
    rewards: Tensor
    group_ids: Tensor
    rollout_advantages: Tensor = None  # pyright: ignore[reportAssignmentType] (never None once made)
    log_probs: Tensor | None = None
    entropies: Tensor | None = None
    states: Tensor | None = None
    correct_above: float = 0.0

    def __post_init__(self) -> None:
        checks.token_types(self.token_ids, self.mask, self.rewards)
        checks.token_values(self.token_ids, self.mask)
        if self.rollout_advantages is None:
            advantage_B = grpo(self.rewards, self.group_ids)
        else:
            advantage_B = checks.rollout_advantages(self.rollout_advantages, self.rewards).to(self.rewards.device)
            checks.group_indices(self.group_ids, self.rewards)
        object.__setattr__(self, "rollout_advantages", advantage_B)
        for name in ("log_probs", "entropies", "states"):
            if (value := getattr(self, name)) is not None:
                self._check_tokens(name, value, integers=name == "states")

    def _check_tokens(self, name: str, value: Any, *, integers: bool) -> None:
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor of shape (N, T), got {type(value).__name__}")
        if value.shape != self.token_ids.shape or value.device != self.token_ids.device:
            raise ValueError(
                f"{name} must have the shape and device of token_ids, {tuple(self.token_ids.shape)} on "
                f"{self.token_ids.device}, got {tuple(value.shape)} on {value.device}"
            )
        if integers == (value.is_floating_point() or value.dtype == torch.bool):
            raise TypeError(f"{name} must hold {'integers' if integers else 'floats'}, got {value.dtype}")
        if (wrong_BT := (self.mask != 0) & ~value.isfinite()).any():
            row, column = wrong_BT.nonzero()[0].tolist()
            raise ValueError(
                f"{name} must be finite where mask is 1, got {value[row, column].item()} at [{row}, {column}]"
            )

    @cached_property
    def scored_B(self) -> Tensor:
        """(N,) bool, whether a rollout has a reward."""
        return ~self.rewards.isnan()

    @cached_property
    def correct_B(self) -> Tensor:
        """(N,) bool; False for unscored rollouts."""
        return self.rewards > self.correct_above

    @cached_property
    def group_B(self) -> Tensor:
        """(N,) int64, numbers of the groups from 0 in ascending order of the group ids."""
        return checks.group_indices(self.group_ids, self.rewards).to(self.rewards.device)

    @cached_property
    def mixed_B(self) -> Tensor:
        """(N,) bool, whether a rollout is scored and its group's scored rollouts are correct and incorrect."""
        groups = int(self.group_B.max()) + 1
        correct_G = self.group_B[self.correct_B].bincount(minlength=groups)
        scored_G = self.group_B[self.scored_B].bincount(minlength=groups)
        return self.scored_B & ((correct_G > 0) & (correct_G < scored_G))[self.group_B]

    @cached_property
    def counted_BT(self) -> Tensor:
        """(N, T) bool, the tokens inside the mask of scored rollouts: those that estimators look at."""
        return (self.mask != 0) & self.scored_B[:, None]

    def rows(self, index: Tensor) -> Self:
        """The rollouts that `index` picks, in its order."""
        chosen = {f.name: v[index] for f in fields(self) if isinstance(v := getattr(self, f.name), Tensor)}
        return replace(self, **chosen)

    def require(self, name: str) -> Tensor:
        """The field of that name. Raises a ValueError that names it if it is None."""
        if (value := getattr(self, name)) is None:
            raise ValueError(f"this estimator needs the rollouts' {name}, got None")
        return value


Estimator = Callable[[Rollouts], Tensor]

# Name: import path of the function.
ESTIMATORS: dict[str, str] = {
    "ktae": "ktae.estimators.key_tokens:ktae",
    "ktae_context": "ktae.estimators.key_tokens:ktae_context",
    "ktae_calculation": "ktae.estimators.key_tokens:ktae_calculation",
    "back_off": "ktae.estimators.back_off:back_off",
    "prefix_tree": "ktae.estimators.prefix_tree:prefix_tree",
    "prefix_set": "ktae.estimators.prefix_set:prefix_set",
    "entropy_weighting": "ktae.estimators.entropy_weighting:entropy_weighting",
    "high_entropy": "ktae.estimators.high_entropy:high_entropy",
    "conflict_tokens": "ktae.estimators.conflict_tokens:conflict_tokens",
    "turn_groups": "ktae.estimators.turn_groups:turn_groups",
    "positive": "ktae.estimators.positive:positive",
    "surprise": "ktae.estimators.surprise:surprise",
}
# What those need besides token ids, mask, rewards and groups: fields of `Rollouts`.
NEEDS: dict[str, str] = {
    "ktae_calculation": "states",
    "entropy_weighting": "entropies",
    "high_entropy": "entropies",
    "turn_groups": "states",
}


def load_estimator(name: str) -> Estimator:
    """The estimator of a name in `ESTIMATORS`, or of an import path; errors as `ktae.extras.load_function`."""
    return load_function("estimator", name, ESTIMATORS)


def token_values(estimator: Estimator, rollouts: Rollouts) -> Tensor:
    """The estimator's values, checked.

    Returns:
        (N, T) float32 on the rollouts' device, finite, 0 outside the mask.

    Raises:
        TypeError, ValueError: the estimator returned something else; the message names it.
    """
    name = getattr(estimator, "__name__", type(estimator).__name__)
    value_BT = estimator(rollouts)
    if not isinstance(value_BT, Tensor):
        raise TypeError(f"estimator {name} must return a torch.Tensor, got {type(value_BT).__name__}")
    if value_BT.shape != rollouts.token_ids.shape or value_BT.device != rollouts.token_ids.device:
        raise ValueError(
            f"estimator {name} must return values of shape {tuple(rollouts.token_ids.shape)} on "
            f"{rollouts.token_ids.device}, got {tuple(value_BT.shape)} on {value_BT.device}"
        )
    value_BT = value_BT.detach().to(torch.float32)
    for wrong_BT, expected in (
        (~value_BT.isfinite(), "finite values"),
        ((value_BT != 0) & (rollouts.mask == 0), "0 outside the mask"),
    ):
        if wrong_BT.any():
            row, column = wrong_BT.nonzero()[0].tolist()
            raise ValueError(
                f"estimator {name} must return {expected}, got {value_BT[row, column].item()} at [{row}, {column}]"
            )
    return value_BT
