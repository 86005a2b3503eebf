"""`ktae compare A B`: whether B differs from A, its baseline, and what the data cannot tell."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from ktae.evaluation.differences import ALPHA, Difference, finding, format_p, macro_difference, task_difference
from ktae.evaluation.plots import plot_accuracy, plot_length
from ktae.evaluation.results import UNDECIDED, Problems, by_task, markdown_table, rich_table, summarize
from ktae.evaluation.statistics import Estimate, holm
from ktae.extras import require
from ktae.files import json_lines


@dataclass(frozen=True)
class Comparison:
    """Two evaluations of the same problems.

    Attributes:
        a, b: their folders.
        tasks: one difference a task.
        macro: of the plain average over the tasks, None with one task.
        notes: what to know when reading the numbers.
    """

    a: str
    b: str
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
    tasks_a, tasks_b = (_read(folder, tasks) for folder in (folder_a, folder_b))
    _check_same(set(tasks_a), set(tasks_b), "", "tasks", (folder_a, folder_b), "; --tasks picks those to compare")
    for task in tasks_a:
        _check_same(set(tasks_a[task]), set(tasks_b[task]), f"{task}: ", "problems", (folder_a, folder_b))
        for id, samples in tasks_a[task].items():
            answers_a, answers_b = samples[0]["answers"], tasks_b[task][id][0]["answers"]
            if answers_a != answers_b:
                raise ValueError(
                    f"{task}, problem {id!r}: the accepted answers differ, {answers_a} in {folder_a} "
                    f"and {answers_b} in {folder_b}"
                )
        tasks_b[task] = {id: tasks_b[task][id] for id in tasks_a[task]}
    differences = [task_difference(task, tasks_a[task], tasks_b[task]) for task in tasks_a]
    adjusted = holm([difference.p_value for difference in differences])
    differences = [replace(d, adjusted=p) for d, p in zip(differences, adjusted, strict=True)]
    differences = [replace(d, finding=finding(d, len(differences))) for d in differences]
    macro = None
    if len(differences) > 1:
        macro = macro_difference(differences)
        macro = replace(macro, finding=finding(macro, 1))
    notes = _notes(folder_a, folder_b, tasks_a, tasks_b, differences)
    return Comparison(str(folder_a), str(folder_b), tuple(differences), macro, tuple(notes))


def as_markdown(comparison: Comparison) -> str:
    """The table, a sentence a row, and the notes."""
    parts = [f"# {comparison.b} against {comparison.a}", f"A is {comparison.a}, B is {comparison.b}."]
    for title, header, lines in _tables(comparison):
        parts += [f"{title[0].upper()}{title[1:]}:", markdown_table(header, lines)]
    parts += [*_findings(comparison), *comparison.notes]
    return "\n\n".join(parts) + "\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to a parser."""
    parser.description = "Compares two evaluations of the same problems: B minus A, paired by problem."
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
    console.print(f"A is {comparison.a}\nB is {comparison.b}", highlight=False, markup=False)
    for title, header, lines in _tables(comparison):
        console.print(rich_table(title, header, lines, tasks=len(comparison.tasks)))
    for line in (*_findings(comparison), "", *comparison.notes):
        console.print(line, highlight=False, markup=False)
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "comparison.json").write_text(json.dumps(asdict(comparison), indent=1, allow_nan=False) + "\n")
        (arguments.out / "comparison.md").write_text(as_markdown(comparison))
        _plot(arguments, comparison)
        console.print(f"Written to {arguments.out}/")


def _plot(arguments: argparse.Namespace, comparison: Comparison) -> None:
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


def _check_same(a: set[str], b: set[str], where: str, what: str, folders: tuple[Path, Path], hint: str = "") -> None:
    if a == b:
        return
    sides = []
    for names, folder in ((a - b, folders[0]), (b - a, folders[1])):
        if names:
            shown = ", ".join(sorted(names)[:10])
            more = f" and {len(names) - 10} more" if len(names) > 10 else ""
            sides.append(f"only {folder} has {shown}{more}")
    raise ValueError(f"{where}the {what} differ: {'; '.join(sides)}{hint}")


def _notes(
    folder_a: Path,
    folder_b: Path,
    tasks_a: dict[str, Problems],
    tasks_b: dict[str, Problems],
    differences: Sequence[Difference],
) -> list[str]:
    notes = [
        "The data speak of these two models on problems like these. Whether another training run would do the same "
        "takes runs with other seeds."
    ]
    if (family := len(differences)) > 1:
        chance = 1 - (1 - ALPHA) ** family
        notes.append(
            f"If nothing differed, at least one of {family} intervals would leave out zero in {chance:.0%} of all such "
            "comparisons. The sentences on tasks use p after Holm's correction; the average is one test and needs none."
        )
    a, b = (sum(_undecided(problems) for problems in tasks.values()) for tasks in (tasks_a, tasks_b))
    if a or b:
        notes.append(f"Answers that could not be judged count as wrong: {a} of A, {b} of B.")
    about_a, about_b = _about(folder_a), _about(folder_b)
    changed = [
        f"{key} ({about_a.get(key, 'not given')} and {about_b.get(key, 'not given')})"
        for key in dict.fromkeys([*about_a, *about_b])
        if about_a.get(key) != about_b.get(key)
    ]
    if about_a and about_b and changed:
        notes.append(f"What differs between A and B: {', '.join(changed)}.")
    return notes


def _undecided(problems: Problems) -> int:
    return sum(row["status"] in UNDECIDED for samples in problems.values() for row in samples)


def _about(folder: Path) -> dict[str, Any]:
    """The settings of an evaluation, with nested ones as `sampling.temperature`; empty if there are none."""
    path = folder / "results.json"
    flat = {}
    for key, value in (json.loads(path.read_text())["about"] if path.is_file() else {}).items():
        flat |= {f"{key}.{name}": x for name, x in value.items()} if isinstance(value, dict) else {key: value}
    return flat


def _tables(comparison: Comparison) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, header and lines of the table of accuracies and, if any are known, of that of lengths."""
    rows = _rows(comparison)
    accuracies = [
        [
            d.task,
            _size(d),
            f"{100 * d.accuracy_a.value:.1f}",
            f"{100 * d.accuracy_b.value:.1f}",
            _interval(d.accuracy, 100, ".1f"),
            "" if d.b_better is None else f"{d.b_better} / {d.a_better}",
            format_p(d.p_value, name=""),
        ]
        for d in rows
    ]
    header = ["task", "problems", "A", "B", "B - A", "B / A better", "p"]
    tables = [("accuracy, % [95 % interval]", header, accuracies)]
    if any(d.length_a is not None and d.length_b is not None for d in rows):
        lengths = [
            [
                d.task,
                "-" if d.length_a is None else f"{d.length_a:.0f}",
                "-" if d.length_b is None else f"{d.length_b:.0f}",
                "-" if d.length is None else _interval(d.length, 1, ".0f"),
            ]
            for d in rows
        ]
        tables.append(("mean length, tokens [95 % interval]", ["task", "A", "B", "B - A"], lengths))
    return tables


def _rows(comparison: Comparison) -> tuple[Difference, ...]:
    return (*comparison.tasks, *filter(None, (comparison.macro,)))


def _findings(comparison: Comparison) -> list[str]:
    return [f"{d.task}: {d.finding}" for d in _rows(comparison)]


def _interval(difference: Estimate, scale: int, form: str) -> str:
    value, low, high = (scale * x for x in (difference.value, difference.low, difference.high))
    return f"{value:+{form}} [{low:{form}}, {high:{form}}]"


def _size(d: Difference) -> str:
    if d.samples_a == d.samples_b:
        return str(d.problems) + (f" x {d.samples_a}" if d.samples_a not in (None, 1) else "")
    return f"{d.problems} x {d.samples_a}, {d.samples_b}"
