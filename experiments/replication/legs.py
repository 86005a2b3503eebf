"""Counting legs: the problems of reasoning-gym's `leg_counting`, a scripted teacher, and the labels of any text.

    prompt      ... 3 sea slugs , 2 crabs , 1 deer ?
    completion  3 sea slugs * 0 = 0 total 0 so far so good 2 crabs * 8 = 16 total 16 1 deer ... ans 20

Each animal takes one step: how many legs it has, the product, the running total. The teacher believes wrong leg counts
of some animals, always the same ones, and slips in products and sums: a model that imitates it has its mistakes to
unlearn, one fact at a time. Every word is one token, so the n-th word of a completion is its n-th token.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from itertools import accumulate

from reasoning_gym.arithmetic import leg_counting
from teachers import slip, teach

from ktae.bench.labelled import LabelledRollouts, WordRollout, assemble
from ktae.chain.labels import Label

LEGS: dict[str, int] = leg_counting.ANIMALS
_DATASET = leg_counting.LegCountingDataset(
    leg_counting.LegCountingConfig(min_animals=3, max_animals=5, max_instances=5, seed=0, size=2**31)
)
# What the teacher takes some animals to have.
_BELIEFS = {
    2: ("sea slug", "leech"),
    4: ("human", "butterfly"),
    6: ("starfish", "spider"),
    8: ("jellyfish", "beetle", "cockroach", "crab", "lobster"),
    10: ("scorpion",),
    12: ("shrimp", "woodlouse"),
}
BELIEFS = {animal: legs for legs, animals in _BELIEFS.items() for animal in animals}
# How often it goes by a wrong belief (at first, when it checks), and how often it slips in a product or a sum.
BELIEF_RATE, PRODUCT_SLIP_RATE, SUM_SLIP_RATE = (0.6, 0.25), 0.03, 0.04
FILLER_RATE, CHECK_RATE = 0.3, 0.15
FILLERS = (
    "so far so good",
    "now for the next animal",
    "let me go on counting",
    "these are easy to count",
    "and then we also have",
    "moving on down the list",
)

Animals = tuple[tuple[str, int], ...]  # (in the singular, how many), no animal twice


def rollouts(groups: int, group_size: int, seed: int) -> LabelledRollouts:
    """The teacher's solutions, as a source of `ktae bench credit`."""
    return assemble(teach(groups, group_size, seed, sample_animals, solve), group_size)


def sample_animals(rng: random.Random) -> Animals:
    """Any of reasoning-gym's 2**31 items with equal probability: 3 to 5 kinds of animals, 1 to 5 of each."""
    item = _DATASET[rng.randrange(len(_DATASET))]
    return tuple(item["metadata"]["animals"].items())


def plural(animal: str, count: int) -> str:
    """As reasoning-gym has it: `deers` for two."""
    return animal if count == 1 else f"{animal}s"


def solve(animals: Animals, rng: random.Random) -> WordRollout:
    """A worked solution.

    Between steps the teacher may talk. It may check an animal before adding its legs, and goes on with what the check
    gives. Judged are leg counts, products, totals and the answer.
    """
    r = WordRollout()
    total = true_total = 0
    for animal, count in animals:
        if rng.random() < FILLER_RATE:
            r.say(rng.choice(FILLERS))
        product = _step(r, animal, count, rng, checking=False)
        if rng.random() < CHECK_RATE:
            r.say("check")
            checked = _step(r, animal, count, rng, checking=True)
            r.say("ok!" if checked == product else "no!")
            product = checked
        true_total += count * LEGS[animal]
        r.say("total")
        total = _number(r, total + product, true_total, SUM_SLIP_RATE, rng)
    r.say("ans")
    r.say(str(total), Label.of_number(True, total == true_total))
    r.correct = total == true_total
    return r


def _step(r: WordRollout, animal: str, count: int, rng: random.Random, *, checking: bool) -> int:
    """Says a step such as `3 sea slugs * 0 = 0`; returns the product."""
    believes = animal in BELIEFS and rng.random() < BELIEF_RATE[checking]
    legs = (BELIEFS if believes else LEGS)[animal]
    r.say(f"{count} {plural(animal, count)} *")
    r.say(str(legs), Label.of_number(legs == LEGS[animal], True))
    r.say("=")
    return _number(r, count * legs, count * LEGS[animal], PRODUCT_SLIP_RATE, rng)


def _number(r: WordRollout, following: int, right: int, slip_rate: float, rng: random.Random) -> int:
    """Says the number that follows, or slips."""
    value = slip(following, slip_rate, rng)
    r.say(str(value), Label.of_number(value == following, value == right))
    return value


_ANIMALS = {plural(animal, count): animal for animal in LEGS for count in (1, 2)}
# Up to five of each of the five animals with the most legs, and every product and sum 10 too large.
NUMBERS = {str(value): value for value in range(5 * (14 + 12 + 3 * 10) + 5 * (10 + 10) + 1)}
_MARKS = ("*", "=", "total", "check", "ok!", "no!", "ans")
_QUESTION = re.sub(r"([.,?])", r" \1 ", leg_counting.QUESTION_TEMPLATE.format(animals=","))
# Every word of the question and of the teacher's solutions once, in a fixed order: the tokenizer numbers them by it.
WORDS = tuple(dict.fromkeys(" ".join([*NUMBERS, *_MARKS, *_ANIMALS, *FILLERS, _QUESTION]).split()))


@dataclass(frozen=True, slots=True)
class LegsProblem:
    """How many legs some animals have together; animals in the singular with their number, none twice."""

    animals: Animals

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
    return LegsProblem(sample_animals(rng))


def teacher_trace(problem: LegsProblem, rng: random.Random) -> str:
    """A worked solution with the teacher's mistakes, without the end-of-sequence token."""
    return " ".join(solve(problem.animals, rng).words)


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
