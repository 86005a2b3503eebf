"""The benchmark's results as tables, for a terminal and in Markdown."""

from __future__ import annotations

from typing import Any

from ktae.bench.metrics import LOCALISATION, METRICS


def print_results(results: dict[str, Any], console: Any) -> None:
    """Prints one table a source, and the mean ranks, on a rich console."""
    from rich import box
    from rich.table import Table

    for title, header, lines in _tables(results):
        table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", collapse_padding=True, pad_edge=False)
        for i, name in enumerate(header):
            table.add_column(name, justify="right" if i else "left", no_wrap=True)
        for line in lines:
            table.add_row(*line)
        console.print(table)
    for line in _legend(results):
        console.print(line, highlight=False, markup=False)


def as_markdown(results: dict[str, Any]) -> str:
    """The same tables and, below each source's, the differences to the reference with their intervals."""
    parts = []
    for title, header, lines in _tables(results):
        parts += [f"### {title}", _markdown(header, lines)]
        source = results["sources"].get(title.partition(":")[0])
        if source is not None:
            parts += [f"Difference to {results['about']['reference']}, 95 % interval:", _differences(source, results)]
    parts += ["\n".join(f"* {line}" for line in _legend(results))]
    return "\n\n".join(parts) + "\n"


def _tables(results: dict[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, header and lines: of each source its estimators, by the first localisation metric; then the ranks."""
    tables = []
    for source, result in results["sources"].items():
        about = result["rollouts"]
        title = (
            f"{source}: {about['judged_rollouts']} rollouts of {about['mixed_groups']} mixed groups, accuracy "
            f"{about['accuracy']:.2f}, {about['mean_tokens']:.0f} tokens"
        )
        shown = [name for name in METRICS if any(e[name]["value"] is not None for e in result["estimators"].values())]
        ordered = sorted(result["estimators"].items(), key=lambda item: -(item[1][LOCALISATION[0]]["value"] or 0))
        lines = [[name, *(_with_mark(e[metric]) for metric in shown)] for name, e in ordered]
        tables.append((title, ["", *shown], lines))
    if len(results["sources"]) > 1:
        columns = [*LOCALISATION, "mean"]
        ordered = sorted(results["ranks"].items(), key=lambda item: item[1]["mean"] or 0)
        lines = [[name, *(_number(of_metric[c], ".1f") for c in columns)] for name, of_metric in ordered]
        tables.append((f"mean rank over {len(results['sources'])} sources, 1 is best", ["", *columns], lines))
    return tables


def _legend(results: dict[str, Any]) -> list[str]:
    about = results["about"]
    return [
        f"{about['split']} split, {about['groups']} groups of {about['group_size']}, seed {about['seed']}",
        f"+ - the 95 % interval of the difference to {about['reference']} is above, below 0 (bootstrap of groups)",
        *(f"{name}: {what}" for name, what in METRICS.items()),
    ]


def _with_mark(metric: dict[str, Any]) -> str:
    low, high = metric["difference"]["low"], metric["difference"]["high"]
    mark = "" if low is None else "+" if low > 0 else "-" if high < 0 else ""
    return _number(metric["value"], ".3f") + (mark or " ")


def _number(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


def _differences(source: dict[str, Any], results: dict[str, Any]) -> str:
    lines = []
    for name, metrics in source["estimators"].items():
        if name != results["about"]["reference"]:
            differences = (metrics[metric]["difference"] for metric in LOCALISATION)
            lines.append([name, *("" if d["value"] is None else _interval(d) for d in differences)])
    return _markdown(["", *LOCALISATION], lines)


def _interval(d: dict[str, float]) -> str:
    return f"{d['value']:+.3f} [{d['low']:+.3f}, {d['high']:+.3f}]"


def _markdown(header: list[str], lines: list[list[str]]) -> str:
    rows = [header, ["---"] + ["---:"] * (len(header) - 1), *lines]
    return "\n".join("| " + " | ".join(cell.strip() for cell in row) + " |" for row in rows)
