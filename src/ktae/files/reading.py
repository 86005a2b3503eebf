"""Saved rollouts: rows of files of any format as `Rollout`s, malformed ones with their place and the reason."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from ktae.files.columns import Rollout, columns_of, parse_row
from ktae.files.rows import GENERATED, Malformed, Row, read_rows, without_malformed

_AHEAD = 100  # rows from which the columns are recognised


def load_groups(path: Path, **given: Any) -> tuple[dict[str, list[Rollout]], list[Malformed]]:
    """All rollouts by group, in the order in which the groups begin, and the malformed rows, which stderr names.

    The path is that of `ktae.files.rows.read_rows`; `given` are arguments of `columns_of`. The columns are recognised
    in the first rows, and named on stderr. Raises the errors of both, and a ValueError if no row is a rollout.
    """
    groups: dict[str, list[Rollout]] = {}
    malformed: list[Malformed] = []
    for rollout in without_malformed(read_rollouts(path, **given), path, strict=False, found=malformed):
        groups.setdefault(rollout.group, []).append(rollout)
    return groups, malformed


def read_rollouts(path: Path, **given: Any) -> Iterator[Rollout | Malformed]:
    """The rollouts of a file or folder in their order, malformed rows in between; as `load_groups`."""
    rows = chain.from_iterable(map(one_by_one, read_rows(path)))
    ahead, merged = [], {}
    for row in rows:
        ahead.append(row)
        if isinstance(row, Row):
            merged |= {name: value for name, value in row.data.items() if merged.get(name) is None}
        if merged and len(ahead) >= _AHEAD:
            break
    columns = None
    if any(isinstance(row, Row) for row in ahead):
        columns = columns_of(merged, **given)
        print(f"columns: {columns}", file=sys.stderr)
    for row in chain(ahead, rows):
        if isinstance(row, Malformed):
            yield row
            continue
        assert columns is not None
        try:
            yield parse_row(row.data, columns, row.row)
        except ValueError as error:
            yield Malformed(row.path, row.row, str(error))


def one_by_one(row: Row | Malformed) -> list[Row | Malformed]:
    """A row whose completion is a list of texts or of conversations as several; any other as it is.

    Then every list of that length holds one value a rollout: the rewards, and in ms-swift's tables of steps all.
    """
    if isinstance(row, Malformed):
        return [row]
    for name in GENERATED:
        held = row.data.get(name)
        if isinstance(held, list) and set(map(type, held)) in ({str}, {list}):
            return [
                Row(row.path, row.row, {name: _item(value, i, len(held)) for name, value in row.data.items()})
                for i in range(len(held))
            ]
    return [row]


def _item(value: Any, index: int, count: int) -> Any:
    return value[index] if isinstance(value, list) and len(value) == count else value
