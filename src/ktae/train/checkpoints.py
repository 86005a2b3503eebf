"""Which checkpoint an interrupted run goes on from: the newest one that was written to its end."""

from __future__ import annotations

import re
from pathlib import Path

_MARK = "complete"


def mark_complete(checkpoint: Path) -> None:
    """Says that everything of this checkpoint is on disk."""
    (checkpoint / _MARK).touch()


def checkpoints(folder: Path) -> dict[int, Path]:
    """The complete checkpoints in a trainer's folder by step, in order."""
    found = {int(path.name.rpartition("-")[2]): path for path in folder.glob("checkpoint-*") if _is_complete(path)}
    return dict(sorted(found.items()))


def latest(folder: Path) -> Path | None:
    """The newest complete checkpoint."""
    return next(reversed(checkpoints(folder).values()), None)


def _is_complete(path: Path) -> bool:
    return re.fullmatch(r"checkpoint-\d+", path.name) is not None and (path / _MARK).exists()
