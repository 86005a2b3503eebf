"""The command line. Each command is a module with `add_arguments(parser)` and `run(arguments)`."""

from __future__ import annotations

import argparse
import importlib
import os
import sys

COMMANDS = {
    "train": ("ktae.train.command", "train one or several algorithms on a recipe"),
    "eval": ("ktae.evaluation.run", "let a model answer benchmarks, and grade it"),
    "grade": ("ktae.evaluation.regrade", "grade saved outputs"),
    "compare": ("ktae.evaluation.compare", "compare two evaluations"),
    "score": ("ktae.report.score", "token advantages for saved rollouts"),
    "explain": ("ktae.report.terminal", "one group's rollouts and key tokens, in the terminal"),
    "plot": ("ktae.report.figures", "pictures of key tokens and of training"),
    "data": ("ktae.data.prepare", "prepare problems to train on"),
    "export": ("ktae.train.export", "a trained model, or a checkpoint, as a plain Hugging Face folder"),
    "report": ("ktae.report.page", "one HTML page of a run or of saved rollouts"),
    "bench": ("ktae.bench.command", "benchmark estimators, apart from training"),
}


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns the process's exit status.

    A command's `run` checks its input and either does the work or returns what is left to do once nothing can be the
    input's fault any more. A mistake in the input is one line, not a traceback.
    """
    # Before torch is loaded: idle threads that spin, the default, can make small models ten times slower on a
    # machine that is doing anything else.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="ktae", description="Key-token advantage estimation for RLVR.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, allow_abbrev=False)
        if argv[:1] == [name]:  # the modules of the others need not be loaded
            importlib.import_module(module).add_arguments(command)
    arguments, rest = parser.parse_known_args(argv)
    if arguments.command == "train":
        arguments.overrides = rest
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        go_on = importlib.import_module(COMMANDS[arguments.command][0]).run(arguments)
    except (ValueError, OSError, ImportError) as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise  # the system's, not ours: a traceback helps
        print(f"ktae: {error}", file=sys.stderr)
        return 2
    if go_on is not None:
        go_on()
    return 0


if __name__ == "__main__":
    sys.exit(main())
