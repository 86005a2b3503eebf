"""Pictures of one group: its rollouts as a heat map of tokens, and its key tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from ktae.explanation import KeyTokenTable
from ktae.extras import require
from ktae.report.groups import Group

# Blue and orange differ for any colour vision; light enough for black text on the strongest.
BLAME, NEUTRAL, CREDIT = "#F0943F", "#FFFFFF", "#5FA8DC"
_BLUE, _ORANGE = "#0072B2", "#D55E00"  # Okabe and Ito's, for lines and marks
_INK, _LINE = "#222222", "#8A8A8A"
_MONO = "DejaVu Sans Mono"  # comes with matplotlib
_CHARACTERS, _FONT = 104, 7.5  # a line's characters, points
_ADVANCE = 0.602  # the width of a character over the size of the font
_LEADING, _GAP = 1.55, 0.9  # a line's height, and the space before a heading, over the size of the font
_MISSING = "\N{WHITE SQUARE}"
_LONGEST_LABEL = 24


def draw_heatmap(group: Group, *, shown: int, lines: int) -> Any:
    """Rollouts as text on coloured grounds: as many correct as incorrect ones where there are both.

    Args:
        group: the group.
        shown: rollouts at most.
        lines: of each rollout at most; how many tokens were cut is said.

    Returns:
        A matplotlib figure.
    """
    pyplot = require("matplotlib.pyplot", extra="report")
    colors = require("matplotlib.colors", extra="report")
    patches = require("matplotlib.patches", extra="report")
    scale = max([1.0, *(abs(value) for values in group.values for value in values)])
    colormap = colors.LinearSegmentedColormap.from_list("credit", [BLAME, NEUTRAL, CREDIT])
    norm = colors.Normalize(-scale, scale)

    blocks = [(i, *_wrapped(group.texts[i], group.values[i], lines)) for i in _chosen(group.correct, shown)]
    unit = _FONT / 72  # inches
    body = sum((_LEADING * (1 + len(wrapped)) + _GAP) * unit for _, wrapped, _ in blocks)
    width, legend = _CHARACTERS * _ADVANCE * unit + 0.3, 0.45
    figure = pyplot.figure(figsize=(width, body + legend + 0.1))
    height = figure.get_figheight()
    axis = figure.add_axes((0.15 / width, 0.05 / height, 1 - 0.3 / width, body / height))
    axis.set_xlim(0, _CHARACTERS)
    axis.set_ylim(body / unit, 0)
    axis.axis("off")
    y = 0.0
    for i, wrapped, cut in blocks:
        y += _GAP + _LEADING
        axis.text(0, y - 0.45 * _LEADING, _heading(group, i, cut), fontsize=_FONT, weight="bold", va="center")
        for line in wrapped:
            for x, text, value in line:
                if value:
                    box = (x, y + 0.08), len(text), _LEADING - 0.16
                    axis.add_patch(patches.Rectangle(*box, facecolor=colormap(norm(value)), linewidth=0))
                style = {"fontsize": _FONT, "family": _MONO, "va": "center_baseline", "parse_math": False}
                axis.text(x, y + 0.5 * _LEADING, text, **style)
            y += _LEADING
    bar = figure.add_axes((0.15 / width, 1 - 0.26 / height, 2.0 / width, 0.1 / height))
    mappable = require("matplotlib.cm", extra="report").ScalarMappable(norm, colormap)
    legend_bar = figure.colorbar(mappable, cax=bar, orientation="horizontal", ticks=[-scale, 0, scale])
    labels = legend_bar.ax.set_xticklabels([_minus(f"{-scale:g} blamed"), "0", f"credited {scale:g}"], fontsize=7)
    labels[0].set_horizontalalignment("left")
    labels[2].set_horizontalalignment("right")
    legend_bar.outline.set_linewidth(0.4)
    legend_bar.ax.tick_params(length=2, width=0.6, pad=2)
    legend_bar.ax.set_title("key-token value", fontsize=7.5, loc="left", pad=3)
    return figure


def draw_key_tokens(table: KeyTokenTable, *, top: int) -> Any:
    """The first key tokens of a group's table: their values, and the shares of rollouts that hold them.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: all values are 0: all scored rollouts are correct, or all incorrect, or every token tells nothing.
    """
    pyplot = require("matplotlib.pyplot", extra="report")
    rows = [row for row in table.rows() if row["value"]][:top]
    if not rows:
        raise ValueError("the group has no key tokens: all values are 0")
    rows.sort(key=lambda row: -row["value"])  # credited ones above, the strongest outside
    height = 1.25 + 0.21 * len(rows)
    figure, (left, right) = pyplot.subplots(
        1, 2, figsize=(6.6, height), sharey=True, width_ratios=(1, 1.25), layout="constrained"
    )
    for y, row in enumerate(rows):
        left.barh(y, row["value"], color=_BLUE if row["value"] > 0 else _ORANGE, height=0.62)
        shares = row["a"] / max(row["a"] + row["c"], 1), row["b"] / max(row["b"] + row["d"], 1)
        right.plot(shares, [y, y], color=_LINE, linewidth=1.2, zorder=1)
        right.plot(shares[1], y, "s", color=_ORANGE, markersize=5.5, clip_on=False, zorder=2)
        right.plot(shares[0], y, "o", color=_BLUE, markersize=5.5, clip_on=False, zorder=3)
        if row["adjusted_p"] <= 0.05:
            right.annotate("*", (1.04, y), annotation_clip=False, va="center_baseline", fontsize=10)
    left.set_yticks(range(len(rows)), [_label(row) for row in rows], family=_MONO, fontsize=8, parse_math=False)
    left.set_ylim(len(rows) - 0.4, -0.6)
    left.axvline(0, color=_LINE, linewidth=0.8)
    scale = max([1.0, *(abs(row["value"]) for row in rows)])
    left.set_xlim(-1.08 * scale, 1.08 * scale)
    left.set_xticks([-scale, 0, scale], [_minus(f"{-scale:g}"), "0", f"{scale:g}"])
    left.set_xlabel("key-token value\n(credited above 0, blamed below)")
    right.set_xlim(0, 1)
    right.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100"])
    right.set_xlabel("rollouts that hold it, %")
    for axis in (left, right):
        axis.grid(axis="x")
        axis.tick_params(axis="y", length=0)
        axis.spines["left"].set_visible(False)
    first = rows[0]
    right.plot([], [], "o", color=_BLUE, markersize=5.5, label=f"of {first['a'] + first['c']} correct")
    right.plot([], [], "s", color=_ORANGE, markersize=5.5, label=f"of {first['b'] + first['d']} incorrect")
    if any(row["adjusted_p"] <= 0.05 for row in rows):
        right.plot([], [], "*", color=_INK, markersize=5, label="beyond chance")
    figure.legend(loc="outside upper right", ncols=3, handletextpad=0.2, columnspacing=1.2)
    return figure


def _chosen(correct: Sequence[bool | None], shown: int) -> list[int]:
    """Rollouts to show: correct ones and others in turn, so that both are there; in the group's order."""
    good = [i for i, outcome in enumerate(correct) if outcome]
    others = [i for i, outcome in enumerate(correct) if not outcome]
    half = max(shown - len(others), (shown + 1) // 2)
    return [*good[:half], *others[: shown - len(good[:half])]]


def _heading(group: Group, i: int, cut: int) -> str:
    outcome = {True: "correct", False: "incorrect", None: "unscored"}[group.correct[i]]
    rest = f", {cut:,} more token{'s' * (cut > 1)}" if cut else ""
    return _minus(f"{outcome}, rollout advantage {group.scores.rollout_advantage_B[i]:+.2f}{rest}")


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


def _wrapped(
    texts: Sequence[str], values: Sequence[float], lines: int
) -> tuple[list[list[tuple[int, str, float]]], int]:
    """Lines of (column, text, value), tokens broken only where longer than one, and how many tokens are left out."""
    wrapped: list[list[tuple[int, str, float]]] = [[]]
    column = 0
    for number, (token, value) in enumerate(zip(texts, values, strict=True)):
        for piece, ends_line in _pieces(_drawable(token)):
            fits_on_a_line = len(piece) <= _CHARACTERS
            while piece:
                if column == _CHARACTERS or (fits_on_a_line and column + len(piece) > _CHARACTERS):
                    wrapped.append([])
                    column = 0
                if len(wrapped) > lines:
                    return wrapped[:lines], len(texts) - number
                part, piece = piece[: _CHARACTERS - column], piece[_CHARACTERS - column :]
                wrapped[-1].append((column, part, value))
                column += len(part)
            if ends_line:
                wrapped.append([])
                column = 0
    return (wrapped[:lines] if wrapped[-1] else wrapped[:-1][:lines]) or [[]], 0


def _pieces(text: str) -> Iterator[tuple[str, bool]]:
    """Parts between line breaks, each break shown at the end of its part."""
    *broken, last = text.split("\n")
    for part in broken:
        yield part + "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}", True
    yield last, False


def _drawable(text: str) -> str:
    """The text without what the font lacks or what is not one column wide."""
    glyphs = _glyphs()
    text = text.replace("\t", "\N{RIGHTWARDS ARROW}")
    return "".join(c if c == "\n" or (c.isprintable() and ord(c) in glyphs) else _MISSING for c in text)


@cache
def _glyphs() -> frozenset[int]:
    manager = require("matplotlib.font_manager", extra="report")
    return frozenset(require("matplotlib.ft2font", extra="report").FT2Font(manager.findfont(_MONO)).get_charmap())


def _label(row: dict[str, Any]) -> str:
    text = repr(row["text"])[1:-1] if row["text"] else str(row["unit"])
    text = _drawable(text.replace(" ", "\N{OPEN BOX}"))
    return text if len(text) <= _LONGEST_LABEL else text[: _LONGEST_LABEL - 3] + "..."
