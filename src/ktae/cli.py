"""The command line: `ktae train`, `ktae data prepare`, `ktae export`."""

from __future__ import annotations

import argparse
import os
import shlex
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
    _add_train(commands)
    _add_data(commands)
    _add_export(commands)
    arguments, rest = parser.parse_known_args(argv)
    if rest and arguments.command != "train":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        go_on = arguments.start(arguments, rest)
    except (ValueError, OSError, ImportError) as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise  # the system's, not ours: a traceback helps
        print(f"ktae: {error}", file=sys.stderr)
        return 2
    if go_on is not None:
        go_on()
    return 0


# Each command has a function that checks its input and does the work, or returns what is left to do once nothing can
# be the input's fault any more.


def _add_train(commands: argparse._SubParsersAction) -> None:
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
    train.add_argument("--dry-run", action="store_true", help="check everything, print the plan, train nothing")
    train.add_argument("--push-to-hub", metavar="OWNER/NAME", help="upload the trained models to the hub at the end")
    train.set_defaults(start=_train)


def _train(arguments: argparse.Namespace, overrides: list[str]) -> Callable[[], None] | None:
    from ktae.train.recipe import load_recipe
    from ktae.train.run import prepare

    sys.path.insert(0, "")  # as with python -m: reward functions of one's own live in the working directory
    recipe = load_recipe(arguments.recipe, overrides)
    if arguments.dry_run:
        from ktae.train.plan import print_plan

        return print_plan(recipe)
    out = arguments.out or _folder(recipe.name, arguments.resume)
    run = prepare(recipe, out, resume=arguments.resume, push_to_hub=arguments.push_to_hub)
    again = [arguments.recipe, *overrides, *(["--out", str(arguments.out)] if arguments.out else []), "--resume"]

    def run_or_say_how_to_go_on() -> None:
        try:
            run()
        except BaseException:
            print(
                f"What the run has written so far is in {out}; once the cause is mended, "
                f"go on with: ktae train {shlex.join(again)}",
                file=sys.stderr,
            )
            raise

    return run_or_say_how_to_go_on


def _folder(name: str, resume: bool) -> Path:
    """runs/NAME, runs/NAME-2, ...: the last one there to resume, otherwise the first one free."""
    taken: list[Path] = []
    while (path := Path("runs") / (f"{name}-{len(taken) + 1}" if taken else name)).exists():
        taken.append(path)
    return taken[-1] if resume and taken else path


def _add_data(commands: argparse._SubParsersAction) -> None:
    from ktae.data import prepare

    data = commands.add_parser("data", help="prepare problems to train on")
    prepare_parser = data.add_subparsers(dest="data_command", required=True).add_parser(
        "prepare",
        help="a problem collection in the form that recipes read",
        description="Turns a problem collection into prompts and answers; filtered, decontaminated, shuffled.",
    )
    prepare.add_arguments(prepare_parser)
    prepare_parser.set_defaults(start=lambda arguments, rest: prepare.run(arguments))


def _add_export(commands: argparse._SubParsersAction) -> None:
    export = commands.add_parser(
        "export",
        help="a trained model, or a checkpoint, as a plain Hugging Face folder",
        description="Copies a model of a run to a folder that from_pretrained reads.",
    )
    export.add_argument("run", type=Path, help="the run's folder")
    export.add_argument("--out", type=Path, required=True, help="the folder to write")
    export.add_argument("--algorithm", help="whose model; may be left out if the run has one only")
    export.add_argument("--step", type=int, help="update of a checkpoint (default: the final model)")
    export.add_argument("--merge-lora", action="store_true", help="add LoRA adapters to the base model's weights")
    export.set_defaults(start=_export)


def _export(arguments: argparse.Namespace, rest: list[str]) -> None:
    from ktae.train.export import export

    export(
        arguments.run,
        arguments.out,
        algorithm=arguments.algorithm,
        step=arguments.step,
        merge_lora=arguments.merge_lora,
    )
    print(f"{arguments.out} is ready for from_pretrained")


if __name__ == "__main__":
    sys.exit(main())
