"""Rollouts whose mistakes are known token by token: what the credit-assignment benchmark is made of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ktae.chain.labels import Label
from ktae.estimators import Rollouts


@dataclass(frozen=True, kw_only=True)
class LabelledRollouts(Rollouts):
    """Rollouts with a label of every token, all on the CPU and with a reward each.

    Attributes:
        labels: (N, T) int8, of `Label`.
        true_advantages: (N, T) float32, the probability of being correct after the token minus that before it, NaN
            where it was not measured; None if it was measured nowhere.

    Raises:
        TypeError, ValueError: a field is out of contract; the message names it.
    """

    labels: Tensor
    true_advantages: Tensor | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, dtype in (("labels", torch.int8), ("true_advantages", torch.float32)):
            value = getattr(self, name)
            if value is not None and (value.shape != self.token_ids.shape or value.dtype != dtype):
                raise ValueError(
                    f"{name} must be {dtype} of shape {tuple(self.token_ids.shape)}, got {value.dtype} of "
                    f"{tuple(value.shape)}"
                )

    @property
    def first_slip_BT(self) -> Tensor:
        """(N, T) bool, the first slip of each rollout that has one."""
        slip_BT = (self.labels == Label.SLIP) & (self.mask != 0)
        return slip_BT & (slip_BT.cumsum(dim=1) == 1)
