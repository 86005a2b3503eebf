"""Problems as datasets with the columns `prompt` and `answers`, split into rows to train on and rows held out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ktae.chain import problems as chain
from ktae.extras import require
from ktae.files.rows import SUFFIXES, read_rows, without_malformed
from ktae.train.recipe import Data

datasets = require("datasets", extra="train")


def load_data(data: Data, seed: int) -> tuple[Any, Any]:
    """The training rows and the held-out rows, as two `datasets.Dataset`.

    `seed` is of the `modchain` training problems; which rows of a file are held out does not depend on it. Raises a
    FileNotFoundError or a ValueError that names the path, the row, the column or the setting.
    """
    if data.source == "modchain":
        if data.train_rows is None:
            raise ValueError("data.train_rows is required with source modchain, which is endless")
        test_rows = chain.test_problems()
        if data.test_rows > len(test_rows):
            raise ValueError(f"data.test_rows must be at most {len(test_rows)} with modchain, got {data.test_rows}")
        train = chain.train_problems(data.train_rows, seed)
        return datasets.Dataset.from_list(train), datasets.Dataset.from_list(test_rows[: data.test_rows])

    path = Path(data.source)
    if not path.name.endswith(SUFFIXES):
        rows = datasets.load_dataset(data.source, split="train")
    elif path.is_file():
        rows = datasets.Dataset.from_list([row.data for row in without_malformed(read_rows(path), path, strict=True)])
    else:
        raise FileNotFoundError(f"data.source {path} does not exist (looked in {Path.cwd()})")
    if missing := {"prompt", "answers"} - {*rows.column_names}:
        raise ValueError(
            f"{data.source} has no column {min(missing)!r} but {sorted(rows.column_names)}; make a file with "
            f"prompt and answers: ktae data prepare {data.source} --out prepared.jsonl"
        )
    for row in rows:
        prompt, answers = row["prompt"], row["answers"]
        chat = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
        if not prompt or not all(isinstance(one, dict) and isinstance(one.get("content"), str) for one in chat):
            raise ValueError(f"{data.source}: prompt must be a text or a list of chat messages, got {prompt!r}")
        texts = answers if isinstance(answers, list) else []
        if not (texts and all(isinstance(text, str) and text.strip() for text in texts)):
            raise ValueError(f"{data.source}: answers must be a list of texts, none blank; got {answers!r} in {row}")
    if len(rows) < data.test_rows + (data.train_rows or 1):
        raise ValueError(
            f"{data.source} has {len(rows)} rows, fewer than data.test_rows {data.test_rows} and "
            f"data.train_rows {data.train_rows or 'at least 1'} together"
        )
    rows = rows.shuffle(seed=0)
    train = rows.select(range(data.test_rows, len(rows)))
    return train.select(range(data.train_rows or len(train))), rows.select(range(data.test_rows))
