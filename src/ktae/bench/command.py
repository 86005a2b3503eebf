"""`ktae bench credit`: how well token values find the first wrong step, and the gradient that many rollouts have."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from ktae.extras import require

GROUPS, QUICK_GROUPS, GROUP_SIZE = 128, 16, 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Benchmarks of estimators, apart from training."
    benchmarks = parser.add_subparsers(dest="benchmark", required=True)
    credit = benchmarks.add_parser("credit", help="how well token values find the first wrong step", allow_abbrev=False)
    credit.description = "Rollouts whose mistakes are known token by token: how well an estimator's values find them."
    add = credit.add_argument
    size = credit.add_mutually_exclusive_group()
    size.add_argument("--groups", type=int, default=GROUPS, help="prompts of each source (default: %(default)s)")
    size.add_argument("--quick", dest="groups", action="store_const", const=QUICK_GROUPS, help="%(const)s of them")
    add("--group-size", type=int, default=GROUP_SIZE, help="rollouts of each prompt (default: %(default)s)")
    add("--sources", metavar="NAMES", help="only these, or functions, module:function, separated by commas")
    add("--estimators", metavar="NAMES", help="only these or functions, module:function, and the controls")
    add("--split", default="explore", help="explore (default) or held-out: choose on one, report the other")
    add("--seed", type=int, default=0, help="of the rollouts and the intervals (default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write all numbers there, one row a line")


def run(arguments: argparse.Namespace) -> Callable[[], None]:
    """Checks the arguments; returns the benchmark, to be called."""
    transformers_logging = require("transformers.utils.logging", "bench")
    from ktae.bench import credit
    from ktae.bench.controls import ESTIMATORS
    from ktae.bench.show import as_markdown
    from ktae.estimators import load_estimator

    sys.path.insert(0, "")  # as with python -m: functions of one's own live in the working directory
    sources = _names("--sources", arguments.sources, [*credit.SOURCES, credit.FIDELITY], credit.load_source)
    estimators = _names("--estimators", arguments.estimators, ESTIMATORS, load_estimator)
    if arguments.split not in credit.SPLITS:
        raise ValueError(f"--split must be one of {', '.join(credit.SPLITS)}, got {arguments.split!r}")
    for option, value, least in (("--groups", arguments.groups, 1), ("--group-size", arguments.group_size, 2)):
        if value < least:
            raise ValueError(f"{option} must be at least {least}, got {value}")
    if arguments.json is not None and not arguments.json.parent.is_dir():
        raise ValueError(f"--json: there is no folder {arguments.json.parent}")
    settings = {name: getattr(arguments, name) for name in ("split", "groups", "group_size", "seed")}

    def benchmark() -> None:
        transformers_logging.disable_progress_bar()
        rows = credit.run(sources, estimators, **settings)
        if arguments.json is not None:
            arguments.json.write_text("".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))
        print(as_markdown(rows), end="")

    return benchmark


def _names(option: str, given: str | None, known: Iterable[str], load: Callable[[str], object]) -> list[str]:
    """The names given, all without any; of import paths it is tried whether there is such a function."""
    names = list(known) if given is None else list(dict.fromkeys(filter(None, given.split(","))))
    if not names:
        raise ValueError(f"{option} names none; there are {', '.join(known)}")
    for name in names:
        if ":" in name:
            load(name)
        elif name not in known:
            raise ValueError(f"{option}: unknown {name}; there are {', '.join(known)}")
    return names
