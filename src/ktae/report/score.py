"""`ktae score`: token advantages for the rollouts of a file or folder, wherever they come from and however many.

    ktae score runs/quickstart --tokenizer words
    ktae score rollouts.parquet --out scores.jsonl --group-columns uid --set correct_above=0.5

Rows are kept in an unnamed file beside the output until the groups are complete. Memory holds one block of tokens, or
the largest group.
"""

from __future__ import annotations

import argparse
import glob
import pickle
import tempfile
from array import array
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

from ktae.extras import require
from ktae.files import json_lines
from ktae.files.columns import Columns, Rollout, check_free
from ktae.files.locks import locked, unfinished
from ktae.files.reading import say_columns
from ktae.files.rows import Malformed, files_of, stem
from ktae.report.options import add_rollout_arguments, config_of, rollouts_of, tokenizer_of
from ktae.report.outputs import OUTPUTS, Types

_BLOCK = 1 << 18  # tokens scored and written at a time
_BATCH = 256  # rollouts whose types are found together


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_rollout_arguments(parser)
    parser.add_argument("--out", type=Path, help=".parquet or .jsonl; ROLLOUTS.scores.parquet by default")


def run(arguments: argparse.Namespace) -> None:
    from ktae.report.scoring import Outcomes, check, score  # torch

    path: Path = arguments.rollouts
    out: Path = arguments.out or path.with_name(stem(path) + ".scores.parquet")
    if out.suffix not in OUTPUTS:
        raise ValueError(f"--out must end in .parquet or .jsonl, got {out.name}")
    config = config_of(arguments)
    tokenizer = tokenizer_of(arguments)
    types = Types(files_of(path))
    recognised: list[Columns] = []
    malformed: list[Malformed] = []
    begins: dict[str, array[int]] = {}  # of each group's rollouts in the unnamed file
    outcomes = Outcomes(config)

    def note(columns: Columns) -> None:
        recognised.append(columns)
        say_columns(columns)

    with locked(out), _progress() as progress, tempfile.TemporaryFile(dir=out.parent) as file:
        if out.exists():
            raise ValueError(f"{out} exists: delete it, or give another --out")
        for left_behind in out.parent.glob(f".{glob.escape(out.name)}.*.tmp"):  # by a killed process: we hold the lock
            left_behind.unlink()
        good = iter(progress.track(rollouts_of(arguments, on_columns=note, found=malformed), description="reading"))
        while rollouts := list(islice(good, _BATCH)):
            check(rollouts, tokenizer)
            types.add([rollout.data for rollout in rollouts])
            check_free(types.of, recognised[0])
            for rollout in rollouts:
                outcomes.add(rollout)
                begins.setdefault(rollout.group, array("q")).append(file.tell())
                pickle.dump(rollout, file, protocol=pickle.HIGHEST_PROTOCOL)
        tokens = 0
        with unfinished(out) as temporary:
            task = progress.add_task("scoring", total=outcomes.rollouts)
            with OUTPUTS[out.suffix](temporary, types) as write:
                for rollouts in _blocks(file, begins):
                    scores = score(rollouts, config, tokenizer)
                    write(rollouts, scores)
                    tokens += len(scores.ids_K)
                    progress.advance(task, len(rollouts))
            if malformed:
                listed = [{"file": str(row.path), "row": row.row, "reason": row.reason} for row in malformed]
                json_lines.write(out.with_name(out.name + ".malformed.jsonl"), listed)
    outcomes.hint()
    print(f"{out}: {outcomes}, {tokens:,} tokens")


def _blocks(file: IO[bytes], begins: dict[str, array[int]]) -> Iterator[list[Rollout]]:
    """Whole groups, together some _BLOCK tokens: groups in the order in which they begin, rollouts in their own."""
    block: list[Rollout] = []
    size = 0
    for of_group in begins.values():
        for begin in of_group:
            file.seek(begin)
            block.append(pickle.load(file))
            # Four characters of text make a token, roughly.
            size += len(block[-1].text or "") // 4 if block[-1].token_ids is None else len(block[-1].token_ids)
        if size >= _BLOCK:
            yield block
            block, size = [], 0
    if block:
        yield block


def _progress() -> Any:
    console = require("rich.console", extra="report").Console(stderr=True)
    return require("rich.progress", extra="report").Progress(console=console, disable=not console.is_terminal)
