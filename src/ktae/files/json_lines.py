"""JSON lines on disk: what a run leaves behind, one row a step, a rollout or an answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes one JSON line a row, the whole file or nothing."""
    unfinished = path.with_name(path.name + ".tmp")
    unfinished.unlink(missing_ok=True)
    append(unfinished, rows)
    unfinished.replace(path)


def append(path: Path, rows: list[dict[str, Any]]) -> None:
    """Adds one JSON line a row. Raises an OSError that names the file if it cannot be written, a full disk say."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file, none if it does not exist; a last line cut off by a kill is left out."""
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]
