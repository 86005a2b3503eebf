"""The game of 24: four numbers, three steps; a step is lost once 24 can no longer be reached.

    prompt      4 6 2 3
    completion  2 + 3 = 5 (left: 5 4 6 ) let us try 6 * 5 = 30 (left: 30 4 ) 30 - 4 = 26 (left: 26 )

A scripted policy takes plausible steps: it prefers results near 24 and its divisors, has a taste of its own in every
problem, sees a little of what leads to 24, and slips in arithmetic now and then. Labels come from trying everything.
"""

from __future__ import annotations

import math
import operator
import random
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from itertools import permutations

from teachers import slip, teach

from ktae.bench.labelled import LabelledRollouts, WordRollout, assemble
from ktae.chain.labels import Label

TARGET = Fraction(24)
LARGEST = 13
SLIP_RATE, FILLER_RATE = 0.03, 0.3
# What a step's logit gains if it keeps 24 in reach, when 4, 3 and 2 numbers are left.
FORESIGHT = {4: 1.8, 3: 2.5, 2: 5.0}
OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
_FILLERS = ("let us try", "how about", "maybe this works", "next we take")

Numbers = tuple[Fraction, ...]  # what is left, sorted
Step = tuple[Fraction, str, Fraction, Fraction]  # a, operation, b, result


def rollouts(groups: int, group_size: int, seed: int) -> LabelledRollouts:
    """The policy's games, as a source of `ktae bench credit`; every number is one token."""
    return assemble(teach(groups, group_size, seed, _deal, play), group_size)


def _deal(rng: random.Random) -> tuple[Numbers, int]:
    """Numbers that can make 24, and a taste."""
    start: Numbers = ()
    while not start or not reachable(start):
        start = tuple(sorted(Fraction(rng.randint(1, LARGEST)) for _ in range(4)))
    return start, rng.getrandbits(32)


def steps(numbers: Numbers) -> Iterator[Step]:
    """All steps from these numbers, both orders of every pair."""
    for a, b in permutations(numbers, 2):
        for operation, function in OPERATIONS.items():
            if operation != "/" or b:
                yield a, operation, b, function(a, b)


def others(numbers: Numbers, step: Step) -> list[Fraction]:
    """The numbers that a step does not take."""
    left = list(numbers)
    left.remove(step[0])
    left.remove(step[2])
    return left


def after(numbers: Numbers, step: Step) -> Numbers:
    """What is left after a step, whose result need not be right."""
    return tuple(sorted([*others(numbers, step), step[3]]))


@cache
def reachable(numbers: Numbers) -> bool:
    """Whether some steps lead from these numbers to 24; fractions and negative numbers may come up on the way."""
    if len(numbers) == 1:
        return numbers[0] == TARGET
    return any(reachable(after(numbers, step)) for step in steps(numbers))


def judge(numbers: Numbers, step: Step, lost: bool) -> list[Label]:
    """Labels of the four decisions of a step: a, operation, b, result.

    While 24 is in reach, the slip is the first of the four with which no step begins that is right and keeps it in
    reach; whatever comes before is right, and whatever comes after follows from it. A wrong result is a slip always.
    """
    labels = [Label.PROPAGATED if lost else Label.RIGHT] * 4
    if not lost:
        good = [other for other in steps(numbers) if reachable(after(numbers, other))]
        kept = next(n for n in range(4, -1, -1) if any(other[:n] == step[:n] for other in good))
        labels[kept:] = [Label.SLIP, *[Label.PROPAGATED] * 3][: 4 - kept]
    a, operation, b, result = step
    if result != OPERATIONS[operation](a, b):
        labels[3] = Label.SLIP
    return labels


def play(dealt: tuple[Numbers, int], rng: random.Random) -> WordRollout:
    """One game of the scripted policy, from the numbers dealt and by its taste."""
    (numbers, taste), taken = dealt, []
    while len(numbers) > 1:
        *chosen, result = _choose(numbers, taste, rng)
        taken.append((numbers, (*chosen, Fraction(slip(int(result), SLIP_RATE, rng)))))
        numbers = after(*taken[-1])

    r = WordRollout()
    for left, step in taken:
        if rng.random() < FILLER_RATE:
            r.say(rng.choice(_FILLERS))
        labels = judge(left, step, lost=Label.SLIP in r.labels)
        a, operation, b, result = map(str, step)
        for word, label in zip((a, operation, b), labels, strict=False):
            r.say(word, label)
        r.say("=")
        r.say(result, labels[3])
        r.say(f"(left: {result} {' '.join(map(str, others(left, step)))} )")
    r.correct = numbers == (TARGET,) and Label.SLIP not in r.labels
    return r


def _choose(numbers: Numbers, taste: int, rng: random.Random) -> Step:
    """A step whose result is a whole number of at least 0."""
    plausible = [step for step in dict.fromkeys(steps(numbers)) if step[3].denominator == 1 and step[3] >= 0]
    weights = [math.exp(_logit(numbers, step, taste)) for step in plausible]
    return rng.choices(plausible, weights)[0]


@cache
def _logit(numbers: Numbers, step: Step, taste: int) -> float:
    a, _, b, result = step
    logit = random.Random(f"{taste} {[str(part) for part in step]}").gauss()
    logit -= abs(result - TARGET) / 24
    logit += 1.0 * (result > 0 and TARGET % result == 0) - 1.0 * (a < b)
    return float(logit + FORESIGHT[len(numbers)] * reachable(after(numbers, step)))
