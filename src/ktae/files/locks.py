"""Files written whole or not at all, and by one writer at a time, whenever a writer is killed."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

_held: set[int] = set()  # file descriptors


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock of an output file, which need not exist yet, or of a folder, which must.

    The lock file is `.NAME.lock` beside a file and `.lock` in a folder, and is removed afterwards. The operating system
    keeps the lock (flock(2)) and drops it when the process ends, however it ends: what a killed one leaves behind is
    no obstacle.

    Raises:
        BlockingIOError: another process, or another call in this one, holds it; one line says who and since when.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, locked(Path(folder)):
    ...     sorted(json.loads((Path(folder) / ".lock").read_text()))
    ['host', 'pid', 'since']
    """
    file = path / ".lock" if path.is_dir() else path.with_name(f".{path.name}.lock")
    file.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise BlockingIOError(f"{path} is being written to by {_holder(file)}") from None
        if _is_still(file, descriptor):
            break
        os.close(descriptor)  # its holder removed the file after we opened it
    _held.add(descriptor)
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": datetime.now().isoformat(" ", "seconds")}
    os.ftruncate(descriptor, 0)
    os.write(descriptor, json.dumps(holder).encode())
    try:
        yield
    finally:
        if descriptor in _held:  # not in a forked child
            _held.remove(descriptor)
            file.unlink(missing_ok=True)
            os.close(descriptor)


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


def _is_still(file: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(file.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _holder(file: Path) -> str:
    try:
        return "process {pid} on {host} since {since}".format(**json.loads(file.read_text()))
    except (OSError, ValueError, KeyError):  # it has only just begun or ended
        return "another process"


def _drop() -> None:
    """A forked worker that outlives its parent must not keep the parent's lock."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_drop)
