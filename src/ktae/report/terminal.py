"""`ktae explain`: a group's rollouts and key tokens in the terminal.

    ktae explain runs/quickstart --tokenizer words
    ktae explain runs/quickstart --tokenizer words --group 3

Without --group the groups are listed. On a terminal tokens are blue for credit and orange for blame; elsewhere the text
is plain.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ktae.config import KTAEConfig
from ktae.extras import require
from ktae.pictures.style import BLAME, CREDIT
from ktae.report.options import add_rollout_arguments, config_of, rollouts_of

if TYPE_CHECKING:
    from ktae.explanation import KeyTokenTable
    from ktae.report.groups import Group

_LISTED = 40
_PROMPT = 60  # characters
_WIDTH = 120  # where there is no terminal to fit
_FAINT, _STRONG = 0.1, 0.5
_COLUMNS = {
    "after": lambda row: repr(row["context"]),
    "token": lambda row: repr(row["text"]) if row["text"] else str(row["unit"]),
    "value": lambda row: f"{row['value']:+.3f}",
    "correct": lambda row: f"{row['a']}/{row['a'] + row['c']}",
    "incorrect": lambda row: f"{row['b']}/{row['b'] + row['d']}",
    "uses": lambda row: str(row["occurrences"]),
    "Fisher p": lambda row: f"{row['fisher_p']:.3g}",
    "gain, bits": lambda row: f"{row['information_gain']:.3f}",
    "shuffled p": lambda row: f"{row['permutation_p']:.3g}",
    "adjusted p": lambda row: f"{row['adjusted_p']:.3g}",
}
_SHUFFLED = (
    "shuffled p: share of the ways to label the rollouts correct and incorrect that give the token a |value| as large; "
    "adjusted p: for the number of tokens (Benjamini and Hochberg)."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_rollout_arguments(parser, permutations=True)
    parser.add_argument("--group", metavar="GROUP", help="a label, its beginning, or its number in the list")
    parser.add_argument("--top", type=int, default=20, metavar="N", help="rows of the table (default: 20; 0 for all)")


def run(arguments: argparse.Namespace) -> None:
    from ktae.report.groups import load_group, remarks  # torch

    console = require("rich.console", extra="report").Console()
    if not console.is_terminal:
        console.width = _WIDTH
    config = config_of(arguments)
    if arguments.top < 0:
        raise ValueError(f"--top must be >= 0, got {arguments.top}")
    if arguments.group is None:
        _list(console, arguments, config)
        return
    group = load_group(arguments, permutations=arguments.permutations)
    show_group(console, group)
    notes = remarks(group, config.scale)
    if {True, False} <= set(group.correct):  # without both there are no statistics to show
        show_table(console, group.table, arguments.top)
        notes += [_SHUFFLED] if arguments.permutations else []
    for note in notes:
        console.print(f"\n{note}", highlight=False, soft_wrap=not console.is_terminal)


def show_group(console: Any, group: Group) -> None:
    """Prompt and rollouts, correct ones first."""
    text = require("rich.text", extra="report").Text
    console.print(text(visible(group.rollouts[0].prompt)), soft_wrap=True)
    rows = zip(group.rollouts, group.correct, group.texts, group.scores, strict=True)
    for rollout, correct, texts, (advantage, value_T, _) in rows:
        outcome = {True: "correct", False: "incorrect", None: "unscored"}[correct]
        heading = f"\nrow {rollout.row}: {outcome}, reward {rollout.reward:g}, rollout advantage {advantage:+.2f}"
        console.print(text(heading, style="bold"), soft_wrap=True)
        tokens = zip(texts, value_T.tolist(), strict=True)
        console.print(text.assemble(*((visible(token), _style(value)) for token, value in tokens)), soft_wrap=True)


def show_table(console: Any, table: KeyTokenTable, top: int) -> None:
    """The first rows of a group's table."""
    rows = table.rows()[: top or None]
    text = require("rich.text", extra="report").Text
    columns = dict(_COLUMNS)
    if not any(row["context"] for row in rows):
        del columns["after"]
    grid = _grid(*columns, left=("after", "token"))
    for row in rows:
        cells = [text(cell(row)) for cell in columns.values()]
        cells[0].stylize(_style(row["value"]) or "none")
        grid.add_row(*cells)
    console.print()
    console.print(grid)
    if left := len(table) - len(rows):
        console.print(f"\n{left:,} more; --top 0 shows all", highlight=False)


def visible(text: str) -> str:
    """The text with control and direction characters as escapes, line breaks and tabs kept.

    >>> visible("a\\x1b[2J\\u202eb\\n")
    'a\\\\x1b[2J\\\\u202eb\\n'
    """
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def _list(console: Any, arguments: argparse.Namespace, config: KTAEConfig) -> None:
    from ktae.report.groups import last_turn, outcomes  # torch

    text = require("rich.text", extra="report").Text
    rewards: dict[str, list[float]] = {}
    prompts: dict[str, str] = {}
    for rollout in rollouts_of(arguments):
        rewards.setdefault(rollout.group, []).append(rollout.reward)
        if len(rewards) <= _LISTED and rollout.group not in prompts:
            prompts[rollout.group] = " ".join(visible(last_turn(rollout)).split())
    grid = _grid("number", "group", "rollouts", "correct", "prompt", left=("group", "prompt"))
    for number, (label, prompt) in enumerate(prompts.items(), start=1):
        shown = prompt if len(prompt) <= _PROMPT else prompt[: _PROMPT - 1] + "…"
        correct = sum(reward > config.correct_above for reward in rewards[label])
        grid.add_row(str(number), text(label), str(len(rewards[label])), str(correct), text(shown))
    console.print(grid)
    more = f" ({_LISTED} shown)" if len(rewards) > _LISTED else ""
    console.print(f"\n{outcomes(rewards, config)}{more}", highlight=False)
    console.print("--group takes a number, a group's label or its beginning", highlight=False)


def _grid(*names: str, left: Sequence[str]) -> Any:
    grid = require("rich.table", extra="report").Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        grid.add_column(name, justify="left" if name in left else "right", no_wrap=True, overflow="ellipsis")
    return grid


def _style(value: float) -> str:
    color = f"{'bold ' * (abs(value) > _STRONG)}{CREDIT if value > 0 else BLAME}"
    return color if abs(value) >= _FAINT else ""
