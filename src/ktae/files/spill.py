"""Rollouts in the order of their groups, however many there are: through a file, and DuckDB where they are mixed up.

`read_in` writes a rollouts file anew, each row with its group and its place, and says what it held; `in_groups` reads
that back. JSON rows are kept as JSON text, Parquet rows as their columns. Memory: a batch of rows, and what DuckDB may
use before it sorts on disk.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ktae.extras import require
from ktae.files.columns import GROUP, ROW, Columns, Rollout, check_free, columns_of, parse_row
from ktae.files.json_schema import JsonSchema
from ktae.files.reading import Malformed, files_of, plain_rows, raw_rows

ROLLOUTS, SCHEMA, JSON, PLACE = "rollouts.parquet", "schema.arrow", "rollout_json", "rollout_place"
_BATCH_ROWS = 256
_BATCH_BYTES = 8_000_000
_DUCKDB_MEMORY = "1GB"


@dataclass(frozen=True)
class Contents:
    """What a rollouts file was found to hold.

    Attributes:
        columns: which column is what.
        is_json: JSON rows, not Parquet's.
        rollouts, malformed: numbers of rows.
        runs: stretches of neighbouring rows with one group; as many as groups if the file is sorted.
        with_ids, without_ids: the first row that has token ids, and the first that has not; None if there is none.
        largest_id: of the token ids; -1 without any.
    """

    columns: Columns
    is_json: bool
    rollouts: int
    malformed: int
    runs: int
    with_ids: int | None
    without_ids: int | None
    largest_id: int

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Contents:
        data = json.loads(text)
        columns = data.pop("columns")
        return cls(columns=Columns(**{**columns, "group": tuple(columns["group"])}), **data)


def read_in(
    path: Path,
    folder: Path,
    named: dict[str, Any],
    unnest: Sequence[str],
    on_malformed: Callable[[Malformed], None],
    on_rows: Callable[[int], None],
) -> Contents:
    """Writes the rollouts of `path`, in its order, into `folder`.

    Args:
        path, unnest: those of `ktae.files.reading.read_rollouts`.
        folder: where ROLLOUTS and, for JSON, SCHEMA go; they are whole once this returns.
        named: what is given to `columns_of` besides the first row.
        on_malformed: called for each row that is left out; may raise.
        on_rows: called with the number of rows so far, every batch.

    Raises:
        ValueError: columns are not recognised, or have names that scores have; the files are of different kinds; there
            is no rollout at all.
    """
    files = files_of(path)
    kinds = {file.suffix == ".parquet" for file in files}
    if len(kinds) > 1:
        raise ValueError(f"{path} must hold either JSON or Parquet, got both")
    is_json = not kinds.pop()
    if unnest and not is_json:
        raise ValueError(f"--unnest is for JSON, got {path}")
    reader = _Reader(named, on_malformed)
    batches = _json_batches(path, reader, unnest, folder) if is_json else _parquet_batches(files, reader)
    writer = None
    arrow, parquet = require("pyarrow", extra="report"), require("pyarrow.parquet", extra="report")
    for rollouts, payload in batches:
        begin = reader.rollouts
        reader.note(rollouts)
        places = arrow.array(range(begin, reader.rollouts), arrow.int64())
        table = payload.append_column(ROW, arrow.array([rollout.row for rollout in rollouts], arrow.int64()))
        table = table.append_column(GROUP, arrow.array([rollout.group for rollout in rollouts], arrow.string()))
        table = table.append_column(PLACE, places)
        writer = writer or parquet.ParquetWriter(folder / ROLLOUTS, table.schema)
        writer.write_table(table)
        on_rows(reader.rollouts)
    if writer is None:
        raise ValueError(f"{path} holds no rollouts: {reader.malformed} malformed rows and no other")
    writer.close()
    return reader.contents(is_json)


def json_types(folder: Path) -> JsonSchema:
    """The types of JSON rows' columns, as `read_in` found them."""
    arrow = require("pyarrow", extra="report")
    return JsonSchema(arrow.ipc.read_schema(arrow.py_buffer((folder / SCHEMA).read_bytes())))


def in_groups(folder: Path, contents: Contents, skip: int = 0) -> Iterator[tuple[list[Rollout], Any]]:
    """Batches of rollouts with their columns as they were read, a pyarrow.Table; groups one after the other.

    Groups come in the order in which they begin, rollouts of a group in their own.

    Args:
        folder, contents: those of `read_in`.
        skip: rollouts to leave out at the beginning.
    """
    parquet = require("pyarrow.parquet", extra="report")
    settings = {"memory_limit": _DUCKDB_MEMORY, "temp_directory": str(folder / "duckdb")}
    with require("duckdb", extra="report").connect(config=settings) as database:
        # A data set, not the path: DuckDB would take brackets in it for a pattern.
        database.register("rows", require("pyarrow.dataset", extra="report").dataset(folder / ROLLOUTS))
        ((groups,),) = database.sql(f"SELECT count(DISTINCT {GROUP}) FROM rows").fetchall()
        if groups == contents.runs:
            batches = parquet.ParquetFile(folder / ROLLOUTS).iter_batches(_BATCH_ROWS)
        else:
            batches = database.sql(
                f"SELECT rows.* FROM rows JOIN (SELECT {GROUP}, min({PLACE}) AS first FROM rows "
                f"GROUP BY {GROUP}) USING ({GROUP}) ORDER BY first, {PLACE}"
            ).to_arrow_reader(_BATCH_ROWS)
        schema = parquet.read_schema(folder / ROLLOUTS)
        for batch in batches:
            if skip < len(batch):
                yield _rollouts(batch.slice(skip), contents, schema)
            skip = max(skip - len(batch), 0)


def _rollouts(batch: Any, contents: Contents, schema: Any) -> tuple[list[Rollout], Any]:
    table = require("pyarrow", extra="report").Table.from_batches([batch]).cast(schema)  # DuckDB knows fewer types
    if contents.is_json:
        data = [json.loads(text) for text in table[JSON].to_pylist()]
    else:
        data = plain_rows(table.select(contents.columns.used()))
    rows = table[ROW].to_pylist()
    parsed = [parse_row(of_row, contents.columns, row) for of_row, row in zip(data, rows, strict=True)]
    return parsed, table.drop_columns([ROW, GROUP, PLACE])


class _Reader:
    """Rows to rollouts, and the count of them."""

    def __init__(self, named: dict[str, Any], on_malformed: Callable[[Malformed], None]) -> None:
        self._named, self._on_malformed = named, on_malformed
        self.columns: Columns | None = None
        self.rollouts = self.malformed = self._runs = 0
        self._last: str | None = None
        self._first: dict[bool, int] = {}
        self._largest_id = -1

    def parse(self, file: Path, row: int, before: int, data: dict[str, Any] | ValueError) -> Rollout | None:
        """The rollout of row `row` of `file`; None if it is malformed. `before`: the rows of earlier files."""
        if not isinstance(data, ValueError):
            if self.columns is None:
                self.columns = columns_of(data, **self._named)
                check_free(data, self.columns)
            try:
                return parse_row(data, self.columns, before + row)
            except ValueError as error:
                data = error
        self.malformed += 1
        self._on_malformed(Malformed(file, row, str(data)))
        return None

    def note(self, rollouts: Sequence[Rollout]) -> None:
        self.rollouts += len(rollouts)
        for rollout in rollouts:
            self._runs += rollout.group != self._last
            self._last = rollout.group
            self._first.setdefault(rollout.token_ids is not None, rollout.row)
            if rollout.token_ids:
                self._largest_id = max(self._largest_id, *rollout.token_ids)

    def contents(self, is_json: bool) -> Contents:
        assert self.columns is not None, "no row was read"
        return Contents(
            columns=self.columns,
            is_json=is_json,
            rollouts=self.rollouts,
            malformed=self.malformed,
            runs=self._runs,
            with_ids=self._first.get(True),
            without_ids=self._first.get(False),
            largest_id=self._largest_id,
        )


def _json_batches(
    path: Path, reader: _Reader, unnest: Sequence[str], folder: Path
) -> Iterator[tuple[list[Rollout], Any]]:
    arrow = require("pyarrow", extra="report")
    schema = JsonSchema()
    rollouts: list[Rollout] = []
    texts: list[str] = []
    current, before, last, size = None, 0, 0, 0
    for file, row, data in raw_rows(path, unnest):
        if file != current:
            current, before = file, before + last
        last = row
        rollout = reader.parse(file, row, before, data)
        if rollout is None:
            continue
        rollouts.append(rollout)
        texts.append(json.dumps(rollout.data))
        size += len(texts[-1])
        if size >= _BATCH_BYTES:
            schema.add([rollout.data for rollout in rollouts])
            yield rollouts, arrow.table({JSON: arrow.array(texts, arrow.string())})
            rollouts, texts, size = [], [], 0
    if rollouts:
        schema.add([rollout.data for rollout in rollouts])
        yield rollouts, arrow.table({JSON: arrow.array(texts, arrow.string())})
    if reader.columns is not None:
        check_free(schema.schema.names, reader.columns)  # the first row need not have all columns
    (folder / SCHEMA).write_bytes(schema.schema.serialize().to_pybytes())


def _parquet_batches(files: Sequence[Path], reader: _Reader) -> Iterator[tuple[list[Rollout], Any]]:
    arrow, parquet = require("pyarrow", extra="report"), require("pyarrow.parquet", extra="report")
    try:
        schema = arrow.unify_schemas([parquet.read_schema(file) for file in files], promote_options="permissive")
    except (arrow.ArrowInvalid, arrow.ArrowTypeError) as error:
        raise ValueError(
            f"the Parquet files of {files[0].parent} must have columns of the same types: {error}"
        ) from error
    schema = schema.remove_metadata()  # pandas' says how to make a data frame of it
    before = 0
    for file in files:
        row = 0
        for batch in parquet.ParquetFile(file).iter_batches(_BATCH_ROWS):
            table = arrow.Table.from_batches([batch])
            names = [name for name in schema.names if name not in table.column_names]
            for name in names:
                table = table.append_column(name, arrow.nulls(len(table), schema.field(name).type))
            table = table.select(schema.names).cast(schema)
            used = table if reader.columns is None else table.select(reader.columns.used())
            rollouts = [
                reader.parse(file, row, before, data) for row, data in enumerate(plain_rows(used), start=row + 1)
            ]
            row += len(table)
            kept = [rollout for rollout in rollouts if rollout is not None]
            if kept:
                yield kept, table.filter(arrow.array([rollout is not None for rollout in rollouts]))
        before += row
