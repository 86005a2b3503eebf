"""JSON lines on disk: what a run leaves behind, one row a step, a rollout or an answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ktae.files.locks import unfinished


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes one JSON line a row, the whole file or nothing."""
    with unfinished(path) as temporary:
        append(temporary, rows)


def append(path: Path, rows: list[dict[str, Any]]) -> None:
    """Adds one JSON line a row. Raises an OSError that names the file if it cannot be written, a full disk say."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file, none if it does not exist; a last line cut off by a kill is left out.

    Raises a ValueError that names the line if another one is no JSON.
    """
    if not path.exists():
        return []
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path}:{number}: not valid JSON: {error}") from error
    return rows
