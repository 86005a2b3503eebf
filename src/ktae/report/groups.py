"""Groups of saved rollouts: as tensors, scored, counted, and one of them ready to be shown."""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ktae.advantages import key_token_values
from ktae.config import KTAEConfig
from ktae.explanation import KeyTokenTable, explain
from ktae.files.columns import TOKEN_TEXTS, Rollout
from ktae.files.tokens import Tokenizer, load_tokenizer
from ktae.report.options import config_of, groups_of
from ktae.rollout import grpo
from ktae.train.rewards import split_of


class Scored(NamedTuple):
    """GRPO's advantage of a rollout; key-token values and token advantages of its T tokens, float32, 0 if masked."""

    advantage: float
    value_T: np.ndarray
    advantage_T: np.ndarray


@dataclass(frozen=True)
class Group:
    """A group's N rollouts, and their table; row i of `table.unit_index` is rollout i."""

    rollouts: list[Rollout]  # with token ids
    correct: list[bool | None]  # None: unscored
    texts: list[list[str]]  # of the tokens
    has_texts: bool  # or else `texts` are the token ids
    scores: list[Scored]
    table: KeyTokenTable


def tokenised(rollout: Rollout, tokenizer: Tokenizer | None) -> tuple[Rollout, list[str] | None]:
    """The rollout with token ids, from its text where it has none, and the text of each token.

    Without a tokenizer these are the texts that `ktae score` wrote, None if it did not. Raises a ValueError if there is
    text and no tokenizer, or token ids are given that cannot be the tokenizer's.
    """
    ids, row = rollout.token_ids, f"row {rollout.row}"
    if ids is None:
        if tokenizer is None:
            expected = "the model's tokenizer, --tokenizer NAME or PATH, or --tokenizer words"
            raise ValueError(f"{row} has no token ids: give {expected}")
        ids, mask, texts = [], [], []
        for text, is_policys in rollout.parts or ():  # part by part, so that a token is either the policy's or not
            of_part = tokenizer.encode(text)
            ids += of_part
            mask += [int(is_policys)] * len(of_part)
            texts += tokenizer.texts(of_part, text)
        return replace(rollout, token_ids=ids, mask=None if all(mask) else mask), texts
    if tokenizer is None:
        saved = rollout.data.get(TOKEN_TEXTS)
        return rollout, saved if isinstance(saved, list) and len(saved) == len(ids) else None
    if tokenizer.size is None:
        raise ValueError(f"{row} has token ids: --tokenizer must be the one they are from, not words")
    if (largest := max(ids, default=0)) >= tokenizer.size:
        expected = f"token ids must be below {tokenizer.size}, the tokenizer's size"
        raise ValueError(f"{row}: {expected}, got {largest}: name the tokenizer that made them")
    return rollout, tokenizer.texts(ids, None)


def tensors(rollouts: Sequence[Rollout]) -> dict[str, Any]:
    """The `tokenised` rollouts of a group as arguments of `ktae.key_token_values` and `ktae.explain`; T >= 1."""

    def padded(rows: Iterable[Sequence[int] | None]) -> Tensor:
        return pad_sequence([torch.tensor(row or [0], dtype=torch.int64) for row in rows], batch_first=True)

    return {
        "token_ids": padded(rollout.token_ids for rollout in rollouts),
        "mask": padded([1] * len(r.token_ids or []) if r.mask is None else r.mask for r in rollouts).bool(),
        "rewards": torch.tensor([rollout.reward for rollout in rollouts], dtype=torch.float64),
        "group_ids": torch.zeros(len(rollouts), dtype=torch.int64),
    }


def score(rollouts: Sequence[Rollout], config: KTAEConfig) -> list[Scored]:
    """Token advantages of the `tokenised` rollouts of a group."""
    batch = tensors(rollouts)
    advantage_B = grpo(batch["rewards"], batch["group_ids"])
    value_BT = key_token_values(**batch, config=config)
    counted_BT = batch["mask"] & ~batch["rewards"].isnan()[:, None]
    advantage_BT = ((advantage_B[:, None] + value_BT) * counted_BT).float()  # those of ktae_advantages
    ends = [len(rollout.token_ids or []) for rollout in rollouts]
    rows = zip(ends, advantage_B.tolist(), value_BT.numpy(), advantage_BT.numpy(), strict=True)
    return [Scored(of_rollout, value_T[:end], advantage_T[:end]) for end, of_rollout, value_T, advantage_T in rows]


def outcomes(groups: Mapping[str, Sequence[Rollout]], config: KTAEConfig) -> str:
    """Counts of rollouts in a line. What looks like a wrong setting rather than like rollouts is said on stderr."""
    above = config.correct_above
    rewards = [[r.reward for r in of_group if r.reward == r.reward] for of_group in groups.values()]
    scored = [reward for of_group in rewards for reward in of_group]
    if advice := split_of(scored, above):
        print(f"every key-token value is 0: {advice} (--set correct_above=NUMBER)", file=sys.stderr)
    total = sum(map(len, groups.values()))
    if 1 < total == len(groups):
        what = "every group has one rollout, so all values are 0: --group-columns says what tells groups apart"
        print(what, file=sys.stderr)
    both = sum(len({reward > above for reward in of_group}) == 2 for of_group in rewards)
    counts = f"{total:,} rollouts, {len(groups):,} groups, {both:,} groups with both outcomes"
    return f"{counts}, {total - len(scored):,} unscored"


def load_group(arguments: argparse.Namespace, *, permutations: int) -> Group:
    """The group with the label `--group`, else the one with this number in the list; correct rollouts come first."""
    config = config_of(arguments)
    groups, _ = groups_of(arguments)
    numbered = dict(enumerate(groups.values(), start=1))
    wanted: str = arguments.group
    found = groups.get(wanted) or numbered.get(int(wanted) if wanted.isdecimal() else 0)
    if found is None:
        expected = f"the label of a group in {arguments.rollouts}, or a number in the list that `ktae explain` shows"
        raise ValueError(f"--group must be {expected} without --group, got {wanted!r}")
    rollouts = sorted(found, key=lambda r: (r.reward != r.reward, not r.reward > config.correct_above))
    return group_of(rollouts, config, load_tokenizer(arguments.tokenizer), permutations=permutations)


def group_of(
    rollouts: Sequence[Rollout], config: KTAEConfig, tokenizer: Tokenizer | None, *, permutations: int
) -> Group:
    """A group with tokens, scores and table; errors as `tokenised`."""
    pairs = [tokenised(rollout, tokenizer) for rollout in rollouts]
    rollouts = [rollout for rollout, _ in pairs]
    has_texts = all(texts is not None for _, texts in pairs)
    texts = [texts or [] if has_texts else [f"<{id}>" for id in rollout.token_ids or []] for rollout, texts in pairs]
    table = explain(**tensors(rollouts), config=config, texts=unit_texts(rollouts, texts), permutations=permutations)
    correct = [None if r.reward != r.reward else r.reward > config.correct_above for r in rollouts]
    return Group(rollouts, correct, texts, has_texts, score(rollouts, config), table)


def unit_texts(rollouts: Sequence[Rollout], texts: Sequence[Sequence[str]]) -> dict[int, str]:
    """The text that each of the policy's tokens has most often; of two as frequent the first in the alphabet."""
    found: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for rollout, of_rollout in zip(rollouts, texts, strict=True):
        ids = rollout.token_ids or []
        for token_id, text, is_policys in zip(ids, of_rollout, rollout.mask or [1] * len(ids), strict=True):
            found[token_id][text] += is_policys
    return {token_id: min(counts, key=lambda text: (-counts[text], text)) for token_id, counts in found.items()}


def apart(prompts: Sequence[str]) -> list[str]:
    """The prompts without the lines that all begin with, such as a system message, where something is left then."""
    lines = [prompt.splitlines() for prompt in prompts]
    shared = sum(1 for _ in takewhile(lambda line: len(set(line)) == 1, zip(*lines, strict=False)))
    return ["\n".join(own[shared:]) or prompt for own, prompt in zip(lines, prompts, strict=True)]


def remarks(group: Group) -> list[str]:
    """What the reader of a group's table should know about it."""
    table, n_T, n_F = group.table, group.correct.count(True), group.correct.count(False)
    if not n_T + n_F:
        return ["No rollout is scored, so every key-token value is 0."]
    if not (n_T and n_F):
        which = f"All {n_T + n_F} scored rollouts are" if n_T + n_F > 1 else "The only scored rollout is"
        same = "correct" if n_T else "incorrect"
        return [f"{which} {same}: there is nothing to compare, and every key-token value is 0."]
    # Of all 2x2 tables the one of a token that all correct rollouts hold and no other; its mirror image is as likely
    # where there are as many correct as incorrect ones.
    least = (1 + (n_T == n_F)) / math.comb(n_T + n_F, n_T)
    found = [f"With {n_T} correct of {n_T + n_F} scored rollouts no Fisher p can be below {least:.3g}."]
    if not np.isnan(table.adjusted_p).any():
        beyond = (table.adjusted_p <= 0.05).sum()
        found[0] += f" {beyond:,} of {len(table):,} different tokens have an adjusted p of at most 0.05."
    return found
