"""`ktae compare A B`: whether B differs from A, the baseline, and what the data cannot tell."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ktae.evaluation import results, statistics
from ktae.evaluation.results import Problems, Table
from ktae.evaluation.statistics import Estimate
from ktae.extras import require
from ktae.files import json_lines

ALPHA = 0.05
# Settings that change what one and the same model answers; beside the seed, which changes the draws only.
_DECODING = ("sampling.temperature", "sampling.top_p", "sampling.max_tokens", "system")


@dataclass(frozen=True)
class Difference:
    """B minus A on a task, or on average over the tasks.

    Attributes:
        task: its name, or `results.MACRO`.
        problems: their number, of all tasks for the average.
        accuracy_a, accuracy_b: with 95 % intervals, each by itself.
        accuracy: B minus A with its interval, paired by problem.
        p_value: two-sided; exact for a task with as many samples of both, otherwise that of the interval.
        length_a, length_b, length: the same of mean lengths in tokens; None if any is unknown, or with one problem.
        samples: a problem's samples of A and of B; None for the average.
        b_better, a_better: problems with a larger share of correct samples: with one sample the discordant counts of
            McNemar's test. None for the average.
        adjusted: p_value after Holm's correction for the number of tasks; None for the average, which was fixed
            beforehand and is not part of the family.
        finding: what the data say, in a sentence.
    """

    task: str
    problems: int
    accuracy_a: Estimate
    accuracy_b: Estimate
    accuracy: Estimate
    p_value: float
    length_a: Estimate | None
    length_b: Estimate | None
    length: Estimate | None
    samples: tuple[int, int] | None = None
    b_better: int | None = None
    a_better: int | None = None
    adjusted: float | None = None
    finding: str = ""


@dataclass(frozen=True)
class Comparison:
    """Two evaluations of the same problems.

    Attributes:
        a, b: their folders.
        decoding: a sentence, to be read first, if the two were decoded differently; otherwise empty.
        tasks: one difference a task.
        macro: of the plain average over the tasks, None with one task.
        notes: what to know when reading the numbers.
    """

    a: str
    b: str
    decoding: str
    tasks: tuple[Difference, ...]
    macro: Difference | None
    notes: tuple[str, ...]


def compare(folder_a: Path, folder_b: Path) -> Comparison:
    """Compares two folders of `ktae eval` or `ktae grade`, A being the baseline, on the tasks that both have.

    Raises:
        FileNotFoundError: a folder has no samples.jsonl.
        ValueError: they have no task in common, the problems of one or their accepted answers differ (the message names
            them), or the samples are not as they should be, see `by_task`.
    """
    folders = (folder_a, folder_b)
    all_a, all_b = map(_read, folders)
    tasks_a, tasks_b = ({task: of[task] for task in all_a if task in all_b} for of in (all_a, all_b))
    if not tasks_a:
        raise ValueError(f"no task is in both {folder_a} ({', '.join(all_a)}) and {folder_b} ({', '.join(all_b)})")
    found = [_difference(task, tasks_a[task], tasks_b[task], folders) for task in tasks_a]
    adjusted = statistics.holm([d.p_value for d in found])
    found = [replace(d, adjusted=p, finding=_finding(d, p, len(found))) for d, p in zip(found, adjusted, strict=True)]
    about_a, about_b = map(_about, folders)
    decoding, *notes = _decoding(about_a, about_b)
    notes += [f"Left out, as only {side} has it: {task}." for side, task in _only(all_a, all_b)]
    if (family := len(found)) > 1:
        notes.append(
            f"If nothing differed, at least one of {family} intervals would leave out zero in "
            f"{1 - (1 - ALPHA) ** family:.0%} of all such comparisons. The sentences on tasks use p after Holm's "
            "correction; the average is one test and needs none."
        )
    a, b = (sum(map(results.undecided, tasks.values())) for tasks in (tasks_a, tasks_b))
    if a or b:
        notes.append(f"Answers that could not be judged count as wrong: {a} of A, {b} of B.")
    if changed := _changed(about_a, about_b, about_a):
        notes.append(f"What differs between A and B: {changed}.")
    macro = _average(found) if family > 1 else None
    return Comparison(str(folder_a), str(folder_b), decoding, tuple(found), macro, tuple(notes))


def blocks(comparison: Comparison) -> list[str | Table]:
    """What is shown, in order: how decoding differs, the tables, a sentence a row, and the notes."""
    rows = [*comparison.tasks, *filter(None, (comparison.macro,))]
    accuracies, lengths = [], []
    for d in rows:
        count = results.times(d.problems, *(d.samples or (1,)))
        accuracies.append([d.task, count, *_estimates(d.accuracy_a, d.accuracy_b, d.accuracy, 100, ".1f")])
        better = "" if d.b_better is None else f"{d.b_better} / {d.a_better}"
        accuracies[-1] += [better, _p(d.p_value).removeprefix("p ").removeprefix("= ")]
        lengths.append([d.task, *_estimates(d.length_a, d.length_b, d.length, 1, ".0f")])
    header = ["task", "problems", "A", "B", "B - A", "B / A better", "p"]
    shown: list[str | Table] = list(filter(None, [comparison.decoding]))
    shown.append(f"A is {comparison.a}, the baseline.\nB is {comparison.b}.")
    shown.append(("Accuracy, % [95 % interval]", header, accuracies))
    if any(d.length for d in rows):
        shown.append(("Mean length, tokens [95 % interval]", ["task", "A", "B", "B - A"], lengths))
    return [*shown, *(f"{d.task}: {d.finding}" for d in rows), *comparison.notes]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to a parser."""
    add = parser.add_argument
    add("a", type=Path, metavar="A", help="folder of ktae eval or ktae grade: the baseline")
    add("b", type=Path, metavar="B", help="the other one")
    add("--out", type=Path, metavar="DIR", help="write comparison.json and comparison.md there")


def run(arguments: argparse.Namespace) -> None:
    """Runs the command."""
    require("rich", extra="train")
    comparison = compare(arguments.a, arguments.b)
    shown = blocks(comparison)
    results.show(shown)
    if (out := arguments.out) is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "comparison.json").write_text(json.dumps(asdict(comparison), indent=1, allow_nan=False) + "\n")
        (out / "comparison.md").write_text(results.as_markdown(f"{comparison.b} against {comparison.a}", shown))
        print(f"Written to {out}/")


def _difference(task: str, problems_a: Problems, problems_b: Problems, folders: tuple[Path, Path]) -> Difference:
    for side, ids in _only(problems_a, problems_b):
        raise ValueError(f"{task}: the problems differ: only {folders[side == 'B']} has {ids}")
    problems_b = {id: problems_b[id] for id in problems_a}
    for id, samples in problems_a.items():
        if (a := samples[0]["answers"]) != (b := problems_b[id][0]["answers"]):
            where = f"{a} in {folders[0]} and {b} in {folders[1]}"
            raise ValueError(f"{task}, problem {id!r}: the accepted answers differ, {where}")
    a_PS, b_PS = results.correct(problems_a), results.correct(problems_b)
    a_P, b_P = a_PS.mean(axis=1), b_PS.mean(axis=1)
    accuracy = statistics.paired_difference(b_PS, a_PS)
    exact = a_PS.shape == b_PS.shape
    length_a_PS, length_b_PS = results.lengths(problems_a), results.lengths(problems_b)
    length_a = length_b = length = None
    if length_a_PS is not None and length_b_PS is not None and len(a_P) > 1:
        length_a_P, length_b_P = length_a_PS.mean(axis=1), length_b_PS.mean(axis=1)
        length_a, length_b = statistics.mean_interval(length_a_P), statistics.mean_interval(length_b_P)
        length = statistics.mean_interval(length_b_P - length_a_P)
    return Difference(
        task,
        len(a_P),
        statistics.share_interval(a_P),
        statistics.share_interval(b_P),
        accuracy,
        statistics.paired_p_value(b_PS, a_PS) if exact else statistics.normal_p_value(accuracy),
        length_a,
        length_b,
        length,
        samples=(a_PS.shape[1], b_PS.shape[1]),
        b_better=int((b_P > a_P).sum()),
        a_better=int((b_P < a_P).sum()),
    )


def _average(differences: Sequence[Difference]) -> Difference:
    """The difference of the plain averages over tasks; a length that a task does not know is unknown."""

    def mean(name: str) -> Any:
        found = [getattr(d, name) for d in differences]
        return None if None in found else statistics.average(found)

    accuracy, problems = mean("accuracy"), sum(d.problems for d in differences)
    of_both = (mean("accuracy_a"), mean("accuracy_b"), accuracy, statistics.normal_p_value(accuracy))
    lengths = (mean("length_a"), mean("length_b"), mean("length"))
    found = Difference(results.MACRO, problems, *of_both, *lengths)
    return replace(found, finding=_finding(found, found.p_value, 1))


def _finding(d: Difference, adjusted: float, family: int) -> str:
    """A sentence or two on a difference, one of `family` that were tested; `adjusted` is its p-value among them."""
    low, high = d.accuracy.low, d.accuracy.high
    direction = "better" if d.accuracy.value > 0 else "worse"
    leaves_out_zero = not low <= 0 <= high
    corrected = f" after Holm's correction for {family} tasks" if family > 1 else ""
    if (d.p_value < ALPHA) != leaves_out_zero:
        zero = "leaves out 0" if leaves_out_zero else "holds 0"
        return f"On the edge: the interval {zero}, and the exact {_p(d.p_value)}. More problems would tell."
    if adjusted < ALPHA:
        size = " to ".join(f"{100 * end:.1f}" for end in sorted((abs(low), abs(high))))
        return f"B is {direction} by {size} points ({_p(adjusted)}{corrected})."
    if leaves_out_zero:
        return (
            f"B is {direction} here ({_p(d.p_value)}), but among {family} tasks chance alone often does that: "
            f"{_p(adjusted)}{corrected}."
        )
    return f"Not distinguishable: B may be worse by up to {-100 * low:.1f} points or better by up to {100 * high:.1f}."


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _estimates(a: Estimate | None, b: Estimate | None, difference: Estimate | None, scale: int, form: str) -> list[str]:
    """Three cells of a table."""
    if a is None or b is None or difference is None:
        return ["-", "-", "-"]
    value, low, high = (scale * x for x in (difference.value, difference.low, difference.high))
    return [f"{scale * a.value:{form}}", f"{scale * b.value:{form}}", f"{value:+{form}} [{low:{form}}, {high:{form}}]"]


def _read(folder: Path) -> dict[str, Problems]:
    path = folder / "samples.jsonl"
    if not path.is_file():
        why = "it has no samples.jsonl" if folder.is_dir() else "there is no such folder"
        raise FileNotFoundError(f"{folder} is not the folder of an evaluation: {why}")
    try:
        return results.by_task(json_lines.read(path))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _only(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, str]]:
    """For A and for B the names, ten at most, that only it has, if there are any."""
    names = {"A": sorted(a.keys() - b), "B": sorted(b.keys() - a)}
    more = {side: f" and {len(own) - 10} more" * (len(own) > 10) for side, own in names.items()}
    return [(side, ", ".join(own[:10]) + more[side]) for side, own in names.items() if own]


def _about(folder: Path) -> dict[str, Any]:
    """The settings of an evaluation, with nested ones as `sampling.temperature`; empty if there are none."""
    path = folder / "results.json"
    flat = {}
    for key, value in (json.loads(path.read_text())["about"] if path.is_file() else {}).items():
        flat |= {f"{key}.{name}": x for name, x in value.items()} if isinstance(value, dict) else {key: value}
    return {key: value for key, value in flat.items() if not key.startswith("generation.")}


def _changed(about_a: Mapping[str, Any], about_b: Mapping[str, Any], keys: Iterable[str]) -> str:
    """Which of these settings differ, of those that both have."""
    both = [key for key in keys if key in about_a and key in about_b and about_a[key] != about_b[key]]
    return ", ".join(f"{key.removeprefix('sampling.')} {about_a[key]} and {about_b[key]}" for key in both)


def _decoding(about_a: Mapping[str, Any], about_b: Mapping[str, Any]) -> tuple[str, str]:
    """What to say first if the two were decoded differently, and what the data speak of."""
    changed = _changed(about_a, about_b, _DECODING)
    models = {about.get("model") for about in (about_a, about_b)}
    if len(models) == 1 and None not in models:
        if not changed:
            return "", "A and B are one model, decoded alike: what differs is the draws, or named below."
        return (
            f"A and B are one model, decoded differently ({changed}): what follows is about decoding, not models.",
            "The data speak of two ways to decode this model on problems like these.",
        )
    said = f"A and B were decoded differently ({changed}): what follows is about models and decoding together."
    if None in models:  # answers of other programs
        return said * bool(changed), "The data speak of these two sets of answers, on problems like these."
    each = ", each as it was decoded," * bool(changed)
    return said * bool(changed), (
        f"The data speak of these two models{each} on problems like these. Whether another training run would do the "
        "same takes runs with other seeds."
    )
