"""The command line: `ktae train RECIPE [--key value ...]`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns the process's exit status. A mistake in the input is one line, not a traceback."""
    # Before torch is loaded: idle threads that spin, the default, can make small models ten times slower on a
    # machine that is doing anything else.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    parser = argparse.ArgumentParser(prog="ktae", description="Key-token advantage estimation for RLVR.")
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser(
        "train",
        help="train one or several algorithms on a recipe",
        description="Trains every algorithm of a recipe from the same model and compares them.",
        epilog="Any key of the recipe can be set: --trl.learning_rate 1e-5 --algorithms '[grpo]' --seed 1",
        allow_abbrev=False,
    )
    train.add_argument("recipe", help="a YAML file, or the name of a recipe that comes with ktae (quickstart)")
    train.add_argument("--out", type=Path, help="the run's folder (default: runs/NAME, or runs/NAME-2, ... if taken)")
    train.add_argument("--resume", action="store_true", help="go on with the latest interrupted run of this recipe")
    arguments, overrides = parser.parse_known_args(argv)
    try:
        run = _prepare(arguments, overrides)
    except (ValueError, OSError, ImportError) as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise  # the system's, not ours: a traceback helps
        print(f"ktae: {error}", file=sys.stderr)
        return 2
    run()
    return 0


def _prepare(arguments: argparse.Namespace, overrides: list[str]) -> Callable[[], None]:
    from ktae.train.recipe import load_recipe
    from ktae.train.run import prepare

    sys.path.insert(0, "")  # as with python -m: reward functions of one's own live in the working directory
    recipe = load_recipe(arguments.recipe, overrides)
    out = arguments.out or _folder(recipe.name, arguments.resume)
    return prepare(recipe, out, resume=arguments.resume)


def _folder(name: str, resume: bool) -> Path:
    """runs/NAME, runs/NAME-2, ...: the last one there to resume, otherwise the first one free."""
    taken: list[Path] = []
    while (path := Path("runs") / (f"{name}-{len(taken) + 1}" if taken else name)).exists():
        taken.append(path)
    return taken[-1] if resume and taken else path


if __name__ == "__main__":
    sys.exit(main())
