"""How often the grader agrees with others: with the test suites of other graders, a reader, and a paper's rewards.

    python -m ktae.grading.agreement ../shared/data/graders

prints the tables of docs/grading.md.
"""

import gzip
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ktae.grading.grader import Grader, Verdict

# Decimals to which Math-Verify and lighteval compare unless told otherwise.
_PRECISION = 6


@dataclass(frozen=True)
class Case:
    """An output to grade, and what others say about it.

    Attributes:
        source: who says so: "peers", "reader" or "paper".
        name: the test or the task it is from, and its row.
        prediction: a model's output.
        answers: what it is graded against, as `Grader.grade` takes it.
        expected: whether it is correct.
    """

    source: str
    name: str
    prediction: str
    answers: Any
    expected: bool


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
        FileNotFoundError: the folder holds neither `peer_cases*.jsonl` nor `model_outputs*.jsonl.gz`.
    """
    cases = [case for path in sorted(folder.glob("peer_cases*.jsonl")) for case in peer_cases(path)]
    cases += [case for path in sorted(folder.glob("model_outputs*.jsonl.gz")) for case in model_outputs(path)]
    if not cases:
        raise FileNotFoundError(f"{folder} holds no peer_cases*.jsonl and no model_outputs*.jsonl.gz")
    return cases


def disagreements(cases: list[Case], workers: int = 2) -> list[tuple[Case, Verdict]]:
    """The cases on which the grader, with its default options, does not say what is expected."""
    with Grader(workers=workers) as grader:
        verdicts = grader.grade([case.prediction for case in cases], [case.answers for case in cases])
    return [
        (case, verdict)
        for case, verdict in zip(cases, verdicts, strict=True)
        if (verdict.status == "correct") != case.expected
    ]


def main(folder: str) -> None:
    """Print the share of agreement by source, and each disagreement."""
    cases = find_cases(Path(folder))
    missed = disagreements(cases)
    print("| source | cases | agreement |\n|---|---|---|")
    for source in dict.fromkeys(case.source for case in cases):
        total = sum(case.source == source for case in cases)
        agreed = total - sum(case.source == source for case, _ in missed)
        print(f"| {source} | {total} | {agreed} ({agreed / total:.2%}) |")
    print("\n| case | expected | verdict | extracted | reason |\n|---|---|---|---|---|")
    for case, verdict in missed:
        expected = "correct" if case.expected else "incorrect"
        print(f"| {case.name} | {expected} | {verdict.status} | `{verdict.extracted}` | {verdict.reason} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
