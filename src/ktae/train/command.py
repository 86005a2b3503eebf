"""`ktae train RECIPE [--key value ...]`."""

from __future__ import annotations

import argparse
import errno
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments; what it does not know are the recipe's keys."""
    parser.description = "Trains every algorithm of a recipe from the same model and compares them."
    parser.epilog = (
        "Any key of the recipe can be set: --trl.learning_rate 1e-5 --algorithms '[grpo, grpo+ktae]' --seed 1"
    )
    add = parser.add_argument
    add("recipe", help="a YAML file, or the name of a recipe that comes with ktae (quickstart)")
    add("--out", type=Path, help="the run's folder (default: runs/NAME, or runs/NAME-2, ... if taken)")
    add("--resume", action="store_true", help="go on with the latest interrupted run of this recipe")
    add("--dry-run", action="store_true", help="check everything, print the plan, train nothing")


def run(arguments: argparse.Namespace) -> None:
    """Checks the recipe and trains."""
    try:
        with _stoppable():
            _run(arguments)
    except Stopped as stop:
        _end(f"stopped by {stop}; nothing was written", 128 + stop.number)


def _run(arguments: argparse.Namespace) -> None:
    from ktae.train.recipe import load_recipe
    from ktae.train.run import prepare

    sys.path.insert(0, "")  # as with python -m: reward functions of one's own live in the working directory
    recipe = load_recipe(arguments.recipe, arguments.overrides)
    if arguments.dry_run:
        from ktae.train.plan import print_plan

        return print_plan(recipe)
    out = arguments.out or _folder(recipe.name, arguments.resume)
    again = [arguments.recipe, *arguments.overrides, *(["--out", str(out)] if arguments.out else []), "--resume"]
    with prepare(recipe, out, resume=arguments.resume) as training:
        try:
            training()
        except (Exception, Stopped) as error:
            what, status = _cause(error)
            if what is None:
                traceback.print_exc()
                what = "stopped by the error above"
            from ktae.train.folder import what_is_safe

            _end(f"{what}. In {out}, {what_is_safe(recipe, out)}; go on with: ktae train {shlex.join(again)}", status)


def _cause(error: BaseException) -> tuple[str | None, int]:
    """In a few words, where they say it all, why a training ended, and the exit status."""
    if isinstance(error, Stopped):
        return f"stopped by {error}", 128 + error.number
    if isinstance(error, FloatingPointError | FileExistsError):
        return str(error), 1
    # The writers of torch and safetensors have exceptions of their own.
    words = ("unexpected pos", "PytorchStreamWriter failed", *(f"(os error {number})" for number in _FULL))
    one: BaseException | None = error
    while one is not None:
        if getattr(one, "errno", None) in _FULL or any(word in str(one) for word in words):
            return f"no room on the disk, or over a limit on file sizes ({str(one).splitlines()[0]})", 1
        one = one.__context__
    return None, 1


class Stopped(KeyboardInterrupt):
    """A signal asked the process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def _stoppable() -> Iterator[None]:
    """Turns the signals that ask a process to end into `Stopped`; one that is ignored, under nohup, stays so."""
    owner = os.getpid()

    def stop(number: int, frame: Any) -> None:
        if os.getpid() == owner:
            raise Stopped(number)
        signal.signal(number, signal.SIG_DFL)  # a forked worker
        os.kill(os.getpid(), number)

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(line: str, status: int) -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if int(os.environ.get("RANK", "0")) == 0:
        print(f"ktae: {line}", file=sys.stderr)
    sys.exit(status)


def _folder(name: str, resume: bool) -> Path:
    """runs/NAME, runs/NAME-2, ...: the last one there to resume, otherwise the first one free."""
    taken: list[Path] = []
    while (path := Path("runs") / (f"{name}-{len(taken) + 1}" if taken else name)).exists():
        taken.append(path)
    return taken[-1] if resume and taken else path
