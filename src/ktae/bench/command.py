"""`ktae bench credit`: how well token values find the first wrong step, and the gradient that many rollouts have."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ktae.extras import require

GROUPS, GROUP_SIZE = 128, 16
QUICK_GROUPS = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to a parser."""
    parser.description = "Benchmarks of estimators, apart from training."
    benchmarks = parser.add_subparsers(dest="benchmark", required=True)
    credit = benchmarks.add_parser("credit", help="how well token values find the first wrong step", allow_abbrev=False)
    credit.description = "Rollouts whose mistakes are known token by token: how well an estimator's values find them."
    add = credit.add_argument
    add("--quick", action="store_true", help=f"{QUICK_GROUPS} groups a source instead of {GROUPS}: a minute or two")
    add("--sources", metavar="NAMES", help="only these, separated by commas")
    add("--estimators", metavar="NAMES", help="only these or functions, module:function, and the controls")
    add("--split", default="explore", help="explore (default) or held-out: choose on one, report the other")
    add("--groups", type=int, help=f"prompts of each source (default: {GROUPS})")
    add("--group-size", type=int, default=GROUP_SIZE, help=f"rollouts of each prompt (default: {GROUP_SIZE})")
    add("--seed", type=int, default=0, help="of the rollouts and the intervals (default: 0)")
    add("--json", type=Path, metavar="FILE", help="write all numbers there, one row a line")
    add("--markdown", type=Path, metavar="FILE", help="write the tables there")


def run(arguments: argparse.Namespace) -> Callable[[], None]:
    """Checks the arguments; returns the benchmark, to be called."""
    console = require("rich.console", "bench").Console()
    if not console.is_terminal:
        console.width = 120  # rich takes a pipe to be 80 columns wide
    require("reasoning_gym", "bench")
    transformers_logging = require("transformers.utils.logging", "bench")
    from ktae.bench import credit
    from ktae.bench.controls import ESTIMATORS
    from ktae.bench.show import as_markdown, print_results
    from ktae.bench.sources import SOURCES
    from ktae.estimators import load_estimator

    sources = _names("--sources", arguments.sources, [*SOURCES, credit.FIDELITY])
    estimators = _names("--estimators", arguments.estimators, list(ESTIMATORS), load_estimator)
    if arguments.split not in credit.SPLITS:
        raise ValueError(f"--split must be one of {', '.join(credit.SPLITS)}, got {arguments.split!r}")
    if arguments.quick and arguments.groups is not None:
        raise ValueError("--quick sets the number of groups: leave out one of --quick and --groups")
    groups = QUICK_GROUPS if arguments.quick else GROUPS if arguments.groups is None else arguments.groups
    for option, value, least in (("--groups", groups, 1), ("--group-size", arguments.group_size, 2)):
        if value < least:
            raise ValueError(f"{option} must be at least {least}, got {value}")
    for option, path in (("--json", arguments.json), ("--markdown", arguments.markdown)):
        if path is not None and not path.parent.is_dir():
            raise ValueError(f"{option}: there is no folder {path.parent}")
    settings = {"split": arguments.split, "groups": groups, "group_size": arguments.group_size, "seed": arguments.seed}

    def benchmark() -> None:
        transformers_logging.disable_progress_bar()
        rows = credit.run(sources, estimators, **settings)
        print_results(rows, console)
        if arguments.json is not None:
            arguments.json.write_text("".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))
        if arguments.markdown is not None:
            arguments.markdown.write_text(as_markdown(rows))

    return benchmark


def _names(option: str, given: str | None, known: list[str], load: Callable[[str], Any] | None = None) -> list[str]:
    """The names given, all without any; with `load` also import paths, which it takes."""
    names = known if given is None else list(dict.fromkeys(filter(None, given.split(","))))
    if not names:
        raise ValueError(f"{option} names none; there are {', '.join(known)}")
    unknown = [name for name in names if name not in known]
    if load is not None:
        for path in filter(lambda name: ":" in name, unknown):
            load(path)
        unknown = [name for name in unknown if ":" not in name]
    if unknown:
        raise ValueError(f"{option}: unknown {', '.join(unknown)}; there are {', '.join(known)}")
    return names
