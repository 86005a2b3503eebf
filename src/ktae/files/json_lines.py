"""JSON lines on disk: what a run leaves behind, one row a step, a rollout or an answer."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ktae.files.locks import unfinished


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes one JSON line a row, the whole file or nothing."""
    with unfinished(path) as temporary:
        append(temporary, rows)


def append(path: Path, rows: list[dict[str, Any]]) -> None:
    """Adds one JSON line a row, in the place of a last line that a kill cut off; an OSError names the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read() != b"\n":
                    file.truncate(path.read_bytes().rfind(b"\n") + 1)
            file.write("".join(json.dumps(row) + "\n" for row in rows).encode())
    except OSError as error:  # a full disk, say, which the system reports without a name
        raise OSError(error.errno, error.strerror, str(path)) from error


def read(path: Path) -> list[dict[str, Any]]:
    """The rows, none if there is no file; a last line cut off by a kill is left out, any other bad one a ValueError."""
    rows = list(read_where_whole(path))
    if None in rows:
        raise ValueError(f"{path}:{rows.index(None) + 1}: not a JSON object")
    return [row for row in rows if row is not None]


def read_where_whole(path: Path) -> Iterator[dict[str, Any] | None]:
    """As `read`, with None for each line that is not a JSON object."""
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else []:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if line.endswith(b"\n"):
            yield row if isinstance(row, dict) else None
