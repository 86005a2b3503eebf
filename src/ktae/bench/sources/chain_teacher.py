"""Longer chains of arithmetic modulo 97, by a scripted teacher."""

from __future__ import annotations

import random
from collections.abc import Sequence

from ktae.bench.labelled import LabelledRollouts, WordRollout, assemble
from ktae.chain import problems as chain
from ktae.chain.labels import Label
from ktae.seeds import derived_seed

_FILLERS = ("going on", "the next one is", "now this", "then we have")
STEPS, FILLER_RATE = 12, 0.3
SLIP_RATE = 0.04  # four times as often for the facts that `chain.is_hard`


def words(groups: int, group_size: int, seed: int) -> LabelledRollouts:
    """Problems of 12 steps; a word is a token."""
    rollouts = []
    for group in range(groups):
        rng = random.Random(derived_seed(seed, group, STEPS))
        start = rng.randrange(chain.MODULUS)
        operations = [chain.sample_operation(rng) for _ in range(STEPS)]
        rollouts += [_rollout(group, start, operations, SLIP_RATE, rng) for _ in range(group_size)]
    return assemble(rollouts)


def _rollout(group: int, start: int, operations: list[str], slip_rate: float, rng: random.Random) -> WordRollout:
    words: list[str] = []
    labels: list[Label] = []

    def say(said: Sequence[str], last: Label) -> None:
        words.extend(said)
        labels.extend([Label.OTHER] * (len(said) - 1) + [last])

    value = truth = start
    for step, operation in enumerate(operations):
        if rng.random() < FILLER_RATE:
            say(rng.choice(_FILLERS).split(), Label.OTHER)
        truth = chain.apply(truth, operation)
        slips = rng.random() < slip_rate * (4 if chain.is_hard(value, operation) else 1)
        value = (chain.apply(value, operation) + (rng.choice((1, -1, 10, -10)) if slips else 0)) % chain.MODULUS
        label = Label.SLIP if slips else Label.RIGHT if value == truth else Label.PROPAGATED
        say([f"S{step + 1}", operation, "=", str(value)], label)
    say(["ans", str(value)], Label.RIGHT if value == truth else Label.PROPAGATED)
    return WordRollout(group, value == truth, words, labels)
