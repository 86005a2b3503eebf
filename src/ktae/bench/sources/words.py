"""Rollouts as lists of judged words, their spelling in coarser or finer tokens, and the tensors made of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch

from ktae.bench.labelled import LabelledRollouts
from ktae.chain.labels import Label


@dataclass(frozen=True)
class WordRollout:
    """One rollout, a word a token.

    Attributes:
        group: equal for the rollouts of one prompt.
        correct: whether its answer is right.
        words: the completion.
        labels: one a word.
        right_words: at the place of a slip in `words`, what would not have been one. May leave out words that begin
            otherwise than the slip.
        ended: whether the completion came to its end; False if a length limit cut it off.
        entropies: of the policy, one a word, and one more where the completion ended; empty if there is no policy.
        true_advantages: one a word, NaN where it was not measured; empty if it was measured nowhere.
    """

    group: int
    correct: bool
    words: Sequence[str]
    labels: Sequence[Label]
    right_words: dict[int, Sequence[str]] = field(default_factory=dict)
    ended: bool = True
    entropies: Sequence[float] = ()
    true_advantages: Sequence[float] = ()


def respell(rollout: WordRollout, spell: Callable[[str], list[str]]) -> WordRollout:
    """The rollout in finer tokens; entropies and true advantages are left out.

    Of a slip, only the first token from which on no right word can come of it is one still: of 58 that should be 51,
    the 8. What precedes it in the word is right, what follows is propagated.

    Args:
        rollout: a rollout with `right_words`.
        spell: the tokens of a word.
    """
    words, labels = [], []
    for i, (word, label) in enumerate(zip(rollout.words, rollout.labels, strict=True)):
        parts = spell(word)
        part_labels = [label] * len(parts)
        if label is Label.SLIP:
            spellings = [spell(right) for right in rollout.right_words.get(i, ())]
            right = max((_common_prefix(parts, spelling) for spelling in spellings), default=0)
            part_labels = [Label.RIGHT] * right + [Label.SLIP] + [Label.PROPAGATED] * (len(parts) - right - 1)
        words += parts
        labels += part_labels
    return replace(rollout, words=words, labels=labels, right_words={}, entropies=(), true_advantages=())


def merge(rollout: WordRollout, spans: Sequence[tuple[int, int]]) -> WordRollout:
    """The rollout in coarser tokens; entropies and true advantages are left out.

    Args:
        rollout: any rollout.
        spans: (start, end) of the words that become one token, in order and without overlap. The token's label is the
            worst of its words'.
    """
    ends = dict(spans)
    words, labels = [], []
    i = 0
    while i < len(rollout.words):
        end = ends.get(i, i + 1)
        words.append(" ".join(rollout.words[i:end]))
        labels.append(max(rollout.labels[i:end], key=_WORST_LAST.index))
        i = end
    return replace(rollout, words=words, labels=labels, right_words={}, entropies=(), true_advantages=())


_WORST_LAST = (Label.OTHER, Label.RIGHT, Label.PROPAGATED, Label.SLIP)


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


def _common_prefix(a: Sequence[str], b: Sequence[str]) -> int:
    """How many elements `a` and `b` have in common at their beginnings, at most all but the last of `a`."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a) - 1, len(b)))
