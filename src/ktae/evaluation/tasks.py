"""The benchmarks: where their problems come from, how they are asked and graded, and what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ktae.data.sources import SOURCES, Problem, Source, answers_of, load_rows, plain
from ktae.files.rows import SUFFIXES, Malformed, read_rows, stem

BOXED = r"Please reason step by step, and put your final answer within \boxed{}."


@dataclass(frozen=True)
class Task:
    """A benchmark.

    Attributes:
        source: where its problems are on the hub, and their columns.
        size: problems it has; another number is an error, since figures would not be comparable.
        split: of the hub's data set.
        system: system message, for models with a chat template.
        relative_tolerance: for tasks whose answers are measured or computed quantities: numbers agree that differ by
            at most this share of the accepted one. None where answers are exact.
        is_defective: says of a problem and its answers whether the answer given is known to be wrong. Such problems
            stay in (figures of others have them, too), and their number is reported.
        notes: what a reader of a figure should know.
    """

    source: Source
    size: int
    split: str = "test"
    system: str = BOXED
    relative_tolerance: float | None = None
    is_defective: Callable[[Problem], bool] | None = None
    notes: str = ""

    @property
    def name(self) -> str:
        """What the command line calls it."""
        return self.source.name


def repeats_previous_answer(problem: Problem) -> bool:
    """Whether the accepted answer is that of the sub-problem before, as the text itself states it.

    Minerva's problems with several parts quote the solutions of the earlier parts, each ending with "The final answer
    is X. I hope it is correct."; in some rows X is also what is given as the answer of the last part.
    """
    stated = re.findall(r"final answer is(.*?)\.?\s*I hope", problem.text, re.DOTALL | re.IGNORECASE)
    if not stated:
        return False
    return _squeezed(stated[-1]) in {_squeezed(answer) for answer in problem.answers}


def _squeezed(answer: str) -> str:
    return re.sub(r"[\s$]", "", answer)


TASKS = {
    task.name: task
    for task in (
        Task(Source("aime24", "HuggingFaceH4/aime_2024"), 30, "train", notes="integers from 0 to 999"),
        Task(Source("aime25", "math-ai/aime25"), 30, notes="integers from 0 to 999"),
        Task(
            Source("amc23", "AI-MO/aimo-validation-amc"),
            83,
            "train",
            notes="AMC 12 of 2022 and 2023, rephrased to have integer answers; another set of 40 has the same name",
        ),
        Task(Source("math500", "HuggingFaceH4/MATH-500", id="unique_id"), 500),
        Task(
            Source("minerva", "math-ai/minervamath", problem=("question",)),
            272,
            relative_tolerance=0.01,
            is_defective=repeats_previous_answer,
            notes="physics, chemistry, economics; numbers are graded with 1 % tolerance",
        ),
        Task(
            Source(
                "olympiadbench",
                "Hothan/OlympiadBench",
                "OE_TO_maths_en_COMP",
                problem=("question",),
                answers={"final_answer": plain},
            ),
            675,
            "train",
            notes="open-ended, text only, English, mathematics; the hub's copy has 674",
        ),
        Task(SOURCES["gsm8k"], 1319),
        Task(SOURCES["svamp"], 1000, notes="local copies may have all 1000 problems, the hub's test split has 300"),
    )
}
SUITES = {"paper": ["aime24", "math500", "amc23", "minerva", "olympiadbench"]}


def resolve_tasks(names: list[str]) -> list[Task | str]:
    """Tasks by name; suites become their tasks, and names of local files stay for `load_task`.

    Raises:
        ValueError: there is no name, or one is unknown or comes twice.
    """
    if not names:
        raise ValueError("--tasks names no task")
    resolved: list[Task | str] = []
    for name in names:
        if name in SUITES:
            resolved += [TASKS[task] for task in SUITES[name]]
        elif name in TASKS:
            resolved.append(TASKS[name])
        elif name.endswith(SUFFIXES):
            resolved.append(name)
        else:
            known = ", ".join([*SUITES, *TASKS])
            raise ValueError(f"--tasks: unknown task {name!r}; known are {known}, and files: {', '.join(SUFFIXES)}")
    keys = [task if isinstance(task, str) else task.name for task in resolved]
    if repeated := {key for key in keys if keys.count(key) > 1}:
        raise ValueError(f"--tasks names {', '.join(sorted(repeated))} more than once")
    return resolved


def load_task(task: Task | str, data_dir: Path | None = None) -> tuple[Task, list[Problem]]:
    """A task's problems, from the hub or from a local file.

    Args:
        task: one of `TASKS`, or the path of a file with `problem`, `answers` and, if it has them, `id`.
        data_dir: folder with `NAME.jsonl` files of that form, to read instead of the hub.

    Returns:
        The task and its problems in the source's order.

    Raises:
        FileNotFoundError: the file does not exist.
        OSError: the hub cannot be reached.
        ValueError: a row has no problem or no answer, two rows have one id, or the number of problems is not the
            task's.
    """
    if isinstance(task, str):
        problems = read_problems(Path(task))
        return Task(Source(stem(Path(task)), task), len(problems)), problems
    if data_dir is not None:
        problems = read_problems(data_dir / f"{task.name}.jsonl")
        if len(problems) != task.size:
            raise ValueError(f"{data_dir / task.name}.jsonl has {len(problems)} problems, but {task.name} {task.size}")
        return task, problems
    _, rows = load_rows(task.source, task.split)
    return task, _checked(list(map(task.source.read, rows)), task.name)


def read_problems(path: Path) -> list[Problem]:
    """Problems of a file: `problem`, `answers` (a list; texts or numbers) and, optionally, `id`.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: a row is not of that form; the message has its number. None is skipped: figures would not be
            comparable.
    """
    problems = []
    for row in read_rows(path):
        if isinstance(row, Malformed):
            raise ValueError(str(row))
        text, given = row.data.get("problem"), row.data.get("answers")
        if not (isinstance(text, str) and text.strip() and isinstance(given, list)):
            raise ValueError(
                f"{path}:{row.row}: expected 'problem' (a text) and 'answers' (a list), got {row.data!r:.80}"
            )
        answers = tuple(answers_of(given))
        problems.append(Problem(text.strip(), answers, str(row.data.get("id", row.row - 1)), None))
    return _checked(problems, str(path))


def _checked(problems: list[Problem], name: str) -> list[Problem]:
    if not problems:
        raise ValueError(f"{name} has no problems")
    seen = set()
    for problem in problems:
        if not problem.text or not problem.answers:
            raise ValueError(f"{name}: the problem {problem.id!r} has no {'answer' if problem.text else 'text'}")
        if problem.id in seen:
            raise ValueError(f"{name}: two problems have the id {problem.id!r}")
        seen.add(problem.id)
    return problems
