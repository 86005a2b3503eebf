"""Completions with verdicts: the rows of samples.jsonl."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

from ktae.evaluation.tasks import TASKS
from ktae.grading.extraction import extract_answer
from ktae.grading.grader import Grader
from ktae.grading.options import GradingOptions
from ktae.models.generate import Completion

_TOGETHER = 512  # rows from one report of progress to the next


def to_rows(items: Sequence[tuple[Any, Any, int]], completions: Sequence[Completion]) -> list[dict[str, Any]]:
    """Completions as rows that can be graded.

    Args:
        items: for each completion its task, problem and number among the problem's samples.
        completions: in the same order.
    """
    return [
        {
            "task": task.name,
            "id": problem.id,
            "sample": sample,
            "completion": completion.text,
            "length": completion.length,
            "truncated": completion.truncated,
            "answers": list(problem.answers),
        }
        for (task, problem, sample), completion in zip(items, completions, strict=True)
    ]


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
    graded: dict[int, dict[str, Any]] = {}
    seconds: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        graders: dict[GradingOptions, Grader] = {}
        for task in dict.fromkeys(row["task"] for row in rows):
            begun = time.perf_counter()
            options = options_of(task)
            if options not in graders:
                graders[options] = stack.enter_context(Grader(workers=workers, options=options))
            indices = [i for i, row in enumerate(rows) if row["task"] == task]
            for start in range(0, len(indices), _TOGETHER):
                part = indices[start : start + _TOGETHER]
                texts = [rows[i]["completion"] for i in part]
                for i, verdict in zip(
                    part, graders[options].grade(texts, [rows[i]["answers"] for i in part]), strict=True
                ):
                    graded[i] = {
                        **rows[i],
                        "formatted": extract_answer(rows[i]["completion"], ("box",)) is not None,
                        "status": verdict.status,
                        "extracted": verdict.extracted,
                        "reason": verdict.reason,
                    }
                progress(len(graded))
            seconds[task] = time.perf_counter() - begun
    return [graded[i] for i in range(len(rows))], seconds


def options_of(task: str) -> GradingOptions:
    """How a task's answers are compared."""
    known = TASKS.get(task)
    return GradingOptions(relative_tolerance=known.relative_tolerance) if known else GradingOptions()
