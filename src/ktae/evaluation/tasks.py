"""The benchmarks: where their problems come from and which are wrong; docs/evaluation.md says more on each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ktae.data.sources import SOURCES, Problem, Source, load
from ktae.files.rows import SUFFIXES, stem


@dataclass(frozen=True)
class Task:
    """A benchmark."""

    source: Source
    size: int | None = None  # its problems: figures over another number are not comparable; None for the user's own
    split: str = "test"  # of the hub's data set
    # For answers that are measured or computed: numbers agree that differ by at most this share of the accepted one.
    relative_tolerance: float | None = None

    @property
    def name(self) -> str:
        """What the command line calls it."""
        return self.source.name


_QUESTION, _OLYMPIAD = ("question",), ("Hothan/OlympiadBench", "OE_TO_maths_en_COMP")
TASKS = {
    task.name: task
    for task in (
        Task(Source("aime24", "HuggingFaceH4/aime_2024"), 30, "train"),
        Task(Source("aime25", "math-ai/aime25"), 30),
        Task(Source("amc23", "AI-MO/aimo-validation-amc"), 83, "train"),
        Task(Source("math500", "HuggingFaceH4/MATH-500"), 500),
        # 30 accept the answer of the part before, which they quote. They stay in: figures of others have them, too.
        Task(Source("minerva", "math-ai/minervamath", None, _QUESTION), 272, "test", 0.01),
        Task(Source("olympiadbench", *_OLYMPIAD, _QUESTION, ("final_answer",)), 675, "train"),
        Task(SOURCES["gsm8k"], 1319),
        Task(SOURCES["svamp"], 1000),
    )
}
SUITES = {"paper": ["aime24", "math500", "amc23", "minerva", "olympiadbench"]}


def resolve_tasks(names: list[str]) -> list[Task]:
    """Tasks by name; suites become their tasks, and files tasks of the file's name. A wrong name is a ValueError."""
    if not names:
        raise ValueError("--tasks names no task")
    tasks: list[Task] = []
    for name in names:
        if name in {**SUITES, **TASKS}:
            tasks += [TASKS[task] for task in SUITES.get(name, [name])]
        elif name.endswith(SUFFIXES):
            tasks.append(Task(Source(stem(Path(name)), name, problem=(), answers=())))
        else:
            known = ", ".join([*SUITES, *TASKS])
            raise ValueError(f"--tasks: unknown task {name!r}; known are {known}, and files: {', '.join(SUFFIXES)}")
    keys = [task.name for task in tasks]
    if repeated := {key for key in keys if keys.count(key) > 1}:
        raise ValueError(f"--tasks names {', '.join(sorted(repeated))} more than once")
    return tasks


def load_problems(task: Task, data_dir: Path | None = None) -> list[Problem]:
    """A task's problems in the source's order, from the hub, its file, or NAME.jsonl in `data_dir`.

    A file's columns are recognised as in `ktae data prepare`, which also writes such files. No problem is skipped:
    figures would not be comparable.

    Raises an OSError if the file does not exist or the hub cannot be reached, and a ValueError if a row is malformed or
    has no problem or no answer, two rows have one id, or a local copy has another number of problems.
    """
    source = task.source
    is_local = data_dir is not None and task.size is not None
    if is_local:
        source = Source(task.name, f"{data_dir}/{task.name}.jsonl", problem=(), answers=())
    problems = load(source, task.split, strict=True)
    if is_local and len(problems) != task.size:
        raise ValueError(f"{source.path} has {len(problems)} problems, but {task.name} {task.size}")
    seen = set()
    for problem in problems:
        if not problem.text or not problem.answers:
            raise ValueError(f"{source.path}: the problem {problem.id!r} has no {'answer' if problem.text else 'text'}")
        if problem.id in seen:
            raise ValueError(f"{source.path}: two problems have the id {problem.id!r}, or the text and no id")
        seen.add(problem.id)
    return problems
