"""The benchmarks: local files, suites, known defects, errors."""

import json

import pytest

from ktae.data.sources import Problem
from ktae.evaluation.tasks import TASKS, load_task, read_problems, repeats_previous_answer, resolve_tasks


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_suites_and_files():
    tasks = resolve_tasks(["paper", "gsm8k", "mine/hard.jsonl"])
    names = [task if isinstance(task, str) else task.name for task in tasks]
    assert names == ["aime24", "math500", "amc23", "minerva", "olympiadbench", "gsm8k", "mine/hard.jsonl"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["math5000"], r"unknown task 'math5000'; known are paper, aime24, .*, and files: \.jsonl, "),
        (["paper", "amc23"], "names amc23 more than once"),
    ],
)
def test_wrong_names(names, message):
    with pytest.raises(ValueError, match=message):
        resolve_tasks(names)


def test_a_file_of_ones_own(tmp_path):
    rows = [{"problem": " 1+1? \u2028", "answers": [2, "two"]}, {"problem": "2+2?", "answers": ["4\n"], "id": "b"}]
    task, problems = load_task(str(write(tmp_path / "mine.jsonl", rows)))
    assert (task.name, task.size) == ("mine", 2)
    assert problems == [Problem("1+1?", ("2", "two"), "0", None), Problem("2+2?", ("4",), "b", None)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"problem": "1"}', r":1: expected 'problem' \(a text\) and 'answers' \(a list\)"),
        ('{"problem": "1", "answers": ["1"]}\n{"problem"', ":2: not valid JSON"),
        ("[1]", ":1: a row must be a JSON object"),
        ("", "has no problems"),
        ('{"problem": "1", "answers": [" "], "id": 7}', "the problem '7' has no answer"),
        ('{"problem": "1", "answers": ["1"], "id": 1}\n{"problem": "2", "answers": ["2"], "id": "1"}', "the id '1'"),
    ],
)
def test_malformed_files(tmp_path, text, message):
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_problems(path)


def test_a_task_of_the_wrong_size_is_refused(tmp_path):
    write(tmp_path / "aime24.jsonl", [{"problem": "1", "answers": ["1"]}])
    with pytest.raises(ValueError, match=r"aime24\.jsonl has 1 problems, but aime24 30"):
        load_task(TASKS["aime24"], tmp_path)


def test_the_shared_suite(shared):
    sizes, defects = {}, {}
    for task in resolve_tasks(["paper"]):
        task, problems = load_task(task, shared / "data" / "suite")
        sizes[task.name] = len(problems)
        assert all(answer == answer.strip() for problem in problems for answer in problem.answers)
        if task.is_defective:
            defects[task.name] = sum(map(task.is_defective, problems))
    assert sizes == {"aime24": 30, "math500": 500, "amc23": 83, "minerva": 272, "olympiadbench": 675}
    assert defects == {"minerva": 30}


def test_repeated_answers():
    text = "Part 0: a?\nThe final answer is {}. I hope it is correct.\nPart 1: b?"
    assert repeats_previous_answer(Problem(text.format("$2 x$"), ("2x",), "0", None))
    assert not repeats_previous_answer(Problem(text.format("3x"), ("2x",), "0", None))
    assert not repeats_previous_answer(Problem("The answer?", ("2x",), "0", None))
