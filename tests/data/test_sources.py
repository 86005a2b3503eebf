"""Sources of problems: columns, answers, levels, ids, files and folders."""

import dataclasses

import pytest
from saved import save

from ktae.data.sources import SOURCES, Source, answers_of, level_of, load
from ktae.files import json_lines

MINE = Source("mine", "x")


def other(path="problems.jsonl", **fields):
    """A source whose columns are to be recognised."""
    return Source("mine", str(path), **{"problem": (), "answers": (), **fields})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (" a b\n", ["a b"]),
        (145.0, ["145"]),
        (0.5, ["0.5"]),
        ("145.0", ["145.0"]),
        (True, ["True"]),
        ("", []),
        (None, []),
        (float("nan"), []),
        (["1", " ", 1.0, None, r"\frac22"], ["1", r"\frac22"]),
        (r"So it is $3$, that is $\boxed{\frac{1}{2}}$, of 3.", [r"\frac{1}{2}"]),
        ("so it is $\\boxed 2$, not 3.", ["2"]),
        ("1+2=3\n#### 1,003", ["1,003"]),
        ('["3"]', ["3"]),
        ("Answer: 3", ["3"]),
    ],
)
def test_accepted_answers(value, expected):
    assert answers_of(value) == expected
    assert list(MINE.read({"problem": "P", "answer": value}).answers) == expected


def test_levels():
    given = {"Level 3": 3, 5.0: 5, 0: 0, "Level ?": None, 3.5: None, None: None}
    assert {value: level_of(value) for value in given} == given


MATH = {"problem": "P?", "level": "Level 3", "solution": r"so $\boxed{2}$"}
SVAMP = {"Body": "There are 2.", "Question": "How many?", "Answer": "2.0", "ID": "chal-1"}


@pytest.mark.parametrize(
    ("source", "row", "text", "answers", "level"),
    [
        ("math", MATH, "P?", ("2",), 3),
        ("math", {"problem": " P?\n", "answer": "2", "difficulty": 3.0}, "P?", ("2",), 3),
        ("math", {**MATH, "answer": None}, "P?", ("2",), 3),
        ("math", {**MATH, "solution": "It is 2."}, "P?", (), 3),  # a solution that marks no answer
        ("gsm8k", {"question": "How many?", "answer": "so\n#### 1,000"}, "How many?", ("1000",), None),
        ("svamp", SVAMP, "There are 2. How many?", ("2",), None),
        ("svamp", {**SVAMP, "Question": None}, "", ("2",), None),  # half a problem is none
    ],
)
def test_known_sources(source, row, text, answers, level):
    problem = SOURCES[source].read(row)
    assert (problem.text, problem.answers, problem.level) == (text, answers, level)
    assert problem.id == row.get("ID", problem.id)


def test_ids():
    row = {"problem": "P", "answer": "1", "id": 7}
    by_hash = MINE.read({"problem": "P"}).id
    assert by_hash.startswith("mine-")
    assert MINE.read(row).id == "7"
    assert MINE.read(row | {"id": None}).id == MINE.read(row | {"id": " "}).id == by_hash
    assert MINE.read({"problem": "P", "unique_id": "test/1"}).id == "test/1"
    assert MINE.read({"problem": "Q"}).id != by_hash


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question": "P?", "solution": r"It is \boxed{3}."}, "problem from question\nanswer from solution\n"),
        ({"prompt": [{"role": "user", "content": "P?"}], "reward_model": {"ground_truth": "3"}}, "ground_truth"),
        ({"problem": "P?", "answer": 3, "target": 4}, ""),
        ({"problem": "P?", "answers": ["3"]}, ""),
    ],
)
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_usual_names_of_columns(tmp_path, capsys, row, said, suffix):
    (problem,) = load(other(save(tmp_path / f"a.{suffix}", [row])))
    assert (problem.text, problem.answers) == ("P?", ("3",))
    shown = capsys.readouterr().err
    assert (said in shown) if said else not shown


@pytest.mark.parametrize("row", [{"problem": ["P"], "answer": "1"}, {"problem": "P", "answer": {"value": "1"}}])
def test_values_of_another_kind(row):
    with pytest.raises(ValueError, match=r"(problem|answer) must be"):
        MINE.read(row)


@pytest.mark.parametrize(
    ("source", "columns", "message"),
    [
        (
            SOURCES["gsm8k"],
            ["questions", "answer"],
            r"^gsm8k needs the column 'question', .*; did you mean 'questions'\?$",
        ),
        (SOURCES["math"], ["problem", "solutions"], "needs the column 'answer' or 'solution', .* 'solutions'"),
        # Not 'answer', the nearest by its spelling: it is the answer.
        (other(), ["answer", "text"], r"needs the column 'problem', got \['answer', 'text'\] \(.* --problem-column"),
        (other(), ["problem", "answer_"], r"'answer', got .*; did you mean 'answer_'\? \(.* --answer-column"),
        (other(problem=("prompt",)), ["answer", "prompts"], r"needs the column 'prompt', got .*mean 'prompts'\?"),
    ],
)
def test_a_missing_column_is_named_with_the_one_that_may_be_meant(source, columns, message):
    with pytest.raises(ValueError, match=message):
        source.recognised([dict.fromkeys(columns, "x")])


def test_a_folder_goes_the_way_of_a_hub_id(tmp_path):
    rows = [{"problem": "P?", "answer": "1", "level": 2.0}, {"problem": "Q?", "answer": "2", "level": None}]
    for split in ("train", "test"):
        save(tmp_path / f"{split}.jsonl", rows)
    assert [problem.answers for problem in load(other(tmp_path), "test")] == [("1",), ("2",)]
    with pytest.raises(ValueError, match=r"^cannot load .*: Unknown split \"tset\". Should be one of"):
        load(other(tmp_path), "tset")


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("some/set", OSError, r"^cannot load some/set: [^\n]*a local file do as well$"),
        ("absent.jsonl", FileNotFoundError, "absent.jsonl does not exist"),
        ("broken.jsonl", ValueError, "no usable rows: 1 malformed, the first since not valid JSON"),
    ],
)
def test_what_cannot_be_read(tmp_path, monkeypatch, path, error, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    save(tmp_path / "broken.jsonl", ['{"problem": '])
    with pytest.raises(error, match=message) as caught:
        load(other(path))
    assert "\n" not in str(caught.value)
    # For the command line a mistake in the input, not a failure of the system.
    assert getattr(caught.value, "filename", None) is None


def test_boxes_agree_with_the_answers_of_math500(shared):
    path = shared / "data/problems/math_test_5000.jsonl.gz"
    problems = {problem.text: problem for problem in load(dataclasses.replace(SOURCES["math"], path=str(path)))}
    assert all(problem.answers for problem in problems.values())
    suite = json_lines.read(shared / "data/suite/math500.jsonl")
    boxed = [problems[row["problem"].strip()].answers[0] for row in suite]
    accepted = [[answer.strip() for answer in row["answers"]] for row in suite]
    # One solution boxes its number twice, as a mixed and as a plain fraction, which reads like two numbers.
    apart = [given for read, given in zip(boxed, accepted, strict=True) if read not in given]
    assert apart == [[r"\frac{639}{40}"]]
