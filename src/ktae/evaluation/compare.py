"""`ktae compare A B`: whether B differs from A, the baseline, and what the data cannot tell."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ktae.evaluation import results, statistics
from ktae.evaluation.results import Problems
from ktae.evaluation.statistics import Estimate
from ktae.files import json_lines

_SAMPLES = "samples.jsonl"
Sides = tuple[float, float, Estimate]  # means of A and of B, and B minus A, paired by problem


@dataclass(frozen=True)
class Difference:
    """B against A on a task, or on average over the tasks."""

    task: str  # or `results.MACRO`
    problems: int  # of all tasks for the average
    accuracy: Sides  # shares of correct samples
    length: Sides | None  # in tokens; None if any is unknown, or with one problem
    samples: tuple[int, ...] = (1,)  # a problem's of A and of B; one for the average
    p_value: float | None = None  # of the accuracies, two-sided and exact; None for the average, or other samples


def compare(path_a: Path, path_b: Path) -> tuple[str, list[Difference], list[str]]:
    """Compares two evaluations of `ktae eval` or `ktae grade`, A being the baseline, on the tasks that both have.

    The paths are their folders, or a file in each. Returns what is compared and in which settings they differ; the
    tasks, and with several their plain average; and what to know when reading the numbers. Raises a FileNotFoundError
    if a folder has no samples.jsonl, and a ValueError if they have no task in common, the problems of one or their
    accepted answers differ, or see `by_task`.
    """
    a, b = (path.parent if path.is_file() else path for path in (path_a, path_b))
    tasks_a, tasks_b = _read(a), _read(b)
    shared = [task for task in tasks_a if task in tasks_b]
    if not shared:
        raise ValueError(f"no task is in both {a} ({', '.join(tasks_a)}) and {b} ({', '.join(tasks_b)})")
    found = [_difference(task, tasks_a[task], tasks_b[task], (a, b)) for task in shared]
    no_p = any(d.p_value is None for d in found)
    notes = ["There is no exact p where A and B have different numbers of samples."] * no_p
    notes += [results.INTERVALS, "Where one holds 0, the data cannot tell A and B apart, nor say that they are equal."]
    notes += [f"Left out, as only {side} has it: {task}." for side, task in _only(tasks_a, tasks_b)]
    if (family := len(found)) > 1:
        notes.append(
            f"If nothing differed, at least one of {family} intervals would leave out 0 in {1 - 0.95**family:.0%} of "
            f"all such comparisons: of a task read {family} times p. The average is one interval."
        )
        found.append(_average(found))
    undecided = [sum(results.undecided(tasks[task]) for task in shared) for tasks in (tasks_a, tasks_b)]
    if any(undecided):
        notes.append(f"Answers that could not be judged count as wrong: {undecided[0]} of A, {undecided[1]} of B.")
    return f"A is {a}, the baseline.\nB is {b}.\n{_settings(_about(a), _about(b))}".rstrip(), found, notes


def as_markdown(head: str, differences: Sequence[Difference], notes: Sequence[str]) -> str:
    """What `compare` returns, with one table."""
    lines = [
        {"task": d.task, "problems": results.times(d.problems, *d.samples)}
        | _cells("{}, %", d.accuracy, 100, ".1f")
        | {"p": "" if d.p_value is None else "< 0.001" if d.p_value < 0.001 else f"{d.p_value:.3f}"}
        | _cells("length {}", d.length, 1, ".0f")
        for d in differences
    ]
    title = "Accuracies, mean lengths in tokens, and the differences with their 95 % intervals:"
    return "\n\n".join([head, title, results.as_table(lines), *notes]) + "\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("a", type=Path, metavar="A", help="folder of ktae eval or ktae grade: the baseline")
    add("b", type=Path, metavar="B", help="the other one")


def run(arguments: argparse.Namespace) -> None:
    """Prints the comparison, in Markdown."""
    print(as_markdown(*compare(arguments.a, arguments.b)))


def _difference(task: str, problems_a: Problems, problems_b: Problems, folders: tuple[Path, Path]) -> Difference:
    for side, ids in _only(problems_a, problems_b):
        raise ValueError(f"{task}: the problems differ: only {folders[side == 'B']} has {ids}")
    problems_b = {id: problems_b[id] for id in problems_a}
    for id, samples in problems_a.items():
        if (a := samples[0]["answers"]) != (b := problems_b[id][0]["answers"]):
            where = f"{a} in {folders[0]} and {b} in {folders[1]}"
            raise ValueError(f"{task}, problem {id!r}: the accepted answers differ, {where}")
    a_PS, b_PS = results.correct(problems_a), results.correct(problems_b)
    a_P, b_P = results.lengths(problems_a), results.lengths(problems_b)
    accuracy = a_PS.mean(), b_PS.mean(), statistics.paired_difference(b_PS, a_PS)
    length = None
    if a_P is not None and b_P is not None and len(a_P) > 1:
        length = a_P.mean(), b_P.mean(), statistics.mean_interval(b_P - a_P)
    p_value = statistics.paired_p_value(b_PS, a_PS) if a_PS.shape == b_PS.shape else None
    return Difference(task, len(a_PS), accuracy, length, (a_PS.shape[1], b_PS.shape[1]), p_value)


def _average(tasks: Sequence[Difference]) -> Difference:
    """Of the plain averages over tasks; a length that a task does not know is unknown."""

    def mean(sides: Sequence[Sides]) -> Sides:
        a, b, differences = zip(*sides, strict=True)
        return fmean(a), fmean(b), statistics.average(differences)

    lengths = [d.length for d in tasks if d.length]
    accuracy, length = mean([d.accuracy for d in tasks]), mean(lengths) if len(lengths) == len(tasks) else None
    return Difference(results.MACRO, sum(d.problems for d in tasks), accuracy, length)


def _cells(name: str, sides: Sides | None, scale: int, form: str) -> dict[str, str]:
    """Three columns of a table."""
    names = [name.format(side) for side in ("A", "B", "B - A")]
    if sides is None:
        return dict.fromkeys(names, "")
    a, b, difference = sides
    value, low, high = (scale * x for x in (difference.value, difference.low, difference.high))
    cells = (f"{scale * a:{form}}", f"{scale * b:{form}}", f"{value:+{form}} [{low:{form}}, {high:{form}}]")
    return dict(zip(names, cells, strict=True))


def _read(folder: Path) -> dict[str, Problems]:
    path = folder / _SAMPLES
    if not path.is_file():
        why = f"it has no {_SAMPLES}" if folder.is_dir() else "there is no such folder"
        raise FileNotFoundError(f"{folder} is not the folder of an evaluation: {why}")
    try:
        return results.by_task(json_lines.read(path))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _only(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """For A and for B the names, ten at most, that only it has, if there are any."""
    for side, own in (("A", sorted(a.keys() - b)), ("B", sorted(b.keys() - a))):
        if own:
            yield side, ", ".join(own[:10]) + f" and {len(own) - 10} more" * (len(own) > 10)


def _about(folder: Path) -> dict[str, Any]:
    """The settings of an evaluation, with nested ones as `sampling.temperature`; empty if there are none."""
    path = folder / "results.json"
    flat = {}
    for key, value in (json.loads(path.read_text())["about"] if path.is_file() else {}).items():
        flat |= {f"{key}.{name}": x for name, x in value.items()} if isinstance(value, dict) else {key: value}
    return flat


def _settings(about_a: Mapping[str, Any], about_b: Mapping[str, Any]) -> str:
    both = [key for key in about_a if key in about_b and about_a[key] != about_b[key]]
    differ = [f"{key.removeprefix('sampling.')} {about_a[key]} and {about_b[key]}" for key in both]
    return f"They differ in: {'; '.join(differ)}." if differ else ""
