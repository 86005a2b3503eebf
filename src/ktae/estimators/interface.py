"""What an estimator is given and what it returns, and how one is named.

An estimator is a pure function: `estimator(rollouts) -> (N, T)`, the values to add to the rollouts' advantages.

Shape suffixes: _B one entry a rollout, _BT one a token.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from torch import Tensor

from ktae import checks
from ktae.rollout import grpo

_R = TypeVar("_R", bound="Rollouts")


@dataclass(frozen=True)
class Rollouts:
    """N rollouts of up to T generated tokens, with their rewards; rows may come in any order.

    Attributes:
        token_ids: (N, T) integers, the completions' token ids; anything outside the mask.
        mask: (N, T) of 0 and 1; 1 marks the tokens that the policy generated.
        rewards: (N,) outcome rewards; NaN marks an unscored rollout.
        group_ids: (N,) integers, equal for the rollouts of one prompt.
        rollout_advantages: (N,) float, one a rollout; GRPO's of the rewards if None is given.
        log_probs: (N, T) float, the policy's log-probability of each token when it was sampled, in nats; None if unknown.
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
    rollout_advantages: Tensor | None = None
    log_probs: Tensor | None = None
    entropies: Tensor | None = None
    states: Tensor | None = None
    correct_above: float = 0.0

    def __post_init__(self) -> None:
        checks.token_types(self.token_ids, self.mask, self.rewards)
        if self.rollout_advantages is None:
            object.__setattr__(self, "rollout_advantages", grpo(self.rewards, self.group_ids))
        for name in ("log_probs", "entropies", "states"):
            value = getattr(self, name)
            if value is not None and value.shape != self.token_ids.shape:
                raise ValueError(
                    f"{name} must have the shape of token_ids, {tuple(self.token_ids.shape)}, got {tuple(value.shape)}"
                )

    def rows(self: _R, index: Tensor) -> _R:
        """The rollouts that `index` picks, in its order."""
        chosen = {f.name: v[index] for f in fields(self) if isinstance(v := getattr(self, f.name), Tensor)}
        return replace(self, **chosen)

    def require(self, *names: str) -> None:
        """Raises a ValueError that names the first of these fields that is None."""
        for name in names:
            if getattr(self, name) is None:
                raise ValueError(f"this estimator needs the rollouts' {name}, got None")


Estimator = Callable[[Rollouts], Tensor]

# Name: import path of the function.
ESTIMATORS: dict[str, str] = {}


def load_estimator(name: str) -> Estimator:
    """The estimator of that name, or a function of your own by import path, `package.module:function`.

    Raises:
        ValueError: there is no such name, module or function; the message names the nearest.
    """
    path = ESTIMATORS.get(name, name)
    module, colon, function = path.partition(":")
    if not colon or not function:
        near = difflib.get_close_matches(name, ESTIMATORS, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"estimator must be one of {', '.join(sorted(ESTIMATORS))} or 'package.module:function', got {name!r}{hint}"
        )
    try:
        found = getattr(importlib.import_module(module), function, None)
    except ModuleNotFoundError as error:
        if error.name is None or not (module + ".").startswith(error.name + "."):
            raise
        raise ValueError(f"estimator {name!r}: there is no module {module!r}") from error
    if not callable(found):
        raise ValueError(f"estimator {name!r}: {module} has no function {function!r}")
    return found


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
