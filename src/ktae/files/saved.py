"""Outputs saved by other programs, as rows that can be graded: which format it is, and what its fields are called."""

from __future__ import annotations

import gzip
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ktae.extras import require
from ktae.files.columns import plain

# A row to grade: task, id, sample, completion, answers, length and truncated (None if unknown), stored (None or the
# verdict that came with it).
Row = dict[str, Any]


def read_saved(path: Path) -> tuple[str, list[Row]]:
    """Reads saved outputs.

    Args:
        path: `.jsonl`, `.json` (either also `.gz`) or `.parquet`: `samples.jsonl` of `ktae eval`, the JSON of the
            KTAE authors' evaluation, sample files of lm-eval, or detail files of lighteval.

    Returns:
        The format's name and the rows, in the file's order.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is of no known format, or a row is not of its file's format; the message has its number.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist (looked in {Path.cwd()})")
    raw = list(_raw_rows(path))
    if not raw:
        raise ValueError(f"{path} holds no rows")
    name, convert = _format_of(raw[0], path)
    rows, seen = [], Counter[tuple[str, str]]()
    for number, row in enumerate(raw, start=1):
        try:
            converted = {"length": None, "truncated": None, "stored": None, **convert(row, path)}
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ValueError(f"{path}, row {number}, is not of the format {name}: {error!r}") from error
        key = (converted["task"], converted["id"])
        converted.setdefault("sample", seen[key])
        seen[key] += 1
        if not converted["answers"]:
            raise ValueError(f"{path}, row {number}, has no accepted answer")
        rows.append(converted)
    return name, rows


def _raw_rows(path: Path) -> Iterator[dict[str, Any]]:
    if path.suffix == ".parquet":
        yield from require("pyarrow.parquet", extra="train").read_table(path).to_pylist()
        return
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    text = data.decode("utf-8")
    if text.lstrip().startswith("["):
        yield from json.loads(text)
        return
    # Not splitlines: a model may have written one of Unicode's other line ends.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
            if not isinstance(row, dict):
                raise ValueError(f"{path}, line {number}, must hold an object, got {line[:80]}")
            yield row


def _format_of(row: dict[str, Any], path: Path) -> tuple[str, Callable[[dict[str, Any], Path], Row]]:
    for name, (fields, convert) in _FORMATS.items():
        if fields <= row.keys():
            return name, convert
    known = "; ".join(f"{name} has {', '.join(sorted(fields))}" for name, (fields, _) in _FORMATS.items())
    raise ValueError(f"{path} is of no known format: its rows have {', '.join(sorted(row))}; {known}")


def _ktae(row: dict[str, Any], path: Path) -> Row:
    stored = row.get("status")
    return {
        "task": row["task"],
        "id": str(row["id"]),
        "sample": row.get("sample", 0),
        "completion": _text(row["completion"]),
        "answers": _answers(row["answers"]),
        "length": row.get("length"),
        "truncated": row.get("truncated"),
        "stored": None if stored is None else stored == "correct",
    }


def _paper(row: dict[str, Any], path: Path) -> Row:
    """The authors' rows say which problem it is by its prompt only."""
    return {
        "task": row["task_name"],
        "id": _text(row["prompt"]),
        "completion": _text(row["model_output"]),
        "answers": _answers(row["gt"]),
        "stored": _is_right(row.get("reward")),
    }


def _paper_by_number(row: dict[str, Any], path: Path) -> Row:
    """The same outputs with a number instead of the prompt; where a second reader has judged, that counts."""
    judged = row.get("judged")
    return {
        "task": row["task"],
        "id": str(row["i"]),
        "completion": _text(row["output"]),
        "answers": _answers(row["gt"]),
        "stored": _is_right(row.get("reward_paper") if judged is None else judged),
    }


def _lm_eval(row: dict[str, Any], path: Path) -> Row:
    named = re.fullmatch(r"samples_(.+?)(?:_\d{4}-\d\d-\d\d.*)?", path.name.removesuffix(".gz").rpartition(".")[0])
    target = row["target"]
    responses = row["resps"][0]
    metric = next((row[name] for name in ("exact_match", "acc", "math_verify") if name in row), None)
    return {
        "task": named[1] if named else path.stem,
        "id": str(row["doc_id"]),
        "completion": _text(responses[0] if isinstance(responses, list) else responses),
        # GSM8K's target is the whole worked solution.
        "answers": _answers(target.rpartition("####")[2] if isinstance(target, str) else target),
        "stored": _is_right(metric),
    }


def _lighteval(row: dict[str, Any], path: Path) -> Row:
    doc, response = row["doc"], row["model_response"]
    gold = doc["gold_index"]
    choices = [doc["choices"][index] for index in (gold if isinstance(gold, list) else [gold])]
    metrics = [value for value in (row.get("metric") or {}).values() if isinstance(value, int | float)]
    return {
        "task": doc.get("task_name") or path.stem,
        "id": str(doc.get("id") or doc["query"]),
        "completion": _text(response["text"][0]),
        "answers": _answers(choices),
        "stored": _is_right(metrics[0]) if len(metrics) == 1 else None,
    }


_FORMATS: dict[str, tuple[set[str], Callable[[dict[str, Any], Path], Row]]] = {
    "ktae": ({"task", "id", "completion", "answers"}, _ktae),
    "paper": ({"task_name", "prompt", "gt", "model_output"}, _paper),
    "paper, numbered": ({"task", "i", "gt", "output"}, _paper_by_number),
    "lm-eval": ({"doc_id", "target", "resps"}, _lm_eval),
    "lighteval": ({"doc", "model_response"}, _lighteval),
}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a text, got {value!r:.80}")
    return value


def _answers(value: Any) -> list[str]:
    """Accepted answers as texts; the paper's files nest lists."""
    if isinstance(value, list):
        return list(dict.fromkeys(answer for item in value for answer in _answers(item)))
    answer = plain(value)
    return [] if answer is None else [answer]


def _is_right(reward: Any) -> bool | None:
    return None if reward is None or math.isnan(float(reward)) else float(reward) > 0
