"""Whole groups of saved rollouts as tensors, and their token advantages.

Shape suffixes: _B one entry a rollout, _BT one a token, _K one a token of all rollouts, one rollout after another.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ktae.advantages import key_token_values
from ktae.config import KTAEConfig
from ktae.files.columns import TOKEN_TEXTS, Rollout
from ktae.files.tokens import Tokenizer
from ktae.rollout import grpo

_PADDED = 1 << 20  # entries of one padded tensor, but for a group that needs more


@dataclass(frozen=True)
class Scores:
    """What `ktae score` adds to N rollouts of K tokens together.

    Attributes:
        ends_B: (N,) int64, where each rollout's tokens end among the K.
        ids_K: (K,) int64.
        texts: N lists of token texts; None without a tokenizer.
        rollout_advantage_B: (N,) float32, GRPO's; 0 where unscored.
        value_K: (K,) float32, key-token values; 0 where the mask is 0.
        advantage_K: (K,) float32, their sum with the rollout advantage; 0 where the mask is 0.
    """

    ends_B: np.ndarray
    ids_K: np.ndarray
    texts: list[list[str]] | None
    rollout_advantage_B: np.ndarray
    value_K: np.ndarray
    advantage_K: np.ndarray


@dataclass
class Counted:
    """A group in the list of groups: its rollouts, how many are scored and correct, and its prompt's last turn."""

    rollouts: int = 0
    scored: int = 0
    correct: int = 0
    prompt: str = ""


class Outcomes:
    """Counts of rollouts by group, in the order in which the groups begin."""

    def __init__(self, config: KTAEConfig) -> None:
        self._above = config.correct_above
        self._least, self._most = math.inf, -math.inf
        self.groups: dict[str, Counted] = {}

    def add(self, rollout: Rollout) -> Counted:
        """Counts a rollout in its group, and returns the group."""
        group = self.groups.setdefault(rollout.group, Counted())
        group.rollouts += 1
        if not math.isnan(rollout.reward):
            group.scored += 1
            group.correct += rollout.reward > self._above
            self._least, self._most = min(self._least, rollout.reward), max(self._most, rollout.reward)
        return group

    @property
    def rollouts(self) -> int:
        return sum(group.rollouts for group in self.groups.values())

    def __str__(self) -> str:
        both = sum(0 < group.correct < group.scored for group in self.groups.values())
        unscored = self.rollouts - sum(group.scored for group in self.groups.values())
        return (
            f"{self.rollouts:,} rollouts, {len(self.groups):,} groups, {both:,} groups with both outcomes, "
            f"{unscored:,} unscored"
        )

    def hint(self) -> None:
        """Says on stderr what looks like a wrong setting rather than like rollouts."""
        if self._least < self._most and (self._most <= self._above or self._least > self._above):
            print(
                f"every rollout counts as {'incorrect' if self._most <= self._above else 'correct'}, so all key-token "
                f"values are 0: rewards go from {self._least:g} to {self._most:g}, and those above correct_above, "
                f"{self._above:g}, are correct; --set correct_above=NUMBER changes it",
                file=sys.stderr,
            )
        if 1 < self.rollouts == len(self.groups):
            print(
                "every group has one rollout, so all values are 0: --group-columns says what tells groups apart",
                file=sys.stderr,
            )


def check(rollouts: Sequence[Rollout], tokenizer: Tokenizer | None) -> None:
    """Refuses a tokenizer that does not go with the rollouts.

    Raises:
        ValueError: there is text and no tokenizer, or token ids are given that cannot be the tokenizer's.
    """
    given = [rollout for rollout in rollouts if rollout.token_ids is not None]
    if tokenizer is None and len(given) < len(rollouts):
        row = next(rollout.row for rollout in rollouts if rollout.token_ids is None)
        raise ValueError(
            f"row {row} has no token ids: give the model's tokenizer, --tokenizer NAME or PATH, or --tokenizer words"
        )
    if tokenizer is None or not given:
        return
    if tokenizer.size is None:
        raise ValueError(f"row {given[0].row} has token ids: --tokenizer must be the one they are from, not words")
    if (largest := max(max(rollout.token_ids or [-1]) for rollout in given)) >= tokenizer.size:
        raise ValueError(
            f"token ids must be below {tokenizer.size}, the tokenizer's size, got {largest}: name the tokenizer that "
            "made them"
        )


def tokenised(rollouts: Sequence[Rollout], tokenizer: Tokenizer | None) -> list[Rollout]:
    """The rollouts with token ids, from their text where they have none. Errors: those of `check`."""
    check(rollouts, tokenizer)
    if tokenizer is None:
        return list(rollouts)
    return [_encoded(rollout, tokenizer) if rollout.token_ids is None else rollout for rollout in rollouts]


def _encoded(rollout: Rollout, tokenizer: Tokenizer) -> Rollout:
    """Part by part, so that a token is either the policy's or another's."""
    encoded = [(tokenizer.encode(text), is_policys) for text, is_policys in rollout.parts or ()]
    mask = [int(is_policys) for ids, is_policys in encoded for _ in ids]
    token_ids = [token_id for ids, _ in encoded for token_id in ids]
    return replace(rollout, token_ids=token_ids, mask=None if all(mask) else mask)


def token_texts(rollouts: Sequence[Rollout], tokenizer: Tokenizer | None) -> list[list[str]] | None:
    """The text of every token of `tokenised` rollouts; without a tokenizer those that `ktae score` wrote, if it did."""
    if tokenizer is not None and tokenizer.size is None:  # part by part, as they were encoded
        return [[token for text, _ in r.parts or () for token in tokenizer.texts((), text)] for r in rollouts]
    if tokenizer is not None:
        return [tokenizer.texts(rollout.token_ids or [], rollout.text) for rollout in rollouts]
    saved = [rollout.data.get(TOKEN_TEXTS) for rollout in rollouts]
    texts = [texts for texts in saved if isinstance(texts, list)]
    return texts if list(map(len, texts)) == [len(rollout.token_ids or []) for rollout in rollouts] else None


def tensors(rollouts: Sequence[Rollout]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`tokenised` rollouts as token_ids (N, T) int64, mask (N, T) bool, rewards (N,) float64, group_ids (N,) int64.

    Groups are numbered in the order in which they first appear. T is at least 1.
    """
    ids = [rollout.token_ids or [] for rollout in rollouts]
    masks = [[1] * len(of_row) if r.mask is None else r.mask for r, of_row in zip(rollouts, ids, strict=True)]
    numbers: dict[str, int] = {}
    group_ids = [numbers.setdefault(rollout.group, len(numbers)) for rollout in rollouts]
    rewards = torch.tensor([rollout.reward for rollout in rollouts], dtype=torch.float64)
    return _padded(ids), _padded(masks).bool(), rewards, torch.tensor(group_ids)


def states_of(rollouts: Sequence[Rollout]) -> dict[str, Any]:
    """{"states": (N, T) int64, padded like the token ids}; empty if the rollouts have none."""
    given = [rollout.states for rollout in rollouts if rollout.states is not None]
    if given and len(given) < len(rollouts):
        without = next(rollout.row for rollout in rollouts if rollout.states is None)
        raise ValueError(f"row {without} has no states, and other rows have")
    return {"states": _padded(given)} if given else {}


def score(rollouts: Sequence[Rollout], config: KTAEConfig, tokenizer: Tokenizer | None) -> Scores:
    """Token advantages of whole groups, rows of a group next to each other.

    Raises:
        ValueError: the tokenizer does not go with the rollouts.
    """
    rollouts = tokenised(rollouts, tokenizer)
    texts = None if tokenizer is None else token_texts(rollouts, tokenizer)
    lengths_B = np.array([len(rollout.token_ids or []) for rollout in rollouts])
    ends_B = np.cumsum(lengths_B)
    rollout_B = np.zeros(len(rollouts), dtype=np.float32)
    value_K = np.zeros(ends_B[-1], dtype=np.float32)
    advantage_K = np.zeros_like(value_K)
    for rows_B in _batches(rollouts, lengths_B):
        batch = [rollouts[row] for row in rows_B]
        ids_BT, mask_BT, rewards_B, group_B = tensors(batch)
        advantages_B = grpo(rewards_B, group_B)
        value_BT = key_token_values(ids_BT, mask_BT, rewards_B, group_B, config=config, **states_of(batch))
        counted_BT = mask_BT & ~rewards_B.isnan()[:, None]
        advantage_BT = ((advantages_B[:, None] + value_BT) * counted_BT).float()  # those of ktae_advantages
        rollout_B[rows_B] = advantages_B.numpy()
        for row, value_T, advantage_T in zip(rows_B, value_BT.numpy(), advantage_BT.numpy(), strict=True):
            begin, end = ends_B[row] - lengths_B[row], ends_B[row]
            value_K[begin:end], advantage_K[begin:end] = value_T[: end - begin], advantage_T[: end - begin]
    ids_K = np.concatenate([np.array(rollout.token_ids, dtype=np.int64) for rollout in rollouts])
    return Scores(ends_B, ids_K, texts, rollout_B, value_K, advantage_K)


def _batches(rollouts: Sequence[Rollout], lengths_B: np.ndarray) -> Iterator[list[int]]:
    """Rows of whole groups that make small padded tensors: groups with long rollouts do not meet short ones."""
    groups: dict[str, list[int]] = {}
    for row, rollout in enumerate(rollouts):
        groups.setdefault(rollout.group, []).append(row)
    longest = {group: int(lengths_B[rows].max()) for group, rows in groups.items()}
    batch: list[int] = []
    for group in sorted(groups, key=lambda group: longest[group]):
        if batch and (len(batch) + len(groups[group])) * longest[group] > _PADDED:
            yield batch
            batch = []
        batch.extend(groups[group])
    yield batch


def _padded(values: Sequence[Sequence[int]]) -> Tensor:
    """(N, T) int64, T >= 1: each row's values, and 0 behind them."""
    padded_BT = np.zeros((len(values), max(1, *map(len, values))), dtype=np.int64)
    for padded_T, of_row in zip(padded_BT, values, strict=True):
        padded_T[: len(of_row)] = of_row
    return torch.from_numpy(padded_BT)
