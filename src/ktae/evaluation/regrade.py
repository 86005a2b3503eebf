"""`ktae grade OUTPUTS`: saved outputs graded again, and compared with the verdicts that came with them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ktae.evaluation.samples import grade_rows
from ktae.evaluation.saved import read_saved
from ktae.extras import require
from ktae.files import json_lines
from ktae.files.rows import stem


def regrade(path: Path, out: Path, *, workers: int = 2, strict: bool = False) -> dict[str, Any]:
    """Grades a file of saved outputs.

    Writes to `out`: samples.jsonl (a row an output, with its verdict), disagreements.jsonl (the rows whose verdict
    differs from the stored one), results.json and summary.md.

    Args:
        path: see `ktae.evaluation.saved.read_saved`.
        out: the folder to write, which must be empty or not exist.
        workers: processes of the grader.
        strict: a row that cannot be graded raises a ValueError; else it is left out, named and counted.

    Returns:
        What results.json holds: the accuracy of each task with its interval, and `malformed`, the number of rows left
        out; with stored verdicts also `agreement` (the share of outputs with the same verdict) and `compared`, and the
        `seconds` it took.

    Raises:
        FileNotFoundError, ValueError: the file is not there or not of a known format.
        FileExistsError: `out` is not empty.
    """
    from rich.console import Console
    from rich.progress import Progress

    from ktae.evaluation.results import print_table, write_results

    format_name, rows, malformed = read_saved(path, strict=strict)
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty; give another --out")
    console = Console()
    with Progress(console=console) as progress:
        bar = progress.add_task(f"grading ({format_name})", total=len(rows))
        graded, seconds = grade_rows(rows, workers=workers, progress=lambda done: progress.update(bar, completed=done))
    compared = [row for row in graded if row["stored"] is not None]
    differing = [row for row in compared if row["stored"] != (row["status"] == "correct")]
    by_task = {}
    for task, taken in seconds.items():
        asked, wrong = (sum(row["task"] == task for row in rows) for rows in (compared, differing))
        agreement = 1 - wrong / asked if asked else None
        by_task[task] = {"compared": asked, "disagreements": wrong, "seconds": taken, "agreement": agreement}
    json_lines.write(out / "samples.jsonl", [{k: v for k, v in row.items() if k != "stored"} for row in graded])
    json_lines.write(out / "disagreements.jsonl", differing)
    about = {"outputs": str(path), "format": format_name, "malformed": len(malformed)}
    results = write_results(out, graded, about, more=by_task)
    print_table(results, console)
    if compared:
        console.print(
            f"{len(compared) - len(differing)} of {len(compared)} verdicts are as stored "
            f"({1 - len(differing) / len(compared):.1%}); the others are in {out / 'disagreements.jsonl'}"
        )
    return results


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to a parser."""
    add = parser.add_argument
    add(
        "outputs",
        type=Path,
        help="samples of ktae eval, of the KTAE authors' evaluation, of lm-eval or lighteval, or rollouts with answers",
    )
    add("--out", type=Path, help="the folder for the results (default: OUTPUTS-graded)")
    add("--workers", type=int, default=2, help="processes of the grader (default: %(default)s)")
    add("--strict", action="store_true", help="stop at the first malformed row")


def run(arguments: argparse.Namespace) -> None:
    """Runs the command."""
    require("rich", extra="train")
    out = arguments.out or arguments.outputs.with_name(stem(arguments.outputs) + "-graded")
    regrade(arguments.outputs, out, workers=arguments.workers, strict=arguments.strict)
