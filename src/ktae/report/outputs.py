"""Scored rollouts as Parquet or JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from ktae.extras import require
from ktae.files.columns import (
    GROUP,
    KEY_TOKEN_VALUES,
    REWARD,
    ROLLOUT_ADVANTAGE,
    ROW,
    TOKEN_ADVANTAGES,
    TOKEN_IDS,
    TOKEN_TEXTS,
    Rollout,
)
from ktae.files.rows import open_parquet
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
        self._arrow = require("pyarrow", extra="report")
        self._types: dict[str, Any] = {}  # None: JSON text
        for file in files:
            if file.suffix == ".parquet":
                for field in open_parquet(file).schema_arrow:
                    self._note(field.name, field.type)

    @property
    def names(self) -> list[str]:
        """The columns."""
        return list(self._types)

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Takes rows into account."""
        for name in dict.fromkeys(name for row in rows for name in row):
            values = [row.get(name) for row in rows]
            known = self._types.get(name)
            if name in self._types and known is None:
                continue
            try:
                if known is not None:
                    self._arrow.array(values, known)
                    continue
            except (*_ARROW_REFUSES, self._arrow.ArrowException):
                pass
            try:
                self._note(name, self._arrow.array(values).type)
                self._array(values, self._types[name])
            except (*_ARROW_REFUSES, self._arrow.ArrowException):
                self._types[name] = None

    def table(self, rows: Sequence[dict[str, Any]]) -> Any:
        """Rows among those that were added, as a pyarrow.Table."""
        arrays = [self._array([row.get(name) for row in rows], kind) for name, kind in self._types.items()]
        return self._arrow.Table.from_arrays(arrays, names=self.names)

    def _note(self, name: str, kind: Any) -> None:
        arrow = self._arrow
        if arrow.types.is_dictionary(kind):
            kind = kind.value_type
        if name in self._types:
            both = [arrow.schema([(name, self._types[name])]), arrow.schema([(name, kind)])]
            try:
                kind = arrow.unify_schemas(both, promote_options="permissive").field(0).type
            except (arrow.ArrowInvalid, arrow.ArrowTypeError):
                kind = None
        self._types[name] = kind if kind is not None and _writable(kind) else None

    def _array(self, values: list[Any], kind: Any) -> Any:
        if kind is None:
            values = [None if value is None else json.dumps(value, ensure_ascii=False, default=str) for value in values]
            return self._arrow.array(values, self._arrow.string())
        if kind == self._arrow.float64():  # whole numbers beyond 2^53 among fractions
            values = [None if value is None else float(value) for value in values]
        return self._arrow.array(values, kind)


_ARROW_REFUSES = (TypeError, ValueError, OverflowError)


def _writable(kind: Any) -> bool:
    """Whether Parquet has the type: objects without any fields it has not."""
    children = [kind.field(i).type for i in range(kind.num_fields)]
    is_empty_object = str(kind).startswith("struct") and not children
    return not is_empty_object and all(map(_writable, children))


class ParquetOutput:
    """Writes a row group a block, with the types of the columns as they were read."""

    def __init__(self, file: Path, types: Types) -> None:
        self._file, self._types, self._writer = file, types, None

    def __enter__(self) -> ParquetOutput:
        return self

    def write(self, rollouts: Sequence[Rollout], scores: Scores) -> None:
        table = with_scores(self._types.table([rollout.data for rollout in rollouts]), rollouts, scores)
        if self._writer is None:
            parquet = require("pyarrow.parquet", extra="report")
            self._writer = parquet.ParquetWriter(self._file, table.schema, compression="zstd")
        self._writer.write_table(table)

    def __exit__(self, *error: object) -> None:
        if self._writer is not None:
            self._writer.close()


class JsonLines:
    """Floats are float32's shortest decimals; what JSON cannot hold, such as dates, is text."""

    def __init__(self, file: Path, types: Types) -> None:
        self._sink: TextIO = file.open("w")

    def __enter__(self) -> JsonLines:
        return self

    def write(self, rollouts: Sequence[Rollout], scores: Scores) -> None:
        arrow = require("pyarrow", extra="report")
        added = added_columns(rollouts, scores)
        # As text by Arrow: Python would write float32(0.1) with 17 digits.
        lists = {name: added.pop(name) for name in (KEY_TOKEN_VALUES, TOKEN_ADVANTAGES)}
        flat = {name: values.values.cast(arrow.string()).to_pylist() for name, values in lists.items()}
        added[ROLLOUT_ADVANTAGE] = added[ROLLOUT_ADVANTAGE].cast(arrow.string()).cast(arrow.float64())
        more = arrow.table(added).to_pylist()
        begin = 0
        for rollout, extra, end in zip(rollouts, more, scores.ends_B.tolist(), strict=True):
            line = json.dumps({**rollout.data, **extra}, default=str)
            numbers = "".join(f', "{name}": [{", ".join(text[begin:end])}]' for name, text in flat.items())
            self._sink.write(f"{line[:-1]}{numbers}}}\n")
            begin = end

    def __exit__(self, *error: object) -> None:
        self._sink.close()


OUTPUTS = {".parquet": ParquetOutput, ".jsonl": JsonLines}


def with_scores(table: Any, rollouts: Sequence[Rollout], scores: Scores) -> Any:
    """A pyarrow.Table of rollouts with what scores add to it."""
    if TOKEN_IDS in table.column_names:
        table = table.drop_columns([TOKEN_IDS])
    for name, values in added_columns(rollouts, scores).items():
        table = table.append_column(name, values)
    return table


def added_columns(rollouts: Sequence[Rollout], scores: Scores) -> dict[str, Any]:
    """Name -> pyarrow.Array of the columns that scores add to rows."""
    arrow = require("pyarrow", extra="report")
    starts = arrow.array(np.concatenate([[0], scores.ends_B]), arrow.int32())

    def lists(values_K: Any) -> Any:
        return arrow.ListArray.from_arrays(starts, values_K)

    rewards = np.array([rollout.reward for rollout in rollouts])
    columns = {
        ROW: arrow.array([rollout.row for rollout in rollouts], arrow.int64()),
        GROUP: arrow.array([rollout.group for rollout in rollouts], arrow.string()),
        REWARD: arrow.array(rewards, arrow.float64(), mask=np.isnan(rewards)),
        TOKEN_IDS: lists(arrow.array(scores.ids_K)),
        ROLLOUT_ADVANTAGE: arrow.array(scores.rollout_advantage_B),
        KEY_TOKEN_VALUES: lists(arrow.array(scores.value_K)),
        TOKEN_ADVANTAGES: lists(arrow.array(scores.advantage_K)),
    }
    if scores.texts is not None:
        texts = [text for of_rollout in scores.texts for text in of_rollout]
        columns[TOKEN_TEXTS] = lists(arrow.array(texts, arrow.string()))
    return columns
