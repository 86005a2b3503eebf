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
# Of a row: task (None: the file's), problem, samples, accepted answers, verdict.
_Fields = tuple[Any, Any, Any, Any, Any]
# The columns that tell a format, and the five fields; of a|b the first that is not null. Of the authors' two formats
# the first says which problem it is by its prompt only; in the second a second reader's verdict counts if there is one.
_FORMATS = {
    "ktae": ("answers completion id task", "task id completion answers status"),
    "paper": ("gt model_output prompt task_name", "task_name prompt model_output gt reward"),
    "paper, numbered": ("gt i output task", "task i output gt judged|reward_paper"),
    "lm-eval": ("doc_id resps target", "- doc_id resps target exact_match|acc|math_verify"),
    "lighteval": ("doc model_response", "doc.task_name doc.id|doc.query model_response.text doc.choices metric"),
    "lighteval before 0.10": ("full_prompt gold predictions", "- example|full_prompt predictions gold -"),
}
_AHEAD = 100  # rows from which the format is recognised


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
    good = [row.data for row in rows[:_AHEAD] if isinstance(row, Row)]
    name, fields_of = _format_of(good, path) if good else ("none", partial(_fields, name="ktae"))
    outputs: dict[tuple[str, str, int], Output] = {}
    seen: Counter[tuple[str, str, str]] = Counter()

    def kept() -> Iterator[Malformed | Row]:
        for row in rows:
            if isinstance(row, Malformed):
                yield row
                continue
            try:
                for output in _outputs(row.data, fields_of(row.data), stem(row.path), name == "ktae"):
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


def _fields(row: dict[str, Any], name: str) -> _Fields:
    """The fields of a row of one of `_FORMATS`."""
    task, id, samples, answers, stored = (
        next((value for at in names.split("|") if (value := value_of(row, at)) is not None), None)
        for names in _FORMATS[name][1].split()
    )
    if name == "ktae" and stored is not None:
        stored = stored == "correct"
    elif name == "lighteval":
        gold = row["doc"]["gold_index"]
        answers = [row["doc"]["choices"][index] for index in (gold if isinstance(gold, list) else [gold])]
        metrics = [value for value in (stored or {}).values() if isinstance(value, int | float)]
        stored = metrics[0] if len(metrics) == 1 else None
    elif name == "lighteval before 0.10":  # lists are lists, or their Python text
        with contextlib.suppress(ValueError, SyntaxError):
            samples = ast.literal_eval(samples) if isinstance(samples, str) else samples
            answers = ast.literal_eval(answers) if isinstance(answers, str) else answers
    return task, id, samples, answers, stored


def _rollout(row: dict[str, Any], columns: Columns) -> _Fields:
    group = "/".join(label(value_of(row, name), "group") for name in columns.group)
    parts = messages_of(row[str(columns.text)], str(columns.text))
    completion = "".join(text for text, is_policys in parts if is_policys)
    reward = value_of(row, columns.reward)
    stored = reward if isinstance(reward, int | float) else None
    return row.get("data_source") or row.get("task"), group, completion, references_in(row), stored


def _format_of(rows: list[dict[str, Any]], path: Path) -> tuple[str, Callable[[dict[str, Any]], _Fields]]:
    """By the first row that is of any."""
    for row in rows:
        for name, (needed, _) in _FORMATS.items():
            if row.keys() >= {*needed.split()}:
                return name, partial(_fields, name=name)
    merged = {name: value for row in reversed(rows) for name, value in row.items()}
    if not references_in(merged):
        known = "; ".join(f"{name} has {', '.join(needed.split())}" for name, (needed, _) in _FORMATS.items())
        raise ValueError(
            f"{path} is of no known format: its rows have {', '.join(sorted(merged)) or 'no columns'}; {known}; "
            "rollouts have a completion and an answer or ground_truth"
        )
    columns = columns_of({"reward": None, **merged}, words=True)
    return f"rollouts ({columns.text})", partial(_rollout, columns=columns)


def _outputs(row: dict[str, Any], fields: _Fields, file: str, is_ours: bool) -> list[Output]:
    task, id, samples, answers, stored = fields
    task = str(task or re.sub(r"^(samples|details)_|_20\d\d(-.*)?$", "", file))
    accepted, texts = answers_of(answers), _texts(samples)
    if not accepted:
        raise ValueError("there is no accepted answer")
    if id is None or not all(isinstance(text, str) for text in texts):
        raise TypeError(f"expected a text and the problem's id, got {samples!r:.80} and {id!r:.80}")
    # A number above 0, or true, is a right answer; null and NaN are unknown.
    verdict = math.nan if stored is None else float(stored)
    right = None if math.isnan(verdict) or len(texts) > 1 else verdict > 0
    output = {"task": task, "id": str(id), "answers": accepted, "stored": right, "length": None, "truncated": None}
    output |= {name: row[name] for name in ("sample", "length", "truncated") if is_ours and name in row}
    return [{**output, "completion": text} for text in texts]


def _texts(values: Any) -> list[Any]:
    """Samples, however deep they lie in lists."""
    if not isinstance(values, list):
        return [values]
    if not values:
        raise ValueError("there is no sample")
    return [text for value in values for text in _texts(value)]
