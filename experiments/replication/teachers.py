"""What the scripted teachers share: groups of solutions, slips, and tokenizers for models that imitate them."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeVar

from tokenizers import Tokenizer, processors
from transformers import PreTrainedTokenizerFast

from ktae.bench.labelled import WordRollout
from ktae.seeds import derived_seed

SPECIAL = PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
_Problem = TypeVar("_Problem")


def teach(
    groups: int,
    group_size: int,
    seed: int,
    draw: Callable[[random.Random], _Problem],
    solve: Callable[[_Problem, random.Random], WordRollout],
    *salt: int,
) -> list[WordRollout]:
    """Rollouts of a scripted teacher: of each group it draws a problem and solves it `group_size` times."""
    rollouts = []
    for group in range(groups):
        rng = random.Random(derived_seed(seed, group, *salt))
        problem = draw(rng)
        rollouts += [solve(problem, rng) for _ in range(group_size)]
    return rollouts


def slip(right: int, rate: float, rng: random.Random) -> int:
    """The number, or with probability `rate` one that is off by 1 or 10 and not negative."""
    if rng.random() < rate:
        return rng.choice([right + off for off in (1, -1, 10, -10) if right + off >= 0])
    return right


def fast_tokenizer(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """A tokenizer whose first ids are those of `SPECIAL`, for transformers.

    Encoding puts `<bos>` in front and adds nothing at the end, as with Llama's own tokenizer. Padding is on the left.
    """
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, SPECIAL.index(BOS))]
    )
    names = {"pad_token": PAD, "bos_token": BOS, "eos_token": EOS}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, padding_side="left", clean_up_tokenization_spaces=False, **names
    )
