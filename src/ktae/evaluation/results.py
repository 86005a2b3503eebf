"""Results of an evaluation from its graded samples: results.json, summary.md and the table on the screen.

A row is one sample: {"task", "id", "sample", "status", "extracted", "length", "truncated", "answers"}
and, if it came with a verdict, "stored": true or false.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ktae import markdown
from ktae.evaluation.statistics import Estimate, average, majority, pass_at_k, share_interval
from ktae.files import json_lines
from ktae.grading.rules.notation import clean, spelling
from ktae.grading.rules.numerals import parse_number

Row = dict[str, Any]
Problems = dict[str, list[Row]]  # of a task: the samples of each problem by its id

VERDICTS = ("correct", "incorrect", "no_answer", "timeout", "error")
UNDECIDED = ("timeout", "error")
MACRO = "average"  # what the average over the tasks is called
INTERVALS = "The intervals cover the choice of problems and the draws of samples, not the training."
_FIELDS = ("task", "id", "sample", "status", "extracted", "length", "truncated", "answers")
# What figures can depend on.
_LIBRARIES = ("ktae", "torch", "transformers", "vllm", "math-verify", "latex2sympy2_extended", "sympy", "numpy")


def by_task(rows: Sequence[Row]) -> dict[str, Problems]:
    """The rows by task and problem, in the order in which these first appear; samples by their number.

    Raises a ValueError if there are no rows, a row lacks a field or has an unknown verdict, a sample comes twice, the
    problems of a task have different numbers of samples, or the samples of a problem different accepted answers.
    """
    if not rows:
        raise ValueError("there are no samples to count")
    tasks: dict[str, Problems] = {}
    for number, row in enumerate(rows, start=1):
        if missing := [field for field in _FIELDS if field not in row]:
            raise ValueError(f"sample {number} has no {', '.join(map(repr, missing))}")
        if row["status"] not in VERDICTS:
            raise ValueError(f"sample {number}: 'status' must be one of {', '.join(VERDICTS)}, got {row['status']!r}")
        tasks.setdefault(row["task"], {}).setdefault(row["id"], []).append(row)
    for task, problems in tasks.items():
        first, expected = next((id, len(samples)) for id, samples in problems.items())
        for id, samples in problems.items():
            samples.sort(key=lambda row: row["sample"])
            numbers, where = [row["sample"] for row in samples], f"{task}, problem {id!r}"
            if len(set(numbers)) < len(numbers):
                raise ValueError(f"{where}: two samples have one number, {numbers}")
            if len(samples) != expected:
                raise ValueError(f"{where}: it has {len(samples)} samples, and {first!r} has {expected}")
            if any(row["answers"] != samples[0]["answers"] for row in samples):
                raise ValueError(f"{where}: its samples have different accepted answers")
    return tasks


def correct(problems: Problems) -> np.ndarray:
    """(problems, samples) integers: 1 where a sample is correct. Verdicts without a decision count as incorrect."""
    return np.array([[int(row["status"] == "correct") for row in samples] for samples in problems.values()])


def lengths(problems: Problems) -> np.ndarray | None:
    """(problems,) mean lengths in tokens, None if any is unknown."""
    length_PS = [[row["length"] for row in samples] for samples in problems.values()]
    return None if any(None in row for row in length_PS) else np.mean(length_PS, axis=1)


def undecided(problems: Problems) -> int:
    """The number of samples without a decision."""
    return sum(row["status"] in UNDECIDED for samples in problems.values() for row in samples)


def answer_key(extracted: str) -> Any:
    """What answers must share to be votes for the same: the value of a number, the cleaned spelling of anything else.

    The accepted answer plays no part: whoever takes a majority does not know it. So equal formulas in different
    spellings are different votes, and maj@n errs on the low side.
    """
    cleaned = clean(extracted)
    number = parse_number(cleaned)
    return number.value if number else spelling(cleaned)


def summarize(rows: Sequence[Row]) -> dict[str, Any]:
    """What results.json holds of the samples; raises the errors of `by_task`.

    `tasks` has for each task `problems`, `samples_per_problem` (n); `accuracy` over all samples, avg@n, with `low` and
    `high`, its 95 % interval; with `value`, `low`, `high` `pass_at_k`, for the powers of two below n and for n, and
    `majority`, maj@n; the mean `length` in tokens, and `truncated`, the share of completions that were cut off, None if
    unknown; `verdicts`, the number of each; and `agreement`, of samples that came with a verdict the share that has the
    same now, None if none did. `macro` is the plain average over `tasks` tasks, None if there is one only; `notes` are
    sentences.
    """
    tasks = by_task(rows)
    summaries = {task: _summary(problems) for task, problems in tasks.items()}
    macro = None
    if len(tasks) > 1:
        found = average([Estimate(task["accuracy"], task["low"], task["high"]) for task in summaries.values()])
        macro = {"tasks": len(tasks), "accuracy": found.value, "low": found.low, "high": found.high}
    notes = [INTERVALS]
    if counts := [f"{count} of {task}" for task, problems in tasks.items() if (count := undecided(problems))]:
        notes.append(f"Answers that could not be judged count as wrong: {', '.join(counts)}.")
    return {"tasks": summaries, "macro": macro, "notes": notes}


def _summary(problems: Problems) -> dict[str, Any]:
    rows = [row for samples in problems.values() for row in samples]
    correct_PS, length_P = correct(problems), lengths(problems)
    numbers: dict[Any, int] = {None: -1}
    answers = (None if row["extracted"] is None else answer_key(row["extracted"]) for row in rows)
    answer_PS = np.array([numbers.setdefault(answer, len(numbers)) for answer in answers]).reshape(correct_PS.shape)
    accuracy = share_interval(correct_PS.mean(axis=1))
    n = correct_PS.shape[1]
    passed = {k: pass_at_k(correct_PS, k) for k in (*(2**i for i in range((n - 1).bit_length())), n)}
    counts = Counter(row["status"] for row in rows)
    agree = [row["stored"] == (row["status"] == "correct") for row in rows if row.get("stored") is not None]
    truncated = [row["truncated"] for row in rows]
    return {
        "problems": len(problems),
        "samples_per_problem": n,
        "accuracy": accuracy.value,
        "low": accuracy.low,
        "high": accuracy.high,
        "pass_at_k": {str(k): asdict(share_interval(chance_P)) for k, chance_P in passed.items()},
        "majority": asdict(share_interval(majority(answer_PS, correct_PS))),
        "length": None if length_P is None else float(length_P.mean()),
        "truncated": None if None in truncated else float(np.mean(truncated)),
        "verdicts": {verdict: counts[verdict] for verdict in VERDICTS},
        "agreement": float(np.mean(agree)) if agree else None,
    }


def write_results(folder: Path, rows: Sequence[Row], about: Mapping[str, Any]) -> dict[str, Any]:
    """Writes samples.jsonl, results.json and summary.md, prints the table, and returns what results.json holds.

    `about` says what was evaluated and how; versions of the libraries that figures depend on are added to it. Raises
    the errors of `by_task`.
    """
    json_lines.write(folder / "samples.jsonl", rows)  # first: verdicts stay if they cannot be counted
    versions = {d.name: d.version for d in importlib.metadata.distributions() if d.name in _LIBRARIES}
    results = {"about": {**about, "versions": versions}, **summarize(rows)}
    (folder / "results.json").write_text(json.dumps(results, indent=1, default=str, allow_nan=False) + "\n")
    title = "Accuracy with its 95 % interval, mean length in tokens:"
    shown = "\n\n".join([title, table(results), *results["notes"]]) + "\n"
    (folder / "summary.md").write_text(f"# {about.get('model', 'Results')}\n\n{shown}")
    print(shown)
    return results


def table(results: Mapping[str, Any]) -> str:
    """A line a task, and the average."""
    lines = [{"task": name, **_cells(task)} for name, task in results["tasks"].items()]
    if macro := results["macro"]:
        lines.append({"task": MACRO, "problems": f"{macro['tasks']} tasks", "accuracy, %": _accuracy(macro)})
    return as_table(lines)


def as_table(lines: Sequence[Mapping[str, str]]) -> str:
    """Lines with the columns of the first one, but for those in which none has anything to say."""
    names = [name for name in lines[0] if any(line.get(name) for line in lines)]
    return markdown.table(names, [[line.get(name) or "-" for name in names] for line in lines])


def _cells(task: Mapping[str, Any]) -> dict[str, str]:
    n, verdicts = task["samples_per_problem"], task["verdicts"]
    return {
        "problems": times(task["problems"], n),
        "accuracy, %": _accuracy(task),
        "pass@n": f"{100 * task['pass_at_k'][str(n)]['value']:.1f}" if n > 1 else "",
        "maj@n": f"{100 * task['majority']['value']:.1f}" if n > 1 else "",
        "length": f"{task['length']:.0f}" if task["length"] is not None else "",
        "cut off": f"{task['truncated']:.1%}" if task["truncated"] is not None else "",
        "no answer": f"{verdicts['no_answer'] / sum(verdicts.values()):.1%}",
        "as stored": f"{task['agreement']:.1%}" if task["agreement"] is not None else "",
    }


def times(problems: int, *samples: int) -> str:
    """`30 x 4`, or `30` with one sample a problem; `30 x 1, 8` where two evaluations differ."""
    counts = list(dict.fromkeys(samples))
    return f"{problems} x {', '.join(map(str, counts))}" if counts != [1] else str(problems)


def _accuracy(summary: Mapping[str, Any]) -> str:
    return f"{100 * summary['accuracy']:.1f} [{100 * summary['low']:.1f}, {100 * summary['high']:.1f}]"
