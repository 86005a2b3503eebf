"""Checkpoints and models that a run can trust, and the only folders that it ever deletes: those with its marker.

While a folder is being written its marker is the empty file `unfinished`; then it is `complete`, which holds the size
and the checksum of every other file, and is renamed to `damaged` where a file does not agree.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

MARKS = UNFINISHED, COMPLETE, DAMAGED = "unfinished", "complete", "damaged"
# What a checkpoint or model of ours has beside what from_pretrained reads.
TRAINING_STATE = ("optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state*.pth", "trainer_state.json", COMPLETE)
TRAINING_STATE += ("training_args.bin", "global_step*", "latest", "zero_to_fp32.py")
_FREE = (*MARKS, "README.md")  # a model's card may be edited


def begin(folder: Path) -> None:
    """Makes the folder, in the place of an earlier one of ours, and marks it as ours.

    Raises:
        FileExistsError: there is one that is not ours.
    """
    remove(folder)
    folder.mkdir(parents=True)
    (folder / UNFINISHED).touch()


def mark_complete(folder: Path) -> None:
    """Notes that everything is on disk: the size in bytes and the SHA-256 of every file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in _FREE)
    written = {str(path.relative_to(folder)): (path.stat().st_size, _checksum(path)) for path in files}
    mark = folder / UNFINISHED
    mark.write_text(json.dumps(written, indent=1))
    mark.rename(folder / COMPLETE)


def damage(folder: Path) -> str | None:
    """What is wrong with a folder that was marked as complete; None if every file is as it was written."""
    try:
        written = json.loads((folder / COMPLETE).read_text())
    except (OSError, ValueError):
        return f"its list of files, {COMPLETE}, cannot be read"
    for name, (size, checksum) in written.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size:,} bytes, {size:,} were written"
        if _checksum(path) != checksum:
            return f"{name} is not what was written: its checksum differs"
    return None


def checkpoints(folder: Path) -> dict[int, Path]:
    """The checkpoints in a trainer's folder that are marked as complete, by step, in order."""
    found = folder.glob("checkpoint-*")
    ours = [path for path in found if re.fullmatch(r"checkpoint-\d+", path.name) and (path / COMPLETE).exists()]
    return dict(sorted((int(path.name.rpartition("-")[2]), path) for path in ours))


def latest(folder: Path, say: Callable[[str], object]) -> Path | None:
    """The newest checkpoint in a trainer's folder that is whole, as `is_whole` says."""
    return next((path for path in reversed(checkpoints(folder).values()) if is_whole(path, say)), None)


def is_whole(folder: Path, say: Callable[[str], object]) -> bool:
    """Whether a folder is complete and undamaged; a damaged one is named to `say`, and marked."""
    if not (folder / COMPLETE).exists():
        return False
    if wrong := damage(folder):
        say(f"{folder} is damaged and left out: {wrong}")
        (folder / COMPLETE).rename(folder / DAMAGED)
    return not wrong


def rotate(folder: Path, step: int, keep: int, best: str | None = None) -> None:
    """Deletes all but the newest `keep` of the checkpoints up to `step`, and never `best`."""
    there = [path for saved, path in checkpoints(folder).items() if saved <= step]
    for path in there[:-keep]:
        if str(path) != best:
            remove(path)


def refuse_unless_ours(folder: Path) -> None:
    """Raises a FileExistsError unless the folder has our marker, or nothing in it, as after a kill in `begin`."""
    if not any((folder / mark).exists() for mark in MARKS) and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is in the way and was not written by this run; move it elsewhere")


def remove(folder: Path) -> None:
    """Deletes a folder of ours, if it is there; the marker last, so that a kill leaves one that can be recognised.

    Raises:
        FileExistsError: it is not ours.
    """
    if not folder.exists():
        return
    refuse_unless_ours(folder)
    mark = folder / UNFINISHED
    mark.touch()
    (folder / COMPLETE).unlink(missing_ok=True)
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path != mark:
            path.unlink()
    mark.unlink()
    folder.rmdir()


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
