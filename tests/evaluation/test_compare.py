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


@pytest.fixture
def pair(tmp_path):
    """Writes two evaluations, each given as samples or as arrays of 0 and 1 by task; returns their folders."""

    def write(*both, about=({}, {})):
        for name, given, settings in zip("ab", both, about, strict=True):
            samples = [r for task, x in given.items() for r in rows(x, task)] if isinstance(given, dict) else given
            write_results(tmp_path / name, samples, settings)
        return tmp_path / "a", tmp_path / "b"

    return write


def outcome(both, only_a, only_b, neither):
    """(P, 1) arrays of A and B with so many problems of each kind."""
    counts = (both, only_a, only_b, neither)
    return np.repeat([1, 1, 0, 0], counts)[:, None], np.repeat([1, 0, 1, 0], counts)[:, None]


@pytest.mark.parametrize("counts", [(40, 5, 25, 30), (10, 3, 4, 13), (20, 3, 11, 16), (0, 1, 0, 0)])
def test_one_sample_a_problem(pair, counts):
    a, b = outcome(*counts)
    folders = pair({"math500": a}, {"math500": b})
    _, (task,), _ = compare(*folders)
    assert task.accuracy == (a.mean(), b.mean(), paired_difference(b, a))
    assert task.p_value == pytest.approx(stats.binomtest(counts[1], counts[1] + counts[2]).pvalue)
    _, (same,), _ = compare(folders[0], folders[0])
    assert (same.accuracy[2].value, same.p_value) == (0, 1)


def test_problems_are_matched_by_id(pair):
    generator = np.random.default_rng(0)
    a, b = (rows(generator.integers(0, 2, (20, 2))) for _ in range(2))
    straight = compare(*pair(a, b))
    assert compare(*pair(a, [b[i] for i in generator.permutation(len(b))])) == straight


def test_lengths(pair):
    length_a, length_b = np.array([[100], [200], [330]]), np.array([[80], [150], [280]])
    a, b = (rows(np.ones((3, 1)), length_PS=x) for x in (length_a, length_b))
    _, (task,), _ = compare(*pair(a, b))
    mean_a, mean_b, difference = task.length
    assert (mean_a, mean_b, difference.value) == (210, 170, -40)
    low, high = stats.t.interval(0.95, 2, loc=-40, scale=stats.sem((length_b - length_a)[:, 0]))
    assert (difference.low, difference.high) == pytest.approx((low, high))
    for samples in ([{**r, "length": None} for r in a], a[:1]):  # unknown, or of one problem
        assert "length A" not in as_markdown(*compare(*pair(samples, samples)))


def test_several_tasks_are_averaged(pair, capsys):
    arrays = {"a": outcome(40, 5, 25, 30), "b": outcome(40, 6, 17, 30), "c": outcome(10, 10, 10, 10)}
    folders = pair(*({task: x[i] for task, x in arrays.items()} for i in (0, 1)))
    _, (*tasks, macro), notes = compare(*folders)
    assert macro.accuracy[2] == average([task.accuracy[2] for task in tasks])
    assert macro.length[2].value == 0
    assert "one of 3 intervals would leave out 0 in 14% of all such comparisons: of a task read 3 times p" in notes[2]
    capsys.readouterr()
    assert main(["compare", *map(str, folders)]) == 0
    shown = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "| a | 100 | 45.0 | 65.0 | +20.0 [9.4, 29.8] | < 0.001 | 100 | 100 | +0 [0, 0] |" in shown
    assert any(line.startswith("| average | 233 |") and " | - | 100 | 100 | +0 [" in line for line in shown)


def test_different_numbers_of_samples(pair):
    generator = np.random.default_rng(0)
    found = compare(*pair({"a": generator.integers(0, 2, (30, 1))}, {"a": generator.integers(0, 2, (30, 8))}))
    (task,) = found[1]
    assert (task.samples, task.p_value) == ((1, 8), None)
    assert "| a    | 30 x 1, 8 |" in as_markdown(*found)
    assert "no exact p where A and B have different numbers of samples" in as_markdown(*found)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (rows([[1]] * 4), [*rows([[1]] * 3), row(id="x")], r"math500: the problems differ: only .*a has 3$"),
        (rows([[1]] * 30), rows([[1]]), r"and 19 more$"),
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


def test_tasks_of_one_side_and_undecided_answers_are_named(pair):
    a = [row(id="0"), row(id="1", status="timeout"), *rows([[1]], "aime24")]
    _, _, notes = compare(*pair(a, [row(id="0"), row(id="1")]))
    assert "Left out, as only A has it: aime24." in notes
    assert "Answers that could not be judged count as wrong: 1 of A, 0 of B." in notes


def test_settings_that_differ_are_said_first_and_nothing_else_speaks_of_models(pair, capsys):
    about = [{"model": "x", "sampling": {"temperature": t, "seed": 1}} for t in (0.0, 0.6)]
    a, b = pair({"a": [[1], [0]]}, {"a": [[1], [0]]}, about=about)
    capsys.readouterr()
    assert main(["compare", str(a / "samples.jsonl"), str(b / "results.json")]) == 0, "files stand for their folders"
    said = capsys.readouterr().out
    assert said.startswith(f"A is {a}, the baseline.\nB is {b}.\nThey differ in: temperature 0.0 and 0.6.\n")
    assert "model" not in said
    assert "differ in" not in compare(a, a)[0]


def test_command_without_an_evaluation(tmp_path, capsys):
    for folder, why in ((tmp_path, "it has no samples.jsonl"), (tmp_path / "none", "there is no such folder")):
        assert main(["compare", str(folder), str(folder)]) == 2
        assert f"{folder} is not the folder of an evaluation: {why}" in capsys.readouterr().err
