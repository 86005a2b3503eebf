"""Rows of files as other programs leave them: JSON lines, JSON and Parquet, compressed or not, damaged or not.

What a file is follows from its bytes rather than its name. A row that cannot be read becomes a `Malformed`, with its
place and the reason, and the rows around it are still read.
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
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from ktae.extras import require

SUFFIXES = (*(kind + zipped for kind in (".jsonl", ".json") for zipped in ("", ".gz", ".zst")), ".parquet")
# Columns that tell apart groups with the same prompt. The first is `ktae train`'s.
STEPS = ("algorithm", "step", "global_step", "train_step", "training_step", "rollout_id", "iteration", "epoch")
# An object with one of these is a row, not a wrapper of rows.
_OF_A_ROW = {
    *("prompt", "question", "problem", "input", "query", "messages", "doc_id", "doc", "answer", "reward", "score"),
    *("completion", "response", "output", "generation", "model_response"),
}
_DEEPEST = 100  # brackets within brackets
_LONGEST = 1 << 28  # bytes of one row
_CHUNK = 1 << 20
_BATCH_ROWS = 256
_SHOWN = 10  # malformed rows
_BOM = b"\xef\xbb\xbf"
_ZIPPED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")  # how gzip and zstd begin
# A string, a bracket, or a quotation mark whose string ends in a later chunk.
_PIECE = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[]["{}]', re.DOTALL)
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
    """All rows of a file or folder, in order. Memory: one row, 256 rows of Parquet, or one object that holds all rows.

    | the file holds                                        | rows                                                  |
    |-------------------------------------------------------|-------------------------------------------------------|
    | one JSON object a line                                | the objects; empty lines are passed over              |
    | a JSON array                                          | its items                                             |
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
        rows = _parquet(file) if file.suffix == ".parquet" or head == b"PAR1" else _json(file, head)
        for number, data in rows:
            if isinstance(data, ValueError):
                yield Malformed(file, number, str(data))
            else:
                for part in _under_a_key(data):
                    yield Row(file, number, part)


def without_malformed(
    rows: Iterable[_T | Malformed], path: Path, *, strict: bool, found: list[Malformed] | None = None
) -> Iterator[_T]:
    """The good rows. The bad ones are named on stderr, ten at most, and counted.

    Args:
        path: what is read, for the errors.
        strict: raise a ValueError at the first bad row instead.
        found: the bad ones are added to it.

    Raises:
        ValueError: no row is good.
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
    suffix = next((suffix for suffix in sorted(SUFFIXES, key=len, reverse=True) if path.name.endswith(suffix)), "")
    return path.name.removesuffix(suffix)


def _under_a_key(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
    lists = [v for v in data.values() if isinstance(v, list) and v and all(isinstance(item, dict) for item in v)]
    if len(lists) != 1 or _OF_A_ROW & data.keys() or all("role" in item for item in lists[0]):
        yield data
        return
    shared = {name: value for name, value in data.items() if name in STEPS and not isinstance(value, list | dict)}
    for item in lists[0]:
        yield {**shared, **item}


def _json(file: Path, head: bytes) -> Iterator[tuple[int, dict[str, Any] | ValueError]]:
    number = 0
    try:
        with _opened(file, head) as source:
            begin = source.peek(1).removeprefix(_BOM).lstrip()
            source.read(len(_BOM) if source.peek(3).startswith(_BOM) else 0)
            lines = ".jsonl" in file.name
            if re.match(rb"\[\s*[]{]", begin) or (begin.startswith(b"[") and not lines):
                texts = enumerate(_items(source), start=1)
            elif lines:
                texts = enumerate(_lines(source), start=1)
            else:
                texts = _document(source)
            for number, text in texts:
                if len(text) > _LONGEST:
                    raise ValueError(f"{file}:{number}: a row must have at most {_LONGEST:,} bytes, and this has more")
                if text.strip():
                    yield number, _parsed(text)
    except (EOFError, zlib.error, OSError) as error:
        if not head.startswith(_ZIPPED):
            raise
        yield number + 1, ValueError(f"the compressed file is damaged, and what follows is lost: {error}")


class _AsFarAsItGoes(io.RawIOBase):
    """A gzip file that gives all it has before it raises an error: its checksum is at the end."""

    def __init__(self, file: Path) -> None:
        self._stream = gzip.GzipFile(file)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._stream.readinto1(buffer)

    def close(self) -> None:
        self._stream.close()
        super().close()


def _opened(file: Path, head: bytes) -> io.BufferedReader:
    raw: Any
    if head.startswith(_ZIPPED[0]):
        raw = _AsFarAsItGoes(file)
    elif head.startswith(_ZIPPED[1]):
        raw = require("pyarrow", extra="report").input_stream(file, compression="zstd")
    else:
        raw = file.open("rb", buffering=0)
    return io.BufferedReader(raw)


def _lines(source: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: source.readline(_LONGEST + 1), b"")


def _document(source: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """One object over several lines; or JSON lines. Either may be damaged."""
    first = source.readline(_LONGEST + 1)
    if isinstance(_parsed(first), dict):
        yield 1, first
        yield from enumerate(_lines(source), start=2)
        return
    text = first + source.read(_LONGEST + 1 - len(first))
    is_indented = text[len(first) :].startswith((b" ", b"\t", b"\r", b"]")) or len(first) == len(text)
    if len(text) > _LONGEST or isinstance(_parsed(text), dict):
        yield 1, text
    elif is_indented and b"[" in text:  # damaged, and its rows are under a key
        yield from enumerate(_items(io.BytesIO(text[text.index(b"[") :])), start=1)
    else:
        yield from enumerate(text.split(b"\n"), start=1)


def _items(source: io.BufferedReader | io.BytesIO) -> Iterator[bytes]:
    """The texts of an array's items, cut at their brackets: one that is no JSON does not spoil the others."""
    text, depth, begin, end = b"", 0, 0, 0
    for chunk in iter(lambda: source.read1(_CHUNK), b""):
        text, begin, end = text[begin:] + chunk, 0, end - begin
        if len(text) > _LONGEST + _CHUNK:
            break
        for piece in _PIECE.finditer(text, end):
            if piece[0] == b'"':
                break
            end = piece.end()
            depth += (piece[0] in b"[{") - (piece[0] in b"]}")
            if piece[0] in b"[{" and depth == 1:
                begin = end
            elif depth == 0:
                if left := text[begin : piece.start()].strip(b", \t\r\n"):
                    yield left
                begin = end
            elif depth == 1:
                yield text[begin:end].lstrip(b", \t\r\n")
                begin = end
    if left := text[begin:].strip(b", \t\r\n"):
        yield left
    elif depth > 0:
        yield b"]"  # which is no JSON: the array does not end


def _parsed(text: bytes) -> dict[str, Any] | ValueError:
    if text.count(b"[") + text.count(b"{") > _DEEPEST and _depth(text) > _DEEPEST:
        return ValueError(f"not usable JSON: nested more than {_DEEPEST} deep")
    try:
        data = json.loads(text.decode())
    except (ValueError, RecursionError) as error:  # bytes that are not UTF-8 as well
        return ValueError(f"not valid JSON: {error}")
    if not isinstance(data, dict):
        return ValueError(f"a row must be a JSON object, got {type(data).__name__}")
    if b"\\ud" in text.lower():
        try:  # half of a surrogate pair can neither be written nor tokenised
            json.dumps(data, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            return ValueError(f"not valid text: {error.object[error.start]!r} is half of a surrogate pair")
    return data


def _depth(text: bytes) -> int:
    depth = deepest = 0
    for piece in _PIECE.finditer(text):
        depth += (piece[0] in b"[{") - (piece[0] in b"]}")
        deepest = max(deepest, depth)
    return deepest


def open_parquet(file: Path) -> Any:
    """The file as a pyarrow.parquet.ParquetFile. Raises a ValueError if it is none, or has a column twice."""
    arrow = require("pyarrow", extra="report")
    try:
        reader = require("pyarrow.parquet", extra="report").ParquetFile(file)
    except (arrow.ArrowException, OSError) as error:
        raise ValueError(f"{file} cannot be read as Parquet: {_first_line(error)}") from error
    names = reader.schema_arrow.names
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise ValueError(
            f"{file} must have columns with different names, got {twice[0]!r} {names.count(twice[0])} times"
        )
    return reader


def _parquet(file: Path) -> Iterator[tuple[int, dict[str, Any] | ValueError]]:
    arrow = require("pyarrow", extra="report")
    number = 0
    try:
        for batch in open_parquet(file).iter_batches(_BATCH_ROWS):
            for data in plain_rows(arrow.Table.from_batches([batch])):
                number += 1
                yield number, data
    except (arrow.ArrowException, OSError) as error:
        yield number + 1, ValueError(f"the rows from here on cannot be read: {_first_line(error)}")


def plain_rows(table: Any) -> list[dict[str, Any]]:
    """A pyarrow.Table as Python values.

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
