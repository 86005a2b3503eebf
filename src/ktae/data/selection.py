"""Which problems of a collection to train on, with a count of every one that is left out."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from ktae.data.sources import Problem, Source, load

NO_TEXT, NO_ANSWER, CONFLICTING = "no problem text", "no answer", "conflicting answers"
LEVEL, DUPLICATE, TOO_LONG = "level outside or unknown", "duplicate", "prompt too long"
WORDS = 13


def select(
    problems: Iterable[Problem],
    *,
    levels: Collection[int] | None = None,
    benchmarks: Mapping[str, str] | None = None,
    too_long: Callable[[Problem], bool] | None = None,
) -> tuple[list[Problem], dict[str, int]]:
    """Leaves out what cannot be trained on, and shuffles the rest.

    The result does not depend on the order of the problems. Those whose text is the same but for spacing and case are
    one problem: if they agree on the accepted answers the first by content is kept, and otherwise none, since nothing
    says which is right. The rest is in the order of the SHA-256 of the ids. `levels` are those to keep, None for all;
    `benchmarks` are those of `read_benchmarks`; `too_long` is asked last, as it may be slow.

    Returns the problems, and how many were left out for which reason. Raises a ValueError if no problem is left, or two
    different ones have the same id.
    """
    same: defaultdict[str, list[Problem]] = defaultdict(list)
    for problem in problems:
        # Unlike a benchmark's text, with its operators: x > 0 and x < 0 are two problems.
        same[" ".join(problem.text.lower().split()) if normalise(problem.text) else ""].append(problem)
    dropped = Counter({NO_TEXT: len(same.pop("", []))})
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
        if reason := overlap(problem.text, benchmarks or {}) or (too_long and too_long(problem) and TOO_LONG):
            dropped[reason] += 1
        elif problem.id in kept:
            raise ValueError(f"two different problems have the id {problem.id!r}")
        else:
            kept[problem.id] = problem
    counts = {reason: count for reason, count in sorted(dropped.items()) if count}
    if not kept:
        left_out = ", ".join(f"{count} {reason}" for reason, count in counts.items()) or "none was there"
        raise ValueError(f"none of the {sum(counts.values())} problems is left: {left_out}")
    return sorted(kept.values(), key=lambda problem: hashlib.sha256(problem.id.encode()).digest()), counts


def overlap(text: str, benchmarks: Mapping[str, str]) -> str:
    """In which benchmark a problem is; empty if it is in none.

    >>> overlap("What is 1+1?", {"what is 1 1": "in amc"})
    'in amc'
    """
    return min({benchmarks[part] for part in _parts(text) if part in benchmarks}, default="")


def read_benchmarks(folder: Path) -> dict[str, str]:
    """What a problem must not hold, and the reason: texts of benchmarks, and every run of `WORDS` words in one of them.

    Every `*.jsonl` file of the folder is a benchmark of the file's name; what is in two counts for the first. Raises a
    FileNotFoundError if there is no such folder, and a ValueError if it holds no such file, or a row of one is no
    problem of at least one word.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"the folder of benchmarks {folder} does not exist (looked in {Path.cwd()})")
    reasons: dict[str, str] = {}
    for file in sorted(folder.glob("*.jsonl")):
        for problem in load(Source(str(file), str(file), problem=(), answers=None), strict=True):
            if not normalise(problem.text):
                raise ValueError(f"{file}: a benchmark's problem must have at least one word, and one has none")
            reasons |= {part: f"in {file.stem}" for part in _parts(problem.text) if part not in reasons}
    if not reasons:
        raise ValueError(f"the folder of benchmarks {folder} holds no *.jsonl file")
    return reasons


def normalise(text: str) -> str:
    """A text's letters and digits in lower case, everything between them one space.

    Two texts that differ in spacing, punctuation or the way a formula is set become the same; so do a few that differ
    in an operator only.
    """
    return re.sub(r"[\W_]+", " ", text.lower()).strip()


def _parts(text: str) -> set[str]:
    """A normalised text, and every run of `WORDS` words in it."""
    words = normalise(text).split()
    return {" ".join(words), *(" ".join(words[start : start + WORDS]) for start in range(len(words) - WORDS + 1))}
