"""Whole groups of saved rollouts as tensors, and their token advantages.

Shape suffixes: _B one entry a rollout, _BT one a token, _K one a token of all rollouts, one rollout after another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

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


def tokenised(rollouts: Sequence[Rollout], tokenizer: Tokenizer | None) -> list[Rollout]:
    """The rollouts with token ids, from their text where they have none.

    Raises:
        ValueError: the tokenizer does not go with the rollouts (`check_tokenizer`).
    """
    given = [rollout for rollout in rollouts if rollout.token_ids is not None]
    check_tokenizer(
        tokenizer,
        with_ids=given[0].row if given else None,
        without_ids=next((rollout.row for rollout in rollouts if rollout.token_ids is None), None),
        largest_id=max((max(rollout.token_ids or [-1]) for rollout in given), default=-1),
    )
    if tokenizer is None:
        return list(rollouts)
    return [
        replace(rollout, token_ids=tokenizer.encode(rollout.text or "")) if rollout.token_ids is None else rollout
        for rollout in rollouts
    ]


def token_texts(rollouts: Sequence[Rollout], tokenizer: Tokenizer | None) -> list[list[str]] | None:
    """The text of every token of `tokenised` rollouts; without a tokenizer those that `ktae score` wrote, if it did."""
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
    inside_BT, counted_BT, ids_BT = _padded(rollouts)
    numbers: dict[str, int] = {}
    group_ids = [numbers.setdefault(rollout.group, len(numbers)) for rollout in rollouts]
    rewards = torch.tensor([rollout.reward for rollout in rollouts], dtype=torch.float64)
    return torch.from_numpy(ids_BT), torch.from_numpy(inside_BT & counted_BT), rewards, torch.tensor(group_ids)


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
        value_BT = key_token_values(ids_BT, mask_BT, rewards_B, group_B, config=config)
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


def _padded(rollouts: Sequence[Rollout]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N, T): where there are tokens, which of them count, and their ids."""
    lengths_B = np.array([len(rollout.token_ids or []) for rollout in rollouts])
    inside_BT = np.arange(max(int(lengths_B.max()), 1)) < lengths_B[:, None]
    ids_BT = np.zeros(inside_BT.shape, dtype=np.int64)
    counted_BT = np.ones(inside_BT.shape, dtype=bool)
    for row, rollout in enumerate(rollouts):
        ids_BT[row, : lengths_B[row]] = rollout.token_ids or []
        if rollout.mask is not None:
            counted_BT[row, : lengths_B[row]] = rollout.mask
    return inside_BT, counted_BT, ids_BT
