"""Where the benchmark's rollouts come from: one module a task.

A source is a function (groups, group_size, seed) -> LabelledRollouts; the same arguments give the same rollouts.
"""

from __future__ import annotations

from collections.abc import Callable

from ktae.bench.labelled import LabelledRollouts
from ktae.bench.sources import chain, game24, scripted

Source = Callable[[int, int, int], LabelledRollouts]

SOURCES: dict[str, Source] = {
    "chain": chain.words,
    "chain_4_steps": chain.short,
    "chain_6_steps": chain.long,
    "chain_digits": chain.digits,
    "chain_phrases": chain.phrases,
    "chain_teacher": scripted.chain_teacher,
    "legs": scripted.legs,
    "game24": game24.words,
    "game24_digits": game24.digits,
}
