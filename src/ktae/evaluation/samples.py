"""Completions with verdicts: the rows of samples.jsonl."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from ktae.evaluation.tasks import TASKS
from ktae.grading.extraction import extract_answer
from ktae.grading.grader import Grader
from ktae.grading.options import GradingOptions

_TOGETHER = 512  # rows from one report of progress to the next


def grade_rows(
    rows: Sequence[dict[str, Any]], *, workers: int = 2, progress: Callable[[int], None] = lambda done: None
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Adds verdicts: `status`, `extracted`, `reason`, and `formatted`, whether the completion has a complete box.

    Args:
        rows: with `task`, `completion` and `answers`; each is graded with the options of its task, if it is one of
            `TASKS`, and the defaults otherwise.
        workers: processes of the grader.
        progress: called with the number of rows that are done.

    Returns:
        New rows in the same order, and the seconds that each task took.
    """
    graded = [dict(row) for row in rows]
    seconds: dict[str, float] = {}
    graders: dict[float | None, Grader] = {}
    done = 0
    with ExitStack() as stack:
        for task in dict.fromkeys(row["task"] for row in rows):
            begun = time.perf_counter()
            tolerance = TASKS[task].relative_tolerance if task in TASKS else None
            if tolerance not in graders:
                options = GradingOptions(relative_tolerance=tolerance)
                graders[tolerance] = stack.enter_context(Grader(workers=workers, options=options))
            of_task = [row for row in graded if row["task"] == task]
            for start in range(0, len(of_task), _TOGETHER):
                part = of_task[start : start + _TOGETHER]
                texts, answers = [row["completion"] for row in part], [row["answers"] for row in part]
                for row, verdict in zip(part, graders[tolerance].grade(texts, answers), strict=True):
                    row["formatted"] = extract_answer(row["completion"], ("box",)) is not None
                    row |= {"status": verdict.status, "extracted": verdict.extracted, "reason": verdict.reason}
                done += len(part)
                progress(done)
            seconds[task] = time.perf_counter() - begun
    return graded, seconds
