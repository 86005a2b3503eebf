"""Outputs saved by other programs, as rows that can be graded: which format it is, and what its fields are called."""

from __future__ import annotations

import ast
import contextlib
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ktae.files.columns import Columns, columns_of, label, messages_of, reference, references_in, value_of
from ktae.files.reading import several
from ktae.files.rows import Malformed, Row, read_rows, stem, without_malformed

# An output to grade: task, id, sample, completion, answers, length and truncated (None if unknown), stored (None or the
# verdict that came with it).
Output = dict[str, Any]


def read_saved(path: Path, *, strict: bool = False) -> tuple[str, list[Output], list[Malformed]]:
    """Reads saved outputs.

    A row that holds several samples gives several outputs; without a verdict each, they have none. Rows of lm-eval that
    differ in the filter only are one output, whose stored verdict is the best of theirs.

    Args:
        path: see `ktae.files.rows.read_rows`: `samples.jsonl` of `ktae eval`, the JSON of the KTAE authors' evaluation,
            sample files of lm-eval, detail files of lighteval, or rollouts with a column of references.
        strict: a row that is not of the file's format, or has no accepted answer, raises a ValueError.

    Returns:
        The format's name, the outputs in the file's order, and the rows that are left out, which stderr names.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is of no known format, or no row can be graded.
    """
    malformed: list[Malformed] = []
    rows = list(several(read_rows(path)))
    good = [row for row in rows if isinstance(row, Row)]
    name, convert = _format_of(good, path) if good else ("none", _ktae)
    outputs: dict[tuple[str, str, int], Output] = {}
    seen: Counter[tuple[str, str, str]] = Counter()

    def convert_all() -> Iterator[Malformed | tuple[Row, list[Output]]]:
        for row in rows:
            try:
                yield row if isinstance(row, Malformed) else (row, list(convert(row)))
            except (KeyError, IndexError, TypeError, ValueError) as error:
                reason = f"not of the format {name}: {type(error).__name__} {error}"
                yield Malformed(row.path, row.row, reason)

    for row, converted in without_malformed(convert_all(), path, strict=strict, found=malformed):
        for output in converted:
            key = (output["task"], output["id"])
            by_filter = (*key, str(row.data.get("filter")))
            output.setdefault("sample", seen[by_filter])
            seen[by_filter] += 1
            output = {"length": None, "truncated": None, "stored": None, **output}
            first = outputs.setdefault((*key, output["sample"]), output)
            if first is not output and name == "lm-eval" and output["stored"] is not None:
                first["stored"] = output["stored"] or bool(first["stored"])
    return name, list(outputs.values()), malformed


def _format_of(rows: list[Row], path: Path) -> tuple[str, Callable[[Row], Iterator[Output]]]:
    """By the first row that is of any."""
    for row in rows[:100]:
        for name, (fields, convert) in _FORMATS.items():
            if fields <= row.data.keys():
                return name, convert
    merged = {name: value for row in reversed(rows[:100]) for name, value in row.data.items()}
    if not references_in(merged):
        known = "; ".join(f"{name} has {', '.join(sorted(fields))}" for name, (fields, _) in _FORMATS.items())
        raise ValueError(
            f"{path} is of no known format: its rows have {', '.join(sorted(merged)) or 'no columns'}; {known}; "
            "rollouts have a completion and an answer or ground_truth"
        )
    columns = columns_of({"reward": None, **merged}, words=True)
    return f"rollouts ({columns.text})", lambda row: _rollout(row, columns)


def _ktae(row: Row) -> Iterator[Output]:
    data = row.data
    stored = data.get("status")
    yield {
        "task": data["task"],
        "id": str(data["id"]),
        "sample": data.get("sample", 0),
        "completion": _text(data["completion"]),
        "answers": _answers(data["answers"]),
        "length": data.get("length"),
        "truncated": data.get("truncated"),
        "stored": None if stored is None else stored == "correct",
    }


def _paper(row: Row) -> Iterator[Output]:
    """The authors' rows say which problem it is by its prompt only."""
    data = row.data
    yield {
        "task": data["task_name"],
        "id": _text(data["prompt"]),
        "completion": _text(data["model_output"]),
        "answers": _answers(data["gt"]),
        "stored": _is_right(data.get("reward")),
    }


def _paper_by_number(row: Row) -> Iterator[Output]:
    """The same outputs with a number instead of the prompt; where a second reader has judged, that counts."""
    data = row.data
    judged = data.get("judged")
    yield {
        "task": data["task"],
        "id": str(data["i"]),
        "completion": _text(data["output"]),
        "answers": _answers(data["gt"]),
        "stored": _is_right(data.get("reward_paper") if judged is None else judged),
    }


def _lm_eval(row: Row) -> Iterator[Output]:
    data = row.data
    named = re.fullmatch(r"samples_(.+?)(?:_\d{4}-\d\d-\d\d.*)?", stem(row.path))
    metric = next((data[name] for name in ("exact_match", "acc", "math_verify") if name in data), None)
    completions = _texts(data["resps"])
    for completion in completions:
        yield {
            "task": named[1] if named else stem(row.path),
            "id": str(data["doc_id"]),
            "completion": completion,
            "answers": _answers(data["target"]),
            "stored": _is_right(metric) if len(completions) == 1 else None,
        }


def _lighteval(row: Row) -> Iterator[Output]:
    doc = row.data["doc"]
    gold = doc["gold_index"]
    choices = [doc["choices"][index] for index in (gold if isinstance(gold, list) else [gold])]
    metrics = [value for value in (row.data.get("metric") or {}).values() if isinstance(value, int | float)]
    completions = _texts(row.data["model_response"]["text"])
    for completion in completions:
        yield {
            "task": doc.get("task_name") or stem(row.path),
            "id": str(doc.get("id") or doc["query"]),
            "completion": completion,
            "answers": _answers(choices),
            "stored": _is_right(metrics[0]) if len(metrics) == len(completions) == 1 else None,
        }


def _lighteval_before_0_10(row: Row) -> Iterator[Output]:
    """Lists are lists, or their Python text."""
    data = dict(row.data)
    for name in ("predictions", "gold"):
        if isinstance(data[name], str):
            with contextlib.suppress(ValueError, SyntaxError):
                data[name] = ast.literal_eval(data[name])
    completions = _texts(data["predictions"])
    for completion in completions:
        yield {
            "task": stem(row.path).removeprefix("details_").rpartition("_20")[0] or stem(row.path),
            "id": str(data.get("example") or data["full_prompt"]),
            "completion": completion,
            "answers": _answers(data["gold"]),
        }


def _rollout(row: Row, columns: Columns) -> Iterator[Output]:
    data = row.data
    group = [value_of(data, name) for name in columns.group]
    reward = value_of(data, columns.reward)
    completion = messages_of(data[str(columns.text)], str(columns.text))
    yield {
        "task": str(data.get("data_source") or data.get("task") or stem(row.path)),
        "id": "/".join(label(value, "group") for value in group),
        "completion": "".join(text for text, is_policys in completion if is_policys),
        "answers": _some(references_in(data)),
        "stored": _is_right(reward) if isinstance(reward, int | float) else None,
    }


_FORMATS: dict[str, tuple[set[str], Callable[[Row], Iterator[Output]]]] = {
    "ktae": ({"task", "id", "completion", "answers"}, _ktae),
    "paper": ({"task_name", "prompt", "gt", "model_output"}, _paper),
    "paper, numbered": ({"task", "i", "gt", "output"}, _paper_by_number),
    "lm-eval": ({"doc_id", "target", "resps"}, _lm_eval),
    "lighteval": ({"doc", "model_response"}, _lighteval),
    "lighteval before 0.10": ({"full_prompt", "predictions", "gold"}, _lighteval_before_0_10),
}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a text, got {value!r:.80}")
    return value


def _texts(values: Any) -> list[str]:
    """Samples, however deep they lie in lists."""
    if not isinstance(values, list):
        return [_text(values)]
    return _some([text for value in values for text in _texts(value)])


def _answers(value: Any) -> list[str]:
    return _some(reference(value))


def _some(values: list[str]) -> list[str]:
    if not values:
        raise ValueError("there is no accepted answer or no sample")
    return values


def _is_right(reward: Any) -> bool | None:
    return None if reward is None or math.isnan(float(reward)) else float(reward) > 0
