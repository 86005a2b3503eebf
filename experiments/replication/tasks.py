"""The tasks: chains of arithmetic at two difficulties, counting legs, word problems, SVAMP for SmolLM2-135M."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import legs
import word_problems

from ktae.chain import problems as chain
from ktae.chain.labels import Label, label_steps
from ktae.seeds import derived_seed


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
        separator: what stands between two tokens in the text.
    """

    problems: Callable[[random.Random], Iterator[Any]]
    test: Sequence[Any]
    prompt: Callable[[Any], str]
    reward: Callable[[Any, str], float]
    answer: Callable[[str], int | None]
    labels: Callable[[Any, list[str]], list[Label]]
    max_completion: int
    separator: str = " "


CHAIN = Task(
    problems=chain.training_stream,
    test=[chain.Problem.from_prompt(row["prompt"]) for row in chain.test_problems()],
    prompt=lambda problem: problem.prompt,
    reward=lambda problem, text: float(chain.extract_answer(text) == problem.answer),
    answer=chain.extract_answer,
    labels=lambda problem, tokens: label_steps(problem, " ".join(tokens)),
    max_completion=64,
)


def _held_out(sample: Callable[[random.Random], Any], seed: int) -> list[Any]:
    """A thousand problems that are always the same."""
    rng, problems = random.Random(seed), {}
    while len(problems) < 1000:
        problem = sample(rng)
        problems[problem.prompt] = problem
    return list(problems.values())


def _others(sample: Callable[[random.Random], Any], held_out: Sequence[Any], rng: random.Random) -> Iterator[Any]:
    """Endless problems that are not held out."""
    prompts = {problem.prompt for problem in held_out}
    while True:
        problem = sample(rng)
        if problem.prompt not in prompts:
            yield problem


_LEGS_TEST = _held_out(legs.sample_problem, 987654321)
LEGS = Task(
    problems=lambda rng: _others(legs.sample_problem, _LEGS_TEST, rng),
    test=_LEGS_TEST,
    prompt=lambda problem: problem.prompt,
    reward=lambda problem, text: float(legs.extract_answer(text) == problem.answer),
    answer=legs.extract_answer,
    labels=lambda problem, tokens: legs.label_steps(problem, " ".join(tokens)),
    max_completion=96,
)

# Of two and three steps: with six, a warm start this small is right too seldom to learn from outcomes.
WORD_STEPS = 3
_WORDS_TEST = _held_out(word_problems.sample_problem, derived_seed("word problems, test"))


def _short(problems: Iterable[word_problems.WordProblem]) -> Iterator[word_problems.WordProblem]:
    return (problem for problem in problems if len(problem.steps) <= WORD_STEPS)


WORDS = Task(
    problems=lambda rng: _short(_others(word_problems.sample_problem, _WORDS_TEST, rng)),
    test=list(_short(_WORDS_TEST)),
    prompt=lambda problem: problem.prompt,
    reward=lambda problem, text: float(word_problems.extract_answer(text) == problem.answer),
    answer=word_problems.extract_answer,
    labels=word_problems.label_tokens,
    max_completion=64,
    separator="",
)

SMOLLM2 = Path(__file__).parents[2] / "runs" / "smollm2_svamp_start"


def _svamp_rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (SMOLLM2 / name).read_text().splitlines()]


def _svamp_stream(rng: random.Random) -> Iterator[dict[str, Any]]:
    """The training problems which the start solves sometimes, in a new order every time round."""
    rows = _svamp_rows("mixed.jsonl")
    while True:
        yield from rng.sample(rows, len(rows))


def _svamp_answer(text: str) -> int | None:
    """What stands after the last equals sign, if it is a number."""
    found = re.fullmatch(r".*=\s*(-?\d+)\s*", text, re.DOTALL)
    return int(found[1]) if found else None


def _svamp_prompt(row: dict[str, Any]) -> str:
    """A chat in SmolLM2's template, as in the fine-tuning before."""
    return (
        "<|im_start|>system\nAnswer with one equation.<|im_end|>\n"
        f"<|im_start|>user\n{row['Body'].strip()} {row['Question'].strip()}<|im_end|>\n<|im_start|>assistant\n"
    )


@cache
def svamp() -> Task:
    """SVAMP, after experiments/smollm2_svamp/warm_start.py: 400 problems to learn from and 200 held out."""
    return Task(
        problems=_svamp_stream,
        test=_svamp_rows("unseen.jsonl")[:200],
        prompt=_svamp_prompt,
        reward=lambda row, text: float(_svamp_answer(text) == row["Answer"]),
        answer=_svamp_answer,
        labels=lambda row, tokens: [],
        max_completion=32,
        separator="",
    )


# The hard chains are the same problems from a warm start of fewer updates.
TASKS = {"chain": CHAIN, "chain_hard": CHAIN, "legs": LEGS, "words": WORDS}


def task(name: str) -> Task:
    """Of "chain", "chain_hard", "legs", "words" and "svamp"."""
    return svamp() if name == "svamp" else TASKS[name]
