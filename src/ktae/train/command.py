"""`ktae train RECIPE`: trains every algorithm of a recipe from the same model and compares them.

ktae train recipe.yaml --dry-run
ktae train recipe.yaml --resume
ktae train quickstart --trl.learning_rate 1e-5 --algorithms '[grpo, grpo+ktae]' --seed 1

Any key of the recipe can be set like these.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import signal
import sys
import traceback
from contextlib import nullcontext
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("recipe", help="a YAML file, or the name of a recipe that comes with ktae (quickstart)")
    add("--out", type=Path, help="the run's folder (default: runs/NAME, or runs/NAME-2, ... if taken)")
    add("--resume", action="store_true", help="go on with the latest interrupted run of this recipe")
    add("--dry-run", action="store_true", help="check everything, print the plan, train nothing")


def run(arguments: argparse.Namespace) -> None:
    """Checks the recipe and trains; Ctrl-C, and what stops a training, end it with the command to go on with."""
    from ktae.train.recipe import load_recipe

    sys.path.insert(0, "")  # as with python -m: reward functions of one's own live in the working directory
    recipe = load_recipe(arguments.recipe, arguments.overrides)
    if arguments.dry_run:
        from ktae.train.plan import print_plan

        return print_plan(recipe)
    from ktae.train.folder import open_folder
    from ktae.train.rewards import RewardError
    from ktae.train.run import Run
    from ktae.train.settings import check_installed, is_main

    out = arguments.out or _folder(recipe.name, arguments.resume)
    again = [arguments.recipe, *arguments.overrides, *(["--out", str(out)] if arguments.out else []), "--resume"]
    training = Run(recipe, out, resume=arguments.resume)
    check_installed(recipe)
    with open_folder(recipe, out, arguments.resume) if is_main() else nullcontext():
        try:
            training.run()
        except RewardError:  # of a setting: there is nothing to go on with
            if not (out / "metrics.jsonl").exists():
                shutil.rmtree(out)
            raise
        except (Exception, KeyboardInterrupt) as error:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            what = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error)
            if not isinstance(error, FloatingPointError | OSError | KeyboardInterrupt):
                traceback.print_exc()
                what = "stopped by the error above"
            if is_main():
                print(f"ktae: {what}; go on with: ktae train {shlex.join(again)}", file=sys.stderr)
            sys.exit(130 if isinstance(error, KeyboardInterrupt) else 1)


def _folder(name: str, resume: bool) -> Path:
    """runs/NAME, runs/NAME-2, ...: the last one there to resume, otherwise the first one free."""
    taken: list[Path] = []
    while (path := Path("runs") / (f"{name}-{len(taken) + 1}" if taken else name)).exists():
        taken.append(path)
    return taken[-1] if resume and taken else path
