"""One group of saved rollouts, ready to be shown: its tokens as text, its table, its scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ktae.config import KTAEConfig
from ktae.explanation import KeyTokenTable, explain
from ktae.files.columns import Rollout
from ktae.files.reading import read_rollouts
from ktae.files.rows import without_malformed
from ktae.files.tokens import Tokenizer
from ktae.report.scoring import Outcomes, Scores, score, states_of, tensors, token_texts, tokenised


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


@dataclass
class Listed:
    """A group in the list of groups: its size, how many rollouts are correct, and its prompt."""

    prompt: str
    rollouts: int = 0
    correct: int = 0


def list_groups(
    path: Path, columns: dict[str, Any], unnest: Sequence[str], config: KTAEConfig, *, strict: bool
) -> dict[str, Listed]:
    """All groups by label, in the order in which they begin. Errors: those of `read_rollouts`."""
    groups: dict[str, Listed] = {}
    outcomes = Outcomes(config)
    for rollout in _rollouts(path, columns, unnest, strict):
        listed = groups.setdefault(rollout.group, Listed(rollout.prompt))
        listed.rollouts += 1
        listed.correct += rollout.reward > config.correct_above
        outcomes.add(rollout)
    outcomes.hint()
    return groups


def load_group(
    path: Path,
    label: str,
    columns: dict[str, Any],
    unnest: Sequence[str],
    config: KTAEConfig,
    tokenizer: Tokenizer | None,
    *,
    strict: bool,
    permutations: int,
) -> Group:
    """The group with the label. Memory: this group.

    Raises:
        ValueError: there is no such group, or the tokenizer does not go with its rollouts. Those of `read_rollouts`.
    """
    found = [rollout for rollout in _rollouts(path, columns, unnest, strict) if rollout.group == label]
    if not found:
        raise ValueError(
            f"--group must be the label of a group in {path}, got {label!r}; they are listed without --group"
        )
    rollouts = sorted(tokenised(found, tokenizer), key=lambda rollout: _rank(_is_correct(rollout, config)))
    texts = token_texts(rollouts, tokenizer)
    if texts is None:
        texts = [[f"<{token_id}>" for token_id in rollout.token_ids or []] for rollout in rollouts]
    scores = score(rollouts, config, None)
    table = explain(
        *tensors(rollouts),
        config=config,
        texts=unit_texts(rollouts, texts),
        permutations=permutations,
        **states_of(rollouts),
    )
    values = [scores.value_K[begin:end].tolist() for begin, end in pairwise([0, *scores.ends_B.tolist()])]
    return Group(rollouts, [_is_correct(rollout, config) for rollout in rollouts], texts, values, table, scores)


def unit_texts(rollouts: Sequence[Rollout], texts: Sequence[Sequence[str]]) -> dict[int, str]:
    """The text that each token id has most often; of two that are as frequent the first in the alphabet."""
    found: dict[int, Counter[str]] = {}
    for rollout, of_rollout in zip(rollouts, texts, strict=True):
        for token_id, text in zip(rollout.token_ids or [], of_rollout, strict=True):
            found.setdefault(token_id, Counter())[text] += 1
    return {token_id: min(counts, key=lambda text: (-counts[text], text)) for token_id, counts in found.items()}


def _rollouts(path: Path, columns: dict[str, Any], unnest: Sequence[str], strict: bool) -> Iterator[Rollout]:
    return without_malformed(read_rollouts(path, columns=columns, unnest=unnest), path, strict=strict)


def _is_correct(rollout: Rollout, config: KTAEConfig) -> bool | None:
    return None if rollout.reward != rollout.reward else rollout.reward > config.correct_above


def _rank(correct: bool | None) -> int:
    return {True: 0, False: 1, None: 2}[correct]
