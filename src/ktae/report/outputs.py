"""Scored rollouts on disk, as Parquet or JSON lines: written in parts, joined in the end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ktae.extras import require
from ktae.files.columns import (
    GROUP,
    KEY_TOKEN_VALUES,
    REWARD,
    ROLLOUT_ADVANTAGE,
    ROW,
    TOKEN_ADVANTAGES,
    TOKEN_IDS,
    TOKEN_TEXTS,
    Rollout,
)
from ktae.report.scoring import Scores


class Output(Protocol):
    """A format."""

    def write(self, file: Path, rollouts: Sequence[Rollout], columns: Any, scores: Scores, types: Any) -> None:
        """Writes rollouts and their scores.

        Args:
            file: the part.
            rollouts: the rows.
            columns: a pyarrow.Table of the rows as they were read; unused for JSON rows.
            scores: what is added.
            types: the `JsonSchema` of JSON rows; None for Parquet's.
        """
        ...

    def join(self, parts: Sequence[Path], file: Path) -> None:
        """Puts the parts one after the other."""
        ...


def output_for(path: Path) -> Output:
    """The format that the name says. Raises a ValueError if it says none."""
    if path.suffix == ".parquet":
        return ParquetOutput()
    if path.suffix == ".jsonl":
        return JsonLines()
    raise ValueError(f"--out must end in .parquet or .jsonl, got {path.name}")


class ParquetOutput:
    """One row group a part."""

    def write(self, file: Path, rollouts: Sequence[Rollout], columns: Any, scores: Scores, types: Any) -> None:
        table = columns if types is None else types.columns([rollout.data for rollout in rollouts])
        table = with_scores(table, rollouts, scores)
        require("pyarrow.parquet", extra="report").write_table(table, file, compression="zstd")

    def join(self, parts: Sequence[Path], file: Path) -> None:
        parquet = require("pyarrow.parquet", extra="report")
        with parquet.ParquetWriter(file, parquet.read_schema(parts[0]), compression="zstd") as writer:
            for part in parts:
                writer.write_table(parquet.ParquetFile(part).read())


class JsonLines:
    """Floats are float32's shortest decimals; what JSON cannot hold, such as dates, is text."""

    def write(self, file: Path, rollouts: Sequence[Rollout], columns: Any, scores: Scores, types: Any) -> None:
        rows = columns.to_pylist() if types is None else [rollout.data for rollout in rollouts]
        arrow = require("pyarrow", extra="report")
        added = added_columns(rollouts, scores)
        # As text by Arrow: Python would write float32(0.1) with 17 digits.
        lists = {name: added.pop(name) for name in (KEY_TOKEN_VALUES, TOKEN_ADVANTAGES)}
        flat = {name: values.values.cast(arrow.string()).to_pylist() for name, values in lists.items()}
        added[ROLLOUT_ADVANTAGE] = added[ROLLOUT_ADVANTAGE].cast(arrow.string()).cast(arrow.float64())
        more = arrow.table(added).to_pylist()
        begin = 0
        with file.open("w") as sink:
            for row, extra, end in zip(rows, more, scores.ends_B.tolist(), strict=True):
                line = json.dumps({**row, **extra}, default=str)
                numbers = "".join(f', "{name}": [{", ".join(text[begin:end])}]' for name, text in flat.items())
                sink.write(f"{line[:-1]}{numbers}}}\n")
                begin = end

    def join(self, parts: Sequence[Path], file: Path) -> None:
        with file.open("wb") as sink:
            for part in parts:
                with part.open("rb") as source:
                    shutil.copyfileobj(source, sink)


def with_scores(table: Any, rollouts: Sequence[Rollout], scores: Scores) -> Any:
    """A pyarrow.Table of rollouts with what scores add to it."""
    if TOKEN_IDS in table.column_names:
        table = table.drop_columns([TOKEN_IDS])
    for name, values in added_columns(rollouts, scores).items():
        table = table.append_column(name, values)
    return table


def added_columns(rollouts: Sequence[Rollout], scores: Scores) -> dict[str, Any]:
    """Name -> pyarrow.Array of the columns that scores add to rows."""
    arrow = require("pyarrow", extra="report")
    starts = arrow.array(np.concatenate([[0], scores.ends_B]), arrow.int32())

    def lists(values_K: Any) -> Any:
        return arrow.ListArray.from_arrays(starts, values_K)

    unscored = np.array([rollout.reward != rollout.reward for rollout in rollouts])
    rewards = np.array([rollout.reward for rollout in rollouts])
    columns = {
        ROW: arrow.array([rollout.row for rollout in rollouts], arrow.int64()),
        GROUP: arrow.array([rollout.group for rollout in rollouts], arrow.string()),
        REWARD: arrow.array(rewards, arrow.float64(), mask=unscored),
        TOKEN_IDS: lists(arrow.array(scores.ids_K)),
        ROLLOUT_ADVANTAGE: arrow.array(scores.rollout_advantage_B),
        KEY_TOKEN_VALUES: lists(arrow.array(scores.value_K)),
        TOKEN_ADVANTAGES: lists(arrow.array(scores.advantage_K)),
    }
    if scores.texts is not None:
        texts = [text for of_rollout in scores.texts for text in of_rollout]
        columns[TOKEN_TEXTS] = lists(arrow.array(texts, arrow.string()))
    return columns
