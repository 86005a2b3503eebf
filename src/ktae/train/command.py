"""`ktae train RECIPE [--key value ...]`."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from pathlib import Path


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


def run(arguments: argparse.Namespace) -> Callable[[], None] | None:
    """Checks the recipe; returns the training, to be called."""
    from ktae.train.recipe import load_recipe
    from ktae.train.run import prepare

    sys.path.insert(0, "")  # as with python -m: reward functions of one's own live in the working directory
    recipe = load_recipe(arguments.recipe, arguments.overrides)
    if arguments.dry_run:
        from ktae.train.plan import print_plan

        return print_plan(recipe)
    out = arguments.out or _folder(recipe.name, arguments.resume)
    training = prepare(recipe, out, resume=arguments.resume)
    again = [arguments.recipe, *arguments.overrides]
    again += ["--out", str(arguments.out)] if arguments.out else []

    def train_or_say_how_to_go_on() -> None:
        try:
            training()
        except BaseException:
            print(
                f"What the run has written so far is in {out}; once the cause is mended, "
                f"go on with: ktae train {shlex.join([*again, '--resume'])}",
                file=sys.stderr,
            )
            raise

    return train_or_say_how_to_go_on


def _folder(name: str, resume: bool) -> Path:
    """runs/NAME, runs/NAME-2, ...: the last one there to resume, otherwise the first one free."""
    taken: list[Path] = []
    while (path := Path("runs") / (f"{name}-{len(taken) + 1}" if taken else name)).exists():
        taken.append(path)
    return taken[-1] if resume and taken else path
