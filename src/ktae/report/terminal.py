"""`ktae explain`: a group's rollouts and key tokens in the terminal.

    ktae explain runs/quickstart --tokenizer words
    ktae explain runs/quickstart --tokenizer words --group 3

Without --group the groups are listed. On a terminal tokens are blue for credit and orange for blame; elsewhere the text
is plain.
"""

from __future__ import annotations

import argparse
import textwrap
from typing import TYPE_CHECKING, Any

from ktae.config import KTAEConfig
from ktae.extras import require
from ktae.pictures.style import BLAME, CREDIT
from ktae.report.options import add_rollout_arguments, config_of, groups_of

if TYPE_CHECKING:
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
_LEFT = ("after", "token", "group", "prompt")  # columns of text; the others are numbers
_SHUFFLED = (
    "shuffled p: share of the ways to label the rollouts correct and incorrect that give the token a |value| as large; "
    "adjusted p: for the number of tokens (Benjamini and Hochberg)."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_rollout_arguments(parser, permutations=True)
    parser.add_argument("--group", metavar="GROUP", help="a label, or its number in the list")
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
        return _list(console, arguments, config)
    group = load_group(arguments, permutations=arguments.permutations)
    _show_rollouts(console, group)
    notes = remarks(group)
    if {True, False} <= set(group.correct):  # without both there are no statistics to show
        rows = group.table.rows()[: arguments.top or None]
        columns = {name: cell for name, cell in _COLUMNS.items() if name != "after" or any(r["context"] for r in rows)}
        cells = [[cell(row) for cell in columns.values()] for row in rows]
        console.print()
        console.print(_grid(list(columns), cells, [_style(row["value"]) for row in rows]))
        if left := len(group.table) - len(rows):
            notes.insert(0, f"{left:,} more; --top 0 shows all")
        notes += [_SHUFFLED] if arguments.permutations else []
    for note in notes:
        console.print(f"\n{note}", highlight=False, soft_wrap=not console.is_terminal)


def visible(text: str) -> str:
    """The text with control and direction characters as escapes, line breaks and tabs kept."""
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def _show_rollouts(console: Any, group: Group) -> None:
    text = require("rich.text", extra="report").Text
    console.print(text(visible(group.rollouts[0].prompt)), soft_wrap=True)
    rows = zip(group.rollouts, group.correct, group.texts, group.scores, strict=True)
    for rollout, correct, texts, (advantage, value_T, _) in rows:
        outcome = {True: "correct", False: "incorrect", None: "unscored"}[correct]
        heading = f"\nrow {rollout.row}: {outcome}, reward {rollout.reward:g}, rollout advantage {advantage:+.2f}"
        console.print(text(heading, style="bold"), soft_wrap=True)
        tokens = zip(texts, value_T.tolist(), strict=True)
        console.print(text.assemble(*((visible(token), _style(value)) for token, value in tokens)), soft_wrap=True)


def _list(console: Any, arguments: argparse.Namespace, config: KTAEConfig) -> None:
    from ktae.report.groups import apart, outcomes  # torch

    groups, _ = groups_of(arguments)
    prompts = apart([members[0].prompt for members in groups.values()])
    cells = []
    for number, (label, prompt) in enumerate(zip(list(groups)[:_LISTED], prompts, strict=False), start=1):
        correct = sum(rollout.reward > config.correct_above for rollout in groups[label])
        shown = textwrap.shorten(visible(prompt), _PROMPT, placeholder="…")
        cells.append([str(number), label, str(len(groups[label])), str(correct), shown])
    console.print(_grid(["number", "group", "rollouts", "correct", "prompt"], cells, [""] * len(cells)))
    more = f" ({_LISTED} shown)" if len(groups) > _LISTED else ""
    console.print(f"\n{outcomes(groups, config)}{more}\n--group takes a number or a group's label", highlight=False)


def _grid(names: list[str], rows: list[list[str]], styles: list[str]) -> Any:
    """A table; a row's style is that of its first cell."""
    text = require("rich.text", extra="report").Text
    grid = require("rich.table", extra="report").Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        grid.add_column(name, justify="left" if name in _LEFT else "right", no_wrap=True, overflow="ellipsis")
    for (first, *others), style in zip(rows, styles, strict=True):
        grid.add_row(text(first, style=style), *map(text, others))
    return grid


def _style(value: float) -> str:
    color = f"{'bold ' * (abs(value) > _STRONG)}{CREDIT if value > 0 else BLAME}"
    return color if abs(value) >= _FAINT else ""
