"""`ktae explain`: a group's rollouts and key tokens in the terminal.

    ktae explain runs/quickstart --tokenizer words
    ktae explain runs/quickstart --tokenizer words --group 3

Without --group the groups are listed. On a terminal tokens are blue for credit and orange for blame; elsewhere the text
is plain.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from ktae.extras import require
from ktae.pictures.style import BLAME, CREDIT
from ktae.report.options import add_permutations, add_rollout_arguments, config_of

if TYPE_CHECKING:
    from ktae.explanation import KeyTokenTable
    from ktae.report.groups import Group
    from ktae.report.scoring import Counted

_LISTED = 40
_PROMPT = 60  # characters
_WIDTH = 170  # where there is no terminal to fit
_WIDE = 120
_FAINT, _STRONG = 0.1, 0.5
_COLUMNS = {
    "after": lambda row: repr(row["context"]),
    "token": lambda row: repr(row["text"]) if row["text"] else str(row["unit"]),
    "id": lambda row: str(row["unit"]),
    "value": lambda row: f"{row['value']:+.3f}",
    "correct": lambda row: f"{row['a']}/{row['a'] + row['c']}",
    "incorrect": lambda row: f"{row['b']}/{row['b'] + row['d']}",
    "times": lambda row: str(row["occurrences"]),
    "Fisher p": lambda row: f"{row['fisher_p']:.3g}",
    "IG": lambda row: f"{row['information_gain']:.3f}",
    "h": lambda row: f"{row['cohen_h']:+.2f}",
    "tf correct": lambda row: f"{row['tf_correct']:.4f}",
    "tf incorrect": lambda row: f"{row['tf_incorrect']:.4f}",
    "direction": lambda row: f"{row['direction']:+.3g}",
    "chance p": lambda row: f"{row['permutation_p']:.3g}",
    "adjusted": lambda row: f"{row['adjusted_p']:.3g}",
}
_WIDE_ONLY = ("id", "h", "tf correct", "tf incorrect")
_CHANCE = (
    "chance p: share of the ways to label the rollouts correct and incorrect that give the token a |value| as large; "
    "adjusted: for the number of tokens (Benjamini and Hochberg)."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_rollout_arguments(parser)
    parser.add_argument("--group", metavar="GROUP", help="a label, its beginning, or its number in the list")
    parser.add_argument("--top", type=int, default=20, metavar="N", help="rows of the table (default: 20; 0 for all)")
    parser.add_argument("--sort", metavar="COLUMN", help="sort the table by a column, smallest first")
    parser.add_argument("--descending", action="store_true", help="with --sort: largest first")
    add_permutations(parser)


def run(arguments: argparse.Namespace) -> None:
    from ktae.report.groups import list_groups, load_group, remarks  # torch

    console = require("rich.console", extra="report").Console()
    if not console.is_terminal:
        console.width = _WIDTH
    config = config_of(arguments)
    if arguments.top < 0:
        raise ValueError(f"--top must be >= 0, got {arguments.top}")
    if arguments.group is None:
        _list(console, list_groups(arguments))
        return
    group = load_group(arguments, permutations=arguments.permutations)
    table = group.table.sort(arguments.sort, descending=arguments.descending) if arguments.sort else group.table
    show_group(console, group)
    show_table(console, table, arguments.top)
    for remark in (*remarks(group, config.scale), *([_CHANCE] if arguments.permutations else [])):
        console.print(f"\n{remark}", highlight=False, soft_wrap=not console.is_terminal)


def show_group(console: Any, group: Group) -> None:
    """Prompt and rollouts, correct ones first."""
    text = require("rich.text", extra="report").Text
    console.print(text(visible(group.rollouts[0].prompt)), soft_wrap=True)
    for i, rollout in enumerate(group.rollouts):
        outcome = {True: "correct", False: "incorrect", None: "unscored"}[group.correct[i]]
        heading = f"\nrow {rollout.row}: {outcome}, reward {rollout.reward:g}, rollout advantage "
        heading += f"{group.scores.rollout_advantage_B[i]:+.2f}"
        console.print(text(heading, style="bold"), soft_wrap=True)
        tokens = zip(group.texts[i], group.values[i], strict=True)
        console.print(text.assemble(*((visible(token), _style(value)) for token, value in tokens)), soft_wrap=True)


def show_table(console: Any, table: KeyTokenTable, top: int) -> None:
    """The first rows of a group's table."""
    rows = table.rows()[: top or None]
    text = require("rich.text", extra="report").Text
    wide = not console.is_terminal or console.width >= _WIDE
    left_out = {"after": not any(row["context"] for row in rows), **dict.fromkeys(_WIDE_ONLY, not wide)}
    columns = {name: cell for name, cell in _COLUMNS.items() if not left_out.get(name)}
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


def _list(console: Any, groups: dict[str, Counted]) -> None:
    text = require("rich.text", extra="report").Text
    grid = _grid("number", "group", "rollouts", "correct", "prompt", left=("group", "prompt"))
    for number, (label, listed) in enumerate(islice(groups.items(), _LISTED), start=1):
        prompt = " ".join(visible(listed.prompt).split())
        prompt = prompt if len(prompt) <= _PROMPT else prompt[: _PROMPT - 1] + "…"
        grid.add_row(str(number), text(label), str(listed.rollouts), str(listed.correct), text(prompt))
    console.print(grid)
    mixed = sum(0 < listed.correct < listed.rollouts for listed in groups.values())
    more = f" ({_LISTED} shown)" if len(groups) > _LISTED else ""
    console.print(f"\n{len(groups):,} groups{more}, {mixed:,} with correct and other rollouts", highlight=False)
    console.print("--group takes a number, a group's label or its beginning", highlight=False)


def _grid(*names: str, left: Sequence[str]) -> Any:
    grid = require("rich.table", extra="report").Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        grid.add_column(name, justify="left" if name in left else "right", no_wrap=True, overflow="ellipsis")
    return grid


def _style(value: float) -> str:
    color = f"{'bold ' * (abs(value) > _STRONG)}{CREDIT if value > 0 else BLAME}"
    return color if abs(value) >= _FAINT else ""
