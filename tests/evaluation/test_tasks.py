"""The benchmarks: local files, suites, errors."""

import pytest
from saved import save

from ktae.data.sources import Problem
from ktae.evaluation.tasks import TASKS, load_problems, resolve_tasks

ROW = {"problem": "1", "answers": ["1"], "id": 1}


def test_suites_and_files():
    names = [task.name for task in resolve_tasks(["paper", "gsm8k", "mine/hard.jsonl"])]
    assert names == ["aime24", "math500", "amc23", "minerva", "olympiadbench", "gsm8k", "hard"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["math5000"], r"unknown task 'math5000'; known are paper, aime24, .*, and files: \.jsonl, "),
        (["paper", "amc23"], "names amc23 more than once"),
        (["a/hard.jsonl", "b/hard.json"], "names hard more than once"),
        ([], "names no task"),
    ],
)
def test_wrong_names(names, message):
    with pytest.raises(ValueError, match=message):
        resolve_tasks(names)


def test_a_file_of_ones_own(tmp_path):
    rows = [{"problem": " 1+1? \u2028", "answers": [2, "two"], "id": "a"}, {"problem": "2+2?", "answers": ["4\n"]}]
    first, second = load_problems(*resolve_tasks([str(save(tmp_path / "mine.jsonl", rows))]))
    assert first == Problem("1+1?", ("2", "two"), "a", None)
    assert (second.text, second.answers, second.id[:5]) == ("2+2?", ("4",), "mine-")
    # As `ktae data prepare` writes it.
    chat = [{"role": "system", "content": "Think."}, {"role": "user", "content": "2+2?"}]
    path = save(tmp_path / "out.jsonl", [{"prompt": chat, "answers": ["4"], "id": "x"}])
    assert load_problems(*resolve_tasks([str(path)])) == [Problem("2+2?", ("4",), "x", None)]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"problem": "1"}], "bad needs the column 'answer'"),
        ([ROW, '{"problem"'], ":2: not valid JSON"),
        ([ROW, {"problem": "2", "answers": [" "], "id": 7}], "the problem '7' has no answer"),
        ([ROW, {"problem": "2", "answers": ["2"], "id": "1"}], "the id '1'"),
    ],
)
def test_malformed_files(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        load_problems(*resolve_tasks([str(save(tmp_path / "bad.jsonl", rows))]))


def test_a_task_of_the_wrong_size_is_refused(tmp_path):
    save(tmp_path / "aime24.jsonl", [ROW])
    with pytest.raises(ValueError, match=r"aime24\.jsonl has 1 problems, but aime24 30"):
        load_problems(TASKS["aime24"], tmp_path)


def test_the_shared_suite(shared):
    loaded = {task.name: load_problems(task, shared / "data" / "suite") for task in resolve_tasks(["paper"])}
    sizes = {name: len(problems) for name, problems in loaded.items()}
    assert sizes == {"aime24": 30, "math500": 500, "amc23": 83, "minerva": 272, "olympiadbench": 675}
    assert all(answer == answer.strip() for problems in loaded.values() for p in problems for answer in p.answers)
