"""Rollouts of scripted teachers: no model is needed, and groups may be of any difficulty."""

from __future__ import annotations

import random
from collections.abc import Sequence

from ktae.bench.labelled import LabelledRollouts
from ktae.bench.sources.words import WordRollout, assemble
from ktae.chain import problems as chain
from ktae.chain.labels import Label
from ktae.seeds import derived_seed

_FILLERS = ("going on", "the next one is", "now this", "then we have")
FILLER_RATE = 0.3


def legs(groups: int, group_size: int, seed: int) -> LabelledRollouts:
    """The teacher of `ktae.bench.sources.legs` counts legs."""
    from ktae.bench.sources import legs as task  # needs reasoning-gym

    rollouts = []
    for group in range(groups):
        rng = random.Random(derived_seed(seed, group))
        problem = task.sample_problem(rng)
        for _ in range(group_size):
            trace = task.teacher_trace(problem, rng)
            correct = task.extract_answer(trace) == problem.answer
            rollouts.append(WordRollout(group, correct, trace.split(), task.label_steps(problem, trace)))
    return assemble(rollouts)


def chain_teacher(
    groups: int, group_size: int, seed: int, *, steps: int = 12, slip_rate: float = 0.04
) -> LabelledRollouts:
    """Chains of arithmetic modulo 97 as in `ktae.chain.problems`, of any length.

    Args:
        groups, group_size, seed: as of every source.
        steps: operations of each problem.
        slip_rate: how often a result is wrong by itself; four times as often for the facts that `chain.is_hard`.

    Raises:
        ValueError: `steps` is below 1, or `slip_rate` outside 0 to 0.25.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if not 0 <= slip_rate <= 0.25:
        raise ValueError(f"slip_rate must be in 0..0.25, got {slip_rate}")
    rollouts = []
    for group in range(groups):
        rng = random.Random(derived_seed(seed, group, steps))
        start = rng.randrange(chain.MODULUS)
        operations = [chain.sample_operation(rng) for _ in range(steps)]
        rollouts += [_chain_rollout(group, start, operations, slip_rate, rng) for _ in range(group_size)]
    return assemble(rollouts)


def _chain_rollout(group: int, start: int, operations: list[str], slip_rate: float, rng: random.Random) -> WordRollout:
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
