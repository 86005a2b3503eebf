"""JSON rows as Arrow columns: one type a column for all rows, found while they are read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ktae.extras import require

_AS_TEXT = {b"ktae": b"json"}


class JsonSchema:
    """Finds a type for every column. Where rows disagree, or Parquet has no such type, the column is JSON text.

    >>> schema = JsonSchema()
    >>> schema.add([{"n": 1, "mixed": [1]}, {"n": 0.5, "mixed": "one"}])
    >>> schema.columns([{"n": 2, "mixed": "two"}]).to_pylist()
    [{'n': 2.0, 'mixed': '"two"'}]
    """

    def __init__(self, schema: Any = None) -> None:
        self._arrow = require("pyarrow", extra="report")
        self.schema = self._arrow.schema([]) if schema is None else schema

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Takes rows into account."""
        names = dict.fromkeys(name for row in rows for name in row)
        for name in names:
            index = self.schema.get_field_index(name)
            known = None if index < 0 else self.schema.field(index)
            if known is not None and known.metadata == _AS_TEXT:
                continue
            field = self._field(name, [row.get(name) for row in rows], known)
            self.schema = self.schema.append(field) if index < 0 else self.schema.set(index, field)

    def columns(self, rows: Sequence[dict[str, Any]]) -> Any:
        """Rows among those that were added, as a pyarrow.Table."""
        arrays = []
        for field in self.schema:
            values = [row.get(field.name) for row in rows]
            if field.metadata == _AS_TEXT:
                values = [None if value is None else json.dumps(value, ensure_ascii=False) for value in values]
            elif field.type == self._arrow.float64():  # whole numbers beyond 2^53 among fractions
                values = [None if value is None else float(value) for value in values]
            arrays.append(self._arrow.array(values, field.type))
        return self._arrow.Table.from_arrays(arrays, schema=self.schema)

    def _field(self, name: str, values: list[Any], known: Any) -> Any:
        arrow = self._arrow
        try:
            field = arrow.field(name, arrow.array(values).type)
            if known is not None:
                both = [arrow.schema([known]), arrow.schema([field])]
                field = arrow.unify_schemas(both, promote_options="permissive").field(0)
            if _writable(field.type):
                return field
        except (arrow.ArrowInvalid, arrow.ArrowTypeError, OverflowError):
            pass
        return arrow.field(name, arrow.string(), metadata=_AS_TEXT)


def _writable(kind: Any) -> bool:
    """Whether Parquet has the type: objects without any fields it has not."""
    children = [kind.field(i).type for i in range(kind.num_fields)]
    is_empty_object = str(kind).startswith("struct") and not children
    return not is_empty_object and all(map(_writable, children))
