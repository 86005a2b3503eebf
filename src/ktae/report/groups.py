"""One group of saved rollouts, ready to be shown: its tokens as text, its table, its scores."""

from __future__ import annotations

import argparse
import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ktae.config import KTAEConfig
from ktae.explanation import KeyTokenTable, explain
from ktae.files.columns import Rollout
from ktae.files.tokens import Tokenizer
from ktae.report.options import config_of, rollouts_of, tokenizer_of
from ktae.report.scoring import Counted, Outcomes, Scores, score, states_of, tensors, token_texts, tokenised

# How chat templates begin and end a user's turn: ChatML, Llama 3, Gemma, Zephyr, DeepSeek, Mistral; and ChatML without
# its special tokens, as verl saves it.
_TURN = re.compile(
    r"(?:<\|im_start\|>user\n|<\|start_header_id\|>user<\|end_header_id\|>\s*|<start_of_turn>user\n|<\|user\|>\n?"
    r"|<.User.>|\[INST\]|^user\n)(.*?)"
    r"(?:<\|im_end\|>|<\|eot_id\|>|<end_of_turn>|<\|assistant\|>|<\|end\|>|<.Assistant.>|\[/INST\]|^assistant$|\Z)",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Group:
    """A group's N rollouts.

    Attributes:
        rollouts: with token ids; correct ones first, then incorrect ones, then unscored ones.
        correct: for each whether it is; None if unscored.
        texts: for each the texts of its tokens.
        values: for each the key-token values of its tokens.
        table: the group's; row i of `table.unit_index` is rollout i.
        scores: of all tokens, one rollout after another.
    """

    rollouts: list[Rollout]
    correct: list[bool | None]
    texts: list[list[str]]
    values: list[list[float]]
    table: KeyTokenTable
    scores: Scores


def list_groups(arguments: argparse.Namespace) -> dict[str, Counted]:
    """All groups by label, in the order in which they begin. Errors: those of `read_rollouts`."""
    outcomes = Outcomes(config_of(arguments))
    for rollout in rollouts_of(arguments):
        group = outcomes.add(rollout)
        if group.rollouts == 1:
            group.prompt = last_turn(rollout)
    outcomes.hint()
    return outcomes.groups


def load_group(arguments: argparse.Namespace, *, permutations: int) -> Group:
    """The group with the label `--group`, else the one with this number in the list, else the one that begins so.

    Memory: the groups that it may be.

    Raises:
        ValueError: there is no such group, or several labels begin so, or the tokenizer does not go with its rollouts.
            Those of `read_rollouts`.
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
    order = (True, False, None)
    rollouts = sorted(found[chosen[0]], key=lambda rollout: order.index(_is_correct(rollout, config)))
    return group_of(rollouts, config, tokenizer_of(arguments), permutations=permutations)


def group_of(
    rollouts: Sequence[Rollout], config: KTAEConfig, tokenizer: Tokenizer | None, *, permutations: int
) -> Group:
    """All rollouts of a group with their tokens, table and scores; in the given order.

    Raises:
        ValueError: the tokenizer does not go with the rollouts.
    """
    rollouts = tokenised(rollouts, tokenizer)
    texts = token_texts(rollouts, tokenizer)
    if texts is None:
        texts = [[f"<{token_id}>" for token_id in rollout.token_ids or []] for rollout in rollouts]
    scores = score(rollouts, config, None)
    words = unit_texts(rollouts, texts)
    table = explain(*tensors(rollouts), config=config, texts=words, permutations=permutations, **states_of(rollouts))
    values = [scores.value_K[begin:end].tolist() for begin, end in pairwise([0, *scores.ends_B.tolist()])]
    return Group(rollouts, [_is_correct(rollout, config) for rollout in rollouts], texts, values, table, scores)


def last_turn(rollout: Rollout) -> str:
    """The user's last turn of a prompt that is a chat, which tells it from others with the same system prompt.

    The whole prompt where no turns can be told apart.
    """
    for value in rollout.data.values():
        if isinstance(value, list) and all(isinstance(turn, dict) for turn in value):
            contents = [turn.get("content") for turn in value]
            users = [turn["content"] for turn in value if turn.get("role") == "user"]
            if users and all(isinstance(text, str) for text in contents) and "\n".join(contents) == rollout.prompt:
                return users[-1]
    turns = [turn for turn in _TURN.findall(rollout.prompt) if turn.strip()]
    return turns[-1].strip() if turns else rollout.prompt


def remarks(group: Group, scale: float) -> list[str]:
    """What the group's size lets the p-values say, for the reader of its table; nothing if its rollouts are all alike.

    Args:
        group: the group.
        scale: the largest value there can be in its table.
    """
    table, n_T, n_F = group.table, group.correct.count(True), group.correct.count(False)
    if not (n_T and n_F):
        return []
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


def unit_texts(rollouts: Sequence[Rollout], texts: Sequence[Sequence[str]]) -> dict[int, str]:
    """The text that each token id has most often; of two that are as frequent the first in the alphabet."""
    found: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for rollout, of_rollout in zip(rollouts, texts, strict=True):
        for token_id, text in zip(rollout.token_ids or [], of_rollout, strict=True):
            found[token_id][text] += 1
    return {token_id: min(counts, key=lambda text: (-counts[text], text)) for token_id, counts in found.items()}


def _is_correct(rollout: Rollout, config: KTAEConfig) -> bool | None:
    return None if rollout.reward != rollout.reward else rollout.reward > config.correct_above
