"""Where a response to a chain problem went wrong, word by word and exactly.

A word of a response is a token, so these labels are ground truth for token-level credit: an estimator
that assigns blame well blames slips, not the results that follow from them.
"""

from dataclasses import dataclass
from enum import Enum

from ktae.chain.problems import NUMBERS, OPERATIONS, STEPS, Problem, apply


class StepLabel(Enum):
    """What a word of a response does to its outcome."""

    OTHER = "other"  # carries no decision: fillers, punctuation, what is copied rightly
    CORRECT = "correct"  # a result or answer that is derived rightly and is on the true chain
    SLIP = "slip"  # a result that does not follow from its own inputs
    PROPAGATED = "propagated"  # derived rightly, but off the true chain through an earlier error
    COPY = "copy"  # departs from the problem or from the response's own last result


@dataclass(frozen=True, slots=True)
class StepLabels:
    """Labels of a response, one a word, and where it first went wrong.

    `first_error` is the index of the first SLIP or COPY, None if there is none; then a response that gives
    an answer gives the right one. A response with an error may still be right: a check can mend a slip.
    """

    labels: tuple[StepLabel, ...]
    first_error: int | None


def label_steps(problem: Problem, completion: str) -> StepLabels:
    """Judge every word of `completion` (special tokens left out) against exact arithmetic.

    Judged are the numbers after `=` and after `ans`; a check starts, like its step, from the value before
    the step. COPY marks an operation other than the problem's, a step out of order, an answer before the
    last step, and an answer other than the last result. A malformed step gives no result, so it shows up as
    COPY at the next step or at the answer.

    >>> problem = Problem.from_prompt("53 S1 +5 S2 *9 ?")
    >>> judged = label_steps(problem, "S1 +5 = 59 S2 *9 = 46 ans 46")
    >>> [label.value for label in judged.labels if label is not StepLabel.OTHER], judged.first_error
    (['slip', 'propagated', 'propagated'], 3)
    """
    words = completion.split()
    labels = [StepLabel.OTHER] * len(words)
    truth = problem.values
    steps = len(problem.operations)
    before = value = problem.start  # the response's own values: before the current step, and latest
    step = None  # index of the current step
    done = 0  # steps that have a result, in order
    for i, word in enumerate(words):
        following = words[i + 1] if i + 1 < len(words) else ""
        if word in STEPS:
            step, before = STEPS[word], value
            if step != done or step >= steps:
                labels[i] = StepLabel.COPY
        elif word == "=" and step is not None and i and words[i - 1] in OPERATIONS and following in NUMBERS:
            op, value = words[i - 1], NUMBERS[following]
            if step < steps and op != problem.operations[step]:
                labels[i - 1] = StepLabel.COPY
            if value != apply(before, op):
                labels[i + 1] = StepLabel.SLIP
            else:
                on_chain = step < steps and value == truth[step + 1]
                labels[i + 1] = StepLabel.CORRECT if on_chain else StepLabel.PROPAGATED
            done = step + 1
        elif word == "ans":
            if done != steps:
                labels[i] = StepLabel.COPY
            if following in NUMBERS:
                answer = NUMBERS[following]
                if answer != value:
                    labels[i + 1] = StepLabel.COPY
                else:
                    labels[i + 1] = StepLabel.CORRECT if answer == truth[-1] else StepLabel.PROPAGATED
    errors = (i for i, label in enumerate(labels) if label in (StepLabel.SLIP, StepLabel.COPY))
    return StepLabels(tuple(labels), next(errors, None))
