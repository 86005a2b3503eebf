"""Counting legs: the problems of reasoning-gym's `leg_counting`, solved by a scripted teacher; a word a token.

    prompt      ... 3 sea slugs , 2 crabs , 1 deer ?
    completion  3 sea slugs * 0 = 0 total 0 so far so good 2 crabs * 8 = 16 total 16 1 deer ... ans 20

Each animal takes one step: how many legs it has, the product, the running total. The teacher believes wrong leg counts
of some animals, always the same ones, and slips in products and sums.
"""

from __future__ import annotations

import random

from ktae.bench.labelled import LabelledRollouts, WordRollout, assemble, slip, teach
from ktae.chain.labels import Label
from ktae.extras import require

_leg_counting = require("reasoning_gym.arithmetic.leg_counting", "bench")

LEGS: dict[str, int] = _leg_counting.ANIMALS
_DATASET = _leg_counting.LegCountingDataset(
    _leg_counting.LegCountingConfig(min_animals=3, max_animals=5, max_instances=5, seed=0, size=2**31)
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


def words(groups: int, group_size: int, seed: int) -> LabelledRollouts:
    """The teacher's solutions."""
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
