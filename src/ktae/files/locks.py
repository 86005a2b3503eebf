"""Files written whole or not at all, and folders by one writer at a time, whenever a writer is killed."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ktae.extras import require


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the lock of a folder, which is its file `.lock`, and what a killed process leaves behind is no obstacle.

    Raises a BlockingIOError if another process, or another call in this one, holds it.
    """
    filelock = require("filelock", extra="train")
    lock = filelock.FileLock(folder / ".lock")
    try:
        held = lock.acquire(blocking=False)
    except filelock.Timeout:
        raise BlockingIOError(f"{folder} is being written to by another process") from None
    with held:
        yield


@contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """A name of its own beside `path` to write to; it becomes `path` in the end, or goes if an error is raised."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
