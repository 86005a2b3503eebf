"""The tasks: chains of arithmetic at two difficulties, and leg counting, a text task of reasoning-gym."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import legs_task as legs

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
        labels: of a problem and a completion's text, one `Label` a token; for the oracle alone.
        max_completion: in tokens.
    """

    problems: Callable[[random.Random], Iterator[Any]]
    test: Sequence[Any]
    prompt: Callable[[Any], str]
    reward: Callable[[Any, str], float]
    answer: Callable[[str], int | None]
    labels: Callable[[Any, str], list[Label]]
    max_completion: int


CHAIN = Task(
    problems=chain.training_stream,
    test=[chain.Problem.from_prompt(row["prompt"]) for row in chain.test_problems()],
    prompt=lambda problem: problem.prompt,
    reward=lambda problem, text: float(chain.extract_answer(text) == problem.answer),
    answer=chain.extract_answer,
    labels=label_steps,
    max_completion=64,
)


def _legs_stream(rng: random.Random) -> Iterator[legs.LegsProblem]:
    held_out = {problem.prompt for problem in _legs_test()}
    while True:
        problem = legs.sample_problem(rng)
        if problem.prompt not in held_out:
            yield problem


@cache
def _legs_test() -> list[legs.LegsProblem]:
    rng, problems = random.Random(987654321), {}
    while len(problems) < 1000:
        problem = legs.sample_problem(rng)
        problems[problem.prompt] = problem
    return list(problems.values())


LEGS = Task(
    problems=_legs_stream,
    test=_legs_test(),
    prompt=lambda problem: problem.prompt,
    reward=lambda problem, text: float(legs.extract_answer(text) == problem.answer),
    answer=legs.extract_answer,
    labels=legs.label_steps,
    max_completion=96,
)

# The hard chains are the same problems from a warm start of fewer updates.
TASKS = {"chain": CHAIN, "chain_hard": CHAIN, "legs": LEGS}
