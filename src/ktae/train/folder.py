"""A run's folder: how it was made, and what an interrupted run goes on from."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from ktae.extras import require
from ktae.files import json_lines
from ktae.files.locks import locked, unfinished
from ktae.train.checkpoints import COMPLETE, DAMAGED, checkpoints, is_whole, latest, refuse_unless_ours, remove
from ktae.train.recipe import Recipe
from ktae.train.settings import processes

_PACKAGES = ("ktae", "torch", "transformers", "trl", "accelerate", "datasets", "peft", "vllm", "deepspeed")


@contextmanager
def open_folder(recipe: Recipe, out: Path, resume: bool) -> Iterator[None]:
    """Creates the folder with config.yaml, or checks that it holds a run of this recipe, and notes the start.

    Meanwhile no other process can open it.

    Raises:
        BlockingIOError: another process is at work in `out`.
        FileExistsError: `out` is not empty and `resume` is False.
        FileNotFoundError: `resume` is True and `out` holds no run.
        ValueError: `resume` is True and the run in `out` has another recipe.
    """
    config = require("yaml", extra="train").safe_dump(recipe.as_dict(), sort_keys=False)
    path = out / "config.yaml"
    if resume and not path.exists():
        raise FileNotFoundError(f"--resume: {path} does not exist")
    out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        if resume:
            if path.read_text() != config:
                raise ValueError(f"--resume: the recipe differs from the one in {path}; resume with the same settings")
        else:
            if any(there.name != ".lock" for there in out.iterdir()):
                raise FileExistsError(f"{out} is not empty; give --resume to go on with it, or another --out")
            with unfinished(path) as temporary:
                temporary.write_text(config)
        json_lines.append(out / "provenance.jsonl", [provenance()])
        yield


def provenance() -> dict[str, Any]:
    """When, with what and on what: command, versions, git commit, hardware."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "directory": str(Path.cwd()),
        "ktae_commit": _git_commit(Path(__file__).parent),
        "commit": _git_commit(Path.cwd()),
        "versions": {"python": platform.python_version()} | _versions(),
        "hardware": {
            "machine": f"{platform.system()} {platform.machine()}",
            "cpu": _cpu_name(),
            "cpus": os.cpu_count(),
            "memory_gib": round(require("psutil", extra="train").virtual_memory().total / 2**30, 1),
            "accelerators": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        },
        "processes": processes(),
    }


def sources(recipe: Recipe, out: Path, say: Callable[[str], object]) -> dict[str, Path | None]:
    """What each algorithm goes on from: its finished model, else its newest checkpoint, else None.

    A model or checkpoint whose files are not as they were written is named to `say` and not taken.

    Raises:
        FileExistsError: something that this run has not written stands where a checkpoint or model has to go.
    """
    found = {}
    for algorithm in recipe.algorithms:
        for path in _made_by_us(out / algorithm):
            refuse_unless_ours(path)
        model = out / algorithm / "model"
        found[algorithm] = model if is_whole(model, say) else latest(out / algorithm, say)
    return found


def forget_later(recipe: Recipe, out: Path, found: Mapping[str, Path | None], say: Callable[[str], object]) -> None:
    """Leaves in the folder what was there when the models and checkpoints in `found` were saved.

    Half-written ones are deleted; damaged ones stay until their update is saved again. metrics.jsonl is written anew
    from the log in each of `found`; of samples.jsonl the rows of later updates are dropped, and lost ones counted.
    """
    metrics, last, due = [], {}, 0
    for algorithm, source in found.items():
        for path in _made_by_us(out / algorithm):
            if not any((path / mark).exists() for mark in (COMPLETE, DAMAGED)):
                remove(path)
        state = json.loads((source / "trainer_state.json").read_text()) if source else {}
        last[algorithm] = state.get("global_step", 0)
        rows = [row for row in state.get("log_history", []) if is_record(row)]
        metrics += [{"algorithm": algorithm, **row} for row in rows]
        due += sum("loss" in row and is_shown(row["step"], recipe.samples_every) for row in rows)
    json_lines.write(out / "metrics.jsonl", metrics)
    path, due = out / "samples.jsonl", due * recipe.batch.prompts * recipe.batch.rollouts
    rows = [row for row in json_lines.read_where_whole(path) if row and row["step"] <= last.get(row["algorithm"], 0)]
    json_lines.write(path, rows)
    if len(rows) != due:
        say(f"{path} holds {len(rows):,} rows of the {due:,} written; nothing is computed from it")


def _made_by_us(folder: Path) -> list[Path]:
    """What has the name of a checkpoint or model in an algorithm's folder."""
    return [path for path in folder.glob("*") if re.fullmatch(r"checkpoint-\d+|model|unfinished", path.name)]


def is_record(logs: Mapping[str, Any]) -> bool:
    """Whether what a trainer logs goes into metrics.jsonl: the figures of an update or of an evaluation."""
    return "loss" in logs or "eval_loss" in logs


def is_shown(step: int, every: int) -> bool:
    """Whether an update is one of those to keep or show samples of, every so many; 0 for never."""
    return every > 0 and step % every == 0


def what_is_safe(recipe: Recipe, out: Path) -> str:
    """Up to where each algorithm would not have to be trained again."""
    parts = []
    for algorithm in recipe.algorithms:
        if (out / algorithm / "model" / COMPLETE).exists():
            parts.append(f"{algorithm} is finished")
        elif there := checkpoints(out / algorithm):
            parts.append(f"{algorithm} is safe up to update {max(there)}")
    return ", ".join(parts) or "no update is saved yet"


def _versions() -> dict[str, str]:
    return {d.name: d.version for d in importlib.metadata.distributions() if d.name in _PACKAGES}


def _git_commit(folder: Path) -> str | None:
    """The commit that `folder` is at, with `+changes` if files differ from it; None outside a git repository."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        return commit + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
