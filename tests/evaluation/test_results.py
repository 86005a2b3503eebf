"""What graded samples come to."""

import json

import numpy as np
import pytest
from graded import row, rows

from ktae.evaluation.results import VERDICTS, answer_key, summarize, table, write_results
from ktae.evaluation.statistics import share_interval
from ktae.files import json_lines


def only(samples):
    """The summary of their one task."""
    (task,) = summarize(samples)["tasks"].values()
    return task


def test_accuracy_is_the_average_over_samples_and_the_average_over_tasks_is_plain():
    correct_PS = np.array([[1, 1], [1, 0], [0, 0]])
    task, expected = only(rows(correct_PS)), share_interval(correct_PS.mean(axis=1))
    assert (task["accuracy"], task["low"], task["high"]) == (0.5, expected.low, expected.high)
    assert (task["problems"], task["samples_per_problem"]) == (3, 2)
    macro = summarize([*rows(np.ones((10, 1)), "aime24"), *rows(np.zeros((90, 1)), "math500")])["macro"]
    assert (macro["tasks"], macro["accuracy"]) == (2, 0.5)
    assert macro["low"] < 0.5 < macro["high"]
    assert summarize(rows([[1]]))["macro"] is None


def test_undecided_samples_count_as_wrong_and_are_reported():
    samples = [row(id=str(i), status=status) for i, status in enumerate([*VERDICTS, "timeout"])]
    task = only(samples)
    assert task["verdicts"] == {"correct": 1, "incorrect": 1, "no_answer": 1, "timeout": 2, "error": 1}
    assert task["accuracy"] == pytest.approx(1 / 6)
    assert summarize(samples)["notes"][-1] == "Answers that could not be judged count as wrong: 3 of math500."


def test_pass_for_powers_of_two_and_pass_and_majority_of_all_samples():
    answers = ["1", "1.0", "7", None, "7", "1,0"]  # 1.0 is a vote for 1, as many as for 7
    verdicts = ["correct", "correct", "incorrect", "no_answer", "incorrect", "incorrect"]
    given = enumerate(zip(verdicts, answers, strict=True))
    task = only([row(sample=i, status=status, extracted=answer) for i, (status, answer) in given])
    passed = {k: found["value"] for k, found in task["pass_at_k"].items()}
    assert passed == pytest.approx({"1": 1 / 3, "2": 1 - 6 / 15, "4": 1 - 1 / 15, "6": 1})
    assert task["majority"]["value"] == 0.5
    assert 0 < task["majority"]["low"] < 0.5 < task["majority"]["high"]


def test_lengths_and_what_is_unknown():
    assert only(rows([[1, 0], [1, 1]], length_PS=[[10, 20], [30, 100]]))["length"] == 40
    task = only([row(id="0", length=None, truncated=None), row(id="1")])
    assert (task["length"], task["truncated"], task["agreement"]) == (None, None, None)
    task = only([row(length=0)])
    assert 0 < task["low"] < task["high"] == task["accuracy"] == 1
    assert task["length"] == 0
    assert only([row(id=str(i), truncated=i < 3) for i in range(4)])["truncated"] == 0.75


def test_spellings_of_one_answer_are_one_vote():
    for one, other in (("1,234", "1234"), (r"\frac12", "0.5"), (" 7", "7."), (r"\left(1, 2\right)", "(1,2)")):
        assert answer_key(one) == answer_key(other)
    assert len({answer_key(text) for text in ("1", "-1", "x", "2x", "(1,2)", "12")}) == 6


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([], "no samples"),
        ([row(), row(id="7"), row(sample=1)], "math500, problem '7': it has 1 samples, and '0' has 2"),
        ([row(), row()], "math500, problem '0': two samples have one number"),
        ([row(), row(sample=1, answers=["2"])], "math500, problem '0': .* different accepted answers"),
        ([row(), row(id="1", status="maybe")], "sample 2: 'status' must be one of correct, .* got 'maybe'"),
        ([{"task": "math500", "id": "0"}], "sample 1 has no 'sample', 'status'"),
    ],
)
def test_bad_samples_are_kept_and_not_counted(tmp_path, samples, message):
    with pytest.raises(ValueError, match=message):
        write_results(tmp_path, samples, {})
    assert json_lines.read(tmp_path / "samples.jsonl") == samples


def test_files(tmp_path, capsys):
    samples = [*rows([[1], [0]]), *rows([[1], [1]], "aime24")]
    results = write_results(tmp_path / "new", samples, {"model": "a/b", "temperature": 0.0})
    assert json.loads((tmp_path / "new" / "results.json").read_text()) == results
    assert results["about"]["temperature"] == 0.0
    assert {"ktae", "torch", "math-verify", "sympy"} <= results["about"]["versions"].keys()
    summary = (tmp_path / "new" / "summary.md").read_text()
    assert summary == f"# a/b\n\n{capsys.readouterr().out[:-1]}"
    table = """
| task    | problems |         accuracy, % | length | cut off | no answer |
| ------- | -------: | ------------------: | -----: | ------: | --------: |
| math500 |        2 |    50.0 [9.5, 90.5] |    100 |    0.0% |      0.0% |
"""
    assert f"Accuracy with its 95 % interval, mean length in tokens:\n{table}" in summary
    assert "| average |  2 tasks | " in summary


def test_the_table_shows_what_there_is():
    samples = [*rows([[1, 0], [0, 0]], "a"), *rows([[1]], "b")]
    lines = table(summarize([{**row, "length": None} for row in samples])).split("\n")
    header, _, a, b, _ = ([cell.strip() for cell in line[2:-2].split(" | ")] for line in lines)
    assert header == ["task", "problems", "accuracy, %", "pass@n", "maj@n", "cut off", "no answer"]
    assert (a[:2], a[3:]) == (["a", "2 x 2"], ["50.0", "25.0", "0.0%", "0.0%"])
    assert a[2].startswith("25.0 [")
    assert b[3:5] == ["-", "-"]
