"""Files written whole or not at all, and folders by one writer at a time, whenever a writer is killed."""

from __future__ import annotations

import fcntl
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO

_held: set[IO[str]] = set()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the lock of a folder, which is its file `.lock`.

    What a killed process leaves behind is no obstacle, since the operating system drops its lock (flock(2)). Raises a
    BlockingIOError if another process, or another call in this one, holds the lock; it says who and since when.
    """
    with (folder / ".lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise BlockingIOError(f"{folder} is being written to by {lock.read() or 'another process'}") from None
        _held.add(lock)
        lock.truncate(0)
        since = datetime.now().isoformat(" ", "seconds")
        print(f"process {os.getpid()} on {socket.gethostname()} since {since}", file=lock, end="", flush=True)
        try:
            yield
        finally:
            _held.discard(lock)


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


def _drop() -> None:
    """A forked worker that outlives its parent must not keep the parent's lock."""
    while _held:
        _held.pop().close()


os.register_at_fork(after_in_child=_drop)
