"""The game of 24: four numbers, three steps; a step is lost once 24 can no longer be reached.

    prompt      4 6 2 3
    completion  2 + 3 = 5 (left: 5 4 6 ) let us try 6 * 5 = 30 (left: 30 4 ) 30 - 4 = 26 (left: 26 )

A scripted policy takes plausible steps: it prefers results near 24 and its divisors, has a taste of its own in every
problem, sees a little of what leads to 24, and slips in arithmetic now and then. Labels come from trying everything.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from fractions import Fraction
from functools import cache

from ktae.bench.labelled import LabelledRollouts, WordRollout, assemble
from ktae.chain.labels import Label
from ktae.seeds import derived_seed

TARGET = Fraction(24)
LARGEST = 13
SLIP_RATE, FILLER_RATE = 0.03, 0.3
# What a step's logit gains if it keeps 24 in reach, when 4, 3 and 2 numbers are left.
FORESIGHT = {4: 1.8, 3: 2.5, 2: 5.0}

_FILLERS = tuple(phrase.split() for phrase in ("let us try", "how about", "maybe this works", "next we take"))

Numbers = tuple[Fraction, ...]  # what is left, sorted
Step = tuple[Fraction, str, Fraction, Fraction]  # a, operation, b, result


def words(groups: int, group_size: int, seed: int) -> LabelledRollouts:
    """Every number is one token."""
    return assemble(_rollouts(groups, group_size, seed))


def apply(a: Fraction, operation: str, b: Fraction) -> Fraction | None:
    """The exact result of a step, None for a division by 0."""
    match operation:
        case "+":
            return a + b
        case "-":
            return a - b
        case "*":
            return a * b
        case _:
            return a / b if b else None


def steps(numbers: Numbers) -> Iterator[Step]:
    """All steps from these numbers, both orders of every pair."""
    for i, a in enumerate(numbers):
        for j, b in enumerate(numbers):
            for operation in "+-*/":
                if i != j and (result := apply(a, operation, b)) is not None:
                    yield a, operation, b, result


def after(numbers: Numbers, step: Step) -> Numbers:
    """What is left after a step, whose result need not be right."""
    left = list(numbers)
    left.remove(step[0])
    left.remove(step[2])
    return tuple(sorted([*left, step[3]]))


@cache
def reachable(numbers: Numbers) -> bool:
    """Whether some steps lead from these numbers to 24; fractions and negative numbers may come up on the way."""
    if len(numbers) == 1:
        return numbers[0] == TARGET
    return any(reachable(after(numbers, step)) for step in steps(numbers))


def judge(numbers: Numbers, taken: list[Step]) -> list[list[Label]]:
    """Labels of the four decisions of each step: a, operation, b, result.

    While 24 is in reach, the slip is the first of the four with which no step begins that is right and keeps it in
    reach; whatever comes before is right, and whatever comes after follows from it. A wrong result is a slip always.
    """
    judged = []
    lost = False
    for step in taken:
        words = _words(step)
        labels = [Label.PROPAGATED if lost else Label.RIGHT] * 4
        if not lost:
            good = [_words(s) for s in steps(numbers) if reachable(after(numbers, s))]
            for place in range(4):
                allowed = {other[place] for other in good if other[:place] == words[:place]}
                if words[place] not in allowed:
                    labels[place:] = [Label.SLIP] + [Label.PROPAGATED] * (3 - place)
                    lost = True
                    break
        if step[3] != apply(*step[:3]):
            labels[3] = Label.SLIP
        judged.append(labels)
        numbers = after(numbers, step)
    return judged


def _words(step: Step) -> list[str]:
    return [str(part) for part in step]


def _rollouts(groups: int, group_size: int, seed: int) -> list[WordRollout]:
    rollouts = []
    for group in range(groups):
        rng = random.Random(derived_seed(seed, group))
        start: Numbers = ()
        while not start or not reachable(start):
            start = tuple(sorted(Fraction(rng.randint(1, LARGEST)) for _ in range(4)))
        taste = rng.getrandbits(32)
        rollouts += [_rollout(group, start, taste, rng) for _ in range(group_size)]
    return rollouts


def _rollout(group: int, start: Numbers, taste: int, rng: random.Random) -> WordRollout:
    numbers, taken = start, []
    while len(numbers) > 1:
        step = _choose(numbers, taste, rng)
        if rng.random() < SLIP_RATE:
            a, operation, b, result = step
            step = (a, operation, b, rng.choice([result + off for off in (1, -1, 10, -10) if result + off >= 0]))
        taken.append(step)
        numbers = after(numbers, step)

    words: list[str] = []
    labels: list[Label] = []
    numbers = start
    for step, of_four in zip(taken, judge(start, taken), strict=True):
        filler = rng.choice(_FILLERS) if rng.random() < FILLER_RATE else []
        words += filler
        a, operation, b, result = _words(step)
        left = list(numbers)
        left.remove(step[0])
        left.remove(step[2])
        said = [a, operation, b, "=", result, "(left:", result, *map(str, left), ")"]
        words += said
        labels += [Label.OTHER] * len(filler) + [*of_four[:3], Label.OTHER, of_four[3]]
        labels += [Label.OTHER] * (len(said) - 5)
        numbers = after(numbers, step)
    correct = numbers == (TARGET,) and Label.SLIP not in labels
    return WordRollout(group, correct, words, labels)


def _choose(numbers: Numbers, taste: int, rng: random.Random) -> Step:
    """A step whose result is a whole number of at least 0."""
    plausible = [step for step in dict.fromkeys(steps(numbers)) if step[3].denominator == 1 and step[3] >= 0]
    weights = [math.exp(_logit(numbers, step, taste)) for step in plausible]
    return rng.choices(plausible, weights)[0]


@cache
def _logit(numbers: Numbers, step: Step, taste: int) -> float:
    a, _, b, result = step
    logit = random.Random(f"{taste} {_words(step)}").gauss()
    logit -= abs(result - TARGET) / 24
    logit += 1.0 * (result > 0 and TARGET % result == 0) - 1.0 * (a < b)
    return float(logit + FORESIGHT[len(numbers)] * reachable(after(numbers, step)))
