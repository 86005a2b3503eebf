"""Outputs saved by other programs, as rows that can be graded: which format it is, and what its fields are called."""

from __future__ import annotations

import ast
import contextlib
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ktae.data.sources import answers_of, references_in
from ktae.files.columns import Columns, columns_of, label, messages_of, value_of
from ktae.files.reading import several
from ktae.files.rows import Malformed, Row, read_rows, stem, without_malformed

# An output to grade: task, id, sample, completion, answers, length and truncated (None if unknown), stored (None or the
# verdict that came with it).
Output = dict[str, Any]
_Convert = Callable[[dict[str, Any], str], Iterator[Output]]  # of a row and its file's name


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

    def kept() -> Iterator[Malformed | Row]:
        for row in rows:
            if isinstance(row, Malformed):
                yield row
                continue
            try:
                for output in list(convert(row.data, stem(row.path))):
                    key = (output["task"], output["id"])
                    by_filter = (*key, str(row.data.get("filter")))
                    output.setdefault("sample", seen[by_filter])
                    seen[by_filter] += 1
                    first = outputs.setdefault((*key, output["sample"]), output)
                    if first is not output and name != "lm-eval":
                        raise ValueError(f"sample {output['sample']} of {key[0]}, {key[1]:.80} was there before")
                    if first is not output and output["stored"] is not None:
                        first["stored"] = output["stored"] or bool(first["stored"])
                yield row
            except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
                yield Malformed(row.path, row.row, f"not of the format {name}: {type(error).__name__} {error}")

    for _ in without_malformed(kept(), path, strict=strict, found=malformed):
        pass
    return name, list(outputs.values()), malformed


def _format_of(rows: list[Row], path: Path) -> tuple[str, _Convert]:
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
    return f"rollouts ({columns.text})", partial(_rollout, columns=columns)


def _output(task: str, id: Any, completion: str, answers: list[str], stored: Any = None, **more: Any) -> Output:
    """One output; `stored` is a number above 0 or true for a right answer, None or NaN if unknown."""
    if not answers:
        raise ValueError("there is no accepted answer")
    if not isinstance(completion, str):
        raise TypeError(f"expected a text, got {completion!r:.80}")
    right = None if stored is None or math.isnan(float(stored)) else float(stored) > 0
    output = {"task": task, "id": str(id), "completion": completion, "answers": answers, "stored": right}
    return {**output, "length": None, "truncated": None, **more}


def _ktae(data: dict[str, Any], file: str) -> Iterator[Output]:
    more = {name: data[name] for name in ("sample", "length", "truncated") if name in data}
    stored = data.get("status") and data["status"] == "correct"
    yield _output(data["task"], data["id"], data["completion"], answers_of(data["answers"]), stored, **more)


def _paper(data: dict[str, Any], file: str) -> Iterator[Output]:
    """The authors' rows say which problem it is by its prompt only."""
    answers = answers_of(data["gt"])
    yield _output(data["task_name"], data["prompt"], data["model_output"], answers, data.get("reward"))


def _paper_by_number(data: dict[str, Any], file: str) -> Iterator[Output]:
    """The same outputs with a number instead of the prompt; where a second reader has judged, that counts."""
    stored = data.get("reward_paper") if data.get("judged") is None else data["judged"]
    yield _output(data["task"], data["i"], data["output"], answers_of(data["gt"]), stored)


def _lm_eval(data: dict[str, Any], file: str) -> Iterator[Output]:
    named = re.fullmatch(r"samples_(.+?)(?:_\d{4}-\d\d-\d\d.*)?", file)
    metric = next((data[name] for name in ("exact_match", "acc", "math_verify") if name in data), None)
    texts, task = _texts(data["resps"]), named[1] if named else file
    for text in texts:
        yield _output(task, data["doc_id"], text, answers_of(data["target"]), metric if len(texts) == 1 else None)


def _lighteval(data: dict[str, Any], file: str) -> Iterator[Output]:
    doc, gold = data["doc"], data["doc"]["gold_index"]
    answers = answers_of([doc["choices"][index] for index in (gold if isinstance(gold, list) else [gold])])
    metrics = [value for value in (data.get("metric") or {}).values() if isinstance(value, int | float)]
    texts = _texts(data["model_response"]["text"])
    stored = metrics[0] if len(metrics) == len(texts) == 1 else None
    for text in texts:
        yield _output(doc.get("task_name") or file, doc.get("id") or doc["query"], text, answers, stored)


def _lighteval_before_0_10(data: dict[str, Any], file: str) -> Iterator[Output]:
    """Lists are lists, or their Python text."""
    texts, gold = data["predictions"], data["gold"]
    with contextlib.suppress(ValueError, SyntaxError):
        texts = ast.literal_eval(texts) if isinstance(texts, str) else texts
        gold = ast.literal_eval(gold) if isinstance(gold, str) else gold
    task = file.removeprefix("details_").rpartition("_20")[0] or file
    for text in _texts(texts):
        yield _output(task, data.get("example") or data["full_prompt"], text, answers_of(gold))


def _rollout(data: dict[str, Any], file: str, columns: Columns) -> Iterator[Output]:
    group = "/".join(label(value_of(data, name), "group") for name in columns.group)
    parts = messages_of(data[str(columns.text)], str(columns.text))
    completion = "".join(text for text, is_policys in parts if is_policys)
    reward = value_of(data, columns.reward)
    stored = reward if isinstance(reward, int | float) else None
    task = str(data.get("data_source") or data.get("task") or file)
    yield _output(task, group, completion, references_in(data), stored)


_FORMATS: dict[str, tuple[set[str], _Convert]] = {
    "ktae": ({"task", "id", "completion", "answers"}, _ktae),
    "paper": ({"task_name", "prompt", "gt", "model_output"}, _paper),
    "paper, numbered": ({"task", "i", "gt", "output"}, _paper_by_number),
    "lm-eval": ({"doc_id", "target", "resps"}, _lm_eval),
    "lighteval": ({"doc", "model_response"}, _lighteval),
    "lighteval before 0.10": ({"full_prompt", "predictions", "gold"}, _lighteval_before_0_10),
}


def _texts(values: Any) -> list[str]:
    """Samples, however deep they lie in lists."""
    if not isinstance(values, list):
        return [values]
    if not values:
        raise ValueError("there is no sample")
    return [text for value in values for text in _texts(value)]
