"""How often the grader is wrong on adversarial pairs, beside math-verify; and how often it agrees with others.

    python benchmarks/grading.py ../shared/data/graders

prints the tables of docs/grading.md. Other files of pairs, as tests/grading/cases.jsonl, can follow the folder.
"""

import gzip
import json
import logging
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ktae.grading.grader import Grader, Verdict

# Decimals to which Math-Verify and lighteval compare unless told otherwise.
_PRECISION = 6
# In the second table; the first one has the kinds of adversarial pairs.
_OTHERS = ("peers", "reader", "paper")


@dataclass(frozen=True)
class Case:
    """An output to grade, and what others say about it.

    Attributes:
        source: who says so: "peers", "reader" or "paper"; or "box" or "prose", where an adversarial answer stands.
        name: the kind of an adversarial pair, otherwise the test or the task it is from, and its row.
        prediction: a model's output.
        answers: what it is graded against, as `Grader.grade` takes it.
        expected: whether it is correct.
    """

    source: str
    name: str
    prediction: str
    answers: Any
    expected: bool


def adversarial(path: Path) -> Iterator[Case]:
    """Pairs of a kind, each a right answer written in another way or a wrong one that looks right."""
    for row in map(json.loads, path.read_text().splitlines()):
        source = "box" if row["boxed"] else "prose"
        yield Case(source, row["kind"], row["prediction"], row["gold"], row["expected"] == "correct")


def peer_cases(path: Path) -> Iterator[Case]:
    """The cases of other graders' test suites, but for those that ask for another precision than the default."""
    for number, line in enumerate(path.read_text().splitlines()):
        row = json.loads(line)
        if row["extra"].get("precision", _PRECISION) == _PRECISION:
            yield Case("peers", f"{row['test']} {number}", row["pred"], row["gold"], row["expected"])


def model_outputs(path: Path) -> Iterator[Case]:
    """The paper's model outputs, with the reader's verdict or otherwise the paper's reward.

    The latter is left out for Minerva, where the paper's grader could not parse answers with a trailing line break.
    """
    with gzip.open(path, "rt") as lines:
        for row in map(json.loads, lines):
            name = f"{row['task']} {row['i']}"
            if row.get("judged") is not None:
                yield Case("reader", name, row["output"], row["gt"], row["judged"] > 0)
            elif row["task"] != "minerva":
                yield Case("paper", name, row["output"], row["gt"], row["reward_paper"] > 0)


def find_cases(folder: Path) -> list[Case]:
    """All cases of a folder.

    Raises:
        FileNotFoundError: the folder holds none of `adversarial*.jsonl`, `peer*.jsonl`, `model_outputs*.jsonl.gz`.
    """
    readers = {
        "adversarial*.jsonl": adversarial,
        "peer_cases*.jsonl": peer_cases,
        "model_outputs*.jsonl.gz": model_outputs,
    }
    cases = [case for name, read in readers.items() for path in sorted(folder.glob(name)) for case in read(path)]
    if not cases:
        raise FileNotFoundError(f"{folder} holds none of {', '.join(readers)}")
    return cases


def grade(cases: list[Case], workers: int = 2) -> list[Verdict]:
    """The verdicts of the grader with its default options."""
    with Grader(workers=workers) as grader:
        return grader.grade([case.prediction for case in cases], [case.answers for case in cases])


def disagreements(cases: list[Case]) -> list[tuple[Case, Verdict]]:
    """The cases on which the grader does not say what is expected."""
    verdicts = zip(cases, grade(cases), strict=True)
    return [(case, verdict) for case, verdict in verdicts if (verdict.status == "correct") != case.expected]


def accepted_by_math_verify(cases: Iterable[Case]) -> list[bool]:
    """What plain math-verify says, with its defaults and the accepted answer as a formula."""
    import math_verify

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    return [
        math_verify.verify(math_verify.parse(f"${case.answers}$"), math_verify.parse(case.prediction)) for case in cases
    ]


def error_rates(cases: list[Case], accepted: list[bool]) -> dict[tuple[str, bool], str]:
    """By kind and source, and by whether the answer is right: how many are judged wrongly, of how many."""
    counts: dict[tuple[str, bool], list[int]] = {}
    for case, verdict in zip(cases, accepted, strict=True):
        for key in (case.name, f"all in {case.source}"):
            count = counts.setdefault((key, case.expected), [0, 0])
            count[0] += verdict != case.expected
            count[1] += 1
    return {
        key: f"{missed} of {total}" + (f" ({missed / total:.1%})" if key[0].startswith("all in") else "")
        for key, (missed, total) in counts.items()
    }


def print_error_rates(cases: list[Case]) -> None:
    """The table of both error rates by kind."""
    ours = error_rates(cases, [verdict.status == "correct" for verdict in grade(cases)])
    theirs = error_rates(cases, accepted_by_math_verify(cases))
    print("| kind | wrong accepted | by math-verify | right refused | by math-verify |\n|---|---|---|---|---|")
    for kind in sorted({kind for kind, _ in ours}, key=lambda kind: (kind.startswith("all in"), kind)):
        cells = (rates.get((kind, is_right), "") for is_right in (False, True) for rates in (ours, theirs))
        print(f"| {kind} | {' | '.join(cells)} |")


def print_agreement(cases: list[Case]) -> None:
    """The share of agreement by source, and each disagreement."""
    missed = disagreements(cases)
    print("\n| source | cases | agreement |\n|---|---|---|")
    for source in dict.fromkeys(case.source for case in cases):
        total = sum(case.source == source for case in cases)
        agreed = total - sum(case.source == source for case, _ in missed)
        print(f"| {source} | {total} | {agreed} ({agreed / total:.2%}) |")
    print("\n| case | expected | verdict | extracted | reason |\n|---|---|---|---|---|")
    for case, verdict in missed:
        expected = "correct" if case.expected else "incorrect"
        print(f"| {case.name} | {expected} | {verdict.status} | `{verdict.extracted}` | {verdict.reason} |")


def main(folder: str, *files: str) -> None:
    """Print both tables."""
    cases = find_cases(Path(folder))
    pairs = [case for case in cases if case.source not in _OTHERS]
    pairs += [case for file in files for case in adversarial(Path(file))]
    if pairs:
        print_error_rates(pairs)
    if others := [case for case in cases if case.source in _OTHERS]:
        print_agreement(others)


if __name__ == "__main__":
    main(*sys.argv[1:])
