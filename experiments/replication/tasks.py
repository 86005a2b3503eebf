"""The tasks: chains of arithmetic at two difficulties, leg counting, and word problems in a byte-pair encoding."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from ktae.bench.sources import legs, word_problems
from ktae.chain import problems as chain
from ktae.chain.labels import Label, label_steps


@dataclass(frozen=True)
class Task:
    """A task that a small model can be trained on.

    Attributes:
        problems: an endless stream of training problems, given a generator.
        test: the held-out problems.
        prompt, reward: a problem's prompt; the outcome reward, 0 or 1, of a completion's text.
        answer: the number that a completion's text ends with; None without one.
        labels: of a problem and a completion's tokens as in the vocabulary, one `Label` a token; for the oracle alone.
        max_completion: in tokens.
    """

    problems: Callable[[random.Random], Iterator[Any]]
    test: Sequence[Any]
    prompt: Callable[[Any], str]
    reward: Callable[[Any, str], float]
    answer: Callable[[str], int | None]
    labels: Callable[[Any, list[str]], list[Label]]
    max_completion: int


CHAIN = Task(
    problems=chain.training_stream,
    test=[chain.Problem.from_prompt(row["prompt"]) for row in chain.test_problems()],
    prompt=lambda problem: problem.prompt,
    reward=lambda problem, text: float(chain.extract_answer(text) == problem.answer),
    answer=chain.extract_answer,
    labels=lambda problem, tokens: label_steps(problem, " ".join(tokens)),
    max_completion=64,
)


def _legs_prompt(problem: legs.LegsProblem) -> str:
    """The list of animals; what reasoning-gym's question says before it is the same for all and left out."""
    return problem.prompt.rpartition("if you have ")[2]


def _legs_stream(rng: random.Random) -> Iterator[legs.LegsProblem]:
    held_out = {_legs_prompt(problem) for problem in _legs_test()}
    while True:
        problem = legs.sample_problem(rng)
        if _legs_prompt(problem) not in held_out:
            yield problem


@cache
def _legs_test() -> list[legs.LegsProblem]:
    rng, problems = random.Random(987654321), {}
    while len(problems) < 1000:
        problem = legs.sample_problem(rng)
        problems[_legs_prompt(problem)] = problem
    return list(problems.values())


LEGS = Task(
    problems=_legs_stream,
    test=_legs_test(),
    prompt=_legs_prompt,
    reward=lambda problem, text: float(legs.extract_answer(text) == problem.answer),
    answer=legs.extract_answer,
    labels=lambda problem, tokens: legs.label_steps(problem, " ".join(tokens)),
    max_completion=96,
)

WORDS = Task(
    problems=word_problems.training_stream,
    test=word_problems.test_problems(),
    prompt=lambda problem: problem.prompt,
    reward=lambda problem, text: float(word_problems.extract_answer(text) == problem.answer),
    answer=word_problems.extract_answer,
    labels=word_problems.label_tokens,
    max_completion=144,
)

# The hard chains are the same problems from a warm start of fewer updates.
TASKS = {"chain": CHAIN, "chain_hard": CHAIN, "legs": LEGS, "words": WORDS}
