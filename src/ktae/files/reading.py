"""Saved rollouts: JSON lines (.jsonl, .jsonl.gz), JSON (.json, .json.gz) and Parquet, one rollout a row.

Which column is what follows from the column names (`columns_of`) or is said by the caller. A row that cannot be used
becomes a `Malformed` with its place and the reason; what to do about it is the reader's choice.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ktae.extras import require
from ktae.files.columns import Columns, Rollout, columns_of, parse_row

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")
_BATCH_ROWS = 256


@dataclass(frozen=True)
class Malformed:
    """A row that is not a rollout.

    Attributes:
        path: the file.
        row: its line in JSON lines, else the number of the row in its file; from 1.
        reason: what is wrong with it.
    """

    path: Path
    row: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}:{self.row}: {self.reason}"


def read_rollouts(
    path: Path, *, columns: Columns | Mapping[str, Any] | None = None, unnest: Sequence[str] = ()
) -> Iterator[Rollout | Malformed]:
    """The rollouts of a file or folder in their order, malformed rows in between.

    Args:
        path: a file with one of SUFFIXES, or a folder: a run's (its samples.jsonl), or one whose files are all read,
            in the order of the numbers in their names (TRL's completions, verl's dumps).
        columns: which column is what: all of them, or some of the fields of `Columns` by name. The others, or all if
            None, are recognised from the names in the first row.
        unnest: for JSON whose rows are problems: columns that each hold one rollout as an object. Such a row becomes
            one row a column: the row's other columns, the object's fields, and `rollout`, the column's name.

    Raises:
        FileNotFoundError: there is no such file, or no rollouts in the folder.
        ValueError: the suffix is none of SUFFIXES, or a column is neither given nor recognised.
        ImportError: the format needs the extra `report`, and it is not installed.
    """
    for file, row, data in raw_rows(path, unnest):
        if isinstance(data, ValueError):
            yield Malformed(file, row, str(data))
            continue
        if not isinstance(columns, Columns):
            columns = columns_of(data, **(columns or {}))
        try:
            yield parse_row(data, columns, row)
        except ValueError as error:
            yield Malformed(file, row, str(error))


def load_groups(
    path: Path,
    *,
    columns: Columns | Mapping[str, Any] | None = None,
    unnest: Sequence[str] = (),
    strict: bool = False,
) -> tuple[dict[str, list[Rollout]], list[Malformed]]:
    """All rollouts by group, in the order in which the groups begin, and the malformed rows.

    Args and errors: those of `read_rollouts`.
        strict: a malformed row raises a ValueError.
    """
    groups: dict[str, list[Rollout]] = {}
    malformed = []
    for item in read_rollouts(path, columns=columns, unnest=unnest):
        if isinstance(item, Rollout):
            groups.setdefault(item.group, []).append(item)
        elif strict:
            raise ValueError(str(item))
        else:
            malformed.append(item)
    return groups, malformed


def files_of(path: Path) -> list[Path]:
    """The files that `path` stands for; see `read_rollouts`."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if path.is_dir():
        if (path / "samples.jsonl").exists():
            return [path / "samples.jsonl"]
        found = [file for file in path.iterdir() if file.name.endswith(SUFFIXES)]
        if not found:
            raise FileNotFoundError(f"{path} holds no rollouts: no file ends in {', '.join(SUFFIXES)}")
        return sorted(found, key=lambda file: [(int(n or 0), s) for n, s in re.findall(r"(\d*)(\D*)", file.name)])
    if not path.name.endswith(SUFFIXES):
        raise ValueError(f"rollouts must be in a file that ends in {', '.join(SUFFIXES)}, got {path.name}")
    return [path]


def raw_rows(path: Path, unnest: Sequence[str] = ()) -> Iterator[tuple[Path, int, dict[str, Any] | ValueError]]:
    """(file, row, the row's columns or why it has none) of every row of a file or folder."""
    for file in files_of(path):
        rows = _parquet(file) if file.suffix == ".parquet" else json_rows(file)
        for row, data in rows:
            if isinstance(data, ValueError) or not unnest:
                yield file, row, data
            else:
                for part in unnested(data, unnest):
                    yield file, row, part


def json_rows(file: Path) -> Iterator[tuple[int, dict[str, Any] | ValueError]]:
    """Line by line (.jsonl) or item by item (.json); empty lines are passed over. Memory: one row."""
    with gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb") as source:
        if ".jsonl" in file.name:
            for row, line in enumerate(source, start=1):
                if line.strip():
                    yield row, _object(line)
        else:
            ijson = require("ijson", extra="report")
            try:
                for row, data in enumerate(ijson.items(source, "item", use_float=True), start=1):
                    yield row, _checked(data)
            except ijson.JSONError as error:
                raise ValueError(f"{file} must be a JSON array of objects: {error}") from error


def unnested(data: dict[str, Any], unnest: Sequence[str]) -> Iterator[dict[str, Any] | ValueError]:
    """One row for each of the columns `unnest`; see `read_rollouts`."""
    shared = {name: value for name, value in data.items() if name not in unnest}
    for name in unnest:
        part = data.get(name)
        if isinstance(part, dict):
            yield {**shared, "rollout": name, **part}
        else:
            yield ValueError(f"{name} must be an object that holds one rollout, got {part!r:.60}")


def plain_rows(table: Any) -> list[dict[str, Any]]:
    """A pyarrow.Table as Python values. float32 goes by its shortest decimal: float32(0.1) is 0.1, and not above it."""
    arrow = require("pyarrow", extra="report")
    for i, field in enumerate(table.schema):
        if field.type == arrow.float32():
            decimals = table.column(i).cast(arrow.string()).cast(arrow.float64())
            table = table.set_column(i, field.name, decimals)
    return table.to_pylist()


def _parquet(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    arrow = require("pyarrow", extra="report")
    row = 0
    for batch in require("pyarrow.parquet", extra="report").ParquetFile(file).iter_batches(_BATCH_ROWS):
        for data in plain_rows(arrow.Table.from_batches([batch])):
            row += 1
            yield row, data


def _object(line: bytes) -> dict[str, Any] | ValueError:
    try:
        data = json.loads(line)
    except ValueError as error:  # bytes that are not UTF-8 as well
        return ValueError(f"not valid JSON: {error}")
    return _checked(data) if b"\\ud" in line.lower() or not isinstance(data, dict) else data


def _checked(data: Any) -> dict[str, Any] | ValueError:
    if not isinstance(data, dict):
        return ValueError(f"a row must be a JSON object, got {type(data).__name__}")
    try:  # half of a surrogate pair can neither be written nor tokenised
        json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        return ValueError(f"not valid text: {error.object[error.start]!r} is half of a surrogate pair")
    return data
