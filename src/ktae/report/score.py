"""`ktae score`: token advantages for the rollouts of a file or folder, wherever they come from.

ktae score runs/quickstart --tokenizer words
ktae score rollouts.parquet --out scores.jsonl --group-columns uid --set correct_above=0.5
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ktae.config import KTAEConfig
from ktae.extras import require
from ktae.files import columns
from ktae.files.columns import Rollout
from ktae.files.locks import unfinished
from ktae.files.rows import stem
from ktae.files.tokens import Tokenizer, load_tokenizer
from ktae.report.options import add_rollout_arguments, config_of, groups_of, tracked


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_rollout_arguments(parser)
    parser.add_argument("--out", type=Path, help="ends in .jsonl; ROLLOUTS.scores.jsonl by default")


def run(arguments: argparse.Namespace) -> None:
    from ktae.report.groups import outcomes  # torch

    path: Path = arguments.rollouts
    out: Path = arguments.out or path.with_name(stem(path) + ".scores.jsonl")
    if out.suffix != ".jsonl":
        raise ValueError(f"--out must end in .jsonl, got {out.name}")
    if out.exists():
        raise ValueError(f"{out} exists: delete it, or give another --out")
    config, tokenizer = config_of(arguments), load_tokenizer(arguments.tokenizer)
    groups, _ = groups_of(arguments)
    with unfinished(out) as temporary, temporary.open("w") as sink:
        for group in tracked(groups.values(), "scoring"):
            sink.writelines(json.dumps(row, default=str) + "\n" for row in _scored(group, config, tokenizer))
    print(f"{out}: {outcomes(groups, config)}")


def _scored(group: list[Rollout], config: KTAEConfig, tokenizer: Tokenizer | None) -> Iterator[dict[str, Any]]:
    """The rows of a group with the columns that scores add. Raises a ValueError if they have one of the same name."""
    from ktae.report.groups import score, tokenised  # torch

    arrow = require("pyarrow", extra="report")

    def decimals(values: Any) -> list[float]:
        """The shortest that make the same float32: Python would write float32(0.1) with 17 digits."""
        return arrow.array(values, arrow.float32()).cast(arrow.string()).cast(arrow.float64()).to_pylist()

    rollouts, texts = zip(*(tokenised(rollout, tokenizer) for rollout in group), strict=True)
    for rollout, its_texts, scored in zip(rollouts, texts, score(rollouts, config), strict=True):
        added = {
            columns.ROW: rollout.row,
            columns.GROUP: rollout.group,
            columns.REWARD: rollout.reward if rollout.reward == rollout.reward else None,
            columns.TOKEN_IDS: rollout.token_ids,
            **({} if its_texts is None else {columns.TOKEN_TEXTS: its_texts}),
            columns.ROLLOUT_ADVANTAGE: decimals([scored.advantage])[0],
            columns.KEY_TOKEN_VALUES: decimals(scored.value_T),
            columns.TOKEN_ADVANTAGES: decimals(scored.advantage_T),
        }
        taken = [name for name in added if name in rollout.data and rollout.data[name] is not rollout.token_ids]
        if taken:
            raise ValueError(
                f"the rollouts already have {', '.join(taken)}, which scores are written to: score the file that these "
                "scores came from, or give the columns other names"
            )
        yield {**rollout.data, **added}
