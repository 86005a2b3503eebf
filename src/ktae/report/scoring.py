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
from ktae.files.tokens import Tokenizer, check_tokenizer
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


class Outcomes:
    """Counts of rollouts and groups."""

    def __init__(self, config: KTAEConfig) -> None:
        self._above = config.correct_above
        self._groups: dict[str, set[bool]] = {}
        self.rollouts = self.unscored = 0
        self._least, self._most = math.inf, -math.inf

    def add(self, rollout: Rollout) -> None:
        seen = self._groups.setdefault(rollout.group, set())
        self.rollouts += 1
        if math.isnan(rollout.reward):
            self.unscored += 1
        else:
            seen.add(rollout.reward > self._above)
            self._least, self._most = min(self._least, rollout.reward), max(self._most, rollout.reward)

    def __str__(self) -> str:
        both = sum(len(seen) == 2 for seen in self._groups.values())
        return (
            f"{self.rollouts:,} rollouts, {len(self._groups):,} groups, {both:,} groups with both outcomes, "
            f"{self.unscored:,} unscored"
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
        if self.rollouts > 1 and len(self._groups) == self.rollouts:
            print(
                "every group has one rollout, so all values are 0: --group-columns says what tells groups apart",
                file=sys.stderr,
            )


def check(rollouts: Sequence[Rollout], tokenizer: Tokenizer | None) -> None:
    """Raises a ValueError if the tokenizer does not go with the rollouts (`check_tokenizer`)."""
    given = [rollout for rollout in rollouts if rollout.token_ids is not None]
    check_tokenizer(
        tokenizer,
        with_ids=given[0].row if given else None,
        without_ids=next((rollout.row for rollout in rollouts if rollout.token_ids is None), None),
        largest_id=-1 if tokenizer is None else max((max(r.token_ids or [-1]) for r in given), default=-1),
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
        return [
            [token for text, _ in rollout.parts or () for token in tokenizer.texts((), text)] for rollout in rollouts
        ]
    if tokenizer is not None:
        return [tokenizer.texts(rollout.token_ids or [], rollout.text) for rollout in rollouts]
    texts = []
    for rollout in rollouts:
        saved = rollout.data.get(TOKEN_TEXTS)
        if not isinstance(saved, list) or len(saved) != len(rollout.token_ids or []):
            return None
        texts.append(saved)
    return texts


def tensors(rollouts: Sequence[Rollout]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`tokenised` rollouts as token_ids (N, T) int64, mask (N, T) bool, rewards (N,) float64, group_ids (N,) int64.

    Groups are numbered in the order in which they first appear. T is at least 1.
    """
    lengths_B = np.array([len(rollout.token_ids or []) for rollout in rollouts])
    inside_BT = np.arange(max(int(lengths_B.max()), 1)) < lengths_B[:, None]
    counted_BT = np.ones(inside_BT.shape, dtype=bool)
    for row, rollout in enumerate(rollouts):
        if rollout.mask is not None:
            counted_BT[row, : lengths_B[row]] = rollout.mask
    ids_BT = _padded([rollout.token_ids or [] for rollout in rollouts], inside_BT)
    numbers: dict[str, int] = {}
    group_ids = [numbers.setdefault(rollout.group, len(numbers)) for rollout in rollouts]
    rewards = torch.tensor([rollout.reward for rollout in rollouts], dtype=torch.float64)
    return torch.from_numpy(ids_BT), torch.from_numpy(inside_BT & counted_BT), rewards, torch.tensor(group_ids)


def states_of(rollouts: Sequence[Rollout]) -> dict[str, Any]:
    """{"states": (N, T) int64, padded like the token ids}; empty if the rollouts have none."""
    given = [rollout.states for rollout in rollouts if rollout.states is not None]
    if not given:
        return {}
    if len(given) < len(rollouts):
        without = next(rollout.row for rollout in rollouts if rollout.states is None)
        raise ValueError(f"row {without} has no states, and other rows have")
    lengths_B = np.array([len(states) for states in given])
    inside_BT = np.arange(max(int(lengths_B.max()), 1)) < lengths_B[:, None]
    return {"states": torch.from_numpy(_padded(given, inside_BT))}


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


def _padded(values: Sequence[list[int]], inside_BT: np.ndarray) -> np.ndarray:
    """(N, T) int64: the values where `inside_BT` is true, 0 elsewhere."""
    padded_BT = np.zeros(inside_BT.shape, dtype=np.int64)
    padded_BT[inside_BT] = [value for of_rollout in values for value in of_rollout]
    return padded_BT
