"""Two evaluations of the same problems."""

import json

import numpy as np
import pytest
from graded import row, rows
from scipy import stats

from ktae.cli import main
from ktae.evaluation.compare import blocks, compare
from ktae.evaluation.results import as_markdown, write_results
from ktae.evaluation.statistics import average, normal_p_value, paired_difference
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


def markdown(comparison):
    return as_markdown("B against A", blocks(comparison))


# Numbers


@pytest.mark.parametrize(
    ("counts", "finding"),
    [
        ((40, 5, 25, 30), "B is better by 9.4 to 29.8 points (p < 0.001)."),
        ((10, 3, 4, 13), "Not distinguishable: B may be worse by up to 15.2 points or better by up to 21.5."),
        (
            (20, 3, 11, 16),
            "On the edge: the interval leaves out 0, and the exact p = 0.057. More problems would tell.",
        ),
    ],
)
def test_one_sample_a_problem(pair, counts, finding):
    a, b = outcome(*counts)
    found = compare(*pair({"math500": a}, {"math500": b}))
    (task,) = found.tasks
    assert found.macro is None
    assert (task.accuracy_a.value, task.accuracy_b.value) == (a.mean(), b.mean())
    assert task.accuracy == paired_difference(b, a)
    assert (task.a_better, task.b_better) == counts[1:3]
    assert task.p_value == pytest.approx(stats.binomtest(counts[1], counts[1] + counts[2]).pvalue)
    assert task.finding == finding


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
    (task,) = compare(*folders).tasks
    assert (task.length_a.value, task.length_b.value, task.length.value) == (210, 170, -40)
    low, high = stats.t.interval(0.95, 2, loc=-40, scale=stats.sem((length_b - length_a)[:, 0]))
    assert (task.length.low, task.length.high) == pytest.approx((low, high), rel=1e-4)


def test_unknown_lengths(tmp_path):
    a = evaluation(tmp_path / "a", rows([[1], [0]]))
    b = evaluation(tmp_path / "b", [{**r, "length": None} for r in rows([[1], [0]])])
    comparison = compare(a, b)
    assert comparison.tasks[0].length is None
    assert "Mean length" not in markdown(comparison)


def test_several_tasks_are_averaged_and_corrected(pair):
    arrays = {"a": outcome(40, 5, 25, 30), "b": outcome(40, 6, 17, 30), "c": outcome(10, 10, 10, 10)}
    found = compare(*pair(*({task: x[i] for task, x in arrays.items()} for i in (0, 1))))
    p_values = [task.p_value for task in found.tasks]
    assert [task.adjusted for task in found.tasks] == pytest.approx([3 * p_values[0], 2 * p_values[1], 1])
    assert found.macro.accuracy == average([task.accuracy for task in found.tasks])
    assert found.macro.length.value == 0
    assert p_values[1] < 0.05 < found.tasks[1].adjusted
    assert found.tasks[1].finding == (
        "B is better here (p = 0.035), but among 3 tasks chance alone often does that: "
        "p = 0.069 after Holm's correction for 3 tasks."
    )
    assert "at least one of 3 intervals would leave out zero in 14% of all" in found.notes[1]


def test_different_numbers_of_samples(pair):
    generator = np.random.default_rng(0)
    folders = pair({"a": generator.integers(0, 2, (30, 1))}, {"a": generator.integers(0, 2, (30, 8))})
    (task,) = compare(*folders).tasks
    assert task.samples == (1, 8)
    assert task.p_value == normal_p_value(task.accuracy)
    assert "| a | 30 x 1, 8 |" in markdown(compare(*folders))


def test_one_problem_and_a_folder_with_itself(pair):
    a, b = pair({"a": [[1]]}, {"a": [[0]]})
    (task,) = compare(a, b).tasks
    assert task.length is None
    assert task.finding.startswith("Not distinguishable")
    (task,) = compare(a, a).tasks
    assert (task.accuracy.value, task.p_value) == (0, 1)


# What does not go together


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
    ],
)
def test_what_does_not_go_together_is_named(tmp_path, a, b, message):
    for name, samples in (("a", a), ("b", b)):
        json_lines.write(tmp_path / name / "samples.jsonl", samples)
    with pytest.raises(ValueError, match=message):
        compare(tmp_path / "a", tmp_path / "b")


def test_tasks_of_one_side_are_left_out_and_named(pair):
    a, b = pair({"a": [[1], [0]], "b": [[1], [0]]}, {"a": [[1], [0]]})
    found = compare(a, b)
    assert [task.task for task in found.tasks] == ["a"]
    assert "Left out, as only A has it: b." in found.notes


def test_no_task_in_common(pair):
    with pytest.raises(ValueError, match=r"no task is in both .*a \(a\) and .*b \(c, d\)$"):
        compare(*pair({"a": [[1]]}, {"c": [[1]], "d": [[1]]}))


SAME = {"a": [[1], [0]]}
SAMPLED = {"sampling": {"temperature": 0.6, "top_p": 1.0, "seed": 1}}
GREEDY = {"sampling": {"temperature": 0.0, "top_p": 1.0, "seed": 0}}


@pytest.mark.parametrize("other", ["x", "y"])
def test_what_was_decoded_differently_is_said_first(pair, other, capsys):
    a, b = pair(SAME, SAME, {"model": "x", **GREEDY}, {"model": other, **SAMPLED})
    found = compare(a, b)
    assert "temperature 0.0 and 0.6" in found.decoding
    capsys.readouterr()
    assert main(["compare", str(a), str(b)]) == 0
    assert " ".join(capsys.readouterr().out.split()).startswith(f"{found.decoding} A is ")
    if other == "x":
        assert found.decoding.startswith("A and B are one model")
        assert not any("models" in note for note in found.notes)
    else:
        assert "models and decoding together" in found.decoding
        assert "these two models, each as it was decoded, on problems" in found.notes[0]


def test_another_seed_is_no_other_decoding(pair):
    other = {"sampling": {**GREEDY["sampling"], "seed": 2}, "limit": 2}
    found = compare(*pair(SAME, SAME, {"model": "x", "limit": None, **GREEDY}, {"model": "x", **other}))
    assert found.decoding == ""
    assert found.notes[0].startswith("A and B are one model, decoded alike")
    assert found.notes[-1] == "What differs between A and B: limit None and 2, seed 0 and 2."


def test_undecided_answers_are_noted(tmp_path):
    a = evaluation(tmp_path / "a", [row(id="0"), row(id="1", status="timeout")])
    b = evaluation(tmp_path / "b", [row(id="0"), row(id="1")])
    assert "Answers that could not be judged count as wrong: 1 of A, 0 of B." in compare(a, b).notes


# The command


def test_command(pair, tmp_path, capsys):
    arrays = {"math500": outcome(40, 5, 25, 30), "aime24": outcome(5, 1, 2, 5)}
    a, b = pair(*({task: x[i] for task, x in arrays.items()} for i in (0, 1)))
    assert main(["compare", str(a), str(b), "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "math500: B is better by 9.4 to 29.8 points" in shown
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert found["tasks"][0]["accuracy"]["value"] == pytest.approx(0.2)
    assert found["macro"]["task"] == "average"
    markdown = (tmp_path / "out" / "comparison.md").read_text()
    assert "| math500 | 100 | 45.0 | 65.0 | +20.0 [9.4, 29.8] | 25 / 5 | < 0.001 |" in markdown
    assert "| average | 100.0 | 100.0 |" not in markdown


def test_command_without_an_evaluation(tmp_path, capsys):
    for folder, why in ((tmp_path, "it has no samples.jsonl"), (tmp_path / "none", "there is no such folder")):
        assert main(["compare", str(folder), str(folder)]) == 2
        assert f"{folder} is not the folder of an evaluation: {why}" in capsys.readouterr().err
