"""Pictures of one group: its rollouts as a heat map of tokens, and its key tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from ktae.extras import require
from ktae.pictures.style import BLAME, CREDIT, INK, LINE, MONO, figure, minus, styled

_FONT = 7.5  # points
_ADVANCE = 0.602  # the width of a character over the size of the font
_LEADING, _GAP = 1.55, 0.9  # a line's height, and the space before a heading, over the size of the font
_WIDEST, _WIDEST_ALONE, _LEAST, _BETWEEN = 56, 104, 26, 3  # characters of a column of rollouts
_MISSING = "\N{WHITE SQUARE}"
_LONGEST_LABEL = 24
_STRONGEST = 0.6  # share of the full colour, so that black text can be read on it

Line = list[tuple[int, str, float]]  # column, text, value


@dataclass(frozen=True)
class TokenRow:
    """One rollout of a heat map.

    Attributes:
        texts, values: of each of its tokens the text and the key-token value.
        correct: None if unscored.
        advantage: the rollout advantage.
    """

    texts: Sequence[str]
    values: Sequence[float]
    correct: bool | None
    advantage: float


@styled()
def draw_heatmap(rollouts: Sequence[TokenRow], *, shown: int, lines: int) -> Any:
    """Rollouts as text on coloured grounds, side by side: correct ones on the left, others on the right.

    Args:
        rollouts: all of a group.
        shown: rollouts at most, as many correct as other ones where there are both.
        lines: of each rollout at most; how many tokens were cut is said.

    Returns:
        A matplotlib Figure, as wide as its longest lines need.
    """
    colors = require("matplotlib.colors", extra="report")
    rectangle = require("matplotlib.patches", extra="report").Rectangle
    ends = [colors.to_rgb(color) for color in (BLAME, "white", CREDIT)]
    tints = [[1 - _STRONGEST * (1 - part) for part in color] for color in ends]
    colormap = colors.LinearSegmentedColormap.from_list("credit", tints)
    scale = max([1.0, *(abs(value) for rollout in rollouts for value in rollout.values)])
    norm = colors.Normalize(-scale, scale)

    columns = _columns(rollouts, shown)
    widest = _WIDEST if len(columns) > 1 else _WIDEST_ALONE
    blocks = [[(rollout, *_wrapped(rollout, lines, widest)) for rollout in column] for column in columns]
    wide = _LEAST
    for rollout, wrapped, cut in (block for column in blocks for block in column):
        wide = max(wide, len(_heading(rollout, cut)), *(line[-1][0] + len(line[-1][1]) for line in wrapped if line))
    legend: Line = [(0, "key-token value", 0.0)]
    for words, part in (("{} blamed", -1), ("{}", -0.5), ("{}", 0.5), ("credited {}", 1)):
        column, text, _ = legend[-1]
        shown_value = minus(words.format(f"{part * scale:.3g}"))
        legend.append((column + len(text) + 1, f" {shown_value} ", part * scale))
    across = max(len(columns) * (wide + _BETWEEN) - _BETWEEN, legend[-1][0] + len(legend[-1][1]))
    down = 2 + max(sum(_LEADING * (1 + len(wrapped)) + _GAP for _, wrapped, _ in column) for column in blocks)
    unit = _FONT / 72  # inches
    width, height = across * _ADVANCE * unit + 0.3, down * unit + 0.2
    drawn = figure(width, height, layout=None)
    axis = drawn.add_axes((0.15 / width, 0.1 / height, 1 - 0.3 / width, 1 - 0.2 / height))
    axis.set_xlim(0, across)
    axis.set_ylim(down, 0)
    axis.axis("off")

    def draw(line: Line, left: int, y: float) -> None:
        for x, text, value in line:
            if value:
                ground = (left + x, y + 0.08), len(text), _LEADING - 0.16
                axis.add_patch(rectangle(*ground, facecolor=colormap(norm(value)), linewidth=0))
            style = {"fontsize": _FONT, "family": MONO, "va": "center_baseline", "parse_math": False}
            axis.text(left + x, y + 0.5 * _LEADING, text, **style)

    draw(legend, 0, 0.0)
    for number, column in enumerate(blocks):
        left, y = number * (wide + _BETWEEN), 2.0
        for rollout, wrapped, cut in column:
            y += _GAP + _LEADING
            axis.text(left, y - 0.45 * _LEADING, _heading(rollout, cut), fontsize=_FONT, weight="bold", va="center")
            for line in wrapped:
                draw(line, left, y)
                y += _LEADING
    return drawn


@styled()
def draw_key_tokens(rows: Sequence[dict[str, Any]], *, top: int) -> Any:
    """The first key tokens of a group: their values, and the shares of rollouts that hold them.

    Args:
        rows: those of a group's `KeyTokenTable`.
        top: rows shown at most.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: all values are 0: all scored rollouts are correct, or all incorrect, or every token tells nothing.
    """
    rows = [row for row in rows if row["value"]][:top]
    if not rows:
        raise ValueError("the group has no key tokens: all values are 0")
    rows.sort(key=lambda row: -row["value"])  # credited ones above, the strongest outside
    drawn = figure(6.6, 1.25 + 0.21 * len(rows))
    left, right = drawn.subplots(1, 2, sharey=True, width_ratios=(1, 1.25))
    for y, row in enumerate(rows):
        left.barh(y, row["value"], color=CREDIT if row["value"] > 0 else BLAME, height=0.62)
        shares = row["a"] / max(row["a"] + row["c"], 1), row["b"] / max(row["b"] + row["d"], 1)
        right.plot(shares, [y, y], color=LINE, linewidth=1.2, zorder=1)
        right.plot(shares[1], y, "s", color=BLAME, markersize=5.5, clip_on=False, zorder=2)
        right.plot(shares[0], y, "o", color=CREDIT, markersize=5.5, clip_on=False, zorder=3)
        if row["adjusted_p"] <= 0.05:
            right.annotate("*", (1.04, y), annotation_clip=False, va="center_baseline", fontsize=10)
    left.set_yticks(range(len(rows)), [_label(row) for row in rows], family=MONO, fontsize=8, parse_math=False)
    left.set_ylim(len(rows) - 0.4, -0.6)
    left.axvline(0, color=LINE, linewidth=0.8)
    scale = max([1.0, *(abs(row["value"]) for row in rows)])
    left.set_xlim(-1.08 * scale, 1.08 * scale)
    left.set_xticks([-scale, 0, scale], [minus(f"{-scale:g}"), "0", f"{scale:g}"])
    left.set_xlabel("key-token value\n(credited above 0, blamed below)")
    right.set_xlim(0, 1)
    right.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100"])
    right.set_xlabel("rollouts that hold it, %")
    for axis in (left, right):
        axis.grid(axis="x")
        axis.tick_params(axis="y", length=0)
        axis.spines["left"].set_visible(False)
    first = rows[0]
    right.plot([], [], "o", color=CREDIT, markersize=5.5, label=f"of {first['a'] + first['c']} correct")
    right.plot([], [], "s", color=BLAME, markersize=5.5, label=f"of {first['b'] + first['d']} incorrect")
    if any(row["adjusted_p"] <= 0.05 for row in rows):
        right.plot([], [], "*", color=INK, markersize=5, linestyle="none", label="beyond chance")
    drawn.legend(loc="outside upper right", ncols=3, handletextpad=0.2, columnspacing=1.2)
    return drawn


def _columns(rollouts: Sequence[TokenRow], shown: int) -> list[list[TokenRow]]:
    """Correct rollouts and others; two halves where all are of one kind; one column of a single rollout."""
    good = [rollout for rollout in rollouts if rollout.correct]
    others = [rollout for rollout in rollouts if not rollout.correct]
    good = good[: max(shown - len(others), (shown + 1) // 2)]
    others = others[: shown - len(good)]
    if not (good and others):
        chosen = good or others
        half = (len(chosen) + 1) // 2
        good, others = chosen[:half], chosen[half:]
    return [column for column in (good, others) if column]


def _heading(rollout: TokenRow, cut: int) -> str:
    outcome = {True: "correct", False: "incorrect", None: "unscored"}[rollout.correct]
    rest = f", {cut:,} more token{'s' * (cut > 1)}" if cut else ""
    return minus(f"{outcome}, advantage {rollout.advantage:+.2f}{rest}")


def _wrapped(rollout: TokenRow, lines: int, widest: int) -> tuple[list[Line], int]:
    """The first lines, tokens broken only where longer than one, and how many tokens are left out."""
    wrapped: list[Line] = [[]]
    column = 0
    for number, (token, value) in enumerate(zip(rollout.texts, rollout.values, strict=True)):
        for piece in re.findall(rf"[^\n]{{1,{widest}}}\n?", _drawable(token)):
            text = piece.rstrip("\n")
            if column + len(text) > widest:
                wrapped.append([])
                column = 0
            if len(wrapped) > lines:
                return wrapped[:lines], len(rollout.texts) - number
            wrapped[-1].append((column, text, value))
            column = widest if piece.endswith("\n") else column + len(text)
    return wrapped, 0


def _drawable(text: str) -> str:
    """The text with white space marked, and without what the font lacks or what is not one column wide."""
    glyphs = _glyphs()
    text = text.replace("\t", "\N{RIGHTWARDS ARROW}").replace("\n", "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}\n")
    return "".join(c if c == "\n" or (c.isprintable() and ord(c) in glyphs) else _MISSING for c in text)


@cache
def _glyphs() -> frozenset[int]:
    manager = require("matplotlib.font_manager", extra="report")
    return frozenset(require("matplotlib.ft2font", extra="report").FT2Font(manager.findfont(MONO)).get_charmap())


def _label(row: dict[str, Any]) -> str:
    text = repr(row["text"])[1:-1] if row["text"] else str(row["unit"])
    text = _drawable(text.replace(" ", "\N{OPEN BOX}"))
    return text if len(text) <= _LONGEST_LABEL else text[: _LONGEST_LABEL - 3] + "..."
