"""Files of rows for tests, in the formats that are read."""

import json

import pytest


def save(path, rows):
    """One JSON object a line, a JSON array or Parquet, by the suffix; a text in place of a row stands as it is."""
    if path.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pytest.importorskip("pyarrow").Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path
