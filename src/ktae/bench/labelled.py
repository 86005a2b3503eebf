"""Rollouts whose mistakes are known token by token: what the credit-assignment benchmark is made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ktae.chain.labels import Label
from ktae.estimators import Rollouts
from ktae.states import calculation


@dataclass(frozen=True, kw_only=True)
class LabelledRollouts(Rollouts):
    """Rollouts with a label of every token, all on the CPU and with a reward each.

    Raises a TypeError or ValueError if a field is out of contract; the message names it.
    """

    labels: Tensor  # (N, T) int8, of `Label`
    calculations: Tensor  # (N, T) int64, the states of `ktae.states.calculation`
    # (N, T) float32, the probability of being correct after the token minus that before it, NaN where it was not
    # measured; None if it was measured nowhere.
    true_advantages: Tensor | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        shape = self.token_ids.shape
        dtypes = {"labels": torch.int8, "calculations": torch.int64, "true_advantages": torch.float32}
        for name, dtype in dtypes.items():
            value = getattr(self, name)
            if value is not None and (value.shape != shape or value.dtype != dtype):
                expected, found = f"{dtype} of shape {tuple(shape)}", f"{value.dtype} of {tuple(value.shape)}"
                raise ValueError(f"{name} must be {expected}, got {found}")

    @property
    def first_slip_BT(self) -> Tensor:
        """(N, T) bool, the first slip of each rollout that has one."""
        slip_BT = (self.labels == Label.SLIP) & (self.mask != 0)
        return slip_BT & (slip_BT.cumsum(dim=1) == 1)


@dataclass
class WordRollout:
    """One rollout, a word a token."""

    correct: bool = False
    words: list[str] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)  # one a word
    ended: bool = True  # False if a length limit cut it off
    entropies: Sequence[float] = ()  # of the policy, if any: one a word, and one more where the completion ended

    def say(self, text: str, label: Label = Label.OTHER) -> None:
        """Goes on with the words of `text`, which have one label."""
        words = text.split()
        self.words += words
        self.labels += [label] * len(words)


def assemble(rollouts: Sequence[WordRollout], group_size: int, separator: str = " ") -> LabelledRollouts:
    """Tensors of the rollouts, of which every `group_size` in a row are a group.

    Token ids number the sorted words from 1; a completion that ended ends in token 0. `separator` stands between two
    words in the text.
    """
    ids = {word: 1 + i for i, word in enumerate(sorted({word for r in rollouts for word in r.words}))}

    def padded(rows: Iterable[Sequence[float]], dtype: torch.dtype) -> Tensor:
        return pad_sequence([torch.tensor(row, dtype=dtype) for row in rows], batch_first=True)

    texts = ([*(separator + word for word in r.words), *[""] * r.ended] for r in rollouts)
    known = all(r.entropies for r in rollouts)
    return LabelledRollouts(
        token_ids=padded(([ids[word] for word in r.words] + [0] * r.ended for r in rollouts), torch.int64),
        mask=padded(([True] * (len(r.words) + r.ended) for r in rollouts), torch.bool),
        rewards=torch.tensor([float(r.correct) for r in rollouts]),
        group_ids=torch.arange(len(rollouts)) // group_size,
        calculations=padded(map(calculation, texts), torch.int64),
        labels=padded((r.labels + [Label.OTHER] * r.ended for r in rollouts), torch.int8),
        entropies=padded((r.entropies for r in rollouts), torch.float32) if known else None,
    )
