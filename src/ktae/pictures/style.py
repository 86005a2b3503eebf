"""The look of every picture, of the page and of the terminal: the same two colours, the same lines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ktae.extras import require

# Okabe and Ito's blue and vermilion differ for any colour vision, and both can be read on white and on black.
CREDIT, BLAME = "#0072B2", "#D55E00"
SERIES = (CREDIT, BLAME, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# For the page on a dark screen: the same hues, lighter.
DARK_CREDIT, DARK_BLAME = "#4FA8E0", "#F58A3C"
DARK_SERIES = (DARK_CREDIT, DARK_BLAME, "#2BBF94", "#DE9CC4", "#E8B93C", "#9AD4F7", "#E4E5E2")
# Dashes and gaps of the series' lines, over the width of the line.
DASHES = ((), (4, 1.5), (6, 2, 1, 2), (1, 1.2), (5, 1, 1, 1, 1, 1), (8, 2), (1, 2.5))
INK, LINE = "#222222", "#8A8A8A"
MONO = "DejaVu Sans Mono"  # comes with matplotlib
SUFFIXES = (".png", ".svg", ".pdf")

_STYLE = {
    "font.size": 9,
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    "axes.edgecolor": LINE,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#E3E3E3",
    "text.hinting": "none",  # or letters of a token run into the next one
    "legend.frameon": False,
    "pdf.fonttype": 42,  # text stays text
    "svg.fonttype": "path",  # looks alike without our fonts
    "svg.hashsalt": "ktae",  # the same picture is the same file
}


@contextmanager
def styled() -> Iterator[None]:
    """Also as a decorator: `@styled()`. Raises an ImportError if matplotlib is not installed."""
    with require("matplotlib", extra="report").rc_context(_STYLE):
        yield


@styled()
def save(figure: Any, path: Path) -> None:
    """Writes a figure as PNG, SVG or PDF, by the name's suffix; the same picture makes the same file."""
    undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix)
    figure.savefig(path, dpi=150, metadata=undated)


def figure(width: float, height: float, layout: str | None = "constrained") -> Any:
    """An empty matplotlib Figure, inches. It belongs to no window and need not be closed."""
    return require("matplotlib.figure", extra="report").Figure(figsize=(width, height), layout=layout)


def series(number: int) -> dict[str, Any]:
    """Colour and dashes of a line. Raises a ValueError if it is one too many to be told apart."""
    if number >= len(SERIES):
        raise ValueError(f"{len(SERIES)} lines can be told apart in one picture, got more")
    return {"color": SERIES[number], "linestyle": (0, DASHES[number]) if DASHES[number] else "-"}
