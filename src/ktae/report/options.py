"""What the commands for saved rollouts share: their options, and a progress bar."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Collection, Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from ktae.config import KTAEConfig
from ktae.extras import require
from ktae.files.columns import Rollout
from ktae.files.reading import load_groups
from ktae.files.rows import SUFFIXES, Malformed

_COLUMNS = {
    "reward": "a number, true, false, or null for unscored",
    "tokens": "the completion's token ids",
    "mask": "1 for the tokens that the policy generated, 0 for others",
    "text": "the completion, a text or messages",
    "prompt": "a text or messages, shown only",
}


def add_rollout_arguments(parser: argparse.ArgumentParser, *, permutations: bool = False) -> None:
    """The rollouts, their columns, the tokenizer, the estimator's settings, and, if wanted, --permutations."""
    what = f"a file ({', '.join(SUFFIXES)}), a folder of them, or the folder of a run or an evaluation"
    parser.add_argument("rollouts", type=Path, help=what)
    what = "of the model, a name or a folder; `words` splits text into words"
    parser.add_argument("--tokenizer", metavar="NAME", help=what)
    columns = parser.add_argument_group("columns, where they are not recognised")
    columns.add_argument("--group-columns", metavar="NAME", nargs="+", help="rollouts that agree in these are a group")
    for name, what in _COLUMNS.items():
        columns.add_argument(f"--{name}-column", metavar="NAME", help=what)
    what = f"a setting of the estimator: {', '.join(field.name for field in fields(KTAEConfig))}"
    parser.add_argument("--set", metavar="NAME=VALUE", action="append", default=[], help=what)
    if permutations:
        what = "labellings for the p-value against chance (default: 20,000; 0 leaves it out)"
        parser.add_argument("--permutations", type=int, default=20_000, metavar="N", help=what)


def groups_of(
    arguments: argparse.Namespace, *, reward: str | None = None
) -> tuple[dict[str, list[Rollout]], list[Malformed]]:
    """The rollouts that the arguments name, as `load_groups`; `reward` is the column where none is named."""
    names = {name: getattr(arguments, f"{name}_column") for name in _COLUMNS}
    return load_groups(
        arguments.rollouts,
        words=arguments.tokenizer == "words",
        group=tuple(arguments.group_columns or ()),
        **names | {"reward": names["reward"] or reward},
    )


def config_of(arguments: argparse.Namespace) -> KTAEConfig:
    """The estimator's settings. Raises a ValueError if --set names no setting, or has no value that fits."""
    names = [field.name for field in fields(KTAEConfig)]
    settings = {}
    for setting in arguments.set:
        name, equals, value = setting.partition("=")
        if name not in names or not equals:
            raise ValueError(f"--set must be NAME=VALUE with a name among {', '.join(names)}, got {setting!r}")
        try:
            settings[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            settings[name] = value  # a text, such as fisher=released
    try:
        return KTAEConfig(**settings)
    except TypeError as error:
        raise ValueError(f"--set: {error}") from error


def tracked(groups: Collection[Any], description: str) -> Iterable[Any]:
    """The groups, with a progress bar on stderr, shown on a terminal only and gone in the end."""
    console = require("rich.console", extra="report").Console(stderr=True)
    track = require("rich.progress", extra="report").track
    return track(groups, description, console=console, transient=True, disable=not console.is_terminal)
