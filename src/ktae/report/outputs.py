"""Scored rollouts as Parquet or JSON lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ktae.extras import require
from ktae.files import columns
from ktae.files.columns import Rollout
from ktae.files.rows import open_parquet

if TYPE_CHECKING:
    from ktae.report.scoring import Scores


class Types:
    """A type for every column of rows, found while they are read.

    Parquet's own types are kept. Where rows disagree, or Python or Parquet has no such value, the column is JSON text.

    >>> types = Types()
    >>> types.add([{"n": 1, "mixed": [1]}, {"n": 0.5, "mixed": "one"}])
    >>> types.table([{"n": 2, "mixed": "two"}]).to_pylist()
    [{'n': 2.0, 'mixed': '"two"'}]
    """

    def __init__(self, files: Iterable[Path] = ()) -> None:
        self.of: dict[str, Any] = {}  # None: JSON text
        for file in files:
            if file.suffix == ".parquet":
                for field in open_parquet(file).schema_arrow:
                    self._note(field.name, field.type)

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Takes rows into account."""
        for name in dict.fromkeys(name for row in rows for name in row):
            values = [row.get(name) for row in rows]
            if name in self.of and (self.of[name] is None or _array(values, self.of[name]) is not None):
                continue
            found = _array(values)
            self._note(name, None if found is None else found.type)
            if _array(values, self.of[name]) is None:
                self.of[name] = None

    def table(self, rows: Sequence[dict[str, Any]]) -> Any:
        """Rows among those that were added, as a pyarrow.Table."""
        arrow = require("pyarrow", extra="report")
        arrays = []
        for name, kind in self.of.items():
            values = [row.get(name) for row in rows]
            if kind is None:
                values = [None if v is None else json.dumps(v, ensure_ascii=False, default=str) for v in values]
            arrays.append(_array(values, arrow.string() if kind is None else kind))
        return arrow.Table.from_arrays(arrays, names=list(self.of))

    def _note(self, name: str, kind: Any) -> None:
        arrow = require("pyarrow", extra="report")
        if kind is not None and arrow.types.is_dictionary(kind):
            kind = kind.value_type
        if kind is not None and name in self.of:
            both = [arrow.schema([(name, self.of[name])]), arrow.schema([(name, kind)])]
            try:
                kind = arrow.unify_schemas(both, promote_options="permissive").field(0).type
            except (arrow.ArrowInvalid, arrow.ArrowTypeError):
                kind = None
        self.of[name] = kind if kind is not None and _writable(kind) else None


def _array(values: Sequence[Any], kind: Any = None) -> Any:
    """A pyarrow.Array; None where Arrow refuses the values."""
    arrow = require("pyarrow", extra="report")
    try:
        if kind == arrow.float64():  # whole numbers beyond 2^53 among fractions
            values = [None if value is None else float(value) for value in values]
        return arrow.array(values, kind)
    except (TypeError, ValueError, OverflowError, arrow.ArrowException):
        return None


def _writable(kind: Any) -> bool:
    """Whether Parquet has the type: objects without any fields it has not."""
    children = [kind.field(i).type for i in range(kind.num_fields)]
    return (bool(children) or not str(kind).startswith("struct")) and all(map(_writable, children))


Write = Callable[[Sequence[Rollout], "Scores"], None]


@contextmanager
def _parquet(file: Path, types: Types) -> Iterator[Write]:
    """A row group a block, with the types of the columns as they were read."""
    writer = None

    def write(rollouts: Sequence[Rollout], scores: Scores) -> None:
        nonlocal writer
        table = with_scores(types.table([rollout.data for rollout in rollouts]), rollouts, scores)
        parquet = require("pyarrow.parquet", extra="report")
        writer = writer or parquet.ParquetWriter(file, table.schema, compression="zstd")
        writer.write_table(table)

    try:
        yield write
    finally:
        if writer is not None:
            writer.close()


@contextmanager
def _json_lines(file: Path, types: Types) -> Iterator[Write]:
    """Floats are float32's shortest decimals; what JSON cannot hold, such as dates, is text."""
    arrow = require("pyarrow", extra="report")

    def write(rollouts: Sequence[Rollout], scores: Scores) -> None:
        added = added_columns(rollouts, scores)
        # As text by Arrow: Python would write float32(0.1) with 17 digits.
        lists = {name: added.pop(name) for name in (columns.KEY_TOKEN_VALUES, columns.TOKEN_ADVANTAGES)}
        flat = {name: values.values.cast(arrow.string()).to_pylist() for name, values in lists.items()}
        rollout_advantage = added[columns.ROLLOUT_ADVANTAGE].cast(arrow.string()).cast(arrow.float64())
        more = arrow.table({**added, columns.ROLLOUT_ADVANTAGE: rollout_advantage}).to_pylist()
        begin = 0
        for rollout, extra, end in zip(rollouts, more, scores.ends_B.tolist(), strict=True):
            line = json.dumps({**rollout.data, **extra}, default=str)
            numbers = "".join(f', "{name}": [{", ".join(text[begin:end])}]' for name, text in flat.items())
            sink.write(f"{line[:-1]}{numbers}}}\n")
            begin = end

    with file.open("w") as sink:
        yield write


OUTPUTS = {".parquet": _parquet, ".jsonl": _json_lines}


def with_scores(table: Any, rollouts: Sequence[Rollout], scores: Scores) -> Any:
    """A pyarrow.Table of rollouts with what scores add to it."""
    if columns.TOKEN_IDS in table.column_names:
        table = table.drop_columns([columns.TOKEN_IDS])
    for name, values in added_columns(rollouts, scores).items():
        table = table.append_column(name, values)
    return table


def added_columns(rollouts: Sequence[Rollout], scores: Scores) -> dict[str, Any]:
    """Name -> pyarrow.Array of the columns that scores add to rows."""
    arrow = require("pyarrow", extra="report")
    starts = arrow.array(np.concatenate([[0], scores.ends_B]), arrow.int32())

    def lists(values_K: Any) -> Any:
        return arrow.ListArray.from_arrays(starts, arrow.array(values_K))

    rewards = np.array([rollout.reward for rollout in rollouts])
    added = {
        columns.ROW: arrow.array([rollout.row for rollout in rollouts], arrow.int64()),
        columns.GROUP: arrow.array([rollout.group for rollout in rollouts], arrow.string()),
        columns.REWARD: arrow.array(rewards, arrow.float64(), mask=np.isnan(rewards)),
        columns.TOKEN_IDS: lists(scores.ids_K),
        columns.ROLLOUT_ADVANTAGE: arrow.array(scores.rollout_advantage_B),
        columns.KEY_TOKEN_VALUES: lists(scores.value_K),
        columns.TOKEN_ADVANTAGES: lists(scores.advantage_K),
    }
    if scores.texts is not None:
        texts = [text for of_rollout in scores.texts for text in of_rollout]
        added[columns.TOKEN_TEXTS] = arrow.ListArray.from_arrays(starts, arrow.array(texts, arrow.string()))
    return added
