"""Rows of files as other programs leave them: JSON lines, JSON and Parquet, compressed or not, damaged or not.

What a file is follows from its bytes. A row that cannot be read becomes a `Malformed`, with its place and the reason,
and the rows around it are still read.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TextIO, TypeVar

from ktae.extras import require

SUFFIXES = (*(kind + zipped for kind in (".jsonl", ".json") for zipped in ("", ".gz", ".zst")), ".parquet")
# Columns that tell apart groups with the same prompt. The first is `ktae train`'s.
STEPS = ("algorithm", "step", "global_step", "train_step", "training_step", "rollout_id", "iteration", "epoch")
# An object with one of these is a row, not a wrapper of rows.
_OF_A_ROW = {
    *("prompt", "question", "problem", "input", "query", "messages", "doc_id", "doc", "answer", "reward", "score"),
    *("completion", "response", "output", "generation", "model_response"),
}
_DEEPEST = 100  # objects and lists within each other; those who write them recurse
_TOO_DEEP = f"not usable JSON: nested more than {_DEEPEST} deep"
_BATCH_ROWS = 256
_SHOWN = 10  # malformed rows
_GZIP, _ZSTD, _PARQUET = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1"  # how they begin
_ARRAY = re.compile(r"\s*\[\s*([]{]|$)")
_BETWEEN = {*" \t\r\n,"}
# Half of a surrogate pair, escaped, or a byte that is no UTF-8, as `surrogateescape` reads it.
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


def read_rows(path: Path) -> Iterator[Row | Malformed]:
    """All rows of a file or folder, in order. Memory: one line, 256 rows of Parquet, or the whole array or object.

    | the file holds                                        | rows                                                  |
    |-------------------------------------------------------|-------------------------------------------------------|
    | one JSON object a line                                | the objects; empty lines are passed over              |
    | a JSON array                                          | its items, as far as it is JSON                       |
    | an object in which the rows are under a key, any one  | those rows, with the object's step-like numbers       |
    | Parquet                                               | its rows                                              |

    All may begin with a byte order mark, have CRLF line ends, and be compressed with gzip or zstd.

    Args:
        path: a file with one of SUFFIXES; a run's folder, which stands for its samples.jsonl; or a folder whose files
            are all read, in the order of the numbers in their names.

    Raises:
        FileNotFoundError: there is no such file, or none in the folder.
        ValueError: the suffix is none of SUFFIXES, or Parquet cannot be opened.
        ImportError: the format needs pyarrow (extra `report`), and it is not installed.
    """
    for file in files_of(path):
        with file.open("rb") as source:
            head = source.read(4)
        rows = _parquet(file) if file.suffix == ".parquet" or head == _PARQUET else _json(file, head)
        for number, data in rows:
            if isinstance(data, ValueError):
                yield Malformed(file, number, str(data))
            else:
                yield from (Row(file, number, part) for part in _under_a_key(data))


def without_malformed(
    rows: Iterable[_T | Malformed], path: Path, *, strict: bool, found: list[Malformed] | None = None
) -> Iterator[_T]:
    """The good rows of `path`. The bad ones are added to `found`, named on stderr, ten at most, and counted.

    Raises:
        ValueError: no row is good; or, if `strict`, one is bad.
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
    return re.sub(r"\.(jsonl?(\.gz|\.zst)?|parquet)$", "", path.name)


def _under_a_key(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
    lists = [v for v in data.values() if isinstance(v, list) and v and all(isinstance(item, dict) for item in v)]
    if len(lists) != 1 or _OF_A_ROW & data.keys() or all("role" in item for item in lists[0]):
        yield data
        return
    shared = {name: value for name, value in data.items() if name in STEPS and not isinstance(value, list | dict)}
    yield from ({**shared, **item} for item in lists[0])


def _json(file: Path, head: bytes) -> Iterator[tuple[int, dict[str, Any] | ValueError]]:
    number = 0
    try:
        with io.TextIOWrapper(_opened(file, head), "utf-8-sig", "surrogateescape", newline="\n") as source:
            for number, row in enumerate(_values(source, lines=".jsonl" in file.name), start=1):
                if row is not None:
                    yield number, row
    except (EOFError, zlib.error, OSError) as error:
        if not head.startswith((_GZIP, _ZSTD)):
            raise
        yield number + 1, ValueError(f"the compressed file is damaged, and what follows is lost: {error}")


def _opened(file: Path, head: bytes) -> Any:
    if head.startswith(_GZIP):
        return gzip.open(file)
    if head.startswith(_ZSTD):
        return io.BufferedReader(require("pyarrow", extra="report").input_stream(file, compression="zstd"))
    return file.open("rb")


def _values(source: TextIO, lines: bool) -> Iterator[dict[str, Any] | ValueError | None]:
    """A row or what is wrong with it for each line or item; None for an empty line."""
    ahead = []
    for line in source:
        ahead.append(line)
        if line.strip():
            break
    first = "".join(ahead)
    if _ARRAY.match(first) or (not lines and first.lstrip().startswith("[")):
        yield from _items(first + source.read())
        return
    if not lines and isinstance(_parsed(first), ValueError):  # one object over several lines, or a damaged line
        rest = source.read()
        if isinstance(_parsed(first + rest), dict):
            ahead, rest = [first + rest], ""
        source = io.StringIO(rest)
    yield from (_parsed(line) if line.strip() else None for line in chain(ahead, source))


def _items(text: str) -> Iterator[dict[str, Any] | ValueError]:
    """The items of an array, up to the first that is no JSON."""
    decode, at = json.JSONDecoder().raw_decode, text.index("[") + 1
    while True:
        while text[at : at + 1] in _BETWEEN:
            at += 1
        if text.startswith("]", at) and not text[at + 1 :].strip():
            return
        begin = at
        try:
            data, at = decode(text, begin)
        except (ValueError, RecursionError) as error:
            yield ValueError(f"not valid JSON, and what follows is lost: {error}")
            return
        yield _checked(data, text[begin:at])


def _parsed(text: str) -> dict[str, Any] | ValueError:
    try:
        return _checked(json.loads(text), text)
    except RecursionError:
        return ValueError(_TOO_DEEP)
    except ValueError as error:
        return ValueError(f"not valid JSON: {error}")


def _checked(data: Any, text: str) -> dict[str, Any] | ValueError:
    """The row that `text` holds, or why none of our writers could write it."""
    if not isinstance(data, dict):
        return ValueError(f"a row must be a JSON object, got {type(data).__name__}")
    if text.count("[") + text.count("{") > _DEEPEST and _is_deeper(data, _DEEPEST):
        return ValueError(_TOO_DEEP)
    if ("\\u" in text or not text.isascii()) and _NO_TEXT.search(text):
        try:
            json.dumps(data, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            wrong = error.object[error.start]
            return ValueError(f"not valid text: {wrong!r} is half of a surrogate pair, or a byte that is not UTF-8")
    return data


def _is_deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(item, levels - 1) for item in inner)


def open_parquet(file: Path) -> Any:
    """The file as a pyarrow.parquet.ParquetFile. Raises a ValueError if it is none, or has a column twice."""
    arrow = require("pyarrow", extra="report")
    try:
        reader = require("pyarrow.parquet", extra="report").ParquetFile(file)
    except (arrow.ArrowException, OSError) as error:
        raise ValueError(f"{file} cannot be read as Parquet: {_first_line(error)}") from error
    names = reader.schema_arrow.names
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        count = names.count(twice[0])
        raise ValueError(f"{file} must have columns with different names, got {twice[0]!r} {count} times")
    return reader


def _parquet(file: Path) -> Iterator[tuple[int, dict[str, Any] | ValueError]]:
    arrow = require("pyarrow", extra="report")
    number = 0
    batches = open_parquet(file).iter_batches(_BATCH_ROWS)
    try:
        for number, data in enumerate(chain.from_iterable(map(plain_rows, batches)), start=1):
            yield number, data
    except (arrow.ArrowException, OSError) as error:
        yield number + 1, ValueError(f"the rows from here on cannot be read: {_first_line(error)}")


def plain_rows(table: Any) -> list[dict[str, Any]]:
    """The rows of a pyarrow.Table or RecordBatch as Python values.

    float32 goes by its shortest decimal: float32(0.1) is 0.1, and not above it. What Python has no value for, such as
    dates after the year 9999, is text.
    """
    columns = [_plain(name, column) for name, column in zip(table.column_names, table.columns, strict=True)]
    return [dict(zip(table.column_names, values, strict=True)) for values in zip(*columns, strict=True)]


def _plain(name: str, column: Any) -> list[Any]:
    arrow = require("pyarrow", extra="report")
    if column.type == arrow.float32():
        column = column.cast(arrow.string()).cast(arrow.float64())
    if column.type != arrow.time64("ns"):  # Python's have microseconds
        with contextlib.suppress(ValueError, OverflowError):
            return column.to_pylist()
    try:
        return column.cast(arrow.string()).to_pylist()
    except NotImplementedError as error:
        raise OSError(f"the column {name!r} holds values that Python has none for: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
