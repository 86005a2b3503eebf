"""Chains of twelve steps of arithmetic modulo 97, by a scripted teacher; a word a token."""

from __future__ import annotations

import random

from chain_teacher import is_hard
from teachers import teach

from ktae.bench.labelled import LabelledRollouts, WordRollout, assemble
from ktae.chain.labels import Label
from ktae.chain.problems import MODULUS, Problem, apply, sample_operation

TEACHER_STEPS, FILLER_RATE = 12, 0.3
SLIP_RATE = 0.04  # four times as often for the facts that `is_hard`
_FILLERS = ("going on", "the next one is", "now this", "then we have")


def rollouts(groups: int, group_size: int, seed: int) -> LabelledRollouts:
    """The teacher's solutions, as a source of `ktae bench credit`."""

    def draw(rng: random.Random) -> Problem:
        start = rng.randrange(MODULUS)
        return Problem(start, tuple(sample_operation(rng) for _ in range(TEACHER_STEPS)))

    return assemble(teach(groups, group_size, seed, draw, solve, TEACHER_STEPS), group_size)


def solve(problem: Problem, rng: random.Random, slip_rate: float = SLIP_RATE) -> WordRollout:
    """A solution of the scripted teacher."""
    r = WordRollout()
    value = truth = problem.start
    for step, operation in enumerate(problem.operations, 1):
        if rng.random() < FILLER_RATE:
            r.say(rng.choice(_FILLERS))
        truth = apply(truth, operation)
        slips = rng.random() < slip_rate * (4 if is_hard(value, operation) else 1)
        value = (apply(value, operation) + (rng.choice((1, -1, 10, -10)) if slips else 0)) % MODULUS
        r.say(f"S{step} {operation} =")
        r.say(str(value), Label.of_number(not slips, value == truth))
    r.say("ans")
    r.say(str(value), Label.of_number(True, value == truth))
    r.correct = value == truth
    return r
