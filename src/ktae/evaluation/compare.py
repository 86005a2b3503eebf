"""`ktae compare A B`: whether B differs from A, the baseline, and what the data cannot tell."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from ktae.evaluation.differences import ALPHA, Difference, finding, format_p, macro_difference, task_difference
from ktae.evaluation.results import UNDECIDED, Problems, Table, as_markdown, by_task, show, summarize, times
from ktae.evaluation.statistics import Estimate, holm
from ktae.extras import require
from ktae.files import json_lines

# Settings that change what one and the same model answers; beside the seed, which changes the draws only.
_DECODING = ("sampling.temperature", "sampling.top_p", "sampling.max_tokens", "system")


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


def compare(folder_a: Path, folder_b: Path, tasks: Sequence[str] | None = None) -> Comparison:
    """Compares two folders of `ktae eval` or `ktae grade`.

    Args:
        folder_a: the baseline; has samples.jsonl.
        folder_b: what is compared with it.
        tasks: only these; None takes all, which both must have.

    Raises:
        FileNotFoundError: a folder has no samples.jsonl.
        ValueError: the tasks, the problems or their accepted answers differ (the message names them), or the samples
            are not as they should be, see `by_task`.
    """
    folders = (folder_a, folder_b)
    tasks_a, tasks_b = (_read(folder, tasks) for folder in folders)
    _check_same(tasks_a, tasks_b, "the tasks", folders, "; --tasks picks those to compare")
    for task, problems_a in tasks_a.items():
        _check_same(problems_a, tasks_b[task], f"{task}: the problems", folders)
        for id, samples in problems_a.items():
            answers_a, answers_b = samples[0]["answers"], tasks_b[task][id][0]["answers"]
            if answers_a != answers_b:
                raise ValueError(
                    f"{task}, problem {id!r}: the accepted answers differ, {answers_a} in {folder_a} "
                    f"and {answers_b} in {folder_b}"
                )
        tasks_b[task] = {id: tasks_b[task][id] for id in problems_a}
    differences = [task_difference(task, tasks_a[task], tasks_b[task]) for task in tasks_a]
    family = zip(differences, holm([d.p_value for d in differences]), strict=True)
    differences = [replace(d, adjusted=p, finding=finding(d, p, len(differences))) for d, p in family]
    macro = macro_difference(differences) if len(differences) > 1 else None
    macro = macro and replace(macro, finding=finding(macro, macro.p_value, 1))
    about_a, about_b = map(_about, folders)
    decoding, speak_of = _decoding(about_a, about_b)
    notes = (speak_of, *_notes(tasks_a, tasks_b, about_a, about_b))
    return Comparison(str(folder_a), str(folder_b), decoding, tuple(differences), macro, notes)


def blocks(comparison: Comparison) -> list[str | Table]:
    """What is shown, in order: the tables, a sentence a row, and the notes."""
    rows = [*comparison.tasks, *filter(None, (comparison.macro,))]
    accuracies = [
        [
            d.task,
            str(d.problems)
            if d.samples_a is None or d.samples_b is None
            else times(d.problems, d.samples_a, d.samples_b),
            f"{100 * d.accuracy_a.value:.1f}",
            f"{100 * d.accuracy_b.value:.1f}",
            _interval(d.accuracy, 100, ".1f"),
            "" if d.b_better is None else f"{d.b_better} / {d.a_better}",
            format_p(d.p_value, name=""),
        ]
        for d in rows
    ]
    header = ["task", "problems", "A", "B", "B - A", "B / A better", "p"]
    shown: list[str | Table] = [f"A is {comparison.a}, the baseline.\nB is {comparison.b}."]
    shown += [comparison.decoding] * bool(comparison.decoding)
    shown.append(("Accuracy, % [95 % interval]", header, accuracies))
    if any(d.length_a is not None and d.length_b is not None for d in rows):
        means = [["-" if x is None else f"{x:.0f}" for x in (d.length_a, d.length_b)] for d in rows]
        differences = ["-" if d.length is None else _interval(d.length, 1, ".0f") for d in rows]
        lengths = [[d.task, *mean, length] for d, mean, length in zip(rows, means, differences, strict=True)]
        shown.append(("Mean length, tokens [95 % interval]", ["task", "A", "B", "B - A"], lengths))
    return [*shown, *(f"{d.task}: {d.finding}" for d in rows), *comparison.notes]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to a parser."""
    add = parser.add_argument
    add("a", type=Path, metavar="A", help="folder of ktae eval or ktae grade: the baseline")
    add("b", type=Path, metavar="B", help="the other one")
    add("--tasks", metavar="NAMES", help="only these, separated by commas (default: all, which both must have)")
    add("--out", type=Path, metavar="DIR", help="write comparison.json, comparison.md and pictures there")


def run(arguments: argparse.Namespace) -> None:
    """Runs the command."""
    console = require("rich.console", extra="train").Console()
    tasks = None if arguments.tasks is None else list(filter(None, arguments.tasks.split(",")))
    comparison = compare(arguments.a, arguments.b, tasks)
    shown = blocks(comparison)
    show(shown, console)
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "comparison.json").write_text(json.dumps(asdict(comparison), indent=1, allow_nan=False) + "\n")
        (arguments.out / "comparison.md").write_text(as_markdown(f"{comparison.b} against {comparison.a}", shown))
        _plot(arguments, comparison)
        console.print(f"Written to {arguments.out}/")


def _plot(arguments: argparse.Namespace, comparison: Comparison) -> None:
    from ktae.evaluation.plots import plot_accuracy, plot_length

    names = [d.task for d in comparison.tasks]
    results = {
        str(folder): summarize([row for problems in _read(folder, names).values() for row in chain(*problems.values())])
        for folder in (arguments.a, arguments.b)
    }
    plot_accuracy(results, arguments.out / "accuracy.png")
    if any(d.length_a is not None and d.length_b is not None for d in comparison.tasks):
        plot_length(results, arguments.out / "length.png")


def _read(folder: Path, names: Sequence[str] | None) -> dict[str, Problems]:
    path = folder / "samples.jsonl"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is not the folder of an evaluation: it has no samples.jsonl")
    try:
        tasks = by_task(json_lines.read(path))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if names is None:
        return tasks
    if not names:
        raise ValueError("--tasks names no task")
    if missing := [name for name in names if name not in tasks]:
        raise ValueError(f"--tasks: {folder} has no {', '.join(missing)}, only {', '.join(tasks)}")
    return {name: tasks[name] for name in names}


def _check_same(a: dict[str, Any], b: dict[str, Any], what: str, folders: tuple[Path, Path], hint: str = "") -> None:
    sides = []
    for names, folder in ((a.keys() - b, folders[0]), (b.keys() - a, folders[1])):
        if names:
            more = f" and {len(names) - 10} more" if len(names) > 10 else ""
            sides.append(f"only {folder} has {', '.join(sorted(names)[:10])}{more}")
    if sides:
        raise ValueError(f"{what} differ: {'; '.join(sides)}{hint}")


def _about(folder: Path) -> dict[str, Any]:
    """The settings of an evaluation, with nested ones as `sampling.temperature`; empty if there are none."""
    path = folder / "results.json"
    flat = {}
    for key, value in (json.loads(path.read_text())["about"] if path.is_file() else {}).items():
        flat |= {f"{key}.{name}": x for name, x in value.items()} if isinstance(value, dict) else {key: value}
    return flat


def _decoding(about_a: dict[str, Any], about_b: dict[str, Any]) -> tuple[str, str]:
    """What to say first if the two were decoded differently, and what the data speak of."""
    of_models = (
        "The data speak of these two models{} on problems like these. Whether another training run would do the same "
        "takes runs with other seeds."
    )
    changed = ", ".join(
        f"{key.removeprefix('sampling.')} {about_a[key]} and {about_b[key]}"
        for key in _DECODING
        if key in about_a and key in about_b and about_a[key] != about_b[key]
    )
    if not changed:
        return "", of_models.format("")
    if about_a.get("model") == about_b.get("model"):
        return (
            f"A and B are one model, decoded differently ({changed}): what follows is about decoding, not models.",
            "The data speak of two ways to decode this model on problems like these.",
        )
    return (
        f"A and B were decoded differently ({changed}): what follows is about models and decoding together.",
        of_models.format(", each as it was decoded,"),
    )


def _notes(
    tasks_a: dict[str, Problems], tasks_b: dict[str, Problems], about_a: dict[str, Any], about_b: dict[str, Any]
) -> list[str]:
    notes = []
    if (family := len(tasks_a)) > 1:
        chance = 1 - (1 - ALPHA) ** family
        notes.append(
            f"If nothing differed, at least one of {family} intervals would leave out zero in {chance:.0%} of all such "
            "comparisons. The sentences on tasks use p after Holm's correction; the average is one test and needs none."
        )
    a, b = (
        sum(row["status"] in UNDECIDED for problems in tasks.values() for row in chain(*problems.values()))
        for tasks in (tasks_a, tasks_b)
    )
    if a or b:
        notes.append(f"Answers that could not be judged count as wrong: {a} of A, {b} of B.")
    changed = ", ".join(
        f"{key} ({about_a.get(key, 'not given')} and {about_b.get(key, 'not given')})"
        for key in dict.fromkeys([*about_a, *about_b])
        if about_a.get(key) != about_b.get(key) and not key.startswith("generation.")
    )
    return notes + [f"What differs between A and B: {changed}."] * bool(about_a and about_b and changed)


def _interval(difference: Estimate, scale: int, form: str) -> str:
    value, low, high = (scale * x for x in (difference.value, difference.low, difference.high))
    return f"{value:+{form}} [{low:{form}}, {high:{form}}]"
