"""Sources of problems: columns, answers, levels, ids, files and folders."""

import dataclasses
import json

import pytest

from ktae.data.sources import SOURCES, Source, answers_of, level_of, load


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
    assert list(Source("mine", "x").read({"problem": "P", "answer": value}).answers) == expected


def test_levels():
    given = {"Level 3": 3, 5.0: 5, 0: 0, "Level ?": None, 3.5: None, None: None}
    assert {value: level_of(value) for value in given} == given


def test_the_hub_form_and_the_local_form_of_math():
    math = SOURCES["math"]
    hub = math.read({"problem": "P?", "level": "Level 3", "type": "Algebra", "solution": r"so $\boxed{2}$"})
    local = math.read({"problem": " P?\n", "answer": "2", "difficulty": 3.0, "type": "Algebra"})
    assert hub == local
    assert (hub.text, hub.answers, hub.level) == ("P?", ("2",), 3)
    assert math.read({"problem": "P?", "answer": None, "solution": r"$\boxed{2}$"}).answers == ("2",)
    assert math.read({"problem": "P?", "solution": "It is 2."}).answers == (), "a solution that marks no answer"


def test_gsm8k_and_svamp():
    gsm8k = SOURCES["gsm8k"].read({"question": "How many?", "answer": "so\n#### 1,000"})
    assert (gsm8k.answers, gsm8k.level, gsm8k.id[:6]) == (("1000",), None, "gsm8k-")
    row = {"Body": "There are 2.", "Question": "How many?", "Answer": "2.0", "ID": "chal-1"}
    svamp = SOURCES["svamp"].read(row)
    assert (svamp.text, svamp.answers, svamp.id) == ("There are 2. How many?", ("2",), "chal-1")
    assert SOURCES["svamp"].read(row | {"Question": None}).text == "", "half a problem is none"


def test_ids():
    row = {"problem": "P", "answer": "1", "id": 7}
    mine = Source("mine", "x")
    assert mine.read(row).id == "7"
    by_hash = mine.read({"problem": "P"}).id
    assert by_hash.startswith("mine-")
    assert mine.read(row | {"id": None}).id == mine.read(row | {"id": " "}).id == by_hash
    assert mine.read({"problem": "P", "unique_id": "test/1"}).id == "test/1"
    assert mine.read({"problem": "Q"}).id != by_hash


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question": "P?", "solution": r"It is \boxed{3}."}, "problem from question\nanswer from solution\n"),
        ({"prompt": [{"role": "user", "content": "P?"}], "reward_model": {"ground_truth": "3"}}, "ground_truth"),
        ({"problem": "P?", "answer": 3, "target": 4}, ""),
        ({"problem": "P?", "answers": ["3"]}, ""),
    ],
)
def test_usual_names_of_columns(tmp_path, capsys, row, said):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row))
    (problem,) = load(other(path))
    assert (problem.text, problem.answers) == ("P?", ("3",))
    shown = capsys.readouterr().err
    assert (said in shown) if said else not shown


@pytest.mark.parametrize("row", [{"problem": ["P"], "answer": "1"}, {"problem": "P", "answer": {"value": "1"}}])
def test_values_of_another_kind(row):
    with pytest.raises(ValueError, match=r"the column '(problem|answer)' of mine must hold"):
        Source("mine", "x").read(row)


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
        (other(), ["answer", "text"], r"'problem', got .*; did you mean 'text'\? \(ktae data prepare --problem-column"),
        (other(), ["problem", "worked_out"], r"'answer', got .*; did you mean 'worked_out'\? \(.* --answer-column"),
        (other(), ["answer", "a", "b"], r"'problem', got \['a', 'answer', 'b'\] \("),
        (other(problem=("prompt",)), ["answer", "prompts"], r"needs the column 'prompt', got .*mean 'prompts'\?"),
    ],
)
def test_a_missing_column_is_named_with_the_one_that_may_be_meant(source, columns, message):
    with pytest.raises(ValueError, match=message):
        source.recognised([dict.fromkeys(columns, "x")])


ROWS = [{"problem": "P?", "answer": "1", "level": 2.0}, {"problem": "Q?", "answer": "2", "level": None}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def test_a_folder_goes_the_way_of_a_hub_id(tmp_path):
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text(LINES)
    assert [problem.answers for problem in load(other(tmp_path), "test")] == [("1",), ("2",)]
    with pytest.raises(ValueError, match=r"^cannot load .*: Unknown split \"tset\". Should be one of"):
        load(other(tmp_path), "tset")


def test_no_hub(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match=r"^cannot load some/set: [^\n]*a local file do as well$") as caught:
        load(other("some/set"))
    assert caught.value.filename is None, "for the command line a mistake in the input, not a failure of the system"


@pytest.mark.parametrize(
    ("name", "text", "error", "message"),
    [
        ("absent.jsonl", None, FileNotFoundError, "absent.jsonl does not exist"),
        ("broken.jsonl", '{"problem": \n', ValueError, "no usable rows: 1 malformed, the first since not valid JSON"),
        ("columns.jsonl", '{"text": "P", "answer": "1"}\n', ValueError, "mine needs the column 'problem'"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, text, error, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(error, match=message) as caught:
        load(other(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_boxes_agree_with_the_answers_of_math500(shared):
    path = shared / "data/problems/math_test_5000.jsonl.gz"
    read = load(dataclasses.replace(SOURCES["math"], path=str(path)))
    problems = {problem.text: problem for problem in read}
    assert all(problem.answers for problem in problems.values())
    suite = [json.loads(line) for line in (shared / "data/suite/math500.jsonl").read_text().splitlines()]
    accepted = [
        (problems[row["problem"].strip()].answers[0], [answer.strip() for answer in row["answers"]]) for row in suite
    ]
    # One solution boxes its number twice, as a mixed and as a plain fraction, which reads like two numbers.
    assert [given for read, given in accepted if read not in given] == [[r"\frac{639}{40}"]]
