"""The teacher of the chain task, whose verbose traces with mistakes the warm start learns from."""

import random
from functools import cache

from ktae.chain.problems import MODULUS, NUMBERS, OPERATIONS, STEPS, Problem, apply

_FILLERS = [
    "so now we compute",
    "ok next step",
    "let me think",
    "note that",
    "well then we get to",
    "moving on",
    "let us see",
    "now we can continue with",
]
_CLOSING = "therefore the final result is"
_MARKS = ("?", "=", "ans", "check", "ok!", "no!")
# Every word of the task once, in a fixed order: the tokenizer numbers its tokens by it.
WORDS = tuple(dict.fromkeys([*NUMBERS, *OPERATIONS, *STEPS, *_MARKS, *" ".join([*_FILLERS, _CLOSING]).split()]))

# Facts the teacher has wrong, in percent of all products and of all sums and differences.
HARD_PRODUCTS, HARD_SUMS = 35, 8
# The teacher's habits. Lengths: about 33 tokens a trace, against 23 without fillers, checks and closing.
FILLER_RATE, CHECK_RATE, CLOSING_RATE = 0.35, 0.12, 0.2
# How often it slips: on a hard fact (always by +10), and elsewhere; (at first, when it checks).
HARD_SLIP_RATE, SLIP_RATE = (0.62, 0.3), (0.05, 0.03)


@cache
def is_hard(value: int, operation: str) -> bool:
    """Whether the teacher has a wrong belief about this fact: 35 % of products, 8 % of the rest.

    A fixed property of the fact, which seeds the draw (not by `hash`, which differs between processes).
    """
    percent = HARD_PRODUCTS if operation[0] == "*" else HARD_SUMS
    return random.Random(value * 1000 + 97 + OPERATIONS.index(operation)).randrange(100) < percent


def teacher_result(value: int, operation: str, rng: random.Random, *, checking: bool = False) -> int:
    """The teacher's result of one step, 0..96: right, or off by 10 (hard facts) or by 1 or 10 (others)."""
    hard = is_hard(value, operation)
    slips = rng.random() < (HARD_SLIP_RATE if hard else SLIP_RATE)[checking]
    offset = 0 if not slips else 10 if hard else rng.choice((1, -1, 10, -10))
    return (apply(value, operation) + offset) % MODULUS


def teacher_trace(problem: Problem, rng: random.Random) -> str:
    """A worked response to `problem`, without the end-of-sequence token.

    Between steps the teacher may talk, and it may check a step, in which case it goes on with the result of the check.
    """
    words: list[str] = []
    value = problem.start
    for step, operation in zip(STEPS, problem.operations, strict=False):
        if rng.random() < FILLER_RATE:
            words.append(rng.choice(_FILLERS))
        result = teacher_result(value, operation, rng)
        words += [step, operation, "=", str(result)]
        if rng.random() < CHECK_RATE:
            checked = teacher_result(value, operation, rng, checking=True)
            words += ["check", operation, "=", str(checked), "ok!" if checked == result else "no!"]
            result = checked
        value = result
    if rng.random() < CLOSING_RATE:
        words.append(_CLOSING)
    return " ".join([*words, "ans", str(value)])
