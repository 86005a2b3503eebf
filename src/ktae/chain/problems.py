"""The quickstart task: chains of arithmetic modulo 97, small enough to train on two CPU cores.

A prompt states a start value and 4 to 6 operations, the response computes them one by one:

    prompt      53 S1 +5 S2 *9 S3 -4 S4 +1 ?
    completion  S1 +5 = 58 S2 *9 = 37 let me think S3 -4 = 33 check -4 = 33 ok! S4 +1 = 34 ans 34

Every word is one token. The reward is 1 when the final answer is right. Unlike in most tasks, the step where a response
went wrong is known exactly (`ktae.chain.labels`), which makes this a place to measure token-level credit.

The starting model imitates a teacher who is verbose and makes mistakes, some systematic (its making is in
experiments/replication), so it has something to unlearn. This module needs the standard library only.
"""

import operator
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any

MODULUS = 97
MIN_STEPS, MAX_STEPS = 4, 6

NUMBERS = {str(value): value for value in range(MODULUS)}
_AMOUNTS = {"+": range(1, 13), "-": range(1, 13), "*": range(2, 10)}
_FUNCTIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul}
_KINDS = [[f"{sign}{n}" for n in amounts] for sign, amounts in _AMOUNTS.items()]
OPERATIONS = tuple(op for kind in _KINDS for op in kind)
STEPS = {f"S{number}": number - 1 for number in range(1, MAX_STEPS + 1)}
_TEST_SEED, _TEST_SIZE = 987654321, 1000


@dataclass(frozen=True, slots=True)
class Problem:
    """A start value in 0..96 and the operations to apply to it.

    >>> problem = Problem.from_prompt("53 S1 +5 S2 *9 S3 -4 S4 +1 ?")
    >>> problem
    Problem(start=53, operations=('+5', '*9', '-4', '+1'))
    >>> problem.values, problem.answer
    ((53, 58, 37, 33, 34), 34)
    """

    start: int
    operations: tuple[str, ...]

    @classmethod
    def from_prompt(cls, prompt: str) -> "Problem":
        """The problem that `prompt` states. Raises ValueError for any other text."""
        words = prompt.split()
        operations = tuple(words[2:-1:2])
        if operations and words[0] in NUMBERS and set(operations) <= set(OPERATIONS):
            problem = cls(NUMBERS[words[0]], operations)
            if problem.prompt == prompt:
                return problem
        raise ValueError(f"expected a prompt such as '53 S1 +5 S2 *9 ?', got {prompt!r}")

    @property
    def prompt(self) -> str:
        """The text given to the model; it identifies the problem."""
        steps = (f"{step} {operation}" for step, operation in zip(STEPS, self.operations, strict=False))
        return f"{self.start} {' '.join(steps)} ?"

    @property
    def values(self) -> tuple[int, ...]:
        """The start value and the true result of every step: one more than there are operations."""
        return tuple(accumulate(self.operations, apply, initial=self.start))

    @property
    def answer(self) -> int:
        """The true final result, 0..96."""
        return self.values[-1]


def apply(value: int, operation: str) -> int:
    """One step of arithmetic modulo 97.

    >>> apply(90, "+12"), apply(3, "-5"), apply(50, "*2")
    (5, 95, 3)
    """
    return _FUNCTIONS[operation[0]](value, int(operation[1:])) % MODULUS


def sample_operation(rng: random.Random) -> str:
    """A sum, a difference or a product with equal probability, then one of its kind."""
    return rng.choice(rng.choice(_KINDS))


def sample_problem(rng: random.Random) -> Problem:
    """A problem of 4 to 6 steps, all lengths equally likely."""
    steps = rng.randint(MIN_STEPS, MAX_STEPS)
    return Problem(rng.randrange(MODULUS), tuple(sample_operation(rng) for _ in range(steps)))


def extract_answer(completion: str) -> int | None:
    """The answer a completion ends with (0..96), or None if it does not end in `ans <number>`.

    A completion cut off by the length limit right after its answer counts as finished.

    >>> extract_answer("S1 +5 = 58 ans 58"), extract_answer("S1 +5 = 58 ans 58 S2")
    (58, None)
    """
    words = completion.split()
    return NUMBERS.get(words[-1]) if words[-2:-1] == ["ans"] else None


def exact_match(
    prompts: Sequence[str], completions: Sequence[str], answers: Sequence[list[str]], **kwargs
) -> list[float]:
    """Reward function in TRL's form: 1.0 where a completion ends with one of its `answers`, else 0.0.

    Other dataset columns arrive in `kwargs` and are not used.

    >>> exact_match(["1 S1 +1 ?"] * 2, ["S1 +1 = 2 ans 2", "S1 +1 = 3 ans 3"], [["2"], ["2"]])
    [1.0, 0.0]
    """
    return [
        float((given := extract_answer(completion)) is not None and str(given) in accepted)
        for completion, accepted in zip(completions, answers, strict=True)
    ]


@cache
def _held_out() -> dict[str, Problem]:
    """The test problems by prompt, in order, none twice."""
    rng, problems = random.Random(_TEST_SEED), {}
    while len(problems) < _TEST_SIZE:
        problem = sample_problem(rng)
        problems[problem.prompt] = problem
    return problems


def training_stream(rng: random.Random) -> Iterator[Problem]:
    """Endless problems to train on, never one of the test problems; a problem may come up twice."""
    while True:
        problem = sample_problem(rng)
        if problem.prompt not in _held_out():
            yield problem


def _rows(problems: dict[str, Problem]) -> list[dict[str, Any]]:
    return [{"prompt": prompt, "answers": [str(problem.answer)]} for prompt, problem in problems.items()]


def train_problems(n: int, seed: int) -> list[dict[str, Any]]:
    """`n` different training problems as rows with the columns `prompt` and `answers`.

    A longer list begins with the shorter one of the same seed. Raises ValueError if `n` is negative.
    """
    if n < 0:
        raise ValueError(f"n must be at least 0, got {n}")
    stream, problems = training_stream(random.Random(seed)), {}
    while len(problems) < n:
        problem = next(stream)
        problems[problem.prompt] = problem
    return _rows(problems)


def test_problems() -> list[dict[str, Any]]:
    """The 1000 held-out problems, rows as from `train_problems`; no training problem is among them."""
    return _rows(_held_out())


# By its name a test runner would take it for a test.
test_problems.__test__ = False  # pyright: ignore[reportFunctionMemberAccess]
