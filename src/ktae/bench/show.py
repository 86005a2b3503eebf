"""The benchmark's rows as tables, for a terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ktae.bench.metrics import LOCALISATION, METRICS

Row = dict[str, Any]
FIDELITY_METRICS = {
    "cosine": "mean cosine of a batch's policy gradient and that of several thousand rollouts of its prompts",
    "snr": "signal-to-noise of that gradient over batches, |mean|^2 / variance",
}


def print_results(rows: Sequence[Row], console: Any) -> None:
    """Prints one table a source, and the mean ranks, on a rich console."""
    from rich import box
    from rich.table import Table

    for title, header, lines in _tables(rows):
        table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", collapse_padding=True, pad_edge=False)
        for i, name in enumerate(header):
            table.add_column(name, justify="right" if i else "left", no_wrap=True)
        for line in lines:
            table.add_row(*line)
        console.print(table)
    for line in _legend(rows):
        console.print(line, highlight=False, markup=False)


def as_markdown(rows: Sequence[Row]) -> str:
    """The same tables."""
    parts = []
    for title, header, lines in _tables(rows):
        cells = [header, ["---"] + ["---:"] * (len(header) - 1), *lines]
        table = "\n".join("| " + " | ".join(cell.strip() for cell in line) + " |" for line in cells)
        parts += [f"### {title}", table]
    return "\n\n".join([*parts, "\n".join(f"* {line}" for line in _legend(rows))]) + "\n"


def ranks(rows: Sequence[Row]) -> dict[str, list[float]]:
    """Of each estimator the mean over the sources of its rank in each localisation metric, and the mean of those.

    Rank 1 is the best, and estimators that tie share the mean of their ranks. Estimators that some source could not be
    given to are left out. A source without judged rollouts has NaN for all.
    """
    sources = [source for source in _sources(rows) if "rollouts" in _rows_of(rows, source)[0]]
    found = {source: {row["estimator"]: row for row in _rows_of(rows, source)[1:]} for source in sources}
    names = [name for name in found[sources[0]] if all(name in of_source for of_source in found.values())]
    by_metric = []
    for metric in LOCALISATION:
        values_SE = np.array([[row[name][metric][0] for name in names] for row in found.values()], dtype=float)
        better_SEE, equal_SEE = (by(values_SE[:, None], values_SE[:, :, None]) for by in (np.greater, np.equal))
        rank_SE = better_SEE.sum(axis=2) + (equal_SEE.sum(axis=2) + 1) / 2
        by_metric.append(np.where(np.isnan(values_SE), np.nan, rank_SE).mean(axis=0))
    table_EM = np.stack([*by_metric, np.mean(by_metric, axis=0)], axis=1)
    return dict(zip(names, table_EM.tolist(), strict=True))


def _tables(rows: Sequence[Row]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, header and lines: of each source its estimators, by the first metric; then the ranks."""
    tables, judged = [], 0
    for source in _sources(rows):
        title, metrics, estimators = f"{source}: + - against grpo", FIDELITY_METRICS, _rows_of(rows, source)
        if "rollouts" in estimators[0]:
            about, judged = estimators.pop(0)["rollouts"], judged + 1
            metrics, title = (
                METRICS,
                (
                    f"{source}: {about['judged_rollouts']} rollouts of {about['mixed_groups']} mixed groups, accuracy "
                    f"{about['accuracy']:.2f}, {about['mean_tokens']:.0f} tokens"
                ),
            )
        shown = [m for m in metrics if any(_value(row, m) is not None for row in estimators)]
        if shown:
            estimators.sort(key=lambda row: -(_value(row, shown[0]) or 0))
        lines = [[row["estimator"], *(_cell(row[m]) for m in shown)] for row in estimators]
        tables.append((title, ["", *shown], lines))
    if judged > 1:
        lines = [[name, *(f"{rank:.1f}" for rank in line)] for name, line in ranks(rows).items()]
        lines.sort(key=lambda line: float(line[-1]))
        tables.append((f"mean rank over {judged} sources, 1 is best", ["", *LOCALISATION, "mean"], lines))
    return tables


def _legend(rows: Sequence[Row]) -> list[str]:
    about = rows[0]["about"]
    return [
        f"{about['split']} split, {about['groups']} groups of {about['group_size']}, seed {about['seed']}",
        f"+ - the 95 % interval of the difference to {about['reference']} is above, below 0 (bootstrap of groups)",
        f"An estimator below {about['reference']} in top is not good at finding mistakes: rarity alone finds more.",
        *(f"{name}: {what}" for name, what in (METRICS | FIDELITY_METRICS).items()),
    ]


def _sources(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["source"] for row in rows if "source" in row))


def _rows_of(rows: Sequence[Row], source: str) -> list[Row]:
    return [row for row in rows if row.get("source") == source]


def _value(row: Row, metric: str) -> float | None:
    return row.get(metric, [None])[0]


def _cell(numbers: list[float | None]) -> str:
    if numbers[0] is None:
        return ""
    low, high = numbers[4:] if len(numbers) > 4 else (None, None)
    mark = " " if low is None or high is None else "+" if low > 0 else "-" if high < 0 else " "
    return f"{numbers[0]:.3f}{mark}"
