"""One difference between two evaluations, B minus A, and what the data say about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ktae.evaluation.results import MACRO, Problems, correct, lengths
from ktae.evaluation.statistics import (
    Estimate,
    average,
    detectable_difference,
    mean_interval,
    normal_p_value,
    paired_difference,
    paired_p_value,
    share_interval,
)

ALPHA = 0.05


@dataclass(frozen=True)
class Difference:
    """B minus A on a task, or on average over the tasks.

    Attributes:
        task: its name, or `MACRO`.
        problems: their number, of all tasks for the average.
        accuracy_a, accuracy_b: with 95 % intervals, each by itself.
        accuracy: B minus A with its interval, paired by problem.
        p_value: two-sided; exact for a task with as many samples of both, which is McNemar's test with one sample a
            problem; otherwise that of the interval.
        detectable: the true difference that such data would tell from zero four times out of five.
        length_a, length_b: mean lengths in tokens, None if unknown.
        length: B minus A with its interval, paired by problem; None if unknown, or with one problem.
        test: "McNemar", "exact permutation" or "normal".
        samples_a, samples_b: a problem's samples; None for the average.
        b_better, a_better: problems with more correct samples (a larger share, if the numbers differ): the discordant
            counts of McNemar's test. None for the average.
        adjusted: p_value after Holm's correction for the number of tasks; None for the average, which was fixed
            beforehand and is not part of the family.
        finding: what the data say, in a sentence.
    """

    task: str
    problems: int
    accuracy_a: Estimate
    accuracy_b: Estimate
    accuracy: Estimate
    p_value: float
    detectable: float
    length_a: float | None
    length_b: float | None
    length: Estimate | None
    test: str = "normal"
    samples_a: int | None = None
    samples_b: int | None = None
    b_better: int | None = None
    a_better: int | None = None
    adjusted: float | None = None
    finding: str = ""


def task_difference(task: str, problems_a: Problems, problems_b: Problems) -> Difference:
    """The difference on a task whose problems are the same, in the same order."""
    a_PS, b_PS = correct(problems_a), correct(problems_b)
    a_P, b_P = a_PS.mean(axis=1), b_PS.mean(axis=1)
    accuracy = paired_difference(b_PS, a_PS)
    exact = a_PS.shape == b_PS.shape
    p_value = paired_p_value(b_PS, a_PS) if exact else normal_p_value(accuracy)
    length_a_PS, length_b_PS = lengths(problems_a), lengths(problems_b)
    length = None
    if length_a_PS is not None and length_b_PS is not None and len(a_P) > 1:
        length = mean_interval(length_b_PS.mean(axis=1) - length_a_PS.mean(axis=1))
    return Difference(
        task,
        len(a_P),
        share_interval(a_P),
        share_interval(b_P),
        accuracy,
        p_value,
        detectable_difference(accuracy),
        length_a=None if length_a_PS is None else float(length_a_PS.mean()),
        length_b=None if length_b_PS is None else float(length_b_PS.mean()),
        length=length,
        test=("McNemar" if a_PS.shape[1] == 1 else "exact permutation") if exact else "normal",
        samples_a=a_PS.shape[1],
        samples_b=b_PS.shape[1],
        b_better=int((b_P > a_P).sum()),
        a_better=int((b_P < a_P).sum()),
    )


def macro_difference(differences: Sequence[Difference]) -> Difference:
    """The difference of the plain averages over tasks; a length that a task does not know is unknown."""

    def mean(name: str) -> float | None:
        known = [x for d in differences if (x := getattr(d, name)) is not None]
        return sum(known) / len(known) if len(known) == len(differences) else None

    accuracy = average([d.accuracy for d in differences])
    known = [d.length for d in differences if d.length is not None]
    return Difference(
        MACRO,
        sum(d.problems for d in differences),
        average([d.accuracy_a for d in differences]),
        average([d.accuracy_b for d in differences]),
        accuracy,
        normal_p_value(accuracy),
        detectable_difference(accuracy),
        length_a=mean("length_a"),
        length_b=mean("length_b"),
        length=average(known) if len(known) == len(differences) else None,
    )


def finding(d: Difference, adjusted: float, family: int) -> str:
    """A sentence or two on a difference, one of `family` that were tested; `adjusted` is its p-value among them."""
    low, high = d.accuracy.low, d.accuracy.high
    direction = "better" if d.accuracy.value > 0 else "worse"
    leaves_out_zero = not low <= 0 <= high
    holm = f" after Holm's correction for {family} tasks" if family > 1 else ""
    if (d.p_value < ALPHA) != leaves_out_zero:
        zero = "leaves out 0" if leaves_out_zero else "holds 0"
        return f"On the edge: the interval {zero}, and the exact {format_p(d.p_value)}. More problems would tell."
    if adjusted < ALPHA:
        size = " to ".join(f"{100 * end:.1f}" for end in sorted((abs(low), abs(high))))
        return f"B is {direction} by {size} points ({format_p(adjusted)}{holm})."
    if leaves_out_zero:
        return (
            f"B is {direction} here ({format_p(d.p_value)}), but among {family} tasks chance alone often does that: "
            f"{format_p(adjusted)}{holm}."
        )
    seen = "no difference can be seen reliably"
    if d.detectable < 1:
        seen = f"a difference below {100 * d.detectable:.0f} points is missed in more than one of five comparisons"
    return (
        f"Not distinguishable: B may be worse by up to {-100 * low:.1f} points or better by up to {100 * high:.1f}. "
        f"With {d.problems} problem{'s' * (d.problems > 1)} {seen}."
    )


def format_p(p: float, name: str = "p ") -> str:
    """`p = 0.012`, or without the name.

    >>> format_p(0.012), format_p(0.0001), format_p(0.012, name="")
    ('p = 0.012', 'p < 0.001', '0.012')
    """
    return f"{name}< 0.001" if p < 0.001 else f"{name}{'= ' if name else ''}{p:.3f}"
