"""Rows of files as other programs leave them: JSON lines, JSON and Parquet, damaged or not."""

from __future__ import annotations

import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from ktae.extras import require

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")
# What a policy wrote, in one column; such a column may also hold several samples.
GENERATED = (
    *("completion", "completions", "response", "responses", "output", "outputs", "output_response"),
    *("generation", "generations", "generated_text", "model_output"),
)
_OF_ROWS = ("rows", "data", "samples", "rollouts", *GENERATED)  # columns that may hold rows
_OF_MESSAGES = {"role", "content", "from"}
_SHOWN = 10  # malformed rows
_NO_TEXT = re.compile(r"\\u[dD]|[\ud800-\udfff]")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Row:
    """A row: its file, its number there (of the line in JSON lines, from 1), and its columns."""

    path: Path
    row: int
    data: dict[str, Any]


@dataclass(frozen=True)
class Malformed:
    """A row that cannot be used: its file, its number there, and what is wrong with it."""

    path: Path
    row: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}:{self.row}: {self.reason}"


def read_rows(path: Path, *, by_sample: bool = False) -> Iterator[Row | Malformed]:
    """All rows of a file or folder, in order; one that cannot be read is a `Malformed` between the others.

    The file holds one JSON object a line, a JSON array, one JSON object, or Parquet. JSON may be compressed with gzip,
    and begin with a byte order mark; empty lines are passed over. An object that holds rows in a column `rows`, `data`,
    `samples`, `rollouts` or of GENERATED, objects other than chat messages, stands for those, each with the object's
    other columns. If `by_sample`, a row whose completion is a list of texts or of conversations stands for as many
    rows; then every list of that length holds one value a row: the rewards, and in ms-swift's tables of steps all.

    The path is a file with one of SUFFIXES; a run's folder, which stands for its samples.jsonl; or a folder whose files
    are all read, in the order of the numbers in their names. Raises a FileNotFoundError if there is no such file, a
    ValueError if the suffix is another or the file is damaged, and an ImportError if Parquet needs pyarrow (extra
    `report`) and it is not installed.
    """
    for file in files_of(path):
        for number, data in _parquet(file) if file.suffix == ".parquet" else _json(file):
            if isinstance(data, ValueError):
                yield Malformed(file, number, str(data))
                continue
            for part in _parts(data):
                yield from (Row(file, number, one) for one in (_samples(part) if by_sample else [part]))


def without_malformed(
    rows: Iterable[_T | Malformed], path: Path, *, strict: bool, found: list[Malformed] | None = None
) -> Iterator[_T]:
    """The good rows of `path`. The bad ones are added to `found`, named on stderr, ten at most, and counted.

    Raises a ValueError if no row is good; or, if `strict`, one is bad.
    """
    found = [] if found is None else found
    good = 0
    for row in rows:
        if not isinstance(row, Malformed):
            good += 1
            yield row
        elif strict:
            raise ValueError(str(row))
        else:
            found.append(row)
            if len(found) <= _SHOWN:
                print(f"malformed, {row}", file=sys.stderr)
    if not good:
        why = f": {len(found):,} malformed, the first since {found[0].reason}" if found else ""
        raise ValueError(f"{path} holds no usable rows{why}")
    if found:
        print(f"{len(found):,} malformed row{'s' * (len(found) > 1)} left out of {path}", file=sys.stderr)


def held_columns(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Of each column of the first 100 rows the first value that is not None, and None where there is none."""
    held: dict[str, Any] = {}
    for row in islice(rows, 100):
        held |= {name: value for name, value in row.items() if held.get(name) is None}
    return held


def files_of(path: Path) -> list[Path]:
    """The files that `path` stands for; see `read_rows`."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist (looked in {Path.cwd()})")
    if path.is_dir():
        if (path / "samples.jsonl").exists():
            return [path / "samples.jsonl"]
        found = [file for file in path.iterdir() if file.name.endswith(SUFFIXES)]
        if not found:
            raise FileNotFoundError(f"{path} holds no rollouts: no file ends in {', '.join(SUFFIXES)}")
        return sorted(found, key=lambda file: [(int(n or 0), s) for n, s in re.findall(r"(\d*)(\D*)", file.name)])
    if not path.name.endswith(SUFFIXES):
        raise ValueError(f"rows must be in a file that ends in {', '.join(SUFFIXES)}, got {path.name}")
    return [path]


def stem(path: Path) -> str:
    """The file's name without what says its format: `qwen2.5_a` for qwen2.5_a.jsonl.gz; a folder's whole name."""
    return re.sub(r"\.(jsonl?(\.gz)?|parquet)$", "", path.name)


def _parts(data: dict[str, Any]) -> list[dict[str, Any]]:
    for name in _OF_ROWS:
        held = data.get(name)
        if isinstance(held, list) and held and all(isinstance(i, dict) and not _OF_MESSAGES & i.keys() for i in held):
            shared = {other: value for other, value in data.items() if other != name}
            return [{**shared, **item} for item in held]
    return [data]


def _samples(data: dict[str, Any]) -> list[dict[str, Any]]:
    for held in map(data.get, GENERATED):
        if isinstance(held, list) and {*map(type, held)} in ({str}, {list}):
            many = {name for name, value in data.items() if isinstance(value, list) and len(value) == len(held)}
            return [{k: v[i] if k in many else v for k, v in data.items()} for i in range(len(held))]
    return [data]


def _json(file: Path) -> Iterator[tuple[int, dict[str, Any] | ValueError]]:
    """A row, or what is wrong with it, for each line or item."""
    try:
        with (
            gzip.open(file) if file.suffix == ".gz" else file.open("rb") as opened,
            io.TextIOWrapper(opened, "utf-8-sig", "surrogateescape", newline="\n") as source,
        ):
            text = source.read()
            whole = _parsed(text)  # of several lines only the first one is parsed
            if not isinstance(whole, ValueError) or text.lstrip().startswith("["):
                may_be_broken = _may_be_broken(text)
                values = whole if isinstance(whole, list) else [whole]
                yield from enumerate((_row(value, may_be_broken) for value in values), start=1)
                return
            del text
            source.seek(0)
            numbered = enumerate(source, start=1)
            yield from ((n, _row(_parsed(line), _may_be_broken(line))) for n, line in numbered if line.strip())
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{file} is damaged: {error}") from error


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        return ValueError(f"not valid JSON: {error}")


def _may_be_broken(text: str) -> bool:
    """Whether half of a surrogate pair may stand there, escaped, or a byte that is no UTF-8."""
    return ("\\u" in text or not text.isascii()) and bool(_NO_TEXT.search(text))


def _row(data: Any, may_be_broken: bool) -> dict[str, Any] | ValueError:
    """The row, or why none of our writers could write it."""
    if isinstance(data, ValueError):
        return data
    if not isinstance(data, dict):
        return ValueError(f"a row must be a JSON object, got {type(data).__name__}")
    try:
        if may_be_broken:
            json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        wrong = error.object[error.start]
        return ValueError(f"not valid text: {wrong!r} is half of a surrogate pair, or a byte that is not UTF-8")
    return data


def _parquet(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    arrow = require("pyarrow", extra="report")
    try:
        table = require("pyarrow.parquet", extra="report").ParquetFile(file).read()
        columns = [*map(_plain, table.columns)]
    except (arrow.ArrowException, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{file} cannot be read as Parquet: {reason}") from error
    names = table.column_names
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{file} must have columns with different names, got {', '.join(twice)}")
    for number, values in enumerate(zip(*columns, strict=True), start=1):
        yield number, dict(zip(names, values, strict=True))


def _plain(column: Any) -> list[Any]:
    """A column's values. What Python has no value for, such as dates after the year 9999, is text."""
    arrow = require("pyarrow", extra="report")
    if column.type == arrow.float32():  # by the shortest decimal: float32(0.1) is 0.1, and not above it
        column = column.cast(arrow.string()).cast(arrow.float64())
    try:
        return column.to_pylist()
    except (ValueError, OverflowError):
        return column.cast(arrow.string()).to_pylist()
