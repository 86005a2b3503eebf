"""`ktae score`: token advantages for the rollouts of a file or folder, wherever they come from and however many.

    ktae score runs/quickstart --tokenizer words
    ktae score rollouts.parquet --out scores.jsonl --group-columns uid --set correct_above=0.5

Rows are kept in an unnamed file beside the output until the groups are complete. Memory holds the largest group.
"""

from __future__ import annotations

import argparse
import glob
import json
import pickle
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from ktae.config import KTAEConfig
from ktae.extras import require
from ktae.files import columns, json_lines
from ktae.files.columns import Columns, Rollout, check_free
from ktae.files.locks import locked, unfinished
from ktae.files.reading import say_columns
from ktae.files.rows import Malformed, stem
from ktae.files.tokens import Tokenizer
from ktae.report.options import add_rollout_arguments, config_of, progress, rollouts_of, tokenizer_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_rollout_arguments(parser)
    parser.add_argument("--out", type=Path, help=".jsonl or .parquet; ROLLOUTS.scores.jsonl by default")


def run(arguments: argparse.Namespace) -> None:
    from ktae.report.groups import outcomes, tokenised  # torch

    path: Path = arguments.rollouts
    out: Path = arguments.out or path.with_name(stem(path) + ".scores.jsonl")
    if out.suffix not in _WRITERS:
        raise ValueError(f"--out must end in {' or '.join(_WRITERS)}, got {out.name}")
    config = config_of(arguments)
    tokenizer = tokenizer_of(arguments)
    recognised: list[Columns] = []
    malformed: list[Malformed] = []
    places: dict[str, array[int]] = {}  # of each group's rollouts in the unnamed file
    rewards: dict[str, array[float]] = {}
    tokens = 0

    def note(columns: Columns) -> None:
        recognised.append(columns)
        say_columns(columns)

    with locked(out), progress() as bar, tempfile.TemporaryFile(dir=out.parent) as file:
        if out.exists():
            raise ValueError(f"{out} exists: delete it, or give another --out")
        for left_behind in out.parent.glob(f".{glob.escape(out.name)}.*.tmp"):  # by a killed process: we hold the lock
            left_behind.unlink()
        good = rollouts_of(arguments, on_columns=note, found=malformed)
        for rollout in bar.track(tokenised(good, tokenizer), total=None, description="reading"):
            check_free(rollout.data, recognised[0])
            places.setdefault(rollout.group, array("q")).append(file.tell())
            rewards.setdefault(rollout.group, array("d")).append(rollout.reward)
            tokens += len(rollout.token_ids or [])
            pickle.dump(rollout, file, protocol=pickle.HIGHEST_PROTOCOL)
        with unfinished(out) as temporary:
            groups = (_loaded(file, of_group) for of_group in bar.track(places.values(), description="scoring"))
            _WRITERS[out.suffix](temporary, (_scored(group, config, tokenizer) for group in groups))
            if malformed:
                listed = [{"file": str(row.path), "row": row.row, "reason": row.reason} for row in malformed]
                json_lines.write(out.with_name(out.name + ".malformed.jsonl"), listed)
    print(f"{out}: {outcomes(rewards, config)}, {tokens:,} tokens")


def _loaded(file: IO[bytes], places: Iterable[int]) -> Iterator[Rollout]:
    for place in places:
        file.seek(place)
        yield pickle.load(file)


def _scored(group: Iterable[Rollout], config: KTAEConfig, tokenizer: Tokenizer | None) -> list[dict[str, Any]]:
    """The rows of a group with the columns that scores add."""
    from ktae.report.groups import score, token_texts  # torch

    arrow = require("pyarrow", extra="report")
    rollouts = list(group)
    texts = None if tokenizer is None else token_texts(rollouts, tokenizer)

    def decimals(values: Any) -> list[float]:
        """The shortest that make the same float32: Python would write float32(0.1) with 17 digits."""
        return arrow.array(values, arrow.float32()).cast(arrow.string()).cast(arrow.float64()).to_pylist()

    return [
        {
            **rollout.data,
            columns.ROW: rollout.row,
            columns.GROUP: rollout.group,
            columns.REWARD: rollout.reward if rollout.reward == rollout.reward else None,
            columns.TOKEN_IDS: rollout.token_ids,
            **({} if texts is None else {columns.TOKEN_TEXTS: texts[number]}),
            columns.ROLLOUT_ADVANTAGE: decimals([scored.advantage])[0],
            columns.KEY_TOKEN_VALUES: decimals(scored.value_T),
            columns.TOKEN_ADVANTAGES: decimals(scored.advantage_T),
        }
        for number, (rollout, scored) in enumerate(zip(rollouts, score(rollouts, config), strict=True))
    ]


def _write_json_lines(file: Path, groups: Iterable[list[dict[str, Any]]]) -> None:
    """What JSON cannot hold, such as dates, is text."""
    with file.open("w") as sink:
        for rows in groups:
            sink.writelines(json.dumps(row, default=str) + "\n" for row in rows)


def _write_parquet(file: Path, groups: Iterable[list[dict[str, Any]]]) -> None:
    """Put together in memory, where Arrow finds a type for each column."""
    arrow = require("pyarrow", extra="report")
    tables = []
    try:
        for rows in groups:
            names = dict.fromkeys(name for row in rows for name in row)
            tables.append(arrow.table({name: [row.get(name) for row in rows] for name in names}))
        table = arrow.concat_tables(tables, promote_options="permissive")
        require("pyarrow.parquet", extra="report").write_table(table, file, compression="zstd")
    except (arrow.ArrowException, OverflowError) as error:
        hint = "Parquet has one type a column, and these rows do not fit: use --out NAME.jsonl"
        raise ValueError(f"{hint} ({error})") from error


_WRITERS = {".jsonl": _write_json_lines, ".parquet": _write_parquet}
