"""Saved rollouts: rows of files of any format as `Rollout`s, malformed ones with their place and the reason."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ktae.files.columns import Rollout, columns_of, parse_row
from ktae.files.rows import Malformed, Row, held_columns, read_rows, without_malformed


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


def read_rollouts(path: Path, **given: Any) -> list[Rollout | Malformed]:
    """The rollouts of a file or folder in their order, malformed rows in between; as `load_groups`."""
    rows = list(read_rows(path, by_sample=True))
    good = [row.data for row in rows if isinstance(row, Row)]
    if not good:
        return [row for row in rows if isinstance(row, Malformed)]
    columns = columns_of(held_columns(good), **given)
    print(f"columns: {columns}", file=sys.stderr)
    rollouts: list[Rollout | Malformed] = []
    for row in rows:
        try:
            rollouts.append(row if isinstance(row, Malformed) else parse_row(row.data, columns, row.row))
        except ValueError as error:
            rollouts.append(Malformed(row.path, row.row, str(error)))
    return rollouts
