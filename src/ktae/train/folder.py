"""A run's folder: how it was made, its checkpoints, and what an interrupted run goes on from."""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from ktae.extras import require
from ktae.files import json_lines
from ktae.files.locks import locked, unfinished
from ktae.train.recipe import Recipe
from ktae.train.settings import processes

COMPLETE = "complete"
"""The empty file that marks a checkpoint whose other files are all on disk."""
_PACKAGES = ("ktae", "torch", "transformers", "trl", "accelerate", "datasets", "peft", "vllm", "deepspeed")


@contextmanager
def open_folder(recipe: Recipe, out: Path, resume: bool) -> Iterator[None]:
    """Creates the folder with config.yaml, or checks that it holds a run of this recipe, and notes the start.

    Meanwhile no other process can open it: a BlockingIOError.
    """
    config = require("yaml", extra="train").safe_dump(recipe.as_dict(), sort_keys=False)
    path = out / "config.yaml"
    if resume and not path.exists():
        raise FileNotFoundError(f"--resume: {path} does not exist")
    out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        if resume and path.read_text() != config:
            raise ValueError(f"--resume: the recipe differs from the one in {path}; resume with the same settings")
        if not resume:
            if any(there.name != ".lock" for there in out.iterdir()):
                raise FileExistsError(f"{out} is not empty; give --resume to go on with it, or another --out")
            with unfinished(path) as temporary:
                temporary.write_text(config)
        installed = {d.name: d.version for d in importlib.metadata.distributions() if d.name in _PACKAGES}
        start = {
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "directory": str(Path.cwd()),
            "versions": {"python": platform.python_version()} | installed,
            "machine": platform.platform(),
            "processes": processes(),
        }
        json_lines.append(out / "provenance.jsonl", [start])
        yield


def newest(folder: Path) -> tuple[int, Path | None]:
    """The newest whole checkpoint in a trainer's folder, and of which update it is; 0 and None where there is none."""
    whole = [mark.parent for mark in folder.glob(f"checkpoint-*/{COMPLETE}")]
    numbers = [(path.name.removeprefix("checkpoint-"), path) for path in whole]
    return max(((int(number), path) for number, path in numbers if number.isdecimal()), default=(0, None))


def forget_later(out: Path, steps: Mapping[str, float]) -> None:
    """Drops from the run's records what came after so many updates of each algorithm."""
    for path in (out / "metrics.jsonl", out / "samples.jsonl"):
        json_lines.write(path, [row for row in json_lines.read(path) if row["step"] <= steps[row["algorithm"]]])
