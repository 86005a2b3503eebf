"""Which problems of a collection to train on, with a count of every one that is left out."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ktae.data.sources import Problem, Source, load

NO_TEXT, NO_ANSWER, CONFLICTING = "no problem text", "no answer", "conflicting answers"
LEVEL, DUPLICATE, TOO_LONG, LIMIT = "level outside or unknown", "duplicate", "prompt too long", "beyond the limit"
WORDS = 13


@dataclass(frozen=True)
class Benchmark:
    """Problems to keep out of training: their normalised texts, and every run of `WORDS` words in one of them."""

    texts: frozenset[str]
    runs: frozenset[str]


@dataclass(frozen=True)
class Counts:
    """How many problems became what: `read` is `written` and all of `dropped`, by reason, together."""

    read: int
    dropped: dict[str, int]
    written: int

    def summary(self) -> str:
        """A line a number."""
        dropped = [f"{-count:7} {reason}" for reason, count in self.dropped.items()]
        return "\n".join([f"{self.read:7} rows read", *dropped, f"{self.written:7} rows written"])


def select(
    problems: Iterable[Problem],
    *,
    levels: Collection[int] | None = None,
    benchmarks: Mapping[str, Benchmark] | None = None,
    too_long: Callable[[Problem], bool] | None = None,
    seed: int = 0,
    limit: int | None = None,
) -> tuple[list[Problem], Counts]:
    """Leaves out what cannot be trained on, and shuffles the rest.

    The result does not depend on the order of the problems. Those whose text is the same but for spacing and case are
    one problem: if they agree on the accepted answers the first by content is kept, and otherwise none, since nothing
    says which is right. The rest is in the order of the SHA-256 of the text "SEED:ID".

    Args:
        problems: all of a collection.
        levels: leave out the problems that are not of one of these; None keeps all.
        benchmarks: by name; leave out what is in one of them. It counts for the first, by whole text before by a run.
        too_long: whether to leave a problem out for its length; asked last, as it may be slow.
        seed: of the order.
        limit: keep the first so many of that order; None keeps all.

    Raises:
        ValueError: no problem is left, or two different ones have the same id.
    """
    same: defaultdict[str, list[Problem]] = defaultdict(list)
    for problem in problems:
        # Unlike a benchmark's text, with its operators: x > 0 and x < 0 are two problems.
        same[" ".join(problem.text.lower().split()) if normalise(problem.text) else ""].append(problem)
    read = sum(map(len, same.values()))
    found_in = [f"in {name} by {how}" for how in ("its text", f"{WORDS} words") for name in benchmarks or {}]
    reasons = (NO_TEXT, NO_ANSWER, CONFLICTING, LEVEL, DUPLICATE, *found_in, TOO_LONG, LIMIT)
    dropped = dict.fromkeys(reasons, 0) | {NO_TEXT: len(same.pop("", []))}
    kept: dict[str, Problem] = {}
    for group in same.values():
        answered = [problem for problem in group if problem.answers]
        dropped[NO_ANSWER] += len(group) - len(answered)
        if len({frozenset(problem.answers) for problem in answered}) > 1:
            dropped[CONFLICTING] += len(answered)
            continue
        wanted = [problem for problem in answered if levels is None or problem.level in levels]
        dropped[LEVEL] += len(answered) - len(wanted)
        if not wanted:
            continue
        dropped[DUPLICATE] += len(wanted) - 1
        problem = min(wanted, key=repr)
        if reason := overlap(normalise(problem.text), benchmarks or {}):
            dropped[reason] += 1
        elif too_long and too_long(problem):
            dropped[TOO_LONG] += 1
        elif problem.id in kept:
            raise ValueError(f"two different problems have the id {problem.id!r}")
        else:
            kept[problem.id] = problem

    shuffled = sorted(kept.values(), key=lambda problem: hashlib.sha256(f"{seed}:{problem.id}".encode()).digest())
    chosen = shuffled[:limit]
    dropped[LIMIT] = len(shuffled) - len(chosen)
    dropped = {reason: count for reason, count in dropped.items() if count}
    if not chosen:
        left_out = ", ".join(f"{count} {reason}" for reason, count in dropped.items()) or "none was there"
        raise ValueError(f"none of the {read} problems is left: {left_out}")
    return chosen, Counts(read, dropped, len(chosen))


def overlap(text: str, benchmarks: Mapping[str, Benchmark]) -> str:
    """Which benchmark a normalised problem is in, and how; empty if it is in none.

    >>> overlap(normalise("1+1?"), {"amc": Benchmark(frozenset({"1 1"}), frozenset())})
    'in amc by its text'
    """
    runs = word_runs(text)
    by_text = (f"in {name} by its text" for name, benchmark in benchmarks.items() if text in benchmark.texts)
    by_run = (f"in {name} by {WORDS} words" for name, of in benchmarks.items() if not runs.isdisjoint(of.runs))
    return next(by_text, "") or next(by_run, "")


def read_benchmarks(folder: Path) -> dict[str, Benchmark]:
    """Reads every `*.jsonl` file of a folder as a benchmark of the file's name.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds no such file, or a row of one is no problem of at least one word; the message says which.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"the folder of benchmarks {folder} does not exist (looked in {Path.cwd()})")
    benchmarks = {}
    for file in sorted(folder.glob("*.jsonl")):
        _, problems = load(Source(str(file), str(file), problem=(), answers=None), strict=True)
        texts = frozenset(normalise(problem.text) for problem in problems)
        if "" in texts:
            raise ValueError(f"{file}: a benchmark's problem must have at least one word, and one has none")
        benchmarks[file.stem] = Benchmark(texts, frozenset[str]().union(*map(word_runs, texts)))
    if not benchmarks:
        raise ValueError(f"the folder of benchmarks {folder} holds no *.jsonl file")
    return benchmarks


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


def parse_levels(text: str) -> tuple[int, ...]:
    """Levels as they are written on the command line; a ValueError if the text is no such list.

    >>> parse_levels("3-5"), parse_levels("1,4-5")
    ((3, 4, 5), (1, 4, 5))
    """
    levels: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,3})(?:\s*-\s*([0-9]{1,3}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            raise ValueError(f"--levels must be like 4, 3,5 or 3-5, got {text!r}")
        levels.update(range(first, last + 1))
    return tuple(sorted(levels))
