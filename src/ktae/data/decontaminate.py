"""Finds the benchmarks that contain a problem: by its whole text, or by a run of 13 words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ktae.files.rows import Malformed, read_rows

WORDS = 13
EXACT, RUN = "exact text", f"{WORDS} words"


@dataclass(frozen=True)
class Benchmarks:
    """The problems to keep out of training.

    Attributes:
        texts: of each benchmark, by name, the normalised problems.
        runs: of each benchmark every run of `WORDS` words in one of its problems.
    """

    texts: dict[str, frozenset[str]]
    runs: dict[str, frozenset[str]]

    def overlaps(self, text: str) -> dict[str, str]:
        """The benchmarks that a problem is in, each with the reason.

        Args:
            text: the problem, normalised.

        Returns:
            Names of benchmarks -> `EXACT` where a problem of the benchmark has this text, otherwise `RUN` where one
            shares `WORDS` words in a row with it. A benchmark that does neither is left out.
        """
        found = {name: EXACT for name, texts in self.texts.items() if text in texts}
        runs = word_runs(text)
        return found | {name: RUN for name in self.runs if name not in found and not runs.isdisjoint(self.runs[name])}


def read_benchmarks(folder: Path) -> Benchmarks:
    """Reads every `*.jsonl` file of a folder as a benchmark of the file's name.

    Args:
        folder: of files with one problem a line, an object with the text `problem`.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds no such file, or a line of one is no object with a `problem` of at least one word; the
            message says which.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"the folder of benchmarks {folder} does not exist (looked in {Path.cwd()})")
    files = sorted(folder.glob("*.jsonl"))
    if not files:
        raise ValueError(f"the folder of benchmarks {folder} holds no *.jsonl file")
    texts = {file.stem: _problems(file) for file in files}
    runs = {name: frozenset[str]().union(*map(word_runs, problems)) for name, problems in texts.items()}
    return Benchmarks(texts, runs)


def normalise(text: str) -> str:
    r"""A text's letters and digits in lower case, everything between them one space.

    Two texts that differ in spacing, punctuation or the way a formula is set become the same; so do a few that differ
    in an operator only.

    >>> normalise(r"Compute  $\frac{1}{2}+X_1$.")
    'compute frac 1 2 x 1'
    """
    return re.sub(r"[\W_]+", " ", text.lower()).strip()


def word_runs(text: str) -> set[str]:
    """Every run of `WORDS` words in a normalised text; none if it is shorter."""
    words = text.split()
    return {" ".join(words[start : start + WORDS]) for start in range(len(words) - WORDS + 1)}


def _problems(file: Path) -> frozenset[str]:
    problems = set()
    for row in read_rows(file):
        problem = None if isinstance(row, Malformed) else row.data.get("problem")
        if isinstance(row, Malformed) or not isinstance(problem, str) or not normalise(problem):
            found = row.reason if isinstance(row, Malformed) else f"got {sorted(row.data)}"
            raise ValueError(f"{file}:{row.row}: a benchmark's row must be an object with a text 'problem', {found}")
        problems.add(normalise(problem))
    if not problems:
        raise ValueError(f"the benchmark {file} is empty")
    return frozenset(problems)
