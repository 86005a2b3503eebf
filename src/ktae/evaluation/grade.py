"""`ktae grade OUTPUTS`: saved outputs graded again, and compared with the verdicts that came with them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ktae.evaluation.results import UNDECIDED, write_results
from ktae.evaluation.saved import read_saved
from ktae.evaluation.tasks import TASKS
from ktae.extras import require
from ktae.files import json_lines
from ktae.files.rows import stem
from ktae.grading.grader import Grader

_TOGETHER = 512  # rows from one step of the progress bar to the next


def grade_rows(rows: Sequence[dict[str, Any]], *, workers: int = 2) -> list[dict[str, Any]]:
    """The rows, which have `task`, `completion` and `answers`, in the same order, with verdicts.

    They are `status`, `extracted`, `reason`, and `reward`, by which `ktae report` and the like know correct rollouts: 1
    or 0, None where there is no decision. Each row is graded with the tolerance of its task, if that is one of `TASKS`.
    """
    from rich.progress import track

    graded = [dict(row) for row in rows]
    by_tolerance: dict[float | None, list[dict[str, Any]]] = {}
    for row in graded:
        tolerance = TASKS[row["task"]].relative_tolerance if row["task"] in TASKS else None
        by_tolerance.setdefault(tolerance, []).append(row)
    for tolerance, alike in by_tolerance.items():
        with Grader(workers, relative_tolerance=tolerance) as grader:
            for start in track(range(0, len(alike), _TOGETHER), f"grading {len(alike)} answers"):
                part = alike[start : start + _TOGETHER]
                verdicts = grader.grade([row["completion"] for row in part], [row["answers"] for row in part])
                for row, verdict in zip(part, verdicts, strict=True):
                    row |= {"status": verdict.status, "extracted": verdict.extracted, "reason": verdict.reason}
                    row["reward"] = None if verdict.status in UNDECIDED else float(verdict.status == "correct")
    return graded


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    outputs = "file or folder of ktae eval, of the KTAE authors' evaluation, of lm-eval or lighteval, or of rollouts"
    add("outputs", type=Path, help=f"{outputs} with answers")
    add("--out", type=Path, help="the folder for the results (default: OUTPUTS-graded)")
    add("--workers", type=int, default=2, help="processes of the grader (default: %(default)s)")


def run(arguments: argparse.Namespace) -> None:
    """Writes samples.jsonl (a row an output, with its verdict), results.json and summary.md to the folder.

    And disagreements.jsonl, the rows whose verdict differs from the one that came with them.
    """
    require("rich", extra="train")
    outputs = arguments.outputs if arguments.outputs.name.strip(".") else arguments.outputs.resolve()  # "." and ".."
    out = arguments.out or outputs.with_name(stem(outputs) + "-graded")
    rows, malformed = read_saved(outputs)
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty; give another --out")
    graded = grade_rows(rows, workers=arguments.workers)
    differing = [row for row in graded if row["stored"] not in (None, row["status"] == "correct")]
    json_lines.write(out / "disagreements.jsonl", differing)
    write_results(out, graded, {"outputs": str(outputs), "malformed": len(malformed)})
