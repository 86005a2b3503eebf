"""Reward functions in the form TRL's GRPOTrainer calls them, and how a recipe names one.

    GRPOTrainer(..., reward_funcs=[math_answer])

A dataset for `math_answer` has a column `answers`.
"""

import atexit
import inspect
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

from ktae.extras import load_function
from ktae.grading.extraction import extract_answer
from ktae.grading.grader import Grader

BUILT_IN = {
    "math_answer": "ktae.train.rewards:math_answer",
    "boxed_format": "ktae.train.rewards:boxed_format",
    "exact_match": "ktae.chain.problems:exact_match",
}

# What a trainer passes as a completion: a text, or the messages of a chat.
Completion = str | Sequence[Mapping[str, Any]]


def math_answer(
    completions: Sequence[Completion],
    answers: Sequence[str | list[str]],
    *,
    log_metric: Callable[[str, float], None] | None = None,
    **kwargs: Any,
) -> list[float | None]:
    r"""Whether the final answer of each completion is equivalent to an accepted answer.

    Args:
        completions: one per rollout, a text or a list of chat messages, of which the last assistant message
            counts.
        answers: per rollout the accepted answer, or several of which any will do.
        log_metric: called with a metric's name and value, here the number of rollouts of this call that held no
            answer (`ktae/answers_missing`), whose answer could not be judged in time or at all
            (`ktae/grader_timeouts`), and that lost their worker process (`ktae/grader_errors`). TRL averages over the
            calls and processes between two logs.
        kwargs: the other dataset columns and what else TRL passes; not used.

    Returns:
        1.0 for a correct answer; 0.0 for an incorrect or missing one, and for one that could not be judged, or a policy
        could hide behind the deadline; None where a worker process died, which is no fault of the answer.

    Raises:
        ImportError: math-verify or pebble is not installed.
        ValueError, TypeError: the columns do not have the form above.

    >>> math_answer(["It is 1,234.", r"\boxed{5}", "No idea."], ["1234", "6", "7"])
    [1.0, 0.0, 0.0]
    """
    verdicts = _grader().grade([_text(completion) for completion in completions], answers)
    if log_metric is not None:
        counts = Counter(verdict.status for verdict in verdicts)
        # Zeros too, or the average would be over the calls with a failure only.
        log_metric("ktae/answers_missing", counts["no_answer"])
        log_metric("ktae/grader_timeouts", counts["timeout"])
        log_metric("ktae/grader_errors", counts["error"])
    rewards = {"correct": 1.0, "incorrect": 0.0, "no_answer": 0.0, "timeout": 0.0, "error": None}
    return [rewards[verdict.status] for verdict in verdicts]


def boxed_format(completions: Sequence[Completion], **kwargs: Any) -> list[float]:
    r"""1.0 for each completion with a complete, non-empty box, whatever is in it, else 0.0.

    >>> boxed_format([r"\boxed{5}", r"\boxed{}", "5"])
    [1.0, 0.0, 0.0]
    """
    return [float(extract_answer(_text(completion), ("box",)) is not None) for completion in completions]


def load_reward(name: str) -> Callable[..., Any]:
    """The reward function of a name in `BUILT_IN`, or of an import path; errors as `ktae.extras.load_function`."""
    return load_function("reward", name, BUILT_IN)


class Guarded:
    """A reward function that a bad rollout cannot stop: what it raises on, and what is no finite number, is None.

    If it raises on the whole batch, it is called again rollout by rollout, so that only the rollouts to blame go
    unscored. How many did is logged as `rewards/NAME/failed`.

    Args:
        name: the reward's name in the recipe, and in TRL's metrics.
        function: in TRL's form.

    Raises:
        ValueError: `function` is async.
        RuntimeError: when called: not one rollout of the batch could be scored because all raised (then the function
            itself is broken, and training on would be for nothing), or the function returned something else than
            one value a rollout.
    """

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        if inspect.iscoroutinefunction(function):
            raise ValueError(f"the reward function {name!r} must be a plain function, not an async one")
        self.__name__ = name.rpartition(":")[2]
        self._name, self._function = name, function

    def __call__(
        self,
        completions: Sequence[Completion],
        *,
        log_metric: Callable[[str, float], None] | None = None,
        log_extra: Callable[[str, list], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        number = len(completions)
        logs = {"log_metric": log_metric, "log_extra": log_extra} if log_metric and log_extra else {}
        errors: list[Exception] = []
        try:
            rewards = list(self._function(completions=completions, **logs, **columns))
        except Exception:  # whatever a stranger's function raises
            rewards = []
            for index in range(number):
                one = slice(index, index + 1)
                row = {key: value[one] if _is_column(value, number) else value for key, value in columns.items()}
                try:
                    rewards += list(self._function(completions=completions[one], **row))
                except Exception as error:
                    errors.append(error)
                    rewards.append(None)
            if len(errors) == number:
                raise RuntimeError(
                    f"the reward function {self._name!r} raised on every rollout: {errors[0]!r}"
                ) from errors[0]
        if len(rewards) != number:
            raise RuntimeError(f"the reward function {self._name!r} must return {number} values, got {len(rewards)}")
        scored = [_finite(reward) for reward in rewards]
        if log_metric is not None:
            failed = sum(score is None and reward is not None for score, reward in zip(scored, rewards, strict=True))
            log_metric(f"rewards/{self.__name__}/failed", float(failed + len(errors)))
        return scored


def split_of(rewards: Iterable[float | None], correct_above: float) -> str:
    """What to say of rewards that differ although all are correct, or all incorrect; otherwise an empty text.

    Args:
        rewards: of rollouts; None and NaN where unscored.
        correct_above: a rollout is correct when its reward is greater than this.

    >>> split_of([0.1, 1.0, 0.1, None], correct_above=0.0)
    'all rewards, 0.1 to 1, are above correct_above 0, so all count as correct; --correct_above 0.55 would split them'
    >>> split_of([0.0, 1.0], correct_above=0.0)
    ''
    """
    values = sorted({float(reward) for reward in rewards if reward is not None and math.isfinite(reward)})
    if len(values) < 2 or values[0] <= correct_above < values[-1]:
        return ""
    low, high = max(pairwise(values), key=lambda pair: pair[1] - pair[0])
    where, what = ("above", "correct") if values[0] > correct_above else ("at most", "incorrect")
    return (
        f"all rewards, {values[0]:g} to {values[-1]:g}, are {where} correct_above {correct_above:g}, so all count as "
        f"{what}; --correct_above {(low + high) / 2:g} would split them"
    )


def check_threshold(reward: Callable[..., Any], rows: Any, correct_above: float) -> tuple[list[float | None], str]:
    r"""Tries the reward that decides correctness on answers that are known to be right, and on completions without one.

    Args:
        reward: in TRL's form.
        rows: a slice of the data set, columns `prompt` and `answers` among them.
        correct_above: a rollout is correct when its reward is greater than this.

    Returns:
        The rewards of each row's first accepted answer, put in \boxed{}, none where the function cannot be tried. And
        what to say where right answers get more than none and still count as incorrect: the threshold is too high, or
        the function wants another form.

    Raises:
        ValueError: right answers get more than none, and both count as correct.
    """
    prompts, answers = rows["prompt"], rows["answers"]
    columns = {name: values for name, values in rows.items() if name != "prompt"}

    def tried(texts: list[str]) -> list[float | None]:
        chat = not isinstance(prompts[0], str)
        completions = [[{"role": "assistant", "content": text}] for text in texts] if chat else texts
        return list(reward(prompts=prompts, completions=completions, **columns))

    try:
        boxed = tried([rf"The answer is $\boxed{{{accepted[0]}}}$." for accepted in answers])
        plain, none = tried([accepted[0] for accepted in answers]), tried([""] * len(answers))
    except RuntimeError:  # a function that needs more than a text
        return [], ""
    right, wrong = ([value for value in values if value is not None] for values in (boxed + plain, none))
    advice = split_of([max(right), *wrong], correct_above) if right and wrong and max(right) > max(wrong) else ""
    advice = advice and f"tried on right answers and on none: {advice}"
    if advice and min(wrong) > correct_above:
        raise ValueError(advice)
    return boxed, advice


def _is_column(value: Any, number: int) -> bool:
    return isinstance(value, list) and len(value) == number


def _finite(reward: Any) -> float | None:
    return float(reward) if reward is not None and math.isfinite(reward) else None


@cache
def _grader() -> Grader:
    """One for the whole process, since starting workers takes seconds."""
    grader = Grader()
    atexit.register(grader.close)
    return grader


def _text(completion: Completion) -> str:
    if isinstance(completion, str):
        return completion
    for message in reversed(completion):
        if message.get("role") == "assistant":
            content = message.get("content") or ""  # None in a message that only calls a tool
            if isinstance(content, str):
                return content
            return "".join(part.get("text", "") for part in content)
    return ""
