"""Which problems of a collection to train on, with a count of every one that is left out."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from ktae.data.decontaminate import EXACT, RUN, Benchmarks, normalise
from ktae.data.sources import Problem

NO_TEXT, NO_ANSWER, CONFLICTING, LEVEL, DUPLICATE, CONTAMINATED, TOO_LONG, LIMIT = REASONS = (
    "no problem text",
    "no answer",
    "conflicting answers",
    "level outside or unknown",
    "duplicate",
    "contaminated",
    "prompt too long",
    "beyond the limit",
)


@dataclass(frozen=True)
class Counts:
    """How many problems became what: `read` is `written` and all of `dropped` together.

    Attributes:
        dropped: one of `REASONS` -> problems, in that order; reasons without any are left out.
        contaminated: benchmark -> reason -> problems. One that is in two benchmarks counts in both.
    """

    read: int
    dropped: dict[str, int]
    contaminated: dict[str, dict[str, int]]
    written: int

    def summary(self) -> str:
        """A line a number."""
        lines = [f"{self.read:7} rows read"]
        lines += [f"{-count:7} {reason}" for reason, count in self.dropped.items()]
        lines += [f"{self.written:7} rows written"]
        for benchmark, reasons in self.contaminated.items():
            found = ", ".join(f"{count} by {reason}" for reason, count in reasons.items())
            lines.append(f"contaminated by {benchmark}: {found or 'none'}")
        return "\n".join(lines)


def select(
    problems: Iterable[Problem],
    *,
    levels: Collection[int] | None = None,
    benchmarks: Benchmarks | None = None,
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
        benchmarks: leave out what is in one of them.
        too_long: whether to leave a problem out for its length; asked last, as it may be slow.
        seed: of the order.
        limit: keep the first so many of that order; None keeps all.

    Returns:
        The problems and the counts.

    Raises:
        ValueError: no problem is left, or two different ones have the same id.
    """
    same: defaultdict[str, list[Problem]] = defaultdict(list)
    for problem in problems:
        # Unlike a benchmark's text, with its operators: x > 0 and x < 0 are two problems.
        same[" ".join(problem.text.lower().split()) if normalise(problem.text) else ""].append(problem)
    read = sum(map(len, same.values()))
    dropped = dict.fromkeys(REASONS, 0)
    dropped[NO_TEXT] = len(same.pop("", []))
    contaminated = {name: Counter[str]() for name in (benchmarks.texts if benchmarks else ())}
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
        overlaps = benchmarks.overlaps(normalise(problem.text)) if benchmarks else {}
        for benchmark, reason in overlaps.items():
            contaminated[benchmark][reason] += 1
        if overlaps:
            dropped[CONTAMINATED] += 1
        elif too_long and too_long(problem):
            dropped[TOO_LONG] += 1
        elif problem.id in kept:
            raise ValueError(f"two different problems have the id {problem.id!r}")
        else:
            kept[problem.id] = problem

    shuffled = sorted(kept.values(), key=lambda problem: hashlib.sha256(f"{seed}:{problem.id}".encode()).digest())
    chosen = shuffled[:limit]
    dropped[LIMIT] = len(shuffled) - len(chosen)
    reasons = {reason: count for reason, count in dropped.items() if count}
    if not chosen:
        left_out = ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or "none was there"
        raise ValueError(f"none of the {read} problems is left: {left_out}")
    found = {name: {reason: by[reason] for reason in (EXACT, RUN) if by[reason]} for name, by in contaminated.items()}
    return chosen, Counts(read, reasons, found, len(chosen))


def parse_levels(text: str) -> tuple[int, ...]:
    """Levels as they are written on the command line.

    Raises:
        ValueError: the text is no such list.

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
