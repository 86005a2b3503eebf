"""The benchmark's rows as tables in Markdown, aligned for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from ktae import markdown
from ktae.bench.metrics import METRICS

Row = dict[str, Any]
FIDELITY_METRICS = {
    "cosine": "mean cosine of a batch's policy gradient and that of several thousand rollouts of its prompts",
    "snr": "signal-to-noise of that gradient over batches, |mean|^2 / variance",
}


def as_markdown(rows: Sequence[Row]) -> str:
    """One table a source, and what is in them."""
    parts = []
    for title, header, *lines in _tables(rows):
        parts += [f"### {title}", markdown.table(header, lines)]
    about = rows[0]["about"]
    legend = [
        f"{about['split']} split, {about['groups']} groups of {about['group_size']}, seed {about['seed']}",
        f"`+` `-`: the 95 % interval of the difference to {about['reference']} is above, below 0 (bootstrap of groups)",
        f"An estimator below {about['reference']} in `top` is not good at finding mistakes: rarity alone finds more.",
        *(f"`{name}`: {what}" for name, what in (METRICS | FIDELITY_METRICS).items()),
    ]
    return "\n\n".join([*parts, "\n".join(f"* {line}" for line in legend)]) + "\n"


def _tables(rows: Sequence[Row]) -> Iterator[list[Any]]:
    """Of each source title, header and one line an estimator, the best by the first metric above."""
    for source, of_source in groupby(rows[1:], key=lambda row: row["source"]):
        estimators = list(of_source)
        title, metrics = f"{source}: + - against grpo", FIDELITY_METRICS
        if about := estimators[0].get("rollouts"):
            del estimators[0]
            what = f"{about['judged_rollouts']} rollouts of {about['mixed_groups']} mixed groups"
            title = f"{source}: {what}, accuracy {about['accuracy']:.2f}, {about['mean_tokens']:.0f} tokens"
            metrics = METRICS
        shown = [m for m in metrics if any(_value(row, m) is not None for row in estimators)]
        estimators.sort(key=lambda row: -(_value(row, shown[0]) or 0) if shown else 0)
        yield [title, ["", *shown], *([row["estimator"], *(_cell(row[m]) for m in shown)] for row in estimators)]


def _value(row: Row, metric: str) -> float | None:
    return row.get(metric, [None])[0]


def _cell(numbers: Sequence[float | None]) -> str:
    """Three decimals, and the sign of a difference whose interval leaves out 0."""
    value, _, _, _, low, high = [*numbers, *[None] * 5][:6]
    if value is None:
        return ""
    mark = " " if low is None or high is None else "+" if low > 0 else "-" if high < 0 else " "
    return f"{value:.3f}{mark}"
