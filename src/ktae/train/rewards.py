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
from ktae.grading.grader import Grader
from ktae.models.generate import Sampling, TransformersBackend, as_text, generate
from ktae.seeds import derived_seed

BUILT_IN = {
    "math_answer": "ktae.train.rewards:math_answer",
    "exact_match": "ktae.chain.problems:exact_match",
}

Completion = str | Sequence[Mapping[str, Any]]  # a text, or the messages of a chat


def math_answer(
    completions: Sequence[Completion],
    answers: Sequence[str | list[str]],
    *,
    log_metric: Callable[[str, float], None] | None = None,
    **kwargs: Any,
) -> list[float | None]:
    r"""Whether the final answer of each completion is equivalent to an accepted answer.

    Args:
        completions: one per rollout, a text or a list of chat messages, of which the last assistant message counts.
        answers: per rollout the accepted answer, or several of which any will do.
        log_metric: TRL's; gets numbers of rollouts of this call (docs/metrics.md).

    Returns:
        1.0 for a correct answer; 0.0 for an incorrect or missing one, and for one that could not be judged, or a policy
        could hide behind the deadline; None where a worker process died, which is no fault of the answer.

    Raises:
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


def load_reward(name: str) -> Callable[..., Any]:
    """The reward function of a name in `BUILT_IN`, or of an import path; errors as `ktae.extras.load_function`."""
    function = load_function("reward", name, BUILT_IN)
    if inspect.iscoroutinefunction(function) or not hasattr(function, "__name__"):
        raise ValueError(f"reward {name!r} must be a plain function, got {function!r}")
    return function


class RewardError(ValueError):
    """Rewards are not one a completion, or differ although `correct_above` makes all of them the same."""


def split_of(rewards: Iterable[float | None], correct_above: float) -> str:
    """What to say of rewards that differ although all are correct, or all incorrect; otherwise an empty text.

    >>> split_of([0.1, 1.0, 0.1, None], correct_above=0.0)
    'all rewards, 0.1 to 1, are above correct_above 0, so all count as correct; 0.55 would split them'
    """
    values = sorted({reward for reward in rewards if reward is not None})
    if len(values) < 2 or values[0] <= correct_above < values[-1]:
        return ""
    low, high = max(pairwise(values), key=lambda pair: pair[1] - pair[0])
    where, what = ("above", "correct") if values[0] > correct_above else ("at most", "incorrect")
    return (
        f"all rewards, {values[0]:g} to {values[-1]:g}, are {where} correct_above {correct_above:g}, so all count as "
        f"{what}; {(low + high) / 2:g} would split them"
    )


def scored(reward: Callable[..., Any], rows: Mapping[str, list[Any]], texts: list[str]) -> list[float | None]:
    """Rewards of a text for each row, given as columns; None where they are no finite number. Raises a RewardError."""
    chat = not isinstance(rows["prompt"][0], str)
    completions = [[{"role": "assistant", "content": text}] for text in texts] if chat else texts
    columns = {name: values for name, values in rows.items() if name != "prompt"}
    rewards = list(reward(prompts=rows["prompt"], completions=completions, **columns))
    if len(rewards) != len(texts):
        raise RewardError(f"the reward function must return a value a completion, {len(texts)}, got {len(rewards)}")
    return [float(value) if value is not None and math.isfinite(value) else None for value in rewards]


def check_threshold(
    reward: Callable[..., Any], rows: Mapping[str, list[Any]], correct_above: float
) -> tuple[list[float | None], str]:
    r"""Tries the reward that decides correctness on accepted answers, in \boxed{} and bare, and on empty completions.

    Returns the answers' rewards, none where the function cannot be tried, and what is to be said of that: its error, or
    that right answers count as incorrect, since the threshold is too high or the function wants another form. Raises a
    RewardError if right answers get more than none and both count as correct; or see `scored`.
    """
    answers = [accepted[0] for accepted in rows["answers"]]
    try:
        right = scored(reward, rows, [rf"The answer is $\boxed{{{answer}}}$." for answer in answers])
        right += scored(reward, rows, answers)
        none = scored(reward, rows, [""] * len(answers))
    except RewardError:
        raise
    except Exception as error:  # of a function that needs more than a text
        return [], f"it cannot be tried on accepted answers: {error!r}"
    best = max((value for value in right if value is not None), default=-math.inf)
    wrong = [value for value in none if value is not None]
    advice = split_of([best, *wrong], correct_above) if wrong and best > max(wrong) else ""
    advice = advice and f"tried on right answers and on none: {advice}"
    if advice and min(wrong) > correct_above:
        raise RewardError(advice)
    return right, advice


def answer(
    model: Any,
    tokenizer: Any,
    rows: Any,
    reward: Callable[..., Any],
    *,
    max_completion_length: int,
    samples: int | None,
    seed: int = 0,
    chat_template_kwargs: dict[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Generates and scores completions of every held-out problem; leaves the model in evaluation mode.

    Args:
        rows: a `datasets.Dataset` with `prompt` and what the reward function, in TRL's form, reads.
        samples: completions a problem, drawn at temperature 1 from the whole vocabulary; None for one greedy one.

    Returns:
        In the problems' order a row a completion: `problem`, its index, `completion`, its `length` in tokens, `reward`.
    """
    sampling = Sampling(temperature=0.0 if samples is None else 1.0, max_tokens=max_completion_length)
    tasks = [index for index in range(len(rows)) for _ in range(samples or 1)]
    texts = [as_text(tokenizer, prompt, chat_template_kwargs) for prompt in rows["prompt"]]
    plain = isinstance(rows[0]["prompt"], str)
    seeds = [derived_seed(seed, number) for number in range(len(tasks))]
    backend, found = TransformersBackend(model, tokenizer), {}
    for part in generate(backend, [texts[i] for i in tasks], sampling, seeds, special_tokens=plain):
        rewards = scored(reward, rows[[tasks[number] for number in part]], [one.text for one in part.values()])
        for (number, one), value in zip(part.items(), rewards, strict=True):
            found[number] = {"problem": tasks[number], "completion": one.text, "length": one.length, "reward": value}
    return [found[number] for number in range(len(tasks))]


@cache
def _grader() -> Grader:
    """One for the whole process, since starting workers takes seconds."""
    grader = Grader()
    atexit.register(grader.close)
    return grader


def _text(completion: Completion) -> str:
    if isinstance(completion, str):
        return completion
    # None in a message that only calls a tool.
    said = [message.get("content") or "" for message in completion if message.get("role") == "assistant"] or [""]
    return said[-1] if isinstance(said[-1], str) else "".join(part.get("text", "") for part in said[-1])
