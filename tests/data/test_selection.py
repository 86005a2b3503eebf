"""What is left out and counted, and that the order of the problems does not matter."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktae.data.decontaminate import EXACT, RUN, Benchmarks
from ktae.data.selection import REASONS, parse_levels, select
from ktae.data.sources import Problem

RUNS = frozenset({" ".join("abcdefghijklm")})
BENCHMARKS = Benchmarks(
    texts={"one": frozenset({"what is 9"}), "two": frozenset({"what is 9"}), "three": frozenset()},
    runs={"one": RUNS, "two": frozenset(), "three": RUNS},
)


def problem(text, answer="1", level=None, own_id=None):
    answers = (answer,) if isinstance(answer, str) else tuple(answer)
    return Problem(text, answers, own_id or f"id of {text}", level)


def test_every_reason_is_counted():
    problems = [
        problem("What is 1?", level=3),
        problem("what  is 1?", level=3),  # the same but for case and spacing, and the same answer
        problem("What is 2?", "2", level=4),
        problem("WHAT is 2?", "two", level=3),
        problem("What is  2?", (), level=3),  # no answer, so nothing that could conflict
        problem("What is 3?", (), level=3),
        problem("", level=3),
        problem("?!", level=3),
        problem("What is 4?", level=2),
        problem("What is 5?"),
        problem("What is 9?", level=5),
        problem("z A b c d e f g h i j k l m", level=5),
        problem("What is 100000?", level=5),
        problem("What is 6?", level=5),
        problem("What is 7?", level=5),
    ]
    chosen, counts = select(
        problems, levels=(3, 4, 5), benchmarks=BENCHMARKS, too_long=lambda p: len(p.text) > 14, limit=2
    )
    assert counts.dropped == dict(zip(REASONS, (2, 2, 2, 2, 1, 2, 1, 1), strict=True))
    assert counts.contaminated == {"one": {EXACT: 1, RUN: 1}, "two": {EXACT: 1}, "three": {RUN: 1}}
    assert counts.read == len(problems) == counts.written + sum(counts.dropped.values())
    assert len(chosen) == counts.written == 2
    assert {p.text for p in chosen} < {"What is 1?", "what is  1", "What is 6?", "What is 7?"}
    lines = counts.summary().splitlines()
    assert lines[0] == "     15 rows read"
    assert "     -2 conflicting answers" in lines
    assert lines[-4:] == [
        "      2 rows written",
        "contaminated by one: 1 by exact text, 1 by 13 words",
        "contaminated by two: 1 by exact text",
        "contaminated by three: 1 by 13 words",
    ]


def test_duplicates_agree_in_any_order_of_the_accepted_answers():
    _, counts = select([problem("P", ("1", "one")), problem("p", ("one", "1"))], benchmarks=BENCHMARKS)
    assert counts.dropped == {"duplicate": 1}
    assert counts.summary().splitlines()[-1] == "contaminated by three: none"


def test_a_conflict_with_a_problem_of_another_level_counts():
    with pytest.raises(ValueError, match=r"^none of the 2 problems is left: 2 conflicting answers$"):
        select([problem("P", "1", level=1), problem("P", "2", level=5)], levels=[5])


def test_a_duplicate_of_another_level_does_not_take_the_problem_along():
    chosen, counts = select([problem("P", level=1), problem("P", level=5)], levels=[5])
    assert [p.level for p in chosen] == [5]
    assert counts.dropped == {"level outside or unknown": 1}


def test_equal_ids():
    with pytest.raises(ValueError, match="two different problems have the id '7'"):
        select([problem("P", own_id="7"), problem("Q", own_id="7")])
    chosen, _ = select([problem("P", own_id="7"), problem("P", own_id="7")])
    assert [p.id for p in chosen] == ["7"]


def test_the_order_is_that_of_the_hashes_of_seed_and_id():
    # `printf 0:a | sha256sum` and so on begin with 9d, e0 and be; with the seed 1 with 41, 6f and b8.
    problems = [problem(text, own_id=text) for text in "abc"]
    orders = {seed: [p.id for p in select(problems, seed=seed)[0]] for seed in (0, 1)}
    assert orders == {0: ["a", "c", "b"], 1: ["a", "b", "c"]}


def test_the_limit_takes_the_first_of_the_shuffled():
    problems = [problem(f"What is {number}?") for number in range(30)]
    whole, _ = select(problems, seed=3, limit=30)
    part, counts = select(problems, seed=3, limit=10)
    assert (part, counts.dropped) == (whole[:10], {"beyond the limit": 20})
    with pytest.raises(ValueError, match=r"^none of the 0 problems is left: none was there$"):
        select([])


def test_levels():
    read = {"4": (4,), "5,3": (3, 5), " 1 , 3 - 4": (1, 3, 4), "2-2": (2,)}
    assert {text: parse_levels(text) for text in read} == read


@pytest.mark.parametrize("text", ["", "5-3", "3-", "3..5", "a", "3,,5", "-3"])
def test_levels_that_are_none(text):
    with pytest.raises(ValueError, match="--levels must be like 4, 3,5 or 3-5, got "):
        parse_levels(text)


TEXTS = ["P", "p.", "Q", "q?", "?", "", "What is 9?", "a b c d e f g h i j k l m", "one"]
# Mostly equal, so that there are duplicates as well as conflicts.
ANSWERS = [("1",)] * 9 + [("2",), ()]
PROBLEMS = st.lists(
    st.builds(
        lambda text, answers, level, own: Problem(text, answers, f"{text} {own}", level),
        st.sampled_from(TEXTS),
        st.sampled_from(ANSWERS),
        st.sampled_from([None, 1, 3]),
        st.integers(0, 2),
    ),
    max_size=15,
)


@given(st.data(), PROBLEMS, st.integers(0, 3), st.sampled_from([None, (3,), (1, 3)]), st.sampled_from([None, 2]))
def test_the_order_of_the_problems_does_not_matter(data, problems, seed, levels, limit):
    settings = {"benchmarks": BENCHMARKS, "too_long": lambda p: "one" in p.text}

    def outcome(problems):
        try:
            chosen, counts = select(problems, levels=levels, seed=seed, limit=limit, **settings)
        except ValueError as error:
            return str(error)
        assert counts.read == len(problems) == counts.written + sum(counts.dropped.values())
        return chosen, json.dumps(dataclasses.asdict(counts))  # text, to compare the order of the keys too

    assert outcome(data.draw(st.permutations(problems))) == outcome(problems)
