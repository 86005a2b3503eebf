"""Counting legs as a task that a model can be trained on: prompts, vocabulary, and the labels of any text.

`ktae.bench.sources.legs` has the problems and the teacher. Every word is one token, so the n-th word of a completion is
its n-th token. A model that imitates the teacher has its mistakes to unlearn, one fact at a time.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from itertools import accumulate

from reasoning_gym.arithmetic.leg_counting import QUESTION_TEMPLATE

from ktae.bench.sources import legs
from ktae.bench.sources.legs import LEGS, plural
from ktae.chain.labels import Label

_ANIMALS = {plural(animal, count): animal for animal in LEGS for count in (1, 2)}
# Up to five of each of the five animals with the most legs, and every product and sum 10 too large.
NUMBERS = {str(value): value for value in range(5 * (14 + 12 + 3 * 10) + 5 * (10 + 10) + 1)}
_MARKS = ("*", "=", "total", "check", "ok!", "no!", "ans")
_QUESTION = re.sub(r"([.,?])", r" \1 ", QUESTION_TEMPLATE.format(animals=","))
# Every word of the question and of the teacher's solutions once, in a fixed order: the tokenizer numbers them by it.
WORDS = tuple(dict.fromkeys(" ".join([*NUMBERS, *_MARKS, *_ANIMALS, *legs.FILLERS, _QUESTION]).split()))


@dataclass(frozen=True, slots=True)
class LegsProblem:
    """How many legs some animals have together; animals in the singular with their number, none twice."""

    animals: legs.Animals

    @property
    def prompt(self) -> str:
        """The list of animals; what reasoning-gym's question says before it is the same for all and left out."""
        return " , ".join(f"{count} {plural(animal, count)}" for animal, count in self.animals) + " ?"

    @property
    def products(self) -> list[int]:
        """The legs of each kind of animal."""
        return [count * LEGS[animal] for animal, count in self.animals]

    @property
    def answer(self) -> int:
        """The legs of all."""
        return sum(self.products)


def sample_problem(rng: random.Random) -> LegsProblem:
    """Three to five kinds of animals, one to five of each."""
    return LegsProblem(legs.sample_animals(rng))


def teacher_trace(problem: LegsProblem, rng: random.Random) -> str:
    """A worked solution with the teacher's mistakes, without the end-of-sequence token."""
    return " ".join(legs.solve(problem.animals, rng).words)


def extract_answer(completion: str) -> int | None:
    """The answer a completion ends with, or None if it does not end in `ans <number>`."""
    words = completion.split()
    return NUMBERS.get(words[-1]) if words[-2:-1] == ["ans"] else None


def label_steps(problem: LegsProblem, completion: str) -> list[Label]:
    """The label of every word of `completion` (special tokens left out), by exact arithmetic.

    Judged are leg counts, products, totals and the answer. A slip is also a count or an animal other than the one
    whose turn it is, and `ans` before all have had theirs. A malformed step counts for nothing, so it shows up as a
    slip in what follows. A response that gives an answer and has no slip is right.
    """
    words = completion.split()
    labels = [Label.OTHER] * len(words)
    # Animal, count, product and running total of each turn; nothing is right once all have had theirs.
    nothing = (("", -1), -1, -1)
    turns = [*zip(problem.animals, problem.products, accumulate(problem.products), strict=True)]
    done = total = 0  # animals that have had their turn, and their legs by the response's own reckoning
    product: int | None = None  # of the current step
    i = 0
    while i < len(words):
        end = i + 1
        (expected, right_count), right_product, right_total = turns[done] if done < len(turns) else nothing
        number = NUMBERS.get(words[end]) if end < len(words) else None
        if (step := _step_at(words, i)) is not None:
            count, animal, leg_count, product, end = step
            if count != right_count:
                labels[i] = Label.SLIP
            if animal != expected:
                labels[i + 1] = Label.SLIP
            labels[end - 3] = Label.of_number(leg_count == LEGS[animal], animal == expected)
            right = animal == expected and product == right_product
            labels[end - 1] = Label.of_number(product == count * leg_count, right)
        elif words[i] == "total" and number is not None:
            follows = product is not None and number == total + product
            labels[end] = Label.of_number(follows, number == right_total)
            done, total, product, end = done + 1, number, None, i + 2
        elif words[i] == "ans":
            if done != len(turns):
                labels[i] = Label.SLIP
            if number is not None:
                labels[end] = Label.of_number(number == total, number == problem.answer)
                end = i + 2
        i = end
    return labels


def _step_at(words: list[str], i: int) -> tuple[int, str, int, int, int] | None:
    """Count, animal, legs, product and the end of `3 sea slugs * 0 = 0` if such words begin at `i`."""
    for star in (i + 2, i + 3):
        animal = _ANIMALS.get(" ".join(words[i + 1 : star]))
        match words[star : star + 4]:
            case ["*", leg_count, "=", product] if animal and {words[i], leg_count, product} <= NUMBERS.keys():
                return NUMBERS[words[i]], animal, NUMBERS[leg_count], NUMBERS[product], star + 4
    return None
