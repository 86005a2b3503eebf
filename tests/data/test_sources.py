"""Sources of problems: columns, answers, levels, ids, files and folders."""

import gzip
import json

import pytest
from datasets import Dataset

from ktae.data import sources
from ktae.data.sources import COLUMNS, SOURCES, load_rows, other_source


def other(path="problems.jsonl", **columns):
    return other_source(str(path), {name: columns.get(name) for name in COLUMNS})


@pytest.mark.parametrize(
    ("solution", "expected"),
    [
        (r"First $\boxed{1}$, then $\boxed{\frac{1}{2}}$, of 3.", r"\frac{1}{2}"),
        (r"It is $\boxed{\boxed{5}}$.", "5"),
        (r"It is \fbox{ 7 }", "7"),
        (r"so it is $\boxed 2$, not 3.", "2"),
        (r"so it is \boxed 2.", "2"),
        (r"$\boxed{4}$, that is $\boxed{}$ with 9", "4"),
        (r"cut off: $\boxed{1", None),
        ("It is 5.", None),
    ],
)
def test_last_box(solution, expected):
    assert sources.last_box(solution) == expected


@pytest.mark.parametrize(
    ("read", "value", "expected"),
    [
        (sources.plain, " a b\n", "a b"),
        (sources.plain, 145.0, "145"),
        (sources.plain, 0.5, "0.5"),
        (sources.plain, "145.0", "145.0"),
        (sources.plain, "", None),
        (sources.plain, float("nan"), None),
        (sources.plain, float("inf"), "inf"),
        (sources.whole_number, "145.0", "145"),
        (sources.whole_number, 145.0, "145"),
        (sources.whole_number, "10.50", "10.50"),
        (sources.after_hashes, "48/2 = 24\n#### 1,234 ", "1234"),
        (sources.after_hashes, "#### 1\n#### -2", "-2"),
        (sources.after_hashes, "no mark: 5", None),
        (sources.after_hashes, "####", None),
        (sources.level_of, "Level 3", 3),
        (sources.level_of, 5.0, 5),
        (sources.level_of, 0, 0),
        (sources.level_of, "Level ?", None),
        (sources.level_of, 3.5, None),
        (sources.difficulty_of, 0.0, None),
        (sources.difficulty_of, 5.0, 5),
    ],
)
def test_values(read, value, expected):
    assert read(value) == expected


def test_the_hub_form_and_the_local_form_of_math():
    math = SOURCES["math"]
    hub = math.read({"problem": "P?", "level": "Level 3", "type": "Algebra", "solution": r"so $\boxed{2}$"})
    local = math.read({"problem": " P?\n", "answer": "2", "difficulty": 3.0, "type": "Algebra"})
    assert hub == local
    assert (hub.text, hub.answers, hub.level) == ("P?", ("2",), 3)
    assert math.read({"problem": "P?", "answer": None, "solution": r"$\boxed{2}$"}).answers == ("2",)


def test_gsm8k_and_svamp():
    gsm8k = SOURCES["gsm8k"].read({"question": "How many?", "answer": "so\n#### 1,000"})
    assert (gsm8k.answers, gsm8k.level, gsm8k.id[:6]) == (("1000",), None, "gsm8k-")
    row = {"Body": "There are 2.", "Question": "How many?", "Answer": "2.0", "ID": "chal-1"}
    svamp = SOURCES["svamp"].read(row)
    assert (svamp.text, svamp.answers, svamp.id) == ("There are 2. How many?", ("2",), "chal-1")
    assert SOURCES["svamp"].read(row | {"Question": None}).text == "", "half a problem is none"


def test_ids():
    row = {"problem": "P", "answer": "1", "id": 7, "key": "k"}
    assert other().read(row).id == "7"
    assert other(id="key").read(row).id == "k"
    by_hash = other(id="").read(row).id
    assert by_hash.startswith("problems.jsonl-")
    assert other().read(row | {"id": None}).id == by_hash
    assert other(id="").read(row | {"problem": "Q"}).id != by_hash


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        (["1", " ", 1.0, None, r"\frac22"], ("1", r"\frac22")),
        ([], ()),
        (r"So it is $3$, that is $\boxed{3}$ pens.", ("3",)),
        (r"\boxed{3}", ("3",)),
        ("1+2=3\n#### 1,003", ("1,003",)),
        ('["3"]', ("3",)),
        ("Answer: 3", ("3",)),
    ],
)
def test_accepted_answers(answer, read):
    assert other().read({"problem": "P", "answer": answer}).answers == read


def test_usual_names_of_columns(tmp_path, capsys):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"question": "P?", "solution": r"We get the answer \boxed{3}."}))
    source = other(path)
    assert next(source.read(row) for row in load_rows(source, "train")[1]).answers == ("3",)
    assert "problem from question, answer from solution" in capsys.readouterr().err


@pytest.mark.parametrize("row", [{"problem": ["P"], "answer": "1"}, {"problem": "P", "answer": {"value": "1"}}])
def test_values_of_another_kind(row):
    with pytest.raises(ValueError, match=r"the column '(problem|answer)' of problems.jsonl must hold"):
        other().read(row)


@pytest.mark.parametrize(
    ("source", "columns", "message"),
    [
        (
            SOURCES["gsm8k"],
            ["questions", "answer"],
            r"^gsm8k needs the column 'question', .*; did you mean 'questions'\?$",
        ),
        (SOURCES["math"], ["problem", "solutions"], "needs the column 'answer' or 'solution', .* 'solutions'"),
        (other(), ["answer", "question"], r"problem.*; did you mean '\w+'\? \(--problem-column, --answer-column"),
        (other(problem="prompt"), ["answer", "prompts"], r"needs the column 'prompt', got .*mean 'prompts'\?"),
        (other(level="rank"), ["answer", "problem", "level"], "needs the column 'rank'"),
        (other(id="key"), ["answer", "problem", "id"], "needs the column 'key'"),
        (other(), [], r"needs the column 'problem', got \[\] \("),
    ],
)
def test_missing_columns(source, columns, message):
    with pytest.raises(ValueError, match=message):
        source.check_columns(columns)


ROWS = [{"problem": "P?", "answer": "1", "level": 2.0}, {"problem": "Q?", "answer": "2", "level": None}]


LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz", "a.parquet"])
def test_files(tmp_path, name):
    """All that `ktae.files.rows` reads; its own tests have the formats."""
    path = tmp_path / name
    if name == "a.parquet":
        Dataset.from_list(ROWS).to_parquet(path)
    else:
        text = json.dumps(ROWS) if name == "a.json" else LINES
        path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    source = other(path)
    assert source.name == name
    assert [row["problem"] for row in load_rows(source, "train")[1]] == ["P?", "Q?"]
    assert [source.read(row).level for row in load_rows(SOURCES["math"], "train", path)[1]] == [2, None]


def test_a_folder_goes_the_way_of_a_hub_id(tmp_path):
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text(LINES)
    assert [row["answer"] for row in load_rows(other(tmp_path), "test")[1]] == ["1", "2"]
    with pytest.raises(ValueError, match=r"^cannot read .*: Unknown split \"tset\". Should be one of"):
        load_rows(other(tmp_path), "tset")


@pytest.mark.parametrize(
    ("source", "option"), [(SOURCES["gsm8k"], "--file PATH"), (other("some/set"), "the file's path as SOURCE")]
)
def test_no_hub(monkeypatch, source, option):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match=f"^cannot load {source.path}: [^\n]*local file do as well: {option}$") as caught:
        load_rows(source, "train")
    assert caught.value.filename is None, "for the command line a mistake in the input, not a failure of the system"


@pytest.mark.parametrize(
    ("name", "text", "error", "message"),
    [
        ("absent.jsonl", None, FileNotFoundError, "absent.jsonl does not exist"),
        ("empty.jsonl", "", ValueError, "empty.jsonl holds no usable rows"),
        ("broken.jsonl", '{"problem": \n', ValueError, "no usable rows: 1 malformed, the first since not valid JSON"),
        ("a.parquet.gz", "", ValueError, "rows must be in a file that ends in .*, got a.parquet.gz"),
        ("columns.jsonl", '{"text": "P", "answer": "1"}\n', ValueError, "columns.jsonl needs the column 'problem'"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, text, error, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(error, match=message) as caught:
        load_rows(other(tmp_path / name), "train")
    assert "\n" not in str(caught.value)


def test_boxes_agree_with_the_answers_of_math500(shared):
    _, rows = load_rows(SOURCES["math"], "train", shared / "data/problems/math_test_5000.jsonl.gz")
    problems = {problem.text: problem for problem in map(SOURCES["math"].read, rows)}
    assert all(problem.answers for problem in problems.values())
    suite = [json.loads(line) for line in (shared / "data/suite/math500.jsonl").read_text().splitlines()]
    assert all(problems[row["problem"].strip()].answers[0] in map(str.strip, row["answers"]) for row in suite)
