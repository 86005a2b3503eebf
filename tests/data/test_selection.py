"""What is left out and counted, and that the order of the problems does not matter."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktae.data.selection import Benchmark, normalise, overlap, parse_levels, read_benchmarks, select
from ktae.data.sources import Problem

RUN, NONE = frozenset({" ".join("abcdefghijklm")}), frozenset()
BENCHMARKS = {"one": Benchmark(NONE, RUN), "two": Benchmark(frozenset({"what is 9"}), RUN)}
WORDS = [f"w{number}" for number in range(20)]


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
    assert counts.summary().splitlines() == [
        "     15 rows read",
        "     -2 no problem text",
        "     -2 no answer",
        "     -2 conflicting answers",
        "     -2 level outside or unknown",
        "     -1 duplicate",
        "     -1 in two by its text",
        "     -1 in one by 13 words",
        "     -1 prompt too long",
        "     -1 beyond the limit",
        "      2 rows written",
    ]
    assert counts.read == len(problems) == counts.written + sum(counts.dropped.values())
    assert len(chosen) == counts.written == 2
    assert {p.text for p in chosen} < {"What is 1?", "what is  1", "What is 6?", "What is 7?"}


def test_duplicates_agree_in_any_order_of_the_accepted_answers():
    _, counts = select([problem("P", ("1", "one")), problem("p", ("one", "1"))], benchmarks=BENCHMARKS)
    assert counts.dropped == {"duplicate": 1}


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


# Benchmarks


def write(folder, **problems):
    folder.mkdir(exist_ok=True)
    for name, texts in problems.items():
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps({"id": 0, "problem": text}) for text in texts))
    return folder


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("  Two\nlines,  three_words! ", "two lines three words"),
        (r"$\dfrac{1}{2}+x^2$", "dfrac 1 2 x 2"),
        ("Größe Δ 12", "größe δ 12"),
        (r"\[ + \]", ""),
    ],
)
def test_normalise(text, expected):
    assert normalise(text) == expected
    assert normalise(expected) == expected


@pytest.mark.parametrize(("shared", "expected"), [(12, ""), (13, "in bench by 13 words"), (14, "in bench by 13 words")])
@pytest.mark.parametrize("at", [0, 3])
def test_a_run_of_13_words(tmp_path, shared, expected, at):
    benchmarks = read_benchmarks(write(tmp_path, bench=[" ".join(WORDS)]))
    assert overlap(" ".join(["before", *WORDS[at : at + shared], "after"]), benchmarks) == expected
    assert overlap(" ".join(WORDS[at : at + shared]), benchmarks) == expected


def test_the_run_has_to_be_unbroken_and_within_one_problem(tmp_path):
    benchmarks = read_benchmarks(write(tmp_path, bench=[" ".join(WORDS[:10]), " ".join(WORDS[10:])]))
    assert not overlap(" ".join(WORDS), benchmarks)
    assert not overlap(" ".join([*WORDS[:9], "between", *WORDS[9:]]), benchmarks)


def test_a_whole_text_of_any_length_wins_over_a_run(tmp_path):
    long = " ".join(WORDS)
    benchmarks = read_benchmarks(write(tmp_path, a=[f"{long} more"], b=["What is $1+1$?", long]))
    assert overlap(normalise("what is 1 + 1"), benchmarks) == "in b by its text"
    assert not overlap(normalise("what is 1 + 2"), benchmarks)
    assert overlap(long, benchmarks) == "in b by its text"
    assert overlap(f"{long} less", benchmarks) == "in a by 13 words"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "a.jsonl holds no usable rows"),
        ('{"problem": "x"}\n{"problem": ', "a.jsonl:2: not valid JSON"),
        ('{"text": "x"}', r"a.jsonl needs the column 'problem', got \['text'\]; did you mean 'text'"),
        ('{"problem": "?"}', "a.jsonl: a benchmark's problem must have at least one word, and one has none"),
        ("[1]", "a.jsonl:1: a row must be a JSON object"),
    ],
)
def test_errors(tmp_path, lines, message):
    (tmp_path / "a.jsonl").write_text(lines)
    with pytest.raises(ValueError, match=message):
        read_benchmarks(tmp_path)


def test_no_benchmarks(tmp_path):
    with pytest.raises(ValueError, match=r"holds no \*\.jsonl file"):
        read_benchmarks(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"the folder of benchmarks .*absent does not exist"):
        read_benchmarks(tmp_path / "absent")


def test_the_suite(shared):
    benchmarks = read_benchmarks(shared / "data/suite")
    sizes = {name: len(benchmark.texts) for name, benchmark in benchmarks.items()}
    assert sizes.keys() == {"aime24", "amc23", "math500", "minerva", "olympiadbench"}
    assert (sizes["aime24"], sizes["math500"]) == (30, 500)
    # The same sum in MATH's training set and in OlympiadBench, set differently.
    text = r"Compute \[\sin^2 4^\circ + \sin^2 8^\circ + \sin^2 12^\circ + \dots + \sin^2 176^\circ.\]"
    assert overlap(normalise(text), benchmarks) == "in olympiadbench by 13 words"
