"""Rollouts whose mistakes are known token by token: what the credit-assignment benchmark is made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
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


@dataclass(frozen=True)
class WordRollout:
    """One rollout, a word a token.

    Attributes:
        group: equal for the rollouts of one prompt.
        correct: whether its answer is right.
        words: the completion.
        labels: one a word.
        ended: whether the completion came to its end; False if a length limit cut it off.
        entropies: of the policy, one a word, and one more where the completion ended; empty if there is no policy.
        true_advantages: one a word, NaN where it was not measured; empty if it was measured nowhere.
    """

    group: int
    correct: bool
    words: Sequence[str]
    labels: Sequence[Label]
    ended: bool = True
    entropies: Sequence[float] = ()
    true_advantages: Sequence[float] = ()


def assemble(rollouts: Sequence[WordRollout]) -> LabelledRollouts:
    """Tensors of the rollouts. Token ids number the sorted words from 1; a completion that ended ends in token 0."""
    ids = {word: 1 + i for i, word in enumerate(sorted({word for r in rollouts for word in r.words}))}
    lengths = [len(r.words) + r.ended for r in rollouts]
    shape = (len(rollouts), max(lengths, default=0))
    token_ids, mask = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.bool)
    labels = torch.zeros(shape, dtype=torch.int8)
    entropies, advantages = torch.zeros(shape), torch.full(shape, math.nan)
    for row, (r, length) in enumerate(zip(rollouts, lengths, strict=True)):
        n = len(r.words)
        mask[row, :length] = True
        token_ids[row, :n] = torch.tensor([ids[word] for word in r.words], dtype=torch.int64)
        labels[row, :n] = torch.tensor([int(label) for label in r.labels], dtype=torch.int8)
        entropies[row, : len(r.entropies)] = torch.tensor(r.entropies)
        advantages[row, : len(r.true_advantages)] = torch.tensor(r.true_advantages)
    return LabelledRollouts(
        token_ids=token_ids,
        mask=mask,
        rewards=torch.tensor([float(r.correct) for r in rollouts]),
        group_ids=torch.tensor([r.group for r in rollouts], dtype=torch.int64),
        labels=labels,
        entropies=entropies if all(r.entropies for r in rollouts) else None,
        true_advantages=advantages if any(r.true_advantages for r in rollouts) else None,
    )
