"""A run's folder: how it was made, and what an interrupted run goes on from."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from ktae.extras import require
from ktae.files import json_lines
from ktae.train.checkpoints import checkpoints
from ktae.train.recipe import Recipe
from ktae.train.settings import processes

_PACKAGES = ("ktae", "torch", "transformers", "trl", "accelerate", "datasets", "peft", "vllm", "deepspeed")


def open_folder(recipe: Recipe, out: Path, resume: bool) -> None:
    """Creates the folder with config.yaml, or checks that it holds a run of this recipe, and notes the start.

    Raises:
        FileExistsError: `out` is not empty and `resume` is False.
        FileNotFoundError: `resume` is True and `out` holds no run.
        ValueError: `resume` is True and the run in `out` has another recipe.
    """
    config = require("yaml", extra="train").safe_dump(recipe.as_dict(), sort_keys=False)
    path = out / "config.yaml"
    if resume:
        if not path.exists():
            raise FileNotFoundError(f"--resume: {path} does not exist")
        if path.read_text() != config:
            raise ValueError(f"--resume: the recipe differs from the one in {path}; resume with the same settings")
    else:
        if out.exists() and any(out.iterdir()):
            raise FileExistsError(f"{out} is not empty; give --resume to go on with it, or another --out")
        out.mkdir(parents=True, exist_ok=True)
        unfinished = out / "config.yaml.tmp"
        unfinished.write_text(config)
        unfinished.replace(path)
    json_lines.append(out / "provenance.jsonl", [provenance()])


def provenance() -> dict[str, Any]:
    """When, with what and on what: command, versions, git commit, hardware."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "directory": str(Path.cwd()),
        "ktae_commit": _git_commit(Path(__file__).parent),
        "commit": _git_commit(Path.cwd()),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES},
        "hardware": {
            "machine": f"{platform.system()} {platform.machine()}",
            "cpu": _cpu_name(),
            "cpus": os.cpu_count(),
            "memory_gib": round(require("psutil", extra="train").virtual_memory().total / 2**30, 1),
            "accelerators": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        },
        "processes": processes(),
    }


def forget_after(checkpoint: Path | None, algorithm: str, out: Path) -> None:
    """Drops what lies after the checkpoint: records of steps that will be trained again, half-written checkpoints."""
    last = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
    for path in (out / "metrics.jsonl", out / "samples.jsonl"):
        rows = json_lines.read(path)
        json_lines.write(path, [row for row in rows if row["algorithm"] != algorithm or row["step"] <= last])
    whole = set(checkpoints(out / algorithm).values())
    for path in (out / algorithm).glob("checkpoint-*"):
        if path not in whole:
            shutil.rmtree(path)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


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
