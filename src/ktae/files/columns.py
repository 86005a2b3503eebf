"""Which column of a saved rollout is what, and one row as a `Rollout`."""

from __future__ import annotations

import hashlib
import json
import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from ktae.files.rows import GENERATED

# What `ktae score` adds; `rollout_group` and `rollout_reward` make its output readable without naming columns again.
ROW, GROUP, REWARD = "rollout_row", "rollout_group", "rollout_reward"
TOKEN_IDS, TOKEN_TEXTS = "token_ids", "token_texts"
ROLLOUT_ADVANTAGE, KEY_TOKEN_VALUES, TOKEN_ADVANTAGES = "rollout_advantage", "key_token_values", "token_advantages"

# Columns that tell apart groups with the same prompt. The first is `ktae train`'s.
STEPS = ("algorithm", "step", "global_step", "train_step", "training_step", "rollout_id", "iteration", "epoch")
PROMPTS = ("prompt", "question", "problem", "input", "input_prompt", "query")
# For each field of `Columns` the usual names, of which it is the first that is there.
_NAMES = {
    "group": (
        *(GROUP, "group", "group_id", "group_index", "prompt_id", "uid", "problem_id", "example_id", "question_id"),
        *PROMPTS,
    ),
    "reward": (REWARD, "reward", "rewards", "score", "scores", "correct", "is_correct"),
    "tokens": (TOKEN_IDS, "completion_ids", "response_ids", "tokens"),
    "mask": ("mask", "completion_mask", "response_mask", "loss_mask", "token_loss_mask"),
    "prompt": PROMPTS,
}
# Where none of GENERATED is there, one of these may be the completion.
_PERHAPS_GENERATED = ("text", "solution", "messages", "conversations")
_OPTIONS = {"group": "--group-columns", "reward": "--reward-column", "completion": "--tokens-column or --text-column"}
_POLICY = ("assistant", "gpt", "model", None)  # None: a message without a role
_LOGGED_VALUE = "key_token_value"  # a rollout's mean, which KTAETrainer logs beside the rewards
_LONGEST_LABEL = 40
_ABSENT = object()


@dataclass(frozen=True)
class Columns:
    """Names of columns; None where there is none. `a.b` is the field b of the object in column a."""

    group: tuple[str, ...]  # rollouts that agree in all of these form a group
    reward: str  # the outcome reward: a number, true or false, or null for an unscored rollout
    tokens: str | None = None  # the completion's token ids, a list of integers >= 0
    # A list of 0 and 1 as long as the tokens; 1 marks those that the policy generated, all of them if None. It may
    # cover the response only, if the tokens begin with the prompt and `response_length` says so.
    mask: str | None = None
    text: str | None = None  # the completion, a text or a list of chat messages
    prompt: str | None = None  # a text or a list of chat messages; shown only

    def __str__(self) -> str:
        found = {"completion": self.tokens or self.text, "mask": self.mask, "reward": self.reward}
        named = [f"{what} from {name}" for what, name in {**found, "prompt": self.prompt}.items() if name]
        return f"{', '.join(named)}; groups by {', '.join(self.group)}"


@dataclass(frozen=True)
class Rollout:
    """One row."""

    row: int  # its line in JSON lines, else its number in the file, from 1
    group: str  # the group's label, such as "grpo/10/3"; see `label`
    prompt: str  # messages one after the other; "" if unknown
    parts: tuple[tuple[str, bool], ...] | None  # pieces of text, each with whether it is the policy's; None if unknown
    token_ids: list[int] | None  # None if only the text is known
    mask: list[int] | None  # None if all tokens count
    reward: float  # NaN if unscored
    data: dict[str, Any]  # all columns of the row


def columns_of(data: Mapping[str, Any], *, words: bool = False, **given: Any) -> Columns:
    """Recognises the columns from their names, and where these do not suffice from their values.

    `data` is a row, or several in one: for each column a value. `words` takes the text rather than the token ids, where
    there is one. `given` are fields of `Columns` that need not be recognised; None counts as not given. Raises a
    ValueError if a column is not found, or several may be the reward or the completion.

    >>> print(columns_of({"step": 3, "question": "6 * 7", "solution": "42", "is_correct": True}))
    completion from solution, reward from is_correct, prompt from question; groups by step, question
    """
    known = {name: value for name, value in given.items() if value}
    for name, value in known.items():
        for column in value if name == "group" else (value,):
            if value_of(data, column, _ABSENT) is _ABSENT:
                raise ValueError(f"{name} names the column {column!r}, and the first rows have only {', '.join(data)}")
    tokens = data.get("tokens")  # a name that also stands for something else
    of_ids = isinstance(tokens, list) and all(type(value) is int for value in tokens)
    names = [name for name in data if name != "tokens" or of_ids]
    found: dict[str, Any] = {name: next((c for c in usual if c in names), None) for name, usual in _NAMES.items()}
    if data.keys() >= {"task", "id", "sample"}:  # of `ktae eval`
        found["group"] = ("task", "id")
    elif found["group"]:
        found["group"] = (*(step for step in STEPS if step in data and GROUP not in data), found["group"])
    if "completion" in data and not {"reward", REWARD} & {*data, *known}:
        found["reward"] = _reward_function(data) or found["reward"]
    found |= known
    found["text"] = known.get("text") or _completion(data, bool(found["tokens"]) and not words)
    if words and found["text"] and "tokens" not in known:
        found["tokens"] = None
    there = {**found, "completion": found["tokens"] or found["text"]}
    for what, option in _OPTIONS.items():
        if not there[what]:
            raise ValueError(f"no column is known to hold the {what}; name it with {option}: one of {', '.join(data)}")
    if not found["tokens"]:
        if "mask" in known:
            raise ValueError(f"{known['mask']} is a mask of token ids, and no column of token ids is there")
        found["mask"] = None
    return Columns(**found)


def parse_row(data: dict[str, Any], columns: Columns, row: int) -> Rollout:
    """One row as a rollout; a ValueError names a column that is missing or holds something else than `Columns` says."""
    used = (*columns.group, columns.reward, columns.tokens, columns.mask, columns.text, columns.prompt)
    values: dict[Any, Any] = {name: name and value_of(data, name, _ABSENT) for name in used}
    if absent := [name for name, value in values.items() if value is _ABSENT]:
        raise ValueError(f"there is no {absent[0]}")
    text, ids, prompt = values[columns.text], values[columns.tokens], values[columns.prompt]
    if text is None and ids is None:
        raise ValueError(f"there is no completion: {columns.tokens or columns.text} is null")
    mask = None
    if ids is not None:
        _check_integers(ids, columns.tokens, 2**63)
        mask = _whole_mask(values[columns.mask], len(ids), data.get("response_length"))
        if mask is not None:
            _check_integers(mask, columns.mask, 2)
            if len(mask) != len(ids):
                raise ValueError(f"{columns.mask} must be as long as {columns.tokens}, {len(ids)}, got {len(mask)}")
    return Rollout(
        row=row,
        group="/".join(label(values[name], name) for name in columns.group),
        prompt="" if prompt is None else _shown(prompt),
        parts=None if text is None else messages_of(text, str(columns.text)),
        token_ids=ids,
        mask=mask,
        reward=_reward(values[columns.reward], columns.reward),
        data=data,
    )


def label(value: Any, name: str) -> str:
    """A group's value as a short text that can be typed: itself, or for long ones the start of its SHA-256."""
    if value is None or value != value:
        raise ValueError(f"{name}, which says the group, is null")
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
    if len(text) <= _LONGEST_LABEL and text.isprintable() and text and "/" not in text:
        return text
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def messages_of(content: Any, name: str) -> tuple[tuple[str, bool], ...]:
    """A text or chat messages as pieces, each with whether it is the policy's: only what an assistant says is.

    Tool calls and reasoning are the assistant's words too; a call is written as JSON. A line break stands between two
    messages, and belongs to the second. Raises a ValueError if it is neither.
    """
    if isinstance(content, str):
        return ((content, True),)
    if not isinstance(content, list) or not all(isinstance(message, dict) for message in content):
        raise ValueError(f"{name} must be a text or a list of messages, got {content!r:.60}")
    pieces: list[tuple[str, bool]] = []
    for message in content:
        text = _said(message)
        if text is None:
            raise ValueError(f"{name} must hold messages with a text or tool calls each, got {message!r:.60}")
        pieces.append(("\n" * bool(pieces) + text, message.get("role", message.get("from")) in _POLICY))
    return tuple(pieces)


def value_of(data: Mapping[str, Any], name: str, default: Any = None) -> Any:
    """The value of a column, or of a field within one; `default` if there is none."""
    if name in data:
        return data[name]
    column, dot, field = name.partition(".")
    inside = data.get(column) if dot else None
    return value_of(inside, field, default) if isinstance(inside, dict) else default


def _completion(data: Mapping[str, Any], has_tokens: bool) -> str | None:
    """The column of the completion's text; None if there is none, or where it is only shown and not sure."""
    for names in (GENERATED, _PERHAPS_GENERATED):
        found = [name for name in names if name in data and isinstance(data[name], str | list | None)]
        if len(found) > 1 and not has_tokens:
            several = ", ".join(found)
            raise ValueError(f"several columns may be the completion: {several}; name it: --text-column {found[0]}")
        if found:
            return found[0] if len(found) == 1 else None
    return None


def _reward_function(data: Mapping[str, Any]) -> str | None:
    """The one column of numbers between completion and advantage; TRL names it after the function."""
    names = list(data)
    end = next((names.index(name) for name in ("advantage", "advantages") if name in data), 0)
    between = names[names.index("completion") + 1 : end]
    found = [c for c in between if c != _LOGGED_VALUE and isinstance(data[c], numbers.Real | None)]
    if len(found) > 1:
        several = f"several columns may be the reward: {', '.join(found)}"
        raise ValueError(f"{several}; name the one that tells correctness: --reward-column {found[0]}")
    return found[0] if found else None


def _said(message: dict[str, Any]) -> str | None:
    content = message.get("content", message.get("value"))
    calls = message.get("tool_calls") or []
    calls = calls if isinstance(calls, list) else [calls]
    if isinstance(content, list):  # parts: texts, images
        if not all(isinstance(part, str | dict) for part in content):
            return None
        texts = [part if isinstance(part, str) else part.get("text") or f"[{part.get('type')}]" for part in content]
        content = "".join(map(str, texts))
    said = [message.get("reasoning_content") or message.get("reasoning"), content]
    calls = [call.get("function") or call if isinstance(call, dict) else call for call in calls]
    said += [json.dumps(call, ensure_ascii=False, default=str) for call in calls]
    texts = [text for text in said if isinstance(text, str) and text]
    return "\n".join(texts) if texts or isinstance(content, str) else None


def _shown(prompt: Any) -> str:
    """Shown only, so anything will do."""
    try:
        return "".join(text for text, _ in messages_of(prompt, "prompt"))
    except ValueError:
        return json.dumps(prompt, ensure_ascii=False, default=str)


def _reward(value: Any, name: str) -> float:
    if value is None or value != value:
        return math.nan
    if not isinstance(value, int | float | Decimal) or not abs(value) <= 3.4e38:
        inside = f"; --reward-column {name}.FIELD takes one of its fields" if isinstance(value, dict) else ""
        raise ValueError(f"{name} must be a finite number, true, false or null, got {value!r:.60}{inside}")
    return float(value)


def _whole_mask(mask: Any, length: int, response_length: Any) -> Any:
    """slime's tokens begin with the prompt's, its mask does not."""
    if isinstance(response_length, int) and 0 <= response_length < length:
        if mask is None or mask == []:
            mask = [1] * response_length
        if isinstance(mask, list) and len(mask) == response_length:
            return [0] * (length - response_length) + mask
    return mask


def _check_integers(values: Any, name: Any, end: int) -> None:
    if not isinstance(values, list):
        raise ValueError(f"{name} must be a list of integers in [0, {end}), got {values!r:.60}")
    # One comparison a list where all is well: there are millions of lists.
    if values and not (set(map(type, values)) <= {int, bool} and min(values) >= 0 and max(values) < end):
        wrong = next(v for v in values if type(v) not in (int, bool) or not 0 <= v < end)
        raise ValueError(f"{name} must hold integers in [0, {end}), got {wrong!r:.60}")
