"""Groups of rollouts as the page holds them: packed one by one, and a sample of them where all would be too much."""

from __future__ import annotations

import base64
import gzip
import hashlib
import heapq
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ktae.explanation import KeyTokenTable
from ktae.scores import fisher_p_values

_DIGITS = 6  # significant ones of every number in the page
_SHOWN = 300  # characters of a prompt in the list of prompts; the chosen prompt is shown in full


@dataclass(frozen=True)
class ReportRollout:
    """One rollout, ready to be shown.

    Attributes:
        texts: the text of each of its T tokens where it stands.
        unit_index: (T,) the row of its group's table that each token belongs to; -1 where it is not counted.
        reward: NaN if unscored.
        advantage: the rollout advantage.
        values: (T,) the key-token values of the tokens; None if they are those of the table's rows.
        label: what else tells it from the others of its group, such as the model that wrote it.
    """

    texts: Sequence[str]
    unit_index: Sequence[int]
    reward: float
    advantage: float
    values: Sequence[float] | None = None
    label: str = ""


@dataclass(frozen=True)
class ReportGroup:
    """The rollouts of one prompt with their table.

    Attributes:
        name: tells it from all other groups.
        prompt: as text.
        rollouts: in the order in which they are shown.
        table: `ktae.explain`'s rows of this group.
        correct_above: a rollout is correct when its reward is greater than this.
        scale: the largest key-token value there can be.
    """

    name: str
    prompt: str
    rollouts: Sequence[ReportRollout]
    table: KeyTokenTable
    correct_above: float = 0.0
    scale: float = 1.0


@dataclass(frozen=True)
class PackedGroup:
    """A group's entry in the list of prompts, all else about it as base64 of gzipped JSON, and its tokens in all."""

    entry: dict[str, Any]
    packed: str
    tokens: int

    @property
    def size(self) -> int:
        """Bytes in the page, or a few more."""
        return len(self.packed) + len(json.dumps(self.entry)) + 64


@dataclass
class Sample:
    """Keeps groups up to a size in all: those with the smallest hashes of their names, so that which ones are kept
    depends neither on their order nor on a random draw."""

    limit: int
    _size: int = 0
    _kept: list[tuple[int, int, PackedGroup]] = field(default_factory=list)
    _bound: int = 1 << 256
    seen: int = 0

    def add(self, group: PackedGroup) -> None:
        digest = int.from_bytes(hashlib.sha256(group.entry["id"].encode("utf-8", "surrogatepass")).digest())
        self.seen += 1
        if digest >= self._bound:
            return
        heapq.heappush(self._kept, (-digest, -self.seen, group))
        self._size += group.size
        while self._size > self.limit:
            largest, _, dropped = heapq.heappop(self._kept)
            self._size -= dropped.size
            self._bound = -largest

    def groups(self) -> list[PackedGroup]:
        """The kept groups in the order in which they came."""
        return [group for _, _, group in sorted(self._kept, key=lambda item: -item[1])]


def pack(group: ReportGroup) -> PackedGroup:
    """The group as the page holds it."""
    strings: dict[str, int] = {}

    def string(text: str) -> int:
        return strings.setdefault(text, len(strings))

    table = group.table
    unit_texts = [string(text) for text in table.text]
    rollouts = []
    for rollout in group.rollouts:
        units = [int(unit) for unit in rollout.unit_index]
        texts = [string(text) for text in rollout.texts]
        packed: dict[str, Any] = {
            "reward": _number(rollout.reward),
            "correct": None if math.isnan(rollout.reward) else int(rollout.reward > group.correct_above),
            "advantage": _number(rollout.advantage),
            "label": rollout.label,
            "units": units,
        }
        if any(unit < 0 or unit_texts[unit] != text for unit, text in zip(units, texts, strict=True)):
            packed["texts"] = texts
        if rollout.values is not None:
            packed["values"] = [_number(value) for value in rollout.values]
        rollouts.append(packed)
    verdicts = [rollout["correct"] for rollout in rollouts if rollout["correct"] is not None]
    n_correct, n_incorrect = sum(verdicts), len(verdicts) - sum(verdicts)
    payload = {
        "prompt": group.prompt,
        "scale": group.scale,
        "n_correct": n_correct,
        "n_incorrect": n_incorrect,
        "remark": _remark(table, n_correct, n_incorrect),
        "texts": list(strings),
        "units": {"text": unit_texts, **_columns(table)},
        "rollouts": rollouts,
    }
    rewards = [rollout.reward for rollout in group.rollouts if not math.isnan(rollout.reward)]
    entry = {
        "id": group.name,
        "prompt": group.prompt[:_SHOWN],
        "rollouts": len(rollouts),
        "scored": len(verdicts),
        "correct": n_correct,
        "reward": _number(float(np.mean(rewards))) if rewards else None,
        "varied": not set(rewards) <= {0.0, 1.0},
    }
    data = json.dumps(payload, separators=(",", ":")).encode()
    tokens = sum(len(rollout.texts) for rollout in group.rollouts)
    return PackedGroup(entry, base64.b64encode(gzip.compress(data, mtime=0)).decode(), tokens)


def _columns(table: KeyTokenTable) -> dict[str, list[Any]]:
    columns = {name: values.tolist() for name, values in table.columns().items() if name not in ("group", "text")}
    columns["unit"] = [str(unit) for unit in columns["unit"]]  # JavaScript's integers end at 2^53
    return {name: [_number(x) if isinstance(x, float) else x for x in column] for name, column in columns.items()}


def _remark(table: KeyTokenTable, n_correct: int, n_incorrect: int) -> str:
    """What the group's size allows the p-values to say, and how many units they single out."""
    if not (n_correct and n_incorrect):
        return ""
    least = float(fisher_p_values(n_correct, n_incorrect).min())
    rollouts = n_correct + n_incorrect
    remark = f"With {n_correct} correct of {rollouts} scored rollouts no Fisher p can be below {least:.3g}."
    if np.isnan(table.adjusted_p).any():
        return remark
    beyond = int((table.adjusted_p <= 0.05).sum())
    return f"{remark} {beyond} of {len(table)} different tokens have an adjusted p of at most 0.05."


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(f"{value:.{_DIGITS}g}")
