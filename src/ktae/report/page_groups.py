"""Groups of rollouts as the page holds them: packed one by one, and a sample of them where all would be too much."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from ktae.config import KTAEConfig
from ktae.files.columns import KEY_TOKEN_VALUES, ROLLOUT_ADVANTAGE, TOKEN_TEXTS, Rollout
from ktae.files.tokens import Tokenizer
from ktae.report.groups import Group, group_of, last_turn, remarks
from ktae.report.scoring import token_texts

_DIGITS = 6  # significant ones of every number in the page
_SHOWN = 300  # characters of a prompt in the list of prompts; the chosen prompt is shown in full
_ADVANTAGES = (ROLLOUT_ADVANTAGE, "advantage")  # columns of `ktae score`, and of TRL and samples.jsonl
_TOLERANCE = 1e-3  # between values that were saved and those computed here


class PackedGroup(NamedTuple):
    """A group's entry in the list of prompts, and all else about it as base64 of gzipped JSON."""

    entry: dict[str, Any]
    packed: str


def sample(groups: Sequence[PackedGroup], limit: int) -> list[PackedGroup]:
    """As many groups as a page has bytes for, in their order: those with the smallest hashes of their names, so that
    which ones are kept depends neither on their order nor on a random draw."""

    def digest(group: PackedGroup) -> bytes:
        return hashlib.sha256(group.entry["id"].encode("utf-8", "surrogatepass")).digest()

    ranked = sorted(groups, key=digest)
    sizes = accumulate(len(group.packed) + len(json.dumps(group.entry)) + 64 for group in ranked)
    kept = {digest(group) for group, size in zip(ranked, sizes, strict=True) if size <= limit}
    return [group for group in groups if digest(group) in kept]


def pack(
    name: str, rollouts: Sequence[Rollout], tokenizer: Tokenizer | None, config: KTAEConfig, *, permutations: int
) -> PackedGroup:
    """A group as the page holds it. Rollout advantages are those saved with the rollouts, or else GRPO's.

    Raises:
        ValueError: the rollouts have no token texts and there is no tokenizer, or one that does not go with them; or
            they were saved with other key-token values.
    """
    group = group_of(rollouts, config, tokenizer, permutations=permutations)
    if tokenizer is None and token_texts(rollouts, None) is None:
        raise ValueError(
            f"group {name} must have {TOKEN_TEXTS}, one for each of its token ids; or name the tokenizer that made the "
            "token ids, --tokenizer"
        )
    _check_saved_values(group)
    advantages = _saved_advantages(rollouts) or group.scores.rollout_advantage_B.tolist()
    strings: dict[str, int] = {}
    unit_texts = [strings.setdefault(text, len(strings)) for text in group.table.text]
    packed_rollouts = []
    for row, (rollout, correct) in enumerate(zip(group.rollouts, group.correct, strict=True)):
        units = group.table.unit_index[row, : len(group.texts[row])].tolist()
        texts = [strings.setdefault(text, len(strings)) for text in group.texts[row]]
        packed: dict[str, Any] = {
            "reward": _number(rollout.reward),
            "correct": None if correct is None else int(correct),
            "advantage": 0.0 if correct is None else _number(advantages[row]),
            "label": str(rollout.data.get("rollout", "")),
            "units": units,
        }
        if any(unit < 0 or unit_texts[unit] != text for unit, text in zip(units, texts, strict=True)):
            packed["texts"] = texts
        if config.centered:
            packed["values"] = [_number(value) for value in group.values[row]]
        packed_rollouts.append(packed)
    n_correct, n_incorrect = group.correct.count(True), group.correct.count(False)
    payload = {
        "prompt": rollouts[0].prompt,
        "scale": config.scale * (2 if config.centered else 1),
        "n_correct": n_correct,
        "n_incorrect": n_incorrect,
        "remarks": remarks(group, config.scale),
        "texts": list(strings),
        "units": {"text": unit_texts, **_columns(group)},
        "rollouts": packed_rollouts,
    }
    rewards = [rollout.reward for rollout in rollouts if not math.isnan(rollout.reward)]
    entry = {
        "id": name,
        "prompt": last_turn(rollouts[0])[:_SHOWN],
        "rollouts": len(rollouts),
        "scored": n_correct + n_incorrect,
        "correct": n_correct,
        "reward": _number(float(np.mean(rewards))) if rewards else None,
        "varied": not set(rewards) <= {0.0, 1.0},
        "tokens": sum(len(texts) for texts in group.texts),
    }
    data = json.dumps(payload, separators=(",", ":")).encode()
    return PackedGroup(entry, base64.b64encode(gzip.compress(data, mtime=0)).decode())


def _columns(group: Group) -> dict[str, list[Any]]:
    columns = {name: values.tolist() for name, values in group.table.columns().items() if name not in ("group", "text")}
    columns["unit"] = [str(unit) for unit in columns["unit"]]  # JavaScript's integers end at 2^53
    return {name: [_number(x) if isinstance(x, float) else x for x in column] for name, column in columns.items()}


def _saved_advantages(rollouts: Sequence[Rollout]) -> list[float] | None:
    """The rollout advantages that the rollouts were saved with; None unless all scored ones have one."""
    for key in _ADVANTAGES:
        saved = [0.0 if math.isnan(rollout.reward) else rollout.data.get(key) for rollout in rollouts]
        if all(isinstance(value, int | float) and math.isfinite(value) for value in saved):
            return [float(value) for value in saved if value is not None]
    return None


def _check_saved_values(group: Group) -> None:
    """Refuses to explain key-token values that come from other settings than the tables."""
    for rollout, values_T in zip(group.rollouts, group.values, strict=True):
        saved = rollout.data.get(KEY_TOKEN_VALUES)
        if saved is None:
            continue
        if len(saved) != len(values_T) or not np.allclose(np.array(saved, float), values_T, rtol=0, atol=_TOLERANCE):
            raise ValueError(
                f"row {rollout.row}: {KEY_TOKEN_VALUES} must be those of the settings, and they differ; "
                "give the settings and all the rollouts that the values come from"
            )


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(f"{value:.{_DIGITS}g}")
