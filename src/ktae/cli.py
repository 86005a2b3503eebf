# PYTHON_ARGCOMPLETE_OK
"""The command line. Each command is a module with `add_arguments(parser)`, `run(arguments)`, and a docstring as help.

Those modules import what takes long, torch above all, inside functions, so that `ktae COMMAND --help` is quick.
The shell completes commands and options after `pip install argcomplete; eval "$(register-python-argcomplete ktae)"`.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import ktae

# Each command's module, the page to read on, and what it does.
COMMANDS = {
    "train": ("ktae.train.command", "training.md", "train one or several algorithms on a recipe"),
    "eval": ("ktae.evaluation.evaluate", "evaluation.md", "let a model answer benchmarks, and grade it"),
    "grade": ("ktae.evaluation.grade", "grading.md", "grade saved outputs"),
    "compare": ("ktae.evaluation.compare", "evaluation.md", "two evaluations of the same problems: B minus A, paired"),
    "score": ("ktae.report.score", "reports.md", "token advantages for saved rollouts"),
    "explain": ("ktae.report.terminal", "reading-a-report.md", "one group's rollouts and key tokens, in the terminal"),
    "plot": ("ktae.report.figures", "reports.md", "pictures of key tokens and of training"),
    "data": ("ktae.data.prepare", "training.md", "prepare problems to train on"),
    "report": ("ktae.report.page", "reading-a-report.md", "one HTML page of a run or of saved rollouts"),
    "bench": ("ktae.bench.command", "credit-assignment.md", "benchmark estimators, apart from training"),
}


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns the process's exit status: 0, 2 after a mistake, 130 after Ctrl-C.

    A command's `run` checks its input and does the work, or returns the work as a function. A mistake in the input,
    and at any time what the system refuses (a missing file, a full disk), is one line. Any other error of the work is
    a fault of ours and keeps its traceback.
    """
    # Before torch is loaded: idle threads that spin, the default, can make small models ten times slower on a
    # machine that is doing anything else.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    argv = sys.argv[1:] if argv is None else argv
    completes = "_ARGCOMPLETE" in os.environ and importlib.util.find_spec("argcomplete")
    named = os.environ["COMP_LINE"].split()[1:] if completes else argv
    parser = build_parser(named[0] if named else "")
    if completes:
        importlib.import_module("argcomplete").autocomplete(parser)  # the shell asks what may come next
    arguments, rest = parser.parse_known_args(argv)
    if arguments.command == "train":
        arguments.overrides = rest
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        return _run(importlib.import_module(COMMANDS[arguments.command][0]).run, arguments)
    except BrokenPipeError:  # the reader of our output has seen enough: ktae explain ... | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains at its end
        return 128 + signal.SIGPIPE
    except OSError as error:
        return _failed(f"{error.filename}: {error.strerror}" if error.filename is not None else str(error))
    except KeyboardInterrupt:
        return _failed("interrupted", status=130)


def _run(run: Callable[[argparse.Namespace], Any], arguments: argparse.Namespace) -> int:
    try:
        work = run(arguments)
    except (ValueError, ImportError) as error:
        return _failed(str(error))
    if work is not None:
        work()
    sys.stdout.flush()
    return 0


def _failed(message: str, status: int = 2) -> int:
    print(f"ktae: {' '.join(message.split())}", file=sys.stderr)
    return status


def build_parser(command: str = "") -> argparse.ArgumentParser:
    """The parser of `ktae`, with the arguments of one command: the modules of the others are not loaded."""
    epilog = "`ktae COMMAND --help` has the options of a command; more is in docs/"
    parser = argparse.ArgumentParser(prog="ktae", description="Key-token advantage estimation for RLVR.", epilog=epilog)
    parser.add_argument("--version", action="version", version=f"ktae {ktae.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, page, summary) in COMMANDS.items():
        how: Any = {"epilog": f"read on: docs/{page}", "formatter_class": argparse.RawDescriptionHelpFormatter}
        its_parser = commands.add_parser(name, help=summary, allow_abbrev=False, **how)
        if name == command:
            implementation = importlib.import_module(module)
            its_parser.description = implementation.__doc__
            implementation.add_arguments(its_parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
