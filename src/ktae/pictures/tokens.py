"""A picture of one group: its rollouts as a heat map of tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from ktae.extras import require
from ktae.pictures.style import BLAME, CREDIT, MONO, figure, styled

_FONT = 7.5  # points
_ADVANCE = 0.602  # the width of a character over the size of the font
_LEADING, _GAP = 1.55, 0.9  # a line's height, and the space before a heading, over the size of the font
_WIDEST, _LEAST, _BETWEEN = 104, 26, 3  # characters of a picture, and of a column of rollouts
_MISSING = "\N{WHITE SQUARE}"
_STRONGEST = 0.6  # share of the full colour, so that black text can be read on it
_MINUS = str.maketrans("-", "\N{MINUS SIGN}")


class TokenRow(NamedTuple):
    """One rollout of a heat map: texts and key-token values of its tokens, and its rollout advantage."""

    texts: Sequence[str]
    values: Sequence[float]
    correct: bool | None  # None: unscored
    advantage: float


@styled()
def draw_heatmap(rollouts: Sequence[TokenRow], *, shown: int = 8, lines: int = 12) -> Any:
    """A matplotlib Figure: rollouts as text on coloured grounds, correct ones on the left and other ones on the right.

    It is as wide as the longest lines need. Where all are correct, or none is, there is one column. Of all `rollouts`
    of a group at most `shown` are, as many correct as other ones where there are both, and at most so many `lines` of
    each; how many tokens were cut is said.
    """
    colors = require("matplotlib.colors", extra="report")
    rectangle = require("matplotlib.patches", extra="report").Rectangle
    tints = [[1 - _STRONGEST * (1 - part) for part in colors.to_rgb(color)] for color in (BLAME, "white", CREDIT)]
    colormap = colors.LinearSegmentedColormap.from_list("credit", tints)
    scale = max([1.0, *(abs(value) for rollout in rollouts for value in rollout.values)])

    good = [rollout for rollout in rollouts if rollout.correct]
    others = [rollout for rollout in rollouts if not rollout.correct]
    good = good[: max(shown - len(others), (shown + 1) // 2)]
    columns = list(filter(None, (good, others[: shown - len(good)])))
    widest = (_WIDEST - _BETWEEN * (len(columns) - 1)) // len(columns)
    placed: list[tuple[int, int, float, str, float | None]] = []  # column, x, y, text, value; a heading has no value
    down = 0.0
    for number, column in enumerate(columns):
        y = 2.0 + _GAP
        for rollout in column:
            tokens, cut = _wrapped(rollout, lines, widest)
            outcome = {True: "correct", False: "incorrect", None: "unscored"}[rollout.correct]
            rest = f", {cut:,} more token{'s' * (cut > 1)}" if cut else ""
            heading = f"{outcome}, advantage {rollout.advantage:+.2f}{rest}".translate(_MINUS)
            placed.append((number, 0, y, heading, None))
            placed += [(number, x, y + _LEADING * (1 + line), text, value) for line, x, text, value in tokens]
            y += _GAP + _LEADING * (2 + max((line for line, *_ in tokens), default=0))
        down = max(down, y - _GAP)
    wide = max(_LEAST, *(x + len(text) for _, x, _, text, _ in placed))
    end = 0
    for words, part in (("key-token value", 0), ("{} blamed", -1), ("{}", -0.5), ("{}", 0.5), ("credited {}", 1)):
        text = f" {words.format(f'{part * scale:.3g}')} ".translate(_MINUS)
        placed.append((0, end, 0.0, text, part * scale))
        end += len(text) + 1
    across = max(len(columns) * (wide + _BETWEEN) - _BETWEEN, end - 1)
    width, height = across * _ADVANCE * _FONT / 72 + 0.3, down * _FONT / 72 + 0.2  # inches
    drawn = figure(width, height, layout=None)
    axis = drawn.add_axes((0.15 / width, 0.1 / height, 1 - 0.3 / width, 1 - 0.2 / height))
    axis.set(xlim=(0, across), ylim=(down, 0))
    axis.axis("off")
    for number, x, y, text, value in placed:
        left, middle = number * (wide + _BETWEEN) + x, y + 0.5 * _LEADING
        if value is None:
            axis.text(left, middle, text, fontsize=_FONT, weight="bold", va="center")
            continue
        if value:
            ground, color = (left, y + 0.08), colormap((value / scale + 1) / 2)
            axis.add_patch(rectangle(ground, len(text), _LEADING - 0.16, facecolor=color, linewidth=0))
        axis.text(left, middle, text, fontsize=_FONT, family=MONO, va="center_baseline", parse_math=False)
    return drawn


def _wrapped(rollout: TokenRow, lines: int, widest: int) -> tuple[list[tuple[int, int, str, float]], int]:
    """Line, x, text and value of the tokens on the first lines, and how many more there are.

    Only a token that is longer than a line is broken.
    """
    placed: list[tuple[int, int, str, float]] = []
    line = x = 0
    for number, (token, value) in enumerate(zip(rollout.texts, rollout.values, strict=True)):
        for piece in re.findall(rf"[^\n]{{1,{widest}}}\n?", _drawable(token)):
            text = piece.rstrip("\n")
            if x + len(text) > widest:
                line, x = line + 1, 0
            if line == lines:
                return placed, len(rollout.texts) - number
            placed.append((line, x, text, value))
            x = widest if piece.endswith("\n") else x + len(text)
    return placed, 0


def _drawable(text: str) -> str:
    """The text with white space marked, and without what the font lacks or what is not one column wide."""
    text = text.replace("\t", "\N{RIGHTWARDS ARROW}").replace("\n", "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}\n")
    return "".join(c if c == "\n" or (c.isprintable() and ord(c) in _glyphs()) else _MISSING for c in text)


@cache
def _glyphs() -> frozenset[int]:
    manager = require("matplotlib.font_manager", extra="report")
    return frozenset(require("matplotlib.ft2font", extra="report").FT2Font(manager.findfont(MONO)).get_charmap())
