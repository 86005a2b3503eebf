"""ktae's math grader as a reward function of verl: 1.0 if the final answer is equivalent to an accepted one, else 0.0.

An answer that could not be judged within 5 seconds gets 0.0 too: verl has no unscored rollouts. verl calls this from
several threads of each of its reward workers; the grader takes one call at a time.
"""

from collections.abc import Iterable
from threading import Lock
from typing import Any

from ktae.train.rewards import math_answer

_lock = Lock()


def compute_score(
    data_source: str, solution_str: str, ground_truth: str | Iterable[str], extra_info: Any = None, **kwargs: Any
) -> float:
    accepted = ground_truth if isinstance(ground_truth, str) else list(ground_truth)
    with _lock:
        [reward] = math_answer([solution_str], [accepted])
    return reward or 0.0
