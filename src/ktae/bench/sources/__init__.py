"""Where the benchmark's rollouts come from: one module a task.

A source is a function (groups, group_size, seed) -> LabelledRollouts; the same arguments give the same rollouts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ktae.bench.labelled import LabelledRollouts
from ktae.bench.sources import chain, game24, legs, word_problems

Source = Callable[[int, int, int], LabelledRollouts]

SOURCES: dict[str, Source] = {
    "chain": chain.words,
    "chain_4_steps": partial(chain.of_steps, 4),
    "chain_6_steps": partial(chain.of_steps, 6),
    "chain_teacher": chain.teacher,
    "legs": legs.words,
    "game24": game24.words,
    "word_problems": word_problems.words,
}
