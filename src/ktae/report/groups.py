"""Groups of saved rollouts: as tensors, scored, counted, and one of them ready to be shown."""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ktae.advantages import key_token_values
from ktae.config import KTAEConfig
from ktae.explanation import KeyTokenTable, explain
from ktae.files.columns import TOKEN_TEXTS, Rollout
from ktae.files.tokens import Tokenizer
from ktae.report.options import config_of, rollouts_of, tokenizer_of
from ktae.rollout import grpo

# How chat templates begin and end a user's turn: ChatML, Llama 3, Gemma, Zephyr, DeepSeek, Mistral; and ChatML without
# its special tokens, as verl saves it.
_TURN = re.compile(
    r"(?:<\|im_start\|>user\n|<\|start_header_id\|>user<\|end_header_id\|>\s*|<start_of_turn>user\n|<\|user\|>\n?"
    r"|<.User.>|\[INST\]|^user\n)(.*?)"
    r"(?:<\|im_end\|>|<\|eot_id\|>|<end_of_turn>|<\|assistant\|>|<\|end\|>|<.Assistant.>|\[/INST\]|^assistant$|\Z)",
    re.DOTALL | re.MULTILINE,
)


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
    scores: list[Scored]
    table: KeyTokenTable


def tokenised(rollouts: Iterable[Rollout], tokenizer: Tokenizer | None) -> Iterator[Rollout]:
    """The rollouts with token ids, from their text where they have none.

    Raises:
        ValueError: there is text and no tokenizer, or token ids are given that cannot be the tokenizer's.
    """
    for rollout in rollouts:
        if rollout.token_ids is None:
            if tokenizer is None:
                expected = "the model's tokenizer, --tokenizer NAME or PATH, or --tokenizer words"
                raise ValueError(f"row {rollout.row} has no token ids: give {expected}")
            # Part by part, so that a token is either the policy's or another's.
            encoded = [(tokenizer.encode(text), is_policys) for text, is_policys in rollout.parts or ()]
            mask = [int(is_policys) for ids, is_policys in encoded for _ in ids]
            ids = [token_id for ids, _ in encoded for token_id in ids]
            yield replace(rollout, token_ids=ids, mask=None if all(mask) else mask)
            continue
        if tokenizer is not None:
            row, largest = f"row {rollout.row}", max(rollout.token_ids, default=0)
            if tokenizer.size is None:
                raise ValueError(f"{row} has token ids: --tokenizer must be the one they are from, not words")
            if largest >= tokenizer.size:
                expected = f"token ids must be below {tokenizer.size}, the tokenizer's size"
                raise ValueError(f"{row}: {expected}, got {largest}: name the tokenizer that made them")
        yield rollout


def token_texts(rollouts: Sequence[Rollout], tokenizer: Tokenizer | None) -> list[list[str]] | None:
    """The text of every token of `tokenised` rollouts; without a tokenizer those that `ktae score` wrote, if it did."""
    if tokenizer is not None and tokenizer.size is None:  # part by part, as they were encoded
        return [[token for text, _ in r.parts or () for token in tokenizer.texts((), text)] for r in rollouts]
    if tokenizer is not None:
        return [tokenizer.texts(rollout.token_ids or [], rollout.text) for rollout in rollouts]
    saved = [rollout.data.get(TOKEN_TEXTS) for rollout in rollouts]
    texts = [texts for texts in saved if isinstance(texts, list)]
    return texts if list(map(len, texts)) == [len(rollout.token_ids or []) for rollout in rollouts] else None


def tensors(rollouts: Sequence[Rollout]) -> dict[str, Any]:
    """The `tokenised` rollouts of a group as arguments of `ktae.key_token_values` and `ktae.explain`.

    They are token_ids (N, T) int64, mask (N, T) bool, rewards (N,) float64, group_ids (N,) int64, and, if the rollouts
    have them, states (N, T) int64. T is at least 1.
    """
    states = [rollout.states for rollout in rollouts if rollout.states is not None]
    if states and len(states) < len(rollouts):
        without = next(rollout.row for rollout in rollouts if rollout.states is None)
        raise ValueError(f"row {without} has no states, and other rows have")

    def padded(rows: Iterable[Sequence[int] | None]) -> Tensor:
        return pad_sequence([torch.tensor(row or [0], dtype=torch.int64) for row in rows], batch_first=True)

    return {
        "token_ids": padded(rollout.token_ids for rollout in rollouts),
        "mask": padded([1] * len(r.token_ids or []) if r.mask is None else r.mask for r in rollouts).bool(),
        "rewards": torch.tensor([rollout.reward for rollout in rollouts], dtype=torch.float64),
        "group_ids": torch.zeros(len(rollouts), dtype=torch.int64),
        **({"states": padded(states)} if states else {}),
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


def outcomes(rewards: Mapping[str, Sequence[float]], config: KTAEConfig) -> str:
    """Counts of rollouts in a line, from the rewards of each group, NaN for unscored rollouts.

    What looks like a wrong setting rather than like rollouts is said on stderr.
    """
    above, total = config.correct_above, sum(map(len, rewards.values()))
    scored = [reward for of_group in rewards.values() for reward in of_group if reward == reward]
    least, most = min(scored, default=0.0), max(scored, default=0.0)
    if least < most and (most <= above or least > above):
        print(
            f"every rollout counts as {'incorrect' if most <= above else 'correct'}, so all key-token values are 0: "
            f"rewards go from {least:g} to {most:g}, and those above correct_above, {above:g}, are correct; "
            "--set correct_above=NUMBER changes it",
            file=sys.stderr,
        )
    if 1 < total == len(rewards):
        print(
            "every group has one rollout, so all values are 0: --group-columns says what tells groups apart",
            file=sys.stderr,
        )
    both = sum(len({r > above for r in of_group if r == r}) == 2 for of_group in rewards.values())
    counts = f"{total:,} rollouts, {len(rewards):,} groups, {both:,} groups with both outcomes"
    return f"{counts}, {total - len(scored):,} unscored"


def load_group(arguments: argparse.Namespace, *, permutations: int) -> Group:
    """The group with the label `--group`, else the one with this number in the list, else the one that begins so.

    Its correct rollouts come first, then incorrect ones, then unscored ones. Memory: the groups that it may be. Raises
    a ValueError if there is no such group, or if several labels begin so.
    """
    wanted, config = arguments.group, config_of(arguments)
    numbers: dict[str, str] = {}
    found: dict[str, list[Rollout]] = {}
    for rollout in rollouts_of(arguments):
        number = numbers.setdefault(rollout.group, str(len(numbers) + 1))
        if rollout.group.startswith(wanted) or wanted == number:
            found.setdefault(rollout.group, []).append(rollout)
    chosen = [label for label in found if label == wanted] or [label for label in found if numbers[label] == wanted]
    chosen = chosen or list(found)
    if len(chosen) != 1:
        several = f", and {len(found)} labels begin so: {', '.join(chosen[:3])}, ..." if found else ""
        raise ValueError(
            f"--group must be the label of a group in {arguments.rollouts}, the beginning of one label, or a number in "
            f"the list that is shown without --group, got {wanted!r}{several}"
        )
    rollouts = sorted(found[chosen[0]], key=lambda r: (r.reward != r.reward, not r.reward > config.correct_above))
    return group_of(rollouts, config, tokenizer_of(arguments), permutations=permutations)


def group_of(
    rollouts: Sequence[Rollout], config: KTAEConfig, tokenizer: Tokenizer | None, *, permutations: int
) -> Group:
    """A group with tokens, scores and table. Raises a ValueError if the tokenizer does not go with its rollouts."""
    rollouts = list(tokenised(rollouts, tokenizer))
    texts = token_texts(rollouts, tokenizer)
    if texts is None:
        texts = [[f"<{token_id}>" for token_id in rollout.token_ids or []] for rollout in rollouts]
    words = unit_texts(rollouts, texts)
    table = explain(**tensors(rollouts), config=config, texts=words, permutations=permutations)
    correct = [None if r.reward != r.reward else r.reward > config.correct_above for r in rollouts]
    return Group(rollouts, correct, texts, score(rollouts, config), table)


def unit_texts(rollouts: Sequence[Rollout], texts: Sequence[Sequence[str]]) -> dict[int, str]:
    """The text that each of the policy's tokens has most often; of two as frequent the first in the alphabet."""
    found: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for rollout, of_rollout in zip(rollouts, texts, strict=True):
        ids = rollout.token_ids or []
        for token_id, text, is_policys in zip(ids, of_rollout, rollout.mask or [1] * len(ids), strict=True):
            found[token_id][text] += is_policys
    return {token_id: min(counts, key=lambda text: (-counts[text], text)) for token_id, counts in found.items()}


def last_turn(rollout: Rollout) -> str:
    """The user's last turn, which tells a chat from others with the same system prompt; else the whole prompt."""
    for value in rollout.data.values():
        if isinstance(value, list) and all(isinstance(turn, dict) for turn in value):
            contents = [turn.get("content") for turn in value]
            users = [turn["content"] for turn in value if turn.get("role") == "user"]
            if users and all(isinstance(text, str) for text in contents) and "\n".join(contents) == rollout.prompt:
                return users[-1]
    turns = [turn for turn in _TURN.findall(rollout.prompt) if turn.strip()]
    return turns[-1].strip() if turns else rollout.prompt


def remarks(group: Group, scale: float) -> list[str]:
    """What the reader of a group's table should know about it. `scale` is the largest value that it can have."""
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
    if lone := ((np.abs(table.value) > 0.99 * scale) & (table.fisher_p == 1)).sum():
        found.append(
            f"A Fisher p of 1 beside a value of ±{scale:g} ({lone:,} tokens here) is no mistake: a token that only "
            "correct or only incorrect rollouts hold has this value even if a single rollout holds it, and p says that "
            "chance alone would do as much."
        )
    return found
