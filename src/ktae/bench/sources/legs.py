"""Counting legs: the problems of reasoning-gym's `leg_counting`, in words, with worked solutions.

    prompt      Your task is to count ... if you have 3 sea slugs , 2 crabs , 1 deer ?
    completion  3 sea slugs * 0 = 0 total 0 so far so good 2 crabs * 8 = 16 total 16 1 deer ... ans 20

Every word is one token, so the n-th word of a completion is its n-th token. Each animal takes one step: how many
legs it has, the product, the running total. The reward is 1 when the answer is right.

The teacher believes wrong leg counts of some animals, always the same ones, and slips in products and sums. A model
that imitates it has these mistakes to unlearn, one fact at a time.
"""

import random
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from ktae.bench.labelled import LabelledRollouts, WordRollout, assemble
from ktae.chain.labels import Label
from ktae.extras import require
from ktae.seeds import derived_seed

_leg_counting = require("reasoning_gym.arithmetic.leg_counting", "bench")

MIN_ANIMALS, MAX_ANIMALS, MAX_COUNT = 3, 5, 5
LEGS: dict[str, int] = _leg_counting.ANIMALS
# What the teacher takes some animals to have.
BELIEFS = {
    "sea slug": 2,
    "jellyfish": 8,
    "leech": 2,
    "human": 4,
    "starfish": 6,
    "butterfly": 4,
    "beetle": 8,
    "cockroach": 8,
    "spider": 6,
    "scorpion": 10,
    "crab": 8,
    "lobster": 8,
    "shrimp": 12,
    "woodlouse": 12,
}
# How often it goes by a wrong belief (at first, when it checks), and how often it slips in a product or a sum.
BELIEF_RATE, PRODUCT_SLIP_RATE, SUM_SLIP_RATE = (0.6, 0.25), 0.03, 0.04
FILLER_RATE, CHECK_RATE = 0.3, 0.15

_FILLERS = tuple(
    phrase.split()
    for phrase in (
        "so far so good",
        "now for the next animal",
        "let me go on counting",
        "these are easy to count",
        "and then we also have",
        "moving on down the list",
    )
)
_MARKS = ("*", "=", "total", "check", "ok!", "no!", "ans")


def _words(text: str) -> list[str]:
    return re.sub(r"([.,?])", r" \1 ", text).split()


def _plural(animal: str, count: int) -> str:
    return animal if count == 1 else f"{animal}s"


_ANIMALS = {tuple(_plural(animal, count).split()): animal for animal in LEGS for count in (1, 2)}
_largest_step = sorted((max(LEGS[animal], BELIEFS.get(animal, 0)) for animal in LEGS), reverse=True)[:MAX_ANIMALS]
# Of all animals with the most legs as many as there can be, and every product and sum 10 too large.
LARGEST = MAX_COUNT * sum(_largest_step) + 2 * 10 * MAX_ANIMALS
NUMBERS = {str(value): value for value in range(LARGEST + 1)}

# Every word of the prompts and of the teacher's traces once, in a fixed order.
WORDS = tuple(
    dict.fromkeys(
        (
            *NUMBERS,
            *_MARKS,
            *(word for phrase in _ANIMALS for word in phrase),
            *(word for phrase in _FILLERS for word in phrase),
            *_words(_leg_counting.QUESTION_TEMPLATE.format(animals=",")),
        )
    )
)


def words(groups: int, group_size: int, seed: int) -> LabelledRollouts:
    """The teacher's traces; a word is a token."""
    rollouts = []
    for group in range(groups):
        rng = random.Random(derived_seed(seed, group))
        problem = sample_problem(rng)
        for _ in range(group_size):
            trace = teacher_trace(problem, rng)
            correct = extract_answer(trace) == problem.answer
            rollouts.append(WordRollout(group, correct, trace.split(), label_steps(problem, trace)))
    return assemble(rollouts)


@dataclass(frozen=True, slots=True)
class LegsProblem:
    """How many legs some animals have together.

    Attributes:
        index: the place of the problem in reasoning-gym's data set, see `problem`.
        prompt: reasoning-gym's question with a space around every word and mark.
        animals: (animal in the singular, how many), in the prompt's order, no animal twice.

    >>> problem(0).prompt[-24:], problem(0).animals[-1], problem(0).answer
    ('3 tigers , 4 scorpions ?', ('scorpion', 4), 68)
    """

    index: int
    prompt: str
    animals: tuple[tuple[str, int], ...]

    @property
    def products(self) -> tuple[int, ...]:
        """The legs of each kind of animal."""
        return tuple(count * LEGS[animal] for animal, count in self.animals)

    @property
    def totals(self) -> tuple[int, ...]:
        """The running totals, one a kind of animal."""
        return tuple(sum(self.products[: k + 1]) for k in range(len(self.animals)))

    @property
    def answer(self) -> int:
        """The legs of all."""
        return sum(self.products)


@cache
def _dataset() -> Any:
    config = _leg_counting.LegCountingConfig(
        min_animals=MIN_ANIMALS, max_animals=MAX_ANIMALS, max_instances=MAX_COUNT, seed=0, size=2**31
    )
    return _leg_counting.LegCountingDataset(config)


def problem(index: int) -> LegsProblem:
    """Item `index` of the data set, 0 to 2**31 - 1: 3 to 5 kinds of animals, 1 to 5 of each."""
    dataset = _dataset()
    if not 0 <= index < len(dataset):
        raise ValueError(f"index must be in 0..{len(dataset) - 1}, got {index}")
    item = dataset[index]
    animals = tuple(item["metadata"]["animals"].items())
    return LegsProblem(index, " ".join(_words(item["question"])), animals)


def sample_problem(rng: random.Random) -> LegsProblem:
    """Any item of the data set with equal probability."""
    return problem(rng.randrange(len(_dataset())))


def teacher_trace(problem: LegsProblem, rng: random.Random, *, slips: bool = True) -> str:
    """A worked solution, without the end-of-sequence token.

    Between steps the teacher may talk. It may check an animal before adding its legs, and goes on with what the check
    gives. With `slips=False` everything is right and only the wording varies.
    """
    words: list[str] = []
    total = 0
    for animal, count in problem.animals:
        if rng.random() < FILLER_RATE:
            words += rng.choice(_FILLERS)
        phrase = [str(count), *_plural(animal, count).split()]
        legs = _teacher_legs(animal, rng, checking=False) if slips else LEGS[animal]
        product = _teacher_number(count * legs, PRODUCT_SLIP_RATE if slips else 0.0, rng)
        words += [*phrase, "*", str(legs), "=", str(product)]
        if rng.random() < CHECK_RATE:
            legs = _teacher_legs(animal, rng, checking=True) if slips else legs
            checked = _teacher_number(count * legs, PRODUCT_SLIP_RATE if slips else 0.0, rng)
            words += ["check", *phrase, "*", str(legs), "=", str(checked), "ok!" if checked == product else "no!"]
            product = checked
        total = _teacher_number(total + product, SUM_SLIP_RATE if slips else 0.0, rng)
        words += ["total", str(total)]
    return " ".join([*words, "ans", str(total)])


def _teacher_legs(animal: str, rng: random.Random, *, checking: bool) -> int:
    if animal in BELIEFS and rng.random() < BELIEF_RATE[checking]:
        return BELIEFS[animal]
    return LEGS[animal]


def _teacher_number(right: int, slip_rate: float, rng: random.Random) -> int:
    """The number, or with probability `slip_rate` one that is off by 1 or 10 and not negative."""
    if rng.random() < slip_rate:
        return rng.choice([right + off for off in (1, -1, 10, -10) if right + off >= 0])
    return right


def extract_answer(completion: str) -> int | None:
    """The answer a completion ends with, or None if it does not end in `ans <number>`.

    >>> extract_answer("2 crabs * 10 = 20 total 20 ans 20"), extract_answer("total 20")
    (20, None)
    """
    words = completion.split()
    return NUMBERS.get(words[-1]) if len(words) >= 2 and words[-2] == "ans" else None


def label_steps(problem: LegsProblem, completion: str) -> list[Label]:
    """The label of every word of `completion` (special tokens left out), by exact arithmetic.

    Judged are leg counts, products, totals and the answer. A slip is also a count or an animal other than the one
    whose turn it is, and `ans` before all have had theirs. A malformed step counts for nothing, so it shows up as a
    slip in what follows. A response that gives an answer and has no slip is right.

    >>> crabs = LegsProblem(0, "...", (("crab", 2), ("ant", 1)))
    >>> labels = label_steps(crabs, "2 crabs * 8 = 16 total 16 1 ant * 6 = 6 total 22 ans 22")
    >>> [label.name for label in labels if label][:4], labels.index(Label.SLIP)
    (['SLIP', 'PROPAGATED', 'PROPAGATED', 'RIGHT'], 3)
    """
    words = completion.split()
    labels = [Label.OTHER] * len(words)
    kinds = len(problem.animals)
    done = total = 0  # animals that have had their turn, and their legs by the response's own reckoning
    product: int | None = None  # of the current step
    i = 0
    while i < len(words):
        end = i + 1
        following = words[end] if end < len(words) else ""
        if (step := _step_at(words, i)) is not None:
            count, animal, legs, end = step
            product = NUMBERS[words[end - 1]]
            expected, right_count = problem.animals[done] if done < kinds else (None, None)
            if count != right_count:
                labels[i] = Label.SLIP
            if animal != expected:
                labels[i + 1] = Label.SLIP
            labels[end - 3] = _label(legs == LEGS[animal], animal == expected)
            right = animal == expected and product == problem.products[done]
            labels[end - 1] = _label(product == count * legs, right)
        elif words[i] == "total" and following in NUMBERS:
            follows = product is not None and NUMBERS[following] == total + product
            total = NUMBERS[following]
            labels[i + 1] = _label(follows, done < kinds and total == problem.totals[done])
            done, product, end = done + 1, None, i + 2
        elif words[i] == "ans":
            if done != kinds:
                labels[i] = Label.SLIP
            if following in NUMBERS:
                answer, end = NUMBERS[following], i + 2
                labels[i + 1] = _label(answer == total, answer == problem.answer)
        i = end
    return labels


def _label(follows: bool, right: bool) -> Label:
    return Label.SLIP if not follows else Label.RIGHT if right else Label.PROPAGATED


def _step_at(words: list[str], i: int) -> tuple[int, str, int, int] | None:
    """Count, animal, legs and the end of `3 sea slugs * 0 = 0` if such words begin at `i`."""
    for length in (1, 2):
        star = i + 1 + length
        animal = _ANIMALS.get(tuple(words[i + 1 : star]))
        match words[star : star + 4]:
            case ["*", legs, "=", product] if animal and {words[i], legs, product} <= NUMBERS.keys():
                return NUMBERS[words[i]], animal, NUMBERS[legs], star + 4
    return None
