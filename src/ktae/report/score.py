"""`ktae score`: token advantages for rollouts saved anywhere, as many as there are.

    ktae score runs/quickstart --tokenizer words
    ktae score rollouts.parquet --out scores.jsonl --group-columns uid --set correct_above=0.5

Until it is done, the work lies in a folder beside the output, and the same command goes on from there after a kill.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ktae
from ktae.config import KTAEConfig
from ktae.extras import require
from ktae.files.columns import Rollout
from ktae.files.reading import Malformed, files_of
from ktae.files.spill import Contents, in_groups, json_types, read_in
from ktae.files.tokens import Tokenizer, check_tokenizer, load_tokenizer
from ktae.report.options import add_rollout_arguments, config_of, named_columns
from ktae.report.outputs import Output, output_for
from ktae.report.scoring import score

_BLOCK = 1 << 18  # tokens scored and written at a time
_SHOWN = 10  # malformed rows
_JOB, _CONTENTS, _MALFORMED = "job.json", "contents.json", "malformed.jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_rollout_arguments(parser)
    parser.add_argument("--out", type=Path, help=".parquet or .jsonl; ROLLOUTS.scores.parquet by default")


def run(arguments: argparse.Namespace) -> Callable[[], None]:
    path: Path = arguments.rollouts
    out: Path = arguments.out or path.with_name(path.name.partition(".")[0] + ".scores.parquet")
    for module in ("duckdb", "pyarrow", "rich"):
        require(module, extra="report")
    output = output_for(out)
    if out.exists():
        raise ValueError(f"{out} exists: delete it, or give another --out")
    config = config_of(arguments)
    tokenizer = load_tokenizer(arguments.tokenizer) if arguments.tokenizer else None
    job = {
        "ktae": ktae.__version__,
        "files": [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files_of(path)],
        "config": asdict(config),
        "tokenizer": arguments.tokenizer,
        "columns": named_columns(arguments),
        "unnest": arguments.unnest,
    }
    folder = out.with_name(out.name + ".unfinished")
    contents = _read(folder, json.dumps(job, sort_keys=True), arguments)
    check_tokenizer(
        tokenizer,
        with_ids=contents.with_ids,
        without_ids=contents.without_ids,
        largest_id=contents.largest_id,
    )

    def go_on() -> None:
        totals = _score(folder, contents, output, config, tokenizer)
        output.join(sorted(folder.glob("part-*[0-9]")), folder / "whole")
        (folder / "whole").replace(out)
        if contents.malformed:
            malformed = out.with_name(out.name + "." + _MALFORMED)
            (folder / _MALFORMED).replace(malformed)
            print(f"{contents.malformed:,} malformed rows left out, listed in {malformed}", file=sys.stderr)
        shutil.rmtree(folder)
        counts = ", ".join(f"{count:,} {name}" for name, count in totals.items())
        print(f"{out}: {counts}")

    return go_on


def _read(folder: Path, job: str, arguments: argparse.Namespace) -> Contents:
    """Reads the rollouts into `folder`, or finds that an earlier call of the same job has."""
    if (folder / _JOB).exists():
        if (folder / _JOB).read_text() != job:
            raise ValueError(
                f"{folder} holds the unfinished scores of other rollouts or settings: delete it, or give another --out"
            )
        if (folder / _CONTENTS).exists():
            contents = Contents.from_json((folder / _CONTENTS).read_text())
            if contents.malformed and arguments.strict:
                raise ValueError(f"{contents.malformed:,} malformed rows, the first of them in {folder / _MALFORMED}")
            return contents
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / _JOB).write_text(job)
    malformed = 0

    def note(row: Malformed) -> None:
        nonlocal malformed
        if arguments.strict:
            raise ValueError(str(row))
        malformed += 1
        if malformed <= _SHOWN:
            print(f"malformed, {row}", file=sys.stderr)
        with (folder / _MALFORMED).open("a") as file:
            file.write(json.dumps({"file": str(row.path), "row": row.row, "reason": row.reason}) + "\n")

    try:
        with _progress() as progress:
            task = progress.add_task("reading", total=None, unit="rollouts")
            contents = read_in(
                arguments.rollouts,
                folder,
                named_columns(arguments),
                arguments.unnest,
                note,
                lambda rows: progress.update(task, completed=rows),
            )
    except ValueError:
        shutil.rmtree(folder)
        raise
    unfinished = folder / (_CONTENTS + ".tmp")
    unfinished.write_text(contents.to_json())
    unfinished.replace(folder / _CONTENTS)
    return contents


def _score(
    folder: Path, contents: Contents, output: Output, config: KTAEConfig, tokenizer: Tokenizer | None
) -> dict[str, int]:
    """Writes the parts that are not there yet; returns what all of them hold."""
    types = json_types(folder) if contents.is_json else None
    totals: Counter[str] = Counter()
    number = 0
    while (part := folder / f"part-{number:06}").exists():
        totals.update(json.loads(part.with_suffix(".json").read_text()))
        number += 1
    with _progress() as progress:
        task = progress.add_task("scoring", total=contents.rollouts, completed=totals["rollouts"], unit="rollouts")
        for rollouts, columns in _blocks(in_groups(folder, contents, skip=totals["rollouts"])):
            scores = score(rollouts, config, tokenizer)
            part = folder / f"part-{number:06}"
            counts = _counts(rollouts, int(scores.ends_B[-1]), config)
            # Either both are there or the part counts as not written.
            part.with_suffix(".json").write_text(json.dumps(counts))
            output.write(folder / "unfinished", rollouts, columns, scores, types)
            (folder / "unfinished").replace(part)
            totals.update(counts)
            number += 1
            progress.update(task, completed=totals["rollouts"])
    return dict(totals)


def _blocks(batches: Iterator[tuple[list[Rollout], Any]]) -> Iterator[tuple[list[Rollout], Any]]:
    """Whole groups, together some _BLOCK tokens, however the batches cut them."""
    arrow = require("pyarrow", extra="report")
    rollouts: list[Rollout] = []
    tables = []
    size = 0
    for more, table in batches:
        begin = 0
        for at, rollout in enumerate(more):
            if size >= _BLOCK and rollout.group != rollouts[-1].group:
                yield rollouts, arrow.concat_tables([*tables, table[begin:at]])
                rollouts, tables, size, begin = [], [], 0, at
            rollouts.append(rollout)
            # Four characters of text make a token, roughly: no exact size is needed, only always the same one.
            size += len(rollout.text or "") // 4 if rollout.token_ids is None else len(rollout.token_ids)
        tables.append(table[begin:])
    if rollouts:
        yield rollouts, arrow.concat_tables(tables)


def _counts(rollouts: list[Rollout], tokens: int, config: KTAEConfig) -> dict[str, int]:
    outcomes: dict[str, set[bool]] = {}
    for rollout in rollouts:
        seen = outcomes.setdefault(rollout.group, set())
        if rollout.reward == rollout.reward:
            seen.add(rollout.reward > config.correct_above)
    return {
        "rollouts": len(rollouts),
        "groups": len(outcomes),
        "groups with both outcomes": sum(len(seen) == 2 for seen in outcomes.values()),
        "tokens": tokens,
        "unscored": sum(rollout.reward != rollout.reward for rollout in rollouts),
    }


def _progress() -> Any:
    console = require("rich.console", extra="report").Console(stderr=True)
    parts = require("rich.progress", extra="report")
    return parts.Progress(
        parts.TextColumn("{task.description}"),
        parts.BarColumn(),
        parts.TextColumn("{task.completed:,.0f} {task.fields[unit]}"),
        parts.TimeElapsedColumn(),
        parts.TextColumn("left"),
        parts.TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
