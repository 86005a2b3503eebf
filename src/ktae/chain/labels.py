"""Where a response to a chain problem went wrong, word by word and exactly.

A word is a token, so these labels are ground truth for token-level credit: an estimator that assigns blame well blames
slips, not the results that follow from them.
"""

from enum import IntEnum

from ktae.chain.problems import NUMBERS, OPERATIONS, STEPS, Problem, apply


class Label(IntEnum):
    """What a token does to the outcome of its rollout."""

    OTHER = 0  # carries no decision: fillers, punctuation, what is copied rightly
    RIGHT = 1  # a right result
    SLIP = 2  # wrong by itself: it does not follow from the problem and what the rollout says before
    PROPAGATED = 3  # follows from what the rollout says before, and is wrong through an earlier slip

    @classmethod
    def of_number(cls, follows: bool, right: bool) -> "Label":
        """Of a number that follows, or not, from what the rollout says before, and is right, or not, if it does."""
        return cls.SLIP if not follows else cls.RIGHT if right else cls.PROPAGATED


def label_steps(problem: Problem, completion: str) -> list[Label]:
    """The label of every word of `completion` (special tokens left out), by exact arithmetic.

    Judged are the numbers after `=` and after `ans`; a check starts, like its step, from the value before the step. A
    slip is also an operation other than the problem's, a step out of order, an answer before the last step, and an
    answer other than the last result. A malformed step gives no result, so it shows up at the next step or at the
    answer. A response without a slip that gives an answer gives the right one; one with a slip may still be right, as a
    check can mend it.

    >>> problem = Problem.from_prompt("53 S1 +5 S2 *9 ?")
    >>> [label.name for label in label_steps(problem, "S1 +5 = 59 S2 *9 = 46 ans 46") if label is not Label.OTHER]
    ['SLIP', 'PROPAGATED', 'PROPAGATED']
    """
    words = completion.split()
    labels = [Label.OTHER] * len(words)
    truth, steps = problem.values, len(problem.operations)
    before = value = problem.start  # the response's own values: before the current step, and latest
    step, done = None, 0  # index of the current step; steps that have a result, in order
    for i, (word, following) in enumerate(zip(words, [*words, ""][1:], strict=True)):
        if word in STEPS:
            step, before = STEPS[word], value
            if step != done or step >= steps:
                labels[i] = Label.SLIP
        elif word == "=" and step is not None and words[i - 1] in OPERATIONS and following in NUMBERS:
            operation, value = words[i - 1], NUMBERS[following]
            if step < steps and operation != problem.operations[step]:
                labels[i - 1] = Label.SLIP
            on_chain = step < steps and value == truth[step + 1]
            labels[i + 1] = Label.of_number(value == apply(before, operation), on_chain)
            done = step + 1
        elif word == "ans":
            if done != steps:
                labels[i] = Label.SLIP
            if following in NUMBERS:
                labels[i + 1] = Label.of_number(NUMBERS[following] == value, value == truth[-1])
    return labels
