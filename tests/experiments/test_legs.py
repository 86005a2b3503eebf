"""Counting legs as a task to train on: its vocabulary, and the labels of any text."""

import random

import legs
import pytest
import reasoning_gym
from hypothesis import given
from hypothesis import strategies as st

from ktae.chain.labels import Label

OTHER, RIGHT, SLIP, PROPAGATED = Label
seeds = st.integers(0, 2**32 - 1)
ANIMALS = (("sea slug", 2), ("crab", 3), ("deer", 1))
SOLUTION = "2 sea slugs * 0 = 0 total 0 3 crabs * 10 = 30 total 30 1 deer * 4 = 4 total 34 ans 34"


@given(seed=seeds)
def test_problems_are_reasoning_gyms_and_traces_the_teachers(seed):
    problem = legs.sample_problem(random.Random(seed))
    dataset = reasoning_gym.create_dataset("leg_counting", seed=0, size=2**31, max_animals=5, max_instances=5)
    item = dataset[random.Random(seed).randrange(2**31)]
    assert item["question"].replace(",", " ,").replace("?", " ?").endswith(f"if you have {problem.prompt}\n")
    assert str(problem.answer) == item["answer"]
    trace, solution = legs.teacher_trace(problem, random.Random(seed)), legs.solve(problem.animals, random.Random(seed))
    assert trace.split() == solution.words
    assert {*problem.prompt.split(), *solution.words} <= set(legs.WORDS)
    # The teacher's labels, made while it writes, are those that its text has.
    assert legs.label_steps(problem, trace) == solution.labels
    assert solution.correct == (legs.extract_answer(trace) == problem.answer)


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        (SOLUTION, "RRR RRR RRR R"),
        ("2 sea slugs * 2 = 4 total 4 3 crabs * 10 = 30 total 34 1 deer * 4 = 4 total 38 ans 38", "SPP RRP RRP P"),
        ("2 sea slugs * 0 = 1 total 1 3 crabs * 10 = 30 total 30 1 deer * 4 = 4 total 34 ans 34", "RSP RRS RRR R"),
        ("2 sea slugs * 2 = 4 check 2 sea slugs * 0 = 0 no! total 0", "SP RRR"),
        ("3 sea slugs * 0 = 0 total 0", "S RRR"),  # another count; the product is right all the same
        ("2 crabs * 10 = 20 total 20", "S PPP"),  # another animal
        ("3 crabs * 10 = 30 total 30 2 sea slugs * 0 = 0 total 30 1 deer * 4 = 4 total 34 ans 34", "SSPPP SSPPR RRR R"),
        ("2 sea slugs * 0 = 0 3 crabs * 10 = 30 total 30", "RR SSPPP"),  # no total for the slugs
        ("total 0", "S"),
        ("2 sea slugs * 0 = 0 total 0 total 0", "RRR S"),
        (f"{SOLUTION} 1 deer * 4 = 4 total 38", "RRR RRR RRR R SSPPP"),  # a turn too many
        ("ans 34", "SS"),
        ("ans", "S"),
        (SOLUTION.replace("ans 34", "ans 36"), "RRR RRR RRR S"),
        ("2 sea slugs * 0 = total 0", "S"),
        ("", ""),
    ],
)
def test_labels(completion, expected):
    labels = legs.label_steps(legs.LegsProblem(ANIMALS), completion)
    assert "".join(label.name[0] for label in labels if label is not OTHER) == expected.replace(" ", "")


@given(seeds, st.integers(1, 4))
def test_a_wrong_answer_has_a_slip_whatever_the_text(seed, changes):
    """Words changed, left out, repeated and put in at random, as a model under training may."""
    rng, words = random.Random(seed), SOLUTION.split()
    for _ in range(changes):
        place, word = rng.randrange(len(words)), rng.choice([*words, *legs.WORDS])
        words[place : place + rng.randrange(2)] = rng.choice([[], [word]])
    completion = " ".join(words)
    labels = legs.label_steps(legs.LegsProblem(ANIMALS), completion)
    assert len(labels) == len(words)
    if legs.extract_answer(completion) not in (None, 34):
        assert SLIP in labels


def test_extract_answer():
    assert legs.extract_answer("total 4 ans 4") == 4
    for text in ("ans 4 ok!", "ans", "", "total 4", "ans 4.0"):
        assert legs.extract_answer(text) is None
