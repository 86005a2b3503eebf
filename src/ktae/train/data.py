"""Problems as datasets with the columns `prompt` and `answers`, split into rows to train on and rows held out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ktae.chain import problems as chain
from ktae.extras import did_you_mean, require
from ktae.files.rows import SUFFIXES, read_rows, without_malformed
from ktae.train.recipe import Data

datasets = require("datasets", extra="train")


def load_data(data: Data, seed: int) -> tuple[Any, Any]:
    """The training rows and the held-out rows, as two `datasets.Dataset`.

    They have the columns `prompt` (a text, or a list of chat messages), `answers` (a list of texts, any of which is
    right) and the source's other ones. `seed` is of the `modchain` training problems; which rows of a file are held out
    does not depend on it, so that runs with different seeds are measured on the same problems.

    Raises:
        FileNotFoundError: the source is a path that does not exist.
        ValueError: a row cannot be read, a column is missing or not of its form, or there are too few rows.
    """
    if data.source == "modchain":
        if data.train_rows is None:
            raise ValueError("data.train_rows is required with source modchain, which is endless")
        test_rows = chain.test_problems()
        if data.test_rows > len(test_rows):
            raise ValueError(f"data.test_rows must be at most {len(test_rows)} with modchain, got {data.test_rows}")
        train = datasets.Dataset.from_list(chain.train_problems(data.train_rows, seed))
        return _rows(train, data), _rows(datasets.Dataset.from_list(test_rows[: data.test_rows]), data)

    rows = _read(data)
    if len(rows) < data.test_rows + (data.train_rows or 1):
        raise ValueError(
            f"{data.source} has {len(rows)} rows, fewer than data.test_rows {data.test_rows} and "
            f"data.train_rows {data.train_rows or 'at least 1'} together"
        )
    rows = _rows(rows.shuffle(seed=0), data)
    train = rows.select(range(data.test_rows, len(rows)))
    return train.select(range(data.train_rows or len(train))), rows.select(range(data.test_rows))


def _read(data: Data) -> Any:
    path = Path(data.source)
    if not path.name.endswith(SUFFIXES):
        return datasets.load_dataset(data.source, split=data.split)
    if not path.is_file():
        raise FileNotFoundError(f"data.source {path} does not exist (looked in {Path.cwd()})")
    return datasets.Dataset.from_list([row.data for row in without_malformed(read_rows(path), path, strict=True)])


def _rows(rows: Any, data: Data) -> Any:
    def prompt(row: dict[str, Any]) -> Any:
        if data.prompt is None:
            if not _is_prompt(given := _column(row, "prompt", data)):
                raise ValueError(f"{data.source}: prompt must be a text or a list of chat messages, got {given!r}")
            return given
        text = _fill(data.prompt, row, "data.prompt")
        system = [{"role": "system", "content": data.system}] if data.system else []
        return [*system, {"role": "user", "content": text}] if data.chat else text

    def answers(row: dict[str, Any]) -> list[str]:
        given = [_fill(data.answer, row, "data.answer")] if data.answer is not None else _column(row, "answers", data)
        if not (isinstance(given, list) and given and all(isinstance(text, str) and text.strip() for text in given)):
            raise ValueError(f"{data.source}: answers must be one or more texts, none blank; got {given!r} in {row}")
        return given

    converted = [{**row, "prompt": prompt(row), "answers": answers(row)} for row in rows]
    return datasets.Dataset.from_list(converted)


def _is_prompt(given: Any) -> bool:
    if isinstance(given, list) and given:
        return all(isinstance(message, dict) and {"role", "content"} <= message.keys() for message in given)
    return isinstance(given, str) and given != ""


def _fill(template: str, row: dict[str, Any], key: str) -> str:
    r"""The template with `{Column}` replaced by the row's value, and `{{Column}}` by `{Column}`; other braces are text.

    So LaTeX can stay as it is: only braces around letters are taken for a column's name.

    >>> _fill(r"Put the {what} into \boxed{}.", {"what": "sum"}, "data.prompt")
    'Put the sum into \\boxed{}.'
    """

    def value(match: re.Match[str]) -> str:
        triple, double, single = match.groups()
        if double is not None:
            return f"{{{double}}}"
        name = single if triple is None else triple
        if name in row:
            return str(row[name]) if triple is None else f"{{{row[name]}}}"
        if not re.search("[A-Za-z]", name):
            return match[0]
        raise ValueError(
            f"{key} names the column {name!r}, and the columns are {sorted(row)}{did_you_mean(name, row)}; "
            f"{{{{{name}}}}} is not a column but {{{name}}} itself"
        )

    return re.sub(r"\{\{\{([^{}]*)\}\}\}|\{\{([^{}]*)\}\}|\{([^{}]*)\}", value, template)


# What datasets call them, most telling first.
_USUAL = {
    "prompt": ("question", "problem", "query", "instruction", "input", "text"),
    "answers": ("answer", "final_answer", "solution", "target", "label", "output", "response"),
}


def _column(row: dict[str, Any], name: str, data: Data) -> Any:
    if name not in row:
        lower = {column.lower(): column for column in row}
        usual = next((lower[column] for column in _USUAL[name] if column in lower), "COLUMN")
        raise ValueError(
            f"{data.source} has no column {name!r} but {sorted(row)}; say how to make it, for example "
            f"--data.{name.removesuffix('s')} '{{{usual}}}'"
        )
    return row[name]
