"""Rollouts whose mistakes are known token by token: what the credit-assignment benchmark is made of.

Shape suffixes: _B one entry a rollout, _BT one a token.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from enum import IntEnum

import torch
from torch import Tensor


class Label(IntEnum):
    """What a token does to the outcome of its rollout."""

    OTHER = 0  # carries no decision
    RIGHT = 1  # a right result
    SLIP = 2  # wrong by itself: it does not follow from what the rollout says before
    PROPAGATED = 3  # follows from what the rollout says before, and is wrong through an earlier slip


@dataclass(frozen=True)
class Rollouts:
    """N rollouts of up to T tokens with rewards and labels, all on the CPU.

    Rows may come in any order and groups may have any sizes. What lies outside the mask is not looked at.

    Attributes:
        token_ids: (N, T) int64, the completions' token ids.
        mask: (N, T) bool, the tokens the policy generated.
        rewards: (N,) float32 outcome rewards; above 0 is correct.
        group_ids: (N,) int64, equal for the rollouts of one prompt.
        step_index: (N, T) int64, the number of the step, from 0, that a token belongs to; -1 for none.
        labels: (N, T) int8, of `Label`.
        first_error: (N,) int64, the column of the first slip; -1 if there is none.
        entropies: (N, T) float32, the policy's entropy in nats where it chose the token; None if there is no policy.
        true_advantages: (N, T) float32, the probability of being correct after the token minus that before it, NaN
            where it was not measured; None if it was measured nowhere.

    Raises:
        ValueError: a field's shape, dtype or values are not as above; the message names it.
    """

    token_ids: Tensor
    mask: Tensor
    rewards: Tensor
    group_ids: Tensor
    step_index: Tensor
    labels: Tensor
    first_error: Tensor
    entropies: Tensor | None = None
    true_advantages: Tensor | None = None

    def __post_init__(self) -> None:
        if self.token_ids.ndim != 2:
            raise ValueError(f"token_ids must have the shape (N, T), got {tuple(self.token_ids.shape)}")
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None:
                continue
            of_rollouts = field.name in ("rewards", "group_ids", "first_error")
            shape = self.token_ids.shape[:1] if of_rollouts else self.token_ids.shape
            dtype = _DTYPES[field.name]
            if value.shape != shape or value.dtype != dtype:
                raise ValueError(
                    f"{field.name} must be {dtype} of shape {tuple(shape)}, got {value.dtype} of {tuple(value.shape)}"
                )
        slip_BT = (self.labels == Label.SLIP) & self.mask
        first_B = torch.where(slip_BT.any(dim=1), slip_BT.int().argmax(dim=1), -1)
        if not torch.equal(first_B, self.first_error):
            row = int((first_B != self.first_error).nonzero()[0])
            raise ValueError(
                f"first_error must be the column of the first slip: row {row} has {int(self.first_error[row])}, "
                f"and its labels say {int(first_B[row])}"
            )

    def rows(self, index: Tensor) -> Rollouts:
        """The rollouts that `index` picks, in its order."""
        return replace(self, **{f.name: v[index] for f in fields(self) if (v := getattr(self, f.name)) is not None})


_DTYPES = {
    "token_ids": torch.int64,
    "mask": torch.bool,
    "rewards": torch.float32,
    "group_ids": torch.int64,
    "step_index": torch.int64,
    "labels": torch.int8,
    "first_error": torch.int64,
    "entropies": torch.float32,
    "true_advantages": torch.float32,
}
