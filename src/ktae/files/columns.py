"""Which column of a saved rollout is what, and one row as a `Rollout`."""

from __future__ import annotations

import hashlib
import json
import math
import numbers
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# What `ktae score` adds; `rollout_group` and `rollout_reward` make its output readable without naming columns again.
ROW, GROUP, REWARD = "rollout_row", "rollout_group", "rollout_reward"
TOKEN_IDS, TOKEN_TEXTS = "token_ids", "token_texts"
ROLLOUT_ADVANTAGE, KEY_TOKEN_VALUES, TOKEN_ADVANTAGES = "rollout_advantage", "key_token_values", "token_advantages"
_ADDED = (ROW, GROUP, REWARD, TOKEN_IDS, TOKEN_TEXTS, ROLLOUT_ADVANTAGE, KEY_TOKEN_VALUES, TOKEN_ADVANTAGES)

_NAMES = {
    "group": ("group", "group_id", "prompt_id", "uid", "problem_id", "prompt", "question", "problem", "input"),
    "reward": ("reward", "score", "correct", "is_correct"),
    "tokens": (TOKEN_IDS, "completion_ids", "response_ids"),
    "mask": ("mask", "completion_mask", "response_mask", "loss_mask"),
    "text": ("completion", "response", "output", "text", "solution"),
    "prompt": ("prompt", "question", "problem", "input"),
}
_LOGGED_VALUE = "key_token_value"  # a rollout's mean, which KTAETrainer logs beside the rewards
_LONGEST_LABEL = 40


@dataclass(frozen=True)
class Columns:
    """Names of columns; None where there is none.

    Attributes:
        group: rollouts that agree in all of these columns form a group.
        reward: the outcome reward: a number, true or false, or null for an unscored rollout.
        tokens: the completion's token ids, a list of integers >= 0.
        mask: a list of 0 and 1 as long as the tokens; 1 marks those that the policy generated. All of them if None.
        text: the completion, a text or a list of chat messages.
        prompt: the prompt, a text or a list of chat messages; shown only.
    """

    group: tuple[str, ...]
    reward: str
    tokens: str | None = None
    mask: str | None = None
    text: str | None = None
    prompt: str | None = None

    def __post_init__(self) -> None:
        if not self.group:
            raise ValueError("group must name at least one column, got none")
        if self.tokens is None and self.text is None:
            raise ValueError("columns must name tokens or text, got neither")

    def used(self) -> list[str]:
        """All names, each once."""
        names = (*self.group, self.reward, self.tokens, self.mask, self.text, self.prompt)
        return list(dict.fromkeys(name for name in names if name is not None))


@dataclass(frozen=True)
class Rollout:
    """One row.

    Attributes:
        row: its line in JSON lines, else the number of the row in its file; from 1.
        group: the group's label, such as "grpo/10/3"; see `label`.
        prompt: as text, messages one after the other; "" if unknown.
        text: the completion as text; None if only token ids are known.
        token_ids: None if only the text is known.
        mask: None if all tokens count.
        reward: NaN if unscored.
        data: all columns of the row.
    """

    row: int
    group: str
    prompt: str
    text: str | None
    token_ids: list[int] | None
    mask: list[int] | None
    reward: float
    data: dict[str, Any]


def columns_of(data: Mapping[str, Any], **given: Any) -> Columns:
    """Recognises the columns from one row.

    | the row has                         | it is             | group                  | reward             |
    |-------------------------------------|-------------------|------------------------|--------------------|
    | rollout_group, rollout_reward       | `ktae score`'s    | rollout_group          | rollout_reward     |
    | algorithm, step, group, advantage   | samples.jsonl     | algorithm, step, group | the reward function|
    | step, prompt, completion, advantage | TRL's completions | step, prompt           | the reward function|
    | input, output, score, step          | verl's dump       | step, uid or input     | score              |
    | anything else                       |                   | the first of the usual names of each        |

    Args:
        data: a row. The values matter only to find the reward function among TRL's columns.
        **given: fields of `Columns` that need not be recognised; None counts as not given.

    Raises:
        ValueError: group, reward or completion are not found, or several columns may be the reward.

    >>> columns_of({"question": "6 * 7", "solution": "42", "is_correct": True}).reward
    'is_correct'
    """
    known = {name: value for name, value in given.items() if value}
    for name, value in known.items():
        for column in value if name == "group" else (value,):
            if column not in data:
                raise ValueError(f"{name} names the column {column!r}, and the first row has only {_list(data)}")
    found: dict[str, Any] = {}
    for name, usual in _NAMES.items():
        column = next((column for column in usual if column in data), None)
        found[name] = (column,) if name == "group" and column else column
    if {GROUP, REWARD} <= data.keys():
        found |= {"group": (GROUP,), "reward": REWARD}
    elif {"algorithm", "step", "group", "completion", "advantage"} <= data.keys():
        found |= {"group": ("algorithm", "step", "group")}
    elif {"step", "prompt", "completion", "advantage"} <= data.keys():
        found |= {"group": ("step", "prompt")}
    elif {"step", "input", "output", "score"} <= data.keys():
        found |= {"group": ("step", "uid" if "uid" in data else "input"), "prompt": "input", "text": "output"}
    if {"step", "completion", "advantage"} <= data.keys() and REWARD not in data and "reward" not in known:
        found["reward"] = _reward_function(data)
    found |= known
    for name in ("group", "reward"):
        if not found[name]:
            raise ValueError(f"no column is known to hold the {name}; name it: one of {_list(data)}")
    if not found["tokens"] and not found["text"]:
        raise ValueError(f"no column is known to hold the completion; name tokens or text: one of {_list(data)}")
    return Columns(**found)


def check_free(names: Iterable[str], columns: Columns) -> None:
    """Raises a ValueError if a column already has a name that `ktae score` adds; `token_ids` may hold the token ids."""
    taken = [name for name in names if name in _ADDED and not name == TOKEN_IDS == columns.tokens]
    if taken:
        raise ValueError(
            f"the rollouts already have {_list(taken)}, which scores are written to: score the file that these scores "
            "came from, or give the columns other names"
        )


def parse_row(data: dict[str, Any], columns: Columns, row: int) -> Rollout:
    """One row as a rollout.

    Raises:
        ValueError: a column is missing or holds something else than `Columns` says; the message names it.
    """
    for name in columns.used():
        if name not in data:
            raise ValueError(f"there is no {name}")
    text = None
    if columns.text is not None and data[columns.text] is not None:
        text = as_text(data[columns.text], columns.text)
    token_ids = mask = None
    if columns.tokens is not None and data[columns.tokens] is not None:
        token_ids = _integers(data[columns.tokens], columns.tokens, 2**63)
        if columns.mask is not None and data[columns.mask] is not None:
            mask = _integers(data[columns.mask], columns.mask, 2)
            if len(mask) != len(token_ids):
                raise ValueError(
                    f"{columns.mask} must be as long as {columns.tokens}, {len(token_ids)}, got {len(mask)}"
                )
    if text is None and token_ids is None:
        raise ValueError(f"there is no completion: {columns.tokens or columns.text} is null")
    return Rollout(
        row=row,
        group="/".join(label(data[name], name) for name in columns.group),
        prompt="" if columns.prompt is None or data[columns.prompt] is None else _prompt(data[columns.prompt]),
        text=text,
        token_ids=token_ids,
        mask=mask,
        reward=_reward(data[columns.reward], columns.reward),
        data=data,
    )


def label(value: Any, name: str) -> str:
    """A group's value as a short text that can be typed: itself, or for long ones the start of its SHA-256.

    >>> label(3, "group"), label("a prompt that goes on, and on, and on, and on", "prompt")
    ('3', 'f515eeb8da17411f')
    """
    if value is None or value != value:
        raise ValueError(f"{name}, which says the group, is null")
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
    if len(text) <= _LONGEST_LABEL and text.isprintable() and text and "/" not in text:
        return text
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def as_text(content: Any, name: str) -> str:
    """A completion or prompt as text: itself, or the contents of its messages, a line break between two.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(
        isinstance(part, dict) and isinstance(part.get("content"), str) for part in content
    ):
        return "\n".join(part["content"] for part in content)
    raise ValueError(f"{name} must be a text or a list of messages with a text each, got {content!r:.60}")


def _prompt(content: Any) -> str:
    """Shown only, so anything will do."""
    try:
        return as_text(content, "prompt")
    except ValueError:
        return json.dumps(content, ensure_ascii=False, default=str)


def _reward(value: Any, name: str) -> float:
    if value is None or value != value:
        return math.nan
    if not isinstance(value, numbers.Real) or abs(float(value)) > 3.4e38:
        raise ValueError(f"{name} must be a finite number, true, false or null, got {value!r:.60}")
    return float(value)


def _integers(values: Any, name: str, end: int) -> list[int]:
    if not isinstance(values, list):
        raise ValueError(f"{name} must be a list of integers in [0, {end}), got {values!r:.60}")
    # One comparison a list where all is well: there are millions of lists.
    if values and not ({type(value) for value in values} <= {int, bool} and min(values) >= 0 and max(values) < end):
        wrong = next(v for v in values if type(v) not in (int, bool) or not 0 <= v < end)
        raise ValueError(f"{name} must hold integers in [0, {end}), got {wrong!r:.60}")
    return values


def _reward_function(data: Mapping[str, Any]) -> str | None:
    """The one column of numbers between completion and advantage; TRL names it after the reward function."""
    names = list(data)
    between = names[names.index("completion") + 1 : names.index("advantage")]
    found = [
        name
        for name in between
        if name != _LOGGED_VALUE and (data[name] is None or isinstance(data[name], numbers.Real))
    ]
    if len(found) > 1:
        raise ValueError(f"several columns may be the reward: {', '.join(found)}; name the one that tells correctness")
    return found[0] if found else None


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)


def plain(value: Any) -> str | None:
    """A text without the white space around it, or a number, 5.0 as "5"; None for an empty one or NaN."""
    if isinstance(value, float):
        if value != value:
            return None
        value = int(value) if value.is_integer() else value
    return str(value).strip() or None
