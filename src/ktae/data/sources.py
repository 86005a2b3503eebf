r"""Collections of problems: where they are, which of their columns count, and how an answer or a level is read."""

from __future__ import annotations

import difflib
import hashlib
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from ktae.extras import require
from ktae.files.columns import PROMPTS, messages_of, value_of
from ktae.files.rows import SUFFIXES, read_rows, without_malformed
from ktae.grading.extraction import extract_answer, reference_answers

_AHEAD = 100  # rows from which the columns are recognised
COLUMNS = ("problem", "answer", "level", "id")  # what a column can be named for, and its name by default
REFERENCES = (
    *("answers", "answer", "ground_truth", "gts", "gt", "label", "target", "final_answer", "expected_answer"),
    *("reward_model.ground_truth", "env_extras.reward_model.ground_truth", "extra_info.answer"),
)
_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?:\{(?!\s*\})|(?P<bare>[^\s{}$\\]+))")
_LEVEL = re.compile(r"(?:level\s*)?([0-9]+)(?:\.0+)?", re.IGNORECASE)


@dataclass(frozen=True)
class Problem:
    """One problem: its text, the accepted answers (none if there are none), its id, and its level if known."""

    text: str
    answers: tuple[str, ...]
    id: str
    level: int | None


def plain(value: Any) -> str | None:
    """A text without the white space around it, or a number, 5.0 as "5"; None for an empty one or NaN."""
    if isinstance(value, float):
        if value != value:
            return None
        value = int(value) if value.is_integer() else value
    return str(value).strip() or None


def answers_of(value: Any) -> list[str]:
    """The accepted answers in a column of references (`reference_answers`); none where it holds none.

    >>> answers_of("3 + 4 = 7\\n#### 7"), answers_of('["7", "seven"]'), answers_of([["7\\n"], 7.0])
    (['7'], ['7', 'seven'], ['7'])
    """
    if isinstance(value, list):
        return list(dict.fromkeys(answer for item in value for answer in answers_of(item)))
    if value is None or isinstance(value, dict):
        return []
    try:
        return list(reference_answers(value if isinstance(value, str) else plain(value) or ""))
    except ValueError:
        return []


def references_in(data: Mapping[str, Any]) -> list[str]:
    """The accepted answers of a row, from the first of REFERENCES that has any."""
    return next(filter(None, (answers_of(value_of(data, name)) for name in REFERENCES)), [])


def whole_number(value: Any) -> str | None:
    """Like `plain`, for numbers written as text: "145.0" as "145"."""
    return re.sub(r"\.0+$", "", plain(value) or "") or None


def last_box(solution: Any) -> str | None:
    r"""The content of the last `\boxed` of a worked solution, None without one.

    >>> last_box(r"As $x = 3$, we get $\boxed{\frac{1}{2}}$."), last_box(r"so it is $\boxed 2$")
    ('\\frac{1}{2}', '2')
    """
    boxes = deque(_BOX.finditer(str(solution)), maxlen=1)
    if not boxes:
        return None
    if boxes[0]["bare"]:  # a few solutions of MATH leave out the braces
        return boxes[0]["bare"].rstrip(".,") or None
    return extract_answer(str(solution)[boxes[0].start() :])


def after_hashes(solution: Any) -> str | None:
    """What follows `####` in a worked solution of GSM8K, without thousands separators; None without one."""
    _, hashes, answer = str(solution).rpartition("####")
    return plain(re.sub(r"(?<=\d),(?=\d)", "", answer)) if hashes else None


def level_of(value: Any) -> int | None:
    """A level as a number: of 3, 3.0, "3" and "Level 3" it is 3, of anything else, such as "Level ?", None."""
    match = _LEVEL.fullmatch(str(value).strip())
    return int(match[1]) if match else None


def difficulty_of(value: Any) -> int | None:
    """Like `level_of`, of the copies of MATH that have 0.0 for its "Level ?"."""
    return level_of(value) or None


@dataclass(frozen=True)
class Source:
    """A collection of problems.

    Attributes:
        name: what its rows say in `source`.
        path: hub id, folder or file.
        config: name of the hub's configuration.
        problem: the columns that make up a problem's text, joined by a space.
        answers: columns that may hold the answer, each with how to read it; the first that gives one counts.
        levels: the same for the level. The columns may be missing.
        id: column of the source's own ids, None for none. The column may be missing.
        required: columns among `levels` and `id` that may not be missing.
    """

    name: str
    path: str
    config: str | None = None
    problem: tuple[str, ...] = ("problem",)
    answers: Mapping[str, Callable[[Any], str | list[str] | None]] = field(default_factory=lambda: {"answer": plain})
    levels: Mapping[str, Callable[[Any], int | None]] = field(default_factory=lambda: {"level": level_of})
    id: str | None = "id"
    required: tuple[str, ...] = ()

    def read(self, row: Mapping[str, Any]) -> Problem:
        """A row as a problem.

        The id is the source's own, otherwise the source's name and a hash of the problem's text: the row's number
        would change with the order of the rows.

        Args:
            row: by column; `check_columns` has passed.

        Returns:
            The problem; with an empty text if one of its columns is empty.

        Raises:
            ValueError: a column does not hold what it should.
        """
        parts = [self._text(row, column) for column in self.problem]
        text = " ".join(parts) if all(parts) else ""
        answers = next(filter(None, (self._answers(row, column) for column in self.answers)), ())
        levels = (read(row[column]) for column, read in self.levels.items() if row.get(column) is not None)
        own = row.get(self.id) if self.id else None
        digest = hashlib.sha256(text.encode()).hexdigest()
        name = (None if own is None else plain(own)) or f"{self.name}-{digest[:16]}"
        return Problem(text, answers, name, next((level for level in levels if level is not None), None))

    def _text(self, row: Mapping[str, Any], column: str) -> str:
        value = row.get(column)
        try:
            if isinstance(value, list):
                value = [turn for turn in value if not isinstance(turn, dict) or turn.get("role") != "system"]
            return "" if value is None else "".join(text for text, _ in messages_of(value, column)).strip()
        except ValueError:
            raise ValueError(
                f"the column {column!r} of {self.name} must hold a problem's text, got {value!r:.80}"
            ) from None

    def _answers(self, row: Mapping[str, Any], column: str) -> tuple[str, ...]:
        value = row.get(column)
        accepted = value if isinstance(value, list) else [value]
        for answer in accepted:
            if answer is not None and not isinstance(answer, str | int | float | list):
                raise ValueError(
                    f"the column {column!r} of {self.name} must hold an answer, a text or a number, or a list of them, "
                    f"got {value!r:.80}"
                )
        read = (self.answers[column](answer) for answer in accepted if answer is not None)
        answers = (answer for found in read for answer in (found if isinstance(found, list) else [found]))
        return tuple(dict.fromkeys(filter(None, answers)))

    def check_columns(self, columns: Iterable[str]) -> None:
        """Checks that the columns are there.

        Raises:
            ValueError: one is not; the message names the nearest one that is.
        """
        columns = sorted(columns)
        for wanted in (*((column,) for column in self.problem), tuple(self.answers), *((c,) for c in self.required)):
            if not set(wanted) & set(columns):
                nearest = difflib.get_close_matches(wanted[0], columns, n=1, cutoff=0.0)
                hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
                options = "" if self.name in SOURCES else " (--problem-column, --answer-column, ... name them)"
                raise ValueError(
                    f"{self.name} needs the column {' or '.join(map(repr, wanted))}, got {columns}{hint}{options}"
                )


SOURCES = {
    source.name: source
    for source in (
        Source(
            "math",
            "DigitalLearningGmbH/MATH-lighteval",
            answers={"answer": plain, "solution": last_box},
            levels={"level": level_of, "difficulty": difficulty_of},
        ),
        Source("gsm8k", "openai/gsm8k", "main", problem=("question",), answers={"answer": after_hashes}, levels={}),
        Source(
            "svamp",
            "ChilleD/SVAMP",
            problem=("Body", "Question"),
            answers={"Answer": whole_number},
            levels={},
            id="ID",
        ),
    )
}


def other_source(path: str, columns: Mapping[str, str | None]) -> Source:
    """A source that is not one of `SOURCES`.

    Args:
        path: hub id, folder or file.
        columns: for each of `COLUMNS` the column, None for its default name, empty for none.
    """
    problem, answer, level, own_id = (name if columns[name] is None else columns[name] for name in COLUMNS)
    return Source(
        Path(path).name if path.endswith(SUFFIXES) else path,
        path,
        problem=(str(problem),),
        answers={str(answer): answers_of},
        levels={level: level_of} if level else {},
        id=own_id or None,
        required=tuple(name for name in (columns["level"], columns["id"]) if name),
    )


def load_rows(
    source: Source, split: str, file: Path | None = None, *, strict: bool = False
) -> tuple[list[str], Iterable[dict[str, Any]]]:
    """A source's rows as they are; one that is not of `SOURCES` may have its problem and answer in any usual column.

    Args:
        source: what to load. Its columns are checked.
        split: of a hub id or a folder; a file has only one.
        file: read this file instead of what is at `source.path`.
        strict: a malformed row of a file raises a ValueError; else it is left out, named and counted.

    Returns:
        The columns' names, and the rows, to be gone through once.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: the hub cannot be reached or has no such data set.
        ValueError: the file cannot be read, there is no such split, or a column is missing.
    """
    path = Path(file or source.path)
    if path.name.endswith(SUFFIXES) or path.is_file():
        rows = (row.data for row in without_malformed(read_rows(path), path, strict=strict))
    else:
        rows = iter(_from_hub(source, split))
    ahead = list(islice(rows, _AHEAD))
    names = list(dict.fromkeys(name for row in ahead for name in row))
    other = {}
    if source.name not in SOURCES:
        merged = {name: value for row in ahead for name, value in row.items() if value is not None}
        if source.problem == ("problem",) and "problem" not in names:
            other["problem"] = next((name for name in PROMPTS if name in names), None)
        if list(source.answers) == ["answer"] and "answer" not in names:
            other["answer"] = next((name for name in REFERENCES if answers_of(value_of(merged, name))), None)
            if other["answer"] is None and last_box(merged.get("solution")):
                other["answer"] = "solution"
        other = {name: column for name, column in other.items() if column}
        if other:
            print(", ".join(f"{name} from {column}" for name, column in other.items()), file=sys.stderr)
    source.check_columns([*names, *other])
    read = ({**row, **{n: value_of(row, c) for n, c in other.items()}} for row in chain(ahead, rows))
    return [*names, *other], read


def _from_hub(source: Source, split: str) -> Any:
    datasets = require("datasets", extra="train")
    try:
        return datasets.load_dataset(source.path, source.config, split=split)
    except (OSError, RuntimeError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error.__cause__ or error).split())
        if isinstance(error, OSError):
            option = "--file PATH" if source.name in SOURCES else "the file's path as SOURCE"
            raise OSError(
                f"cannot load {source.path}: {reason}. Its rows in a local file do as well: {option}"
            ) from error
        raise ValueError(f"cannot read {source.path}: {reason}") from error
