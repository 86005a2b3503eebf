"""Two evaluations of the same problems."""

import numpy as np
import pytest
from graded import row, rows
from scipy import stats

from ktae.cli import main
from ktae.evaluation.compare import as_markdown, compare
from ktae.evaluation.results import write_results
from ktae.evaluation.statistics import average, paired_difference
from ktae.files import json_lines


def evaluation(folder, samples, about=None):
    json_lines.write(folder / "samples.jsonl", samples)
    write_results(folder, samples, about or {})
    return folder


@pytest.fixture
def pair(tmp_path):
    """Writes the same tasks for A and B, given as arrays of 0 and 1 by task."""

    def write(a, b, about_a=None, about_b=None):
        samples = ([sample for task, array in arrays.items() for sample in rows(array, task)] for arrays in (a, b))
        return [
            evaluation(tmp_path / name, s, about)
            for name, s, about in zip("ab", samples, (about_a, about_b), strict=True)
        ]

    return write


def outcome(both, only_a, only_b, neither):
    """(P, 1) arrays of A and B with so many problems of each kind."""
    counts = (both, only_a, only_b, neither)
    return np.repeat([1, 1, 0, 0], counts)[:, None], np.repeat([1, 0, 1, 0], counts)[:, None]


@pytest.mark.parametrize("counts", [(40, 5, 25, 30), (10, 3, 4, 13), (20, 3, 11, 16)])
def test_one_sample_a_problem(pair, counts):
    a, b = outcome(*counts)
    found = compare(*pair({"math500": a}, {"math500": b}))
    (task,) = found.tasks
    assert found.macro is None
    assert (task.accuracy.a.value, task.accuracy.b.value) == (a.mean(), b.mean())
    assert task.accuracy.difference == paired_difference(b, a)
    assert task.p_value == task.adjusted == pytest.approx(stats.binomtest(counts[1], counts[1] + counts[2]).pvalue)


def test_problems_are_matched_by_id(tmp_path):
    generator = np.random.default_rng(0)
    a, b = (rows(generator.integers(0, 2, (20, 2))) for _ in range(2))
    straight = compare(evaluation(tmp_path / "a", a), evaluation(tmp_path / "b", b))
    shuffled = [b[i] for i in generator.permutation(len(b))]
    turned = compare(tmp_path / "a", evaluation(tmp_path / "c", shuffled))
    assert turned.tasks == straight.tasks


def test_lengths(tmp_path):
    length_a, length_b = np.array([[100], [200], [330]]), np.array([[80], [150], [280]])
    ones = np.ones((3, 1))
    folders = [evaluation(tmp_path / name, rows(ones, length_PS=x)) for name, x in (("a", length_a), ("b", length_b))]
    length = compare(*folders).tasks[0].length
    assert (length.a.value, length.b.value, length.difference.value) == (210, 170, -40)
    low, high = stats.t.interval(0.95, 2, loc=-40, scale=stats.sem((length_b - length_a)[:, 0]))
    assert (length.difference.low, length.difference.high) == pytest.approx((low, high), rel=1e-4)
    unknown = compare(folders[0], evaluation(tmp_path / "c", [{**r, "length": None} for r in rows(ones)]))
    assert unknown.tasks[0].length is None
    assert "Mean length" not in as_markdown(unknown)


def test_several_tasks_are_averaged_and_corrected(pair, capsys):
    arrays = {"a": outcome(40, 5, 25, 30), "b": outcome(40, 6, 17, 30), "c": outcome(10, 10, 10, 10)}
    folders = pair(*({task: x[i] for task, x in arrays.items()} for i in (0, 1)))
    found = compare(*folders)
    p_values = [task.p_value for task in found.tasks]
    assert [task.adjusted for task in found.tasks] == pytest.approx([3 * p_values[0], 2 * p_values[1], 1])
    assert found.macro.accuracy.difference == average([task.accuracy.difference for task in found.tasks])
    assert found.macro.length.difference.value == 0
    assert p_values[1] < 0.05 < found.tasks[1].adjusted
    assert "at least one of 3 intervals would leave out 0 in 14% of all" in found.notes[2]
    capsys.readouterr()
    assert main(["compare", *map(str, folders)]) == 0
    shown = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "| a | 100 | 45.0 | 65.0 | +20.0 [9.4, 29.8] | < 0.001 | < 0.001 |" in shown
    assert any(line.startswith("| average | 233 |") and line.endswith(" | |") for line in shown)


def test_different_numbers_of_samples(pair):
    generator = np.random.default_rng(0)
    folders = pair({"a": generator.integers(0, 2, (30, 1))}, {"a": generator.integers(0, 2, (30, 8))})
    (task,) = compare(*folders).tasks
    assert task.samples == (1, 8)
    assert (task.p_value, task.adjusted) == (None, None)
    shown = as_markdown(compare(*folders))
    assert "| a    | 30 x 1, 8 |" in shown
    assert "no exact p where A and B have different numbers of samples" in shown


def test_one_problem_and_a_folder_with_itself(pair):
    a, b = pair({"a": [[1]]}, {"a": [[0]]})
    (task,) = compare(a, b).tasks
    assert task.length is None
    assert task.p_value == 1
    (task,) = compare(a, a).tasks
    assert (task.accuracy.difference.value, task.p_value) == (0, 1)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (
            rows(np.ones((4, 1))),
            [*rows(np.ones((3, 1))), row(id="x")],
            r"math500: the problems differ: only .*a has 3$",
        ),
        (rows(np.ones((30, 1))), rows(np.ones((1, 1))), r"and 19 more$"),
        ([row(id="7")], [row(id="7", answers=["3"])], r"problem '7': the accepted answers differ, \['1'\] in"),
        ([row(), row()], [row()], r"samples.jsonl: math500, problem '0': two samples"),
        (rows([[1]], "a"), [*rows([[1]], "c"), *rows([[1]], "d")], r"no task is in both .*a \(a\) and .*b \(c, d\)$"),
    ],
)
def test_what_does_not_go_together_is_named(tmp_path, a, b, message):
    for name, samples in (("a", a), ("b", b)):
        json_lines.write(tmp_path / name / "samples.jsonl", samples)
    with pytest.raises(ValueError, match=message):
        compare(tmp_path / "a", tmp_path / "b")


def test_tasks_of_one_side_and_undecided_answers_are_named(tmp_path):
    both = [row(id="0"), row(id="1", status="timeout")]
    a = evaluation(tmp_path / "a", [*both, *rows([[1]], "aime24")])
    notes = compare(a, evaluation(tmp_path / "b", [row(id="0"), row(id="1")])).notes
    assert "Left out, as only A has it: aime24." in notes
    assert "Answers that could not be judged count as wrong: 1 of A, 0 of B." in notes


def test_settings_that_differ_are_said_first_and_nothing_else_speaks_of_models(pair, capsys):
    same, greedy, sampled = {"a": [[1], [0]]}, {"temperature": 0.0, "seed": 1}, {"temperature": 0.6, "seed": 1}
    a, b = pair(same, same, {"model": "x", "sampling": greedy}, {"model": "x", "sampling": sampled})
    capsys.readouterr()
    assert main(["compare", str(a / "samples.jsonl"), str(b / "results.json")]) == 0, "files stand for their folders"
    said = capsys.readouterr().out
    assert said.startswith(f"A is {a}, the baseline.\nB is {b}.\nThey differ in: temperature 0.0 and 0.6.\n")
    assert "model" not in said
    assert compare(a, a).settings == ""


def test_command_without_an_evaluation(tmp_path, capsys):
    for folder, why in ((tmp_path, "it has no samples.jsonl"), (tmp_path / "none", "there is no such folder")):
        assert main(["compare", str(folder), str(folder)]) == 2
        assert f"{folder} is not the folder of an evaluation: {why}" in capsys.readouterr().err
