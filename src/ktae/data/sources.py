r"""Collections of problems: a table of known ones, and how a row of any becomes a problem."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ktae.extras import did_you_mean, require
from ktae.files.columns import PROMPTS, messages_of, value_of
from ktae.files.rows import SUFFIXES, held_columns, read_rows, without_malformed
from ktae.grading.extraction import reference_answers

SYSTEM = r"Please reason step by step, and put your final answer within \boxed{}."
REFERENCES = (
    *("answers", "answer", "ground_truth", "gts", "gt", "label", "target", "final_answer", "expected_answer"),
    *("reward_model.ground_truth", "env_extras.reward_model.ground_truth", "extra_info.answer"),
)
# The last are of MATH-500 and SVAMP, and of copies of MATH.
_IDS = ("id", "unique_id", "ID")
_LEVELS = ("level", "difficulty")
_MARKED = re.compile(r"\\(boxed|fbox)|####")
_LEVEL = re.compile(r"(?:level\s*)?([0-9]+)(?:\.0+)?", re.IGNORECASE)


@dataclass(frozen=True)
class Problem:
    """One problem: its text, the accepted answers (none if there are none), its id, and its level if known."""

    text: str
    answers: tuple[str, ...]
    id: str
    level: int | None


def answers_of(value: Any) -> list[str]:
    """The accepted answers in a column of references (`reference_answers`); none where it holds none.

    >>> answers_of("3 + 4 = 7\\n#### 7"), answers_of('["7", "seven"]'), answers_of([["7\\n"], 7.0])
    (['7'], ['7', 'seven'], ['7'])
    """
    if isinstance(value, list):
        return list(dict.fromkeys(answer for item in value for answer in answers_of(item)))
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        value = str(value).removesuffix(".0")
    try:
        return list(reference_answers(value))
    except (TypeError, ValueError):
        return []


def references_in(data: Mapping[str, Any]) -> list[str]:
    """The accepted answers of a row, from the first of REFERENCES that has any."""
    return next(filter(None, (answers_of(value_of(data, name)) for name in REFERENCES)), [])


def level_of(value: Any) -> int | None:
    """A level as a number: of 3, 3.0, "3" and "Level 3" it is 3, of anything else, such as "Level ?", None."""
    match = _LEVEL.fullmatch(str(value).strip())
    return int(match[1]) if match else None


def _stated(value: Any, column: str) -> list[str]:
    """As `answers_of`; a worked solution states an answer only if it is marked."""
    return [] if column == "solution" and not _MARKED.search(str(value)) else answers_of(value)


@dataclass(frozen=True)
class Source:
    """A collection of problems. Its rows may have a level and an id of their own (`_LEVELS`, `_IDS`)."""

    name: str  # what its rows say in `source`
    path: str  # hub id, folder or file
    config: str | None = None  # name of the hub's configuration
    # The columns that make up a problem's text, joined by a space; none: recognised by their usual names.
    problem: tuple[str, ...] = ("problem",)
    # Columns that may hold the answer; the first that gives one counts; none: recognised; None: not read.
    answers: tuple[str, ...] | None = ("answer",)
    numbers: bool = False  # the answers are numbers, written without thousands separators

    def read(self, row: Mapping[str, Any]) -> Problem:
        """A row as a problem, with an empty text if one of its columns is empty.

        The id is the source's own, otherwise the source's name and a hash of the problem's text: the row's number
        would change with the order of the rows. Raises a ValueError if a column does not hold what it should.
        """
        parts = [self._text(row, column) for column in self.problem]
        text = " ".join(parts) if all(parts) else ""
        answers = next(filter(None, (self._answers(row, column) for column in self.answers or ())), [])
        levels = (level_of(row.get(column)) for column in _LEVELS)
        own = next((str(row[column]).strip() for column in _IDS if row.get(column) is not None), "")
        own = own or f"{self.name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        return Problem(text, tuple(answers), own, next((level for level in levels if level is not None), None))

    def _text(self, row: Mapping[str, Any], column: str) -> str:
        value = value_of(row, column)
        if isinstance(value, list):
            value = [turn for turn in value if not isinstance(turn, dict) or turn.get("role") != "system"]
        return "" if value is None else "".join(text for text, _ in messages_of(value, column)).strip()

    def _answers(self, row: Mapping[str, Any], column: str) -> list[str]:
        value = value_of(row, column)
        if any(isinstance(item, dict) for item in (value if isinstance(value, list) else [value])):
            raise ValueError(f"{column} must be an answer, a text or a number, or a list of them, got {value!r:.80}")
        answers = _stated(value, column)
        return [re.sub(r"(?<=\d),(?=\d)|\.0+$", "", answer) for answer in answers] if self.numbers else answers

    def recognised(self, rows: Iterable[Mapping[str, Any]]) -> Source:
        """The same with the columns that the first rows have; a ValueError names one that is missing."""
        held = held_columns(rows)
        problem, answers = self.problem, self.answers
        if not problem:
            problem = tuple(name for name in ("problem", *PROMPTS) if name in held)[:1] or ("problem",)
        if answers == ():
            usual = ("answer", *REFERENCES, "solution")
            answers = tuple(name for name in usual if _stated(value_of(held, name), name))[:1] or ("answer",)
        for what, new, old in (("problem", problem, self.problem), ("answer", answers, self.answers)):
            if new and not old and new[0] not in (what, f"{what}s"):
                print(f"{what} from {new[0]}", file=sys.stderr)
        left = {*held} - {*problem, *(answers or ()), *_LEVELS, *_IDS}  # one with no other use may be meant
        for what, wanted in (*(("problem", (name,)) for name in problem), ("answer", answers)):
            if wanted and not any(name in held or name.partition(".")[0] in held for name in wanted):
                hint = did_you_mean(wanted[-1], left)
                hint += f" (ktae data prepare --{what}-column names it)" * (self.name not in SOURCES)
                columns = " or ".join(map(repr, wanted))
                raise ValueError(f"{self.name} needs the column {columns}, got {sorted(held)}{hint}")
        return replace(self, problem=problem, answers=answers)


SOURCES = {
    source.name: source
    for source in (
        Source("math", "DigitalLearningGmbH/MATH-lighteval", answers=("answer", "solution")),
        Source("gsm8k", "openai/gsm8k", "main", ("question",), numbers=True),
        Source("svamp", "ChilleD/SVAMP", None, ("Body", "Question"), ("Answer",), numbers=True),
    )
}


def load(source: Source, split: str = "train", *, strict: bool = False) -> list[Problem]:
    """A source's problems; `split` is of a hub id or a folder, a file has only one.

    A malformed row of a file is left out, named and counted, or if `strict` a ValueError. So is a file that cannot be
    read, a split that is not there, and a column that is missing or holds something else. Raises an OSError if there is
    no such file, or the hub cannot be reached or has no such data set.
    """
    path = Path(source.path)
    if path.name.endswith(SUFFIXES) or path.is_file():
        rows = [row.data for row in without_malformed(read_rows(path), path, strict=strict)]
    else:
        rows = list(_from_hub(source, split))
    return list(map(source.recognised(rows).read, rows))


def _from_hub(source: Source, split: str) -> Any:
    datasets = require("datasets", extra="train")
    try:
        return datasets.load_dataset(source.path, source.config, split=split)
    except (OSError, RuntimeError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error.__cause__ or error).split())
        kind = OSError if isinstance(error, OSError) else ValueError
        raise kind(f"cannot load {source.path}: {reason}. Its rows in a local file do as well") from error
