"""What is left out and counted, and that the order of the problems does not matter."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from saved import save

from ktae.data.selection import normalise, overlap, read_benchmarks, select
from ktae.data.sources import Problem

BENCHMARKS = {" ".join("abcdefghijklm"): "in one", "what is 9": "in two"}
WORDS = [f"w{number}" for number in range(20)]


def problem(text, *answers, level=None, id=None):
    return Problem(text, answers, id or f"id of {text}", level)


def test_every_reason_is_counted():
    problems = [
        problem("What is 1?", "1", level=3),
        problem("what  is 1?", "1", level=3),  # the same but for case and spacing, and the same answer
        problem("What is 2?", "2", level=1),
        problem("WHAT is 2?", "two", level=3),
        problem("What is  2?", level=3),  # no answer, so nothing that could conflict
        problem("What is 3?", level=3),
        problem("", "1", level=3),
        problem("?!", "1", level=3),
        problem("What is 4?", "1", level=2),
        problem("What is 5?", "1"),
        problem("What is 9?", "1", level=5),
        problem("z A b c d e f g h i j k l m", "1", level=5),
        problem("What is 100000?", "1", level=5),
        problem("What is 6?", "1", "one", level=1),
        problem("What is 6? ", "one", "1", level=5),  # one of another level does not take it along
    ]
    chosen, dropped = select(problems, levels=(3, 4, 5), benchmarks=BENCHMARKS, too_long=lambda p: len(p.text) > 14)
    assert dropped == {
        "conflicting answers": 2,
        "duplicate": 1,
        "in one": 1,
        "in two": 1,
        "level outside or unknown": 3,
        "no answer": 2,
        "no problem text": 2,
        "prompt too long": 1,
    }
    assert len(chosen) + sum(dropped.values()) == len(problems)
    assert {(p.text, p.level) for p in chosen} == {("What is 1?", 3), ("What is 6? ", 5)}


@pytest.mark.parametrize(
    ("problems", "message"),
    [
        ([problem("P", "1"), problem("P", "2")], "none of the 2 problems is left: 2 conflicting answers$"),
        ([], "none of the 0 problems is left: none was there$"),
        ([problem("P", "1", id="7"), problem("Q", "1", id="7")], "two different problems have the id '7'"),
    ],
)
def test_nothing_left_or_equal_ids(problems, message):
    with pytest.raises(ValueError, match=message):
        select(problems)


def test_the_order_is_that_of_the_hashes_of_the_ids():
    # `printf a | sha256sum` and so on begin with ca, 3e and 2e.
    assert [p.id for p in select([problem(text, "1", id=text) for text in "abc"])[0]] == ["c", "b", "a"]


PROBLEMS = st.lists(
    st.builds(
        lambda text, answers, level, own: Problem(text, answers, f"{text} {own}", level),
        st.sampled_from(["P", "p.", "Q", "q?", "?", "", "What is 9?", "a b c d e f g h i j k l m", "one"]),
        # Mostly equal, so that there are duplicates as well as conflicts.
        st.sampled_from([("1",)] * 9 + [("2",), ()]),
        st.sampled_from([None, 1, 3]),
        st.integers(0, 2),
    ),
    max_size=15,
)


@given(st.data(), PROBLEMS, st.sampled_from([None, (3,), (1, 3)]))
def test_the_order_of_the_problems_does_not_matter(data, problems, levels):
    def outcome(problems):
        try:
            chosen, dropped = select(problems, levels=levels, benchmarks=BENCHMARKS, too_long=lambda p: "one" in p.text)
        except ValueError as error:
            return str(error)
        assert len(chosen) + sum(dropped.values()) == len(problems)
        return chosen, list(dropped.items())

    assert outcome(data.draw(st.permutations(problems))) == outcome(problems)


@pytest.fixture
def benchmarks(tmp_path):
    """The benchmarks of these texts, read from files."""

    def read(**texts):
        for name, of_file in texts.items():
            save(tmp_path / f"{name}.jsonl", [{"id": 0, "problem": text} for text in of_file])
        return read_benchmarks(tmp_path)

    return read


def test_normalise():
    given = {"  Two\nlines,  three_words! ": "two lines three words", r"$\dfrac{1}{2}+x^2$": "dfrac 1 2 x 2"}
    given |= {"": "", "Größe Δ 12": "größe δ 12", r"\[ + \]": ""}
    assert {text: normalise(text) for text in given} == given


def test_a_run_of_13_words_unbroken_and_within_one_problem(benchmarks):
    whole = benchmarks(bench=[" ".join(WORDS)])
    expected = {12: "", 13: "in bench", 14: "in bench"}
    for at, shared in itertools.product((0, 3), expected):
        words = WORDS[at : at + shared]
        assert overlap(" ".join(words), whole) == expected[shared]
        assert overlap(" ".join(["before", *words, "after"]), whole) == expected[shared]
    halves = benchmarks(bench=[" ".join(WORDS[:10]), " ".join(WORDS[10:])])
    assert not overlap(" ".join(WORDS), halves)
    assert not overlap(" ".join([*WORDS[:9], "between", *WORDS[9:]]), halves)


def test_a_whole_text_of_any_length_counts_for_the_first_benchmark(benchmarks):
    long = " ".join(WORDS)
    found = benchmarks(a=[f"{long} more"], b=["What is $1+1$?", long])
    assert overlap("what is 1 + 1", found) == "in b"
    assert not overlap("what is 1 + 2", found)
    assert overlap(long, found) == overlap(f"{long} less", found) == "in a"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (['{"problem": "x"}', '{"problem": '], "a.jsonl:2: not valid JSON"),
        ([{"text": "x"}], r"a.jsonl needs the column 'problem', got \['text'\]"),
        ([{"problem": "?"}], "a.jsonl: a benchmark's problem must have at least one word, and one has none"),
        (None, r"holds no \*\.jsonl file"),
    ],
)
def test_errors(tmp_path, rows, message):
    if rows:
        save(tmp_path / "a.jsonl", rows)
    with pytest.raises(ValueError, match=message):
        read_benchmarks(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"the folder of benchmarks .*absent does not exist"):
        read_benchmarks(tmp_path / "absent")


def test_the_suite(shared):
    benchmarks = read_benchmarks(shared / "data/suite")
    names = ("aime24", "amc23", "math500", "minerva", "olympiadbench")
    assert {*benchmarks.values()} == {f"in {name}" for name in names}
    # The same sum in MATH's training set and in OlympiadBench, set differently.
    text = r"Compute \[\sin^2 4^\circ + \sin^2 8^\circ + \sin^2 12^\circ + \dots + \sin^2 176^\circ.\]"
    assert overlap(text, benchmarks) == "in olympiadbench"
