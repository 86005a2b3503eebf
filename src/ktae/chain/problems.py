"""The quickstart task: chains of arithmetic modulo 97, small enough to train on two CPU cores.

A prompt states a start value and 4 to 6 operations, the response computes them one by one:

    prompt      53 S1 +5 S2 *9 S3 -4 S4 +1 ?
    completion  S1 +5 = 58 S2 *9 = 37 let me think S3 -4 = 33 check -4 = 33 ok! S4 +1 = 34 ans 34

Every word is one token, so the n-th word of a completion is its n-th token. The reward is 1 when the final
answer is right. Unlike in most tasks, the step where a failing response went wrong is known exactly
(`ktae.chain.labels`), which makes this a place to measure token-level credit.

The teacher whose traces the warm start learns from is verbose and makes mistakes, some systematic. Hence a
model that imitates it has something to unlearn, and the learned mistakes differ between rollouts.

This module needs the standard library only; `ktae.chain.model` holds the tokenizer and the model.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

MODULUS = 97
MIN_STEPS, MAX_STEPS = 4, 6

NUMBERS = {str(value): value for value in range(MODULUS)}
_KINDS = (
    tuple(f"+{n}" for n in range(1, 13)),
    tuple(f"-{n}" for n in range(1, 13)),
    tuple(f"*{n}" for n in range(2, 10)),
)
OPERATIONS = tuple(op for kind in _KINDS for op in kind)
# Of each operation its place in `OPERATIONS`, its sign and its amount.
_OPERATIONS = {op: (index, op[0], int(op[1:])) for index, op in enumerate(OPERATIONS)}
STEPS = {f"S{number}": number - 1 for number in range(1, MAX_STEPS + 1)}
_STEP_WORDS = tuple(STEPS)

_FILLERS = tuple(
    phrase.split()
    for phrase in (
        "so now we compute",
        "ok next step",
        "let me think",
        "note that",
        "well then we get to",
        "moving on",
        "let us see",
        "now we can continue with",
    )
)
_CLOSING = ("therefore", "the", "final", "result", "is")
_MARKS = ("?", "=", "ans", "check", "ok!", "no!")

# Every word of the task once, in a fixed order: the tokenizer numbers its tokens by it.
WORDS = tuple(
    dict.fromkeys(
        (
            *NUMBERS,
            *OPERATIONS,
            *STEPS,
            *_MARKS,
            *(word for phrase in (*_FILLERS, _CLOSING) for word in phrase),
        )
    )
)

# The teacher's habits. Lengths: about 33 tokens a trace, against 23 without fillers, checks and closing.
FILLER_RATE, CHECK_RATE, CLOSING_RATE = 0.35, 0.12, 0.2
# Facts the teacher has wrong, in percent of all products and of all sums and differences.
HARD_PRODUCTS, HARD_SUMS = 35, 8
# How often it slips: on a hard fact (always by +10), and elsewhere; (at first, when it checks).
HARD_SLIP_RATE, SLIP_RATE = (0.62, 0.3), (0.05, 0.03)

_TEST_SEED, _TEST_SIZE = 987654321, 1000


@dataclass(frozen=True, slots=True)
class Problem:
    """A start value in 0..96 and the operations to apply to it, such as `("+5", "*9")`.

    >>> problem = Problem.from_prompt("53 S1 +5 S2 *9 S3 -4 S4 +1 ?")
    >>> problem
    Problem(start=53, operations=('+5', '*9', '-4', '+1'))
    >>> problem.values
    (53, 58, 37, 33, 34)
    >>> problem.answer
    34
    """

    start: int
    operations: tuple[str, ...]

    def __post_init__(self):
        if not 0 <= self.start < MODULUS:
            raise ValueError(f"start must be in 0..{MODULUS - 1}, got {self.start}")
        if not 1 <= len(self.operations) <= MAX_STEPS or not all(op in _OPERATIONS for op in self.operations):
            raise ValueError(f"expected 1 to {MAX_STEPS} operations such as '+5', got {self.operations}")

    @classmethod
    def from_prompt(cls, prompt: str) -> "Problem":
        """The problem that `prompt` states. Raises ValueError for any other text."""
        words = prompt.split()
        if words and words[0] in NUMBERS:
            problem = cls(NUMBERS[words[0]], tuple(words[2:-1:2]))
            if problem.prompt == prompt:
                return problem
        raise ValueError(f"expected a prompt such as '53 S1 +5 S2 *9 ?', got {prompt!r}")

    @property
    def prompt(self) -> str:
        """The text given to the model; it identifies the problem."""
        steps = (f"{step} {op}" for step, op in zip(_STEP_WORDS, self.operations, strict=False))
        return f"{self.start} {' '.join(steps)} ?"

    @property
    def values(self) -> tuple[int, ...]:
        """The start value and the true result of every step: one more than there are operations."""
        values = [self.start]
        for op in self.operations:
            values.append(apply(values[-1], op))
        return tuple(values)

    @property
    def answer(self) -> int:
        """The true final result, 0..96."""
        return self.values[-1]


def apply(value: int, operation: str) -> int:
    """One step of arithmetic modulo 97. Raises KeyError if `operation` is none of `OPERATIONS`.

    >>> apply(90, "+12"), apply(3, "-5"), apply(50, "*2")
    (5, 95, 3)
    """
    _, sign, amount = _OPERATIONS[operation]
    if sign == "*":
        return value * amount % MODULUS
    return (value + amount if sign == "+" else value - amount) % MODULUS


def sample_operation(rng: random.Random) -> str:
    """A sum, a difference or a product with equal probability, then one of its kind."""
    return rng.choice(rng.choice(_KINDS))


def sample_problem(rng: random.Random) -> Problem:
    """A problem of 4 to 6 steps, all lengths equally likely."""
    steps = rng.randint(MIN_STEPS, MAX_STEPS)
    return Problem(rng.randrange(MODULUS), tuple(sample_operation(rng) for _ in range(steps)))


@cache
def is_hard(value: int, operation: str) -> bool:
    """Whether the teacher has a wrong belief about this fact: 35 % of products, 8 % of the rest.

    A fixed property of the fact, drawn from a generator that the fact itself seeds (not from `hash`,
    which differs from one process to the next).
    """
    index, sign, _ = _OPERATIONS[operation]
    percent = HARD_PRODUCTS if sign == "*" else HARD_SUMS
    return random.Random(value * 1000 + 97 + index).randrange(100) < percent


def teacher_result(value: int, operation: str, rng: random.Random, *, checking: bool = False) -> int:
    """The teacher's result of one step, 0..96: right, or off by 10 (hard facts) or by 1 or 10 (others)."""
    result = apply(value, operation)
    if is_hard(value, operation):
        return (result + 10) % MODULUS if rng.random() < HARD_SLIP_RATE[checking] else result
    if rng.random() < SLIP_RATE[checking]:
        return (result + rng.choice((1, -1, 10, -10))) % MODULUS
    return result


def teacher_trace(problem: Problem, rng: random.Random, *, slips: bool = True) -> str:
    """A worked response to `problem`, without the end-of-sequence token.

    Between steps the teacher may talk, and it may check a step, in which case it goes on with the result of
    the check. With `slips=False` its arithmetic is exact and only the wording varies.
    """
    words: list[str] = []
    value = problem.start
    for step, op in zip(_STEP_WORDS, problem.operations, strict=False):
        if rng.random() < FILLER_RATE:
            words += rng.choice(_FILLERS)
        result = teacher_result(value, op, rng) if slips else apply(value, op)
        words += [step, op, "=", str(result)]
        if rng.random() < CHECK_RATE:
            checked = teacher_result(value, op, rng, checking=True) if slips else result
            words += ["check", op, "=", str(checked), "ok!" if checked == result else "no!"]
            result = checked
        value = result
    if rng.random() < CLOSING_RATE:
        words += _CLOSING
    return " ".join([*words, "ans", str(value)])


def extract_answer(completion: str) -> int | None:
    """The answer a completion ends with (0..96), or None if it does not end in `ans <number>`.

    Only text is looked at, with special tokens left out, as trainers decode it. So a completion cut off by
    the length limit right after its answer counts as finished: the one token it still owed carries no
    decision, and a policy gains nothing from stopping there.

    >>> extract_answer("S1 +5 = 58 ans 58")
    58
    >>> extract_answer("S1 +5 = 58 ans 58 S2") is None
    True
    """
    words = completion.split()
    return NUMBERS.get(words[-1]) if len(words) >= 2 and words[-2] == "ans" else None


def exact_match(
    prompts: Sequence[str], completions: Sequence[str], answers: Sequence[list[str]], **kwargs
) -> list[float]:
    """Reward function in TRL's form: 1.0 where a completion ends with one of its `answers`, else 0.0.

    The three sequences run over the rollouts; other dataset columns arrive in `kwargs` and are not used.

    >>> exact_match(["1 S1 +1 ?"] * 2, ["S1 +1 = 2 ans 2", "S1 +1 = 3 ans 3"], [["2"], ["2"]])
    [1.0, 0.0]
    """
    return [
        1.0 if (given := extract_answer(completion)) is not None and str(given) in accepted else 0.0
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
    held_out = _held_out()
    while True:
        problem = sample_problem(rng)
        if problem.prompt not in held_out:
            yield problem


def _row(problem: Problem) -> dict[str, Any]:
    return {"prompt": problem.prompt, "answers": [str(problem.answer)]}


def train_problems(n: int, seed: int) -> list[dict[str, Any]]:
    """`n` different training problems as rows with the columns `prompt` and `answers`.

    A longer list begins with the shorter one of the same seed. Raises ValueError if `n` is negative.
    """
    if n < 0:
        raise ValueError(f"n must be at least 0, got {n}")
    rows: dict[str, dict[str, Any]] = {}
    stream = training_stream(random.Random(seed))
    while len(rows) < n:
        problem = next(stream)
        rows[problem.prompt] = _row(problem)
    return list(rows.values())


def test_problems() -> list[dict[str, Any]]:
    """The 1000 held-out problems, rows as from `train_problems`; no training problem is among them."""
    return [_row(problem) for problem in _held_out().values()]


# By its name a test runner would take it for a test.
test_problems.__test__ = False  # pyright: ignore[reportFunctionMemberAccess]
