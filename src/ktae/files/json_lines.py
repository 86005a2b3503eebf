"""JSON lines on disk: what a run leaves behind, one row a step, a rollout or an answer."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ktae.files.locks import unfinished


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes one JSON line a row, the whole file or nothing."""
    with unfinished(path) as temporary:
        append(temporary, rows)


def append(path: Path, rows: Sequence[dict[str, Any]]) -> None:
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
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True) if path.exists() else (), start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if line.endswith(b"\n"):
            if not isinstance(row, dict):
                raise ValueError(f"{path}:{number}: not a JSON object")
            rows.append(row)
    return rows
