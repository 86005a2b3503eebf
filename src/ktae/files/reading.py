"""Saved rollouts: rows of files of any format as `Rollout`s, malformed ones with their place and the reason."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from ktae.files.columns import GENERATED, Columns, Rollout, columns_of, parse_row
from ktae.files.rows import STEPS, Malformed, Row, read_rows, without_malformed

_AHEAD = 100  # rows from which the columns are recognised


def say_columns(columns: Columns) -> None:
    """Says on stderr which columns were recognised."""
    print(f"columns: {columns}", file=sys.stderr)


def read_rollouts(
    path: Path,
    *,
    columns: Columns | Mapping[str, Any] | None = None,
    unnest: Sequence[str] = (),
    on_columns: Callable[[Columns], None] = say_columns,
) -> Iterator[Rollout | Malformed]:
    """The rollouts of a file or folder in their order, malformed rows in between.

    Args:
        path: see `ktae.files.rows.read_rows`.
        columns: which column is what: all of them, or some of the arguments of `columns_of` by name. The others, or
            all if None, are recognised in the first rows.
        unnest: for rows that are problems: columns that each hold one rollout as an object. Such a row becomes one row
            a column: the row's other columns, the object's fields, and `rollout`, the column's name.
        on_columns: called with the columns once they are known.

    Raises:
        FileNotFoundError, ImportError, ValueError: those of `read_rows`, and of `columns_of`.
    """
    rows = several(read_rows(path), unnest)
    ahead, merged = [], {}
    for row in rows:
        ahead.append(row)
        if isinstance(row, Row):
            merged |= {name: value for name, value in row.data.items() if merged.get(name) is None}
        if merged and len(ahead) >= _AHEAD:
            break
    if merged and not isinstance(columns, Columns):
        columns = columns_of(merged, **(columns or {}))
        on_columns(columns)
    file, before, last = None, 0, 0
    for row in chain(ahead, rows):
        if row.path != file:
            file, before = row.path, before + last
        last = row.row
        if isinstance(row, Malformed):
            yield row
            continue
        assert isinstance(columns, Columns)
        try:
            yield parse_row(row.data, columns, before + row.row)
        except ValueError as error:
            yield Malformed(row.path, row.row, str(error))


def load_groups(
    path: Path,
    *,
    columns: Columns | Mapping[str, Any] | None = None,
    unnest: Sequence[str] = (),
    strict: bool = False,
) -> tuple[dict[str, list[Rollout]], list[Malformed]]:
    """All rollouts by group, in the order in which the groups begin, and the malformed rows, which stderr names.

    Args and errors: those of `read_rollouts`.
        strict: a malformed row raises a ValueError. So does, strict or not, a file without any rollout.
    """
    groups: dict[str, list[Rollout]] = {}
    malformed: list[Malformed] = []
    rows = read_rollouts(path, columns=columns, unnest=unnest)
    for rollout in without_malformed(rows, path, strict=strict, found=malformed):
        groups.setdefault(rollout.group, []).append(rollout)
    return groups, malformed


def several(rows: Iterator[Row | Malformed], unnest: Sequence[str] = ()) -> Iterator[Row | Malformed]:
    """Rows that hold several rollouts as several rows; the others as they are.

    They do if they have the columns `unnest`; if their completion, or `samples`, is a list of objects other than
    messages, whose fields join the row's; or if it is a list of texts or of conversations: then every list of that
    length holds one value a rollout (ms-swift's steps).
    """
    for row in rows:
        if isinstance(row, Malformed):
            yield row
        elif not unnest:
            yield from (Row(row.path, row.row, _turns(data, row.path)) for data in _unfolded(row.data))
        else:
            shared = {name: value for name, value in row.data.items() if name not in unnest}
            for name in unnest:
                part = row.data.get(name)
                if isinstance(part, dict):
                    yield Row(row.path, row.row, {**shared, "rollout": name, **part})
                else:
                    reason = f"{name} must be an object that holds one rollout, got {part!r:.60}"
                    yield Malformed(row.path, row.row, reason)


def _unfolded(data: dict[str, Any]) -> list[dict[str, Any]]:
    for name in (*GENERATED, "samples", "rollouts"):
        held = data.get(name)
        if not isinstance(held, list) or not held:
            continue
        if all(isinstance(item, dict) and not {"role", "content", "from"} & item.keys() for item in held):
            shared = {other: value for other, value in data.items() if other != name}
            return [{**shared, **item} for item in held]
        if all(isinstance(item, str) for item in held) or all(isinstance(item, list) for item in held):
            return _one_by_one(data, len(held))
    content = data.get("content")  # NeMo-RL: every value is a list of one
    if isinstance(content, list) and len(content) == 1 and isinstance(data.get("rewards"), list):
        return _one_by_one(data, 1)
    return [data]


def _one_by_one(data: dict[str, Any], count: int) -> list[dict[str, Any]]:
    lists = {name for name, value in data.items() if isinstance(value, list) and len(value) == count}
    return [{name: value[i] if name in lists else value for name, value in data.items()} for i in range(count)]


def _turns(data: dict[str, Any], path: Path) -> dict[str, Any]:
    """NeMo-RL's rows: `content` has the texts of prompt, answer, environment, answer, ...; the file's name the step."""
    content = data.get("content")
    if "rewards" not in data or not isinstance(content, list) or not all(isinstance(text, str) for text in content):
        return data
    roles = ("assistant", "environment")
    turns = [{"role": roles[i % 2], "content": text} for i, text in enumerate(content[1:])]
    step = re.search(r"step_?(\d+)", path.name)
    named = {"step": int(step[1])} if step and not set(STEPS) & data.keys() else {}
    return {**named, **data, "prompt": content[0] if content else None, "completion": turns}
