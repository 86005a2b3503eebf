"""`ktae grade OUTPUTS`: saved outputs graded again, and compared with the verdicts that came with them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ktae.evaluation.saved import read_saved
from ktae.evaluation.tasks import TASKS
from ktae.extras import require
from ktae.files import json_lines
from ktae.files.rows import stem
from ktae.grading.equivalence import GradingOptions
from ktae.grading.extraction import extract_answer
from ktae.grading.grader import Grader

_TOGETHER = 512  # rows from one step of the progress bar to the next


def grade_rows(rows: Sequence[dict[str, Any]], *, workers: int = 2) -> list[dict[str, Any]]:
    """Adds verdicts: `status`, `extracted`, `reason`, and `formatted`, whether the completion has a complete box.

    Args:
        rows: with `task`, `completion` and `answers`; each is graded with the tolerance of its task, if that is one of
            `TASKS`.
        workers: processes of the grader.

    Returns:
        New rows in the same order.
    """
    from rich.progress import track

    graded = [dict(row) for row in rows]
    by_tolerance: dict[float | None, list[dict[str, Any]]] = {}
    for row in graded:
        tolerance = TASKS[row["task"]].relative_tolerance if row["task"] in TASKS else None
        by_tolerance.setdefault(tolerance, []).append(row)
    for tolerance, alike in by_tolerance.items():
        with Grader(workers=workers, options=GradingOptions(relative_tolerance=tolerance)) as grader:
            for start in track(range(0, len(alike), _TOGETHER), f"grading {len(alike)} answers"):
                part = alike[start : start + _TOGETHER]
                verdicts = grader.grade([row["completion"] for row in part], [row["answers"] for row in part])
                for row, verdict in zip(part, verdicts, strict=True):
                    row["formatted"] = extract_answer(row["completion"], ("box",)) is not None
                    row |= {"status": verdict.status, "extracted": verdict.extracted, "reason": verdict.reason}
    return graded


def regrade(path: Path, out: Path, *, workers: int = 2, strict: bool = False) -> dict[str, Any]:
    """Grades saved outputs; returns what results.json holds.

    Writes to `out`: samples.jsonl (a row an output, with its verdict), disagreements.jsonl (the rows whose verdict
    differs from the stored one), results.json and summary.md.

    Args:
        path: see `ktae.evaluation.saved.read_saved`.
        out: the folder to write, which must be empty or not exist.
        workers: processes of the grader.
        strict: a row that cannot be graded raises a ValueError; else it is left out, named and counted.

    Raises:
        FileNotFoundError, ValueError: the file is not there or not of a known format.
        FileExistsError: `out` is not empty.
    """
    from ktae.evaluation.results import differs, write_results

    format_name, rows, malformed = read_saved(path, strict=strict)
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty; give another --out")
    graded = grade_rows(rows, workers=workers)
    differing = [row for row in graded if differs(row)]
    json_lines.write(out / "samples.jsonl", graded)
    json_lines.write(out / "disagreements.jsonl", differing)
    results = write_results(out, graded, {"outputs": str(path), "format": format_name, "malformed": len(malformed)})
    if compared := sum(row["stored"] is not None for row in graded):
        print(
            f"{compared - len(differing)} of {compared} verdicts are as stored ({1 - len(differing) / compared:.1%}); "
            f"the others are in {out / 'disagreements.jsonl'}"
        )
    return results


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to a parser."""
    add = parser.add_argument
    outputs = "file or folder of ktae eval, of the KTAE authors' evaluation, of lm-eval or lighteval, or of rollouts"
    add("outputs", type=Path, help=f"{outputs} with answers")
    add("--out", type=Path, help="the folder for the results (default: OUTPUTS-graded)")
    add("--workers", type=int, default=2, help="processes of the grader (default: %(default)s)")
    add("--strict", action="store_true", help="stop at the first malformed row")


def run(arguments: argparse.Namespace) -> None:
    """Runs the command."""
    require("rich", extra="train")
    outputs = arguments.outputs if arguments.outputs.name.strip(".") else arguments.outputs.resolve()  # "." and ".."
    out = arguments.out or outputs.with_name(stem(outputs) + "-graded")
    regrade(outputs, out, workers=arguments.workers, strict=arguments.strict)
